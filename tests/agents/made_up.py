"""Profiles and private text for the tests of synthesis."""

import json
import re
from pathlib import Path
from typing import Any

from agents.synthesis.profile import Profile

TWO = {
    "clients": {
        "a": {
            "domain": "bank",
            "size": 12,
            "style": "formal",
            "labels": {"lost card": 3, "amount": 1},
        },
        "b": {"domain": "hospital", "size": 6, "labels": {"total": 1, "date": 1}},
    }
}
VOTES = {"epsilon": 4.0, "rounds": 2, "candidates": 2}
CANARY = "the harbour vault opens with Zanzibar-77 only"


def profile(table: dict[str, Any] = TWO, **more: Any) -> Profile:
    return Profile.from_table({**table, **more})


def own_words(**more: Any) -> Profile:
    """Ask for what templates do not know."""
    client = {"domain": "bakery", "size": 6, "labels": {"bread": 2, "cake": 1}}
    return profile({"clients": {"shop-1": client}}, writer={"batch": 4}, **more)


def private_file(folder: Path, clients: int = 4) -> Path:
    """Write private text: few clients, very unequal, a canary in every row."""
    rows = [
        {
            "client": f"secret-{c}",
            "label": f"hidden-{c}",
            "instruction": "What is wanted?",
            "context": f"{CANARY}, bread number {c}{i} of the morning, said Mister Quux",
            "response": "bread",
        }
        for c in range(clients)
        for i in range(3 + 7 * c)
    ]
    path = folder / "private.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


THINGS = ["rye", "oat", "seed", "plum", "nut", "salt", "corn", "milk", "fig", "pear", "malt"]


def baker(messages: Any) -> dict[str, Any]:
    """Write what is asked for, a little different in every set; now and then what is private."""
    text = str(messages[-1].content)
    found = re.search(r"This is set (\d+)", text)
    set_number = int(found[1]) if found else 0
    label = re.search(r"Their label: (\w+)", text)
    return {"rows": [_baked(label[1] if label else "?", set_number * 4 + i) for i in range(4)]}


def _baked(label: str, number: int) -> dict[str, str]:
    a, b, c = (THINGS[number * step % len(THINGS)] for step in (1, 3, 7))
    if number % 7 == 5:
        return {"instruction": "Say it.", "context": CANARY.upper(), "response": "vault"}
    return {
        "instruction": f"Advise on {label} with {a}.",
        "context": f"{number} of {a} and {b}, {number * 13} grams of {c} in {label} {number * 17}",
        "response": f"Take {a} {number * 5}.",
    }
