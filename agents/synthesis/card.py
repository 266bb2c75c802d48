"""The quality card of a set: what was asked and got, how good it is, what it may give away."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.synthesis.make import Synthetic
from agents.synthesis.private import Private
from agents.synthesis.profile import Profile
from federation.data.heterogeneity import jensen_shannon
from llm_tools.synthesis import diversity, epsilon, leakage, likeness
from llm_tools.synthesis.voting import ACCOUNTANT

VERSION = 1
LEGENDS = {
    "Diversity": "distinct 1, 2: share of words, and of pairs, that differ (1: no repetition)."
    "  overlap: share of a row's phrases that other rows have too (0: none).  spread: how far rows"
    " are apart in meaning (0: all alike).",
    "Against real text": "two sample: how often a classifier tells made-up from real rows (0.5: it"
    " cannot, 1: always), and the probability p of that by chance.  nearest: distance of a made-up"
    " row to the most similar real one, in the median and at the least (0: a copy); beside it that"
    " of real rows to each other.",
    "Leakage": "longest shared: words of the longest passage that stands in private text as well."
    "  near copies: rows that nearly are a private one.  canary hits: planted texts that came back,"
    " of so many canaries.  Best are 0.",
}
"""What the figures of a card mean."""
Card = dict[str, Any]


def card_of(profile: Profile, made: Synthetic, private: Private | None, *, seed: int) -> Card:
    """Measure a set.

    Args:
        profile: what was asked for.
        made: what was made.
        private: text it is compared with; those figures are for its owner.
        seed: that it was made with.

    Returns:
        Plain values for ``json.dumps``.
    """
    texts = [row.text for row in made.rows]
    return {
        "version": VERSION,
        "seed": seed,
        "rows": len(made.rows),
        "source": source_of(made),
        "skew": skew(made),
        "missing": missing(made),
        "refused": refused(made),
        "failures": dict(sum((x.failures for x in made.made), Counter())),
        "diversity": diversity(texts).json() if len(texts) > 1 else None,
        "privacy": privacy(profile, made, private),
        "likeness": None if private is None else compared(texts, private),
        "leakage": None if private is None else leaked(profile, texts, private),
        "gate": None,
    }


def source_of(made: Synthetic) -> Card:
    """Say who wrote the rows."""
    writer = made.writer
    if writer is None:
        return {"kind": "templates"}
    return {
        "kind": "language model",
        "model": getattr(writer.spec, "model", writer.spec.kind),
        "prompts": dict(sorted(writer.prompts.items())),
        "calls": writer.calls,
        "cached": writer.cached,
        "tokens": writer.tokens,
    }


def skew(made: Synthetic) -> list[Card]:
    """Compare the label histogram of every client with what was asked for.

    ``distance`` is the total variation of the two mixes, 0 equal and 1 disjoint;
    ``divergence_bits`` their Jensen-Shannon divergence.
    """
    got = Counter((row.client, row.label) for row in made.rows)
    clients = dict.fromkeys(brief.client for brief in made.wanted)
    return [_skew_of(client, made, got) for client in clients]


def _skew_of(client: str, made: Synthetic, got: Counter[tuple[str, str]]) -> Card:
    asked = {brief.label: n for brief, n in made.wanted.items() if brief.client == client}
    there = {label: got[client, label] for label in asked}
    p, q = (np.array(list(x.values()), dtype=float) for x in (asked, there))
    empty = q.sum() == 0
    p, q = p / p.sum(), q if empty else q / q.sum()
    return {
        "client": client,
        "asked": asked,
        "got": there,
        "distance": 1.0 if empty else float(np.abs(p - q).sum() / 2),
        "divergence_bits": 1.0 if empty else float(jensen_shannon(p, q)),
    }


def missing(made: Synthetic) -> list[Card]:
    """List what was asked for and not made."""
    got = Counter((row.client, row.label) for row in made.rows)
    return [
        {"client": brief.client, "label": brief.label, "asked": n, "got": there}
        for brief, n in made.wanted.items()
        if (there := got[brief.client, brief.label]) < n
    ]


def refused(made: Synthetic) -> dict[str, int]:
    """Count why rows were refused."""
    counts: Counter[str] = Counter()
    for x in made.made:
        counts.update({str(fault): n for fault, n in x.refused.items()})
    return dict(sorted(counts.items()))


def privacy(profile: Profile, made: Synthetic, private: Private | None) -> Card:
    """Say what private text was used for, and what that cost."""
    if private is None:
        return {"private_text": "none was read", "epsilon": 0.0, "votes": None}
    votes = profile.votes
    if votes is None or made.noise_multiplier is None:
        used = "read to keep its passages out and to compare with"
        return {"private_text": used, "epsilon": None, "votes": None}
    return {
        "private_text": "read to vote, to keep its passages out and to compare with",
        "epsilon": epsilon(made.noise_multiplier, votes.rounds, votes.delta),
        "delta": votes.delta,
        "votes": {
            "unit": "client, added or removed",
            "clients": made.voters,
            "rounds": votes.rounds,
            "noise_multiplier": made.noise_multiplier,
            "sensitivity": 1.0,
            "accountant": ACCOUNTANT,
            "amplification": "none",
        },
        "covers": "the votes; not that rows with protected passages or canaries were refused"
        f" ({_held_back(made)}), nor the figures of this card that compare with private text",
    }


def _held_back(made: Synthetic) -> int:
    """Count the rows that private text kept out."""
    return sum(n for name, n in refused(made).items() if name in ("protected", "canary"))


def compared(texts: Sequence[str], private: Private) -> Card | None:
    """Compare a set with real text; None where there is too little of either."""
    found = likeness(texts, private.all)
    return None if found is None else dict(found.json())


def leaked(profile: Profile, texts: Sequence[str], private: Private) -> Card:
    """Search a set for private text."""
    rules = profile.filters
    found = leakage(
        texts,
        private.all,
        similar=rules.similar,
        shingle=rules.shingle,
        canaries=rules.canaries,
    )
    return {**found.json(), "canaries": len(rules.canaries)}


def as_markdown(card: Card, name: str) -> str:
    """Write a card for people."""
    lines = [f"# {name}", "", *_said(card)]
    for title, figures in (
        ("Diversity", card["diversity"]),
        ("Against real text", card["likeness"]),
        ("Leakage", card["leakage"]),
        ("Refused rows", card["refused"]),
        ("Failed batches", card["failures"]),
    ):
        if figures:
            lines += ["", f"## {title}", "", *_table(figures)]
            lines += ["", LEGENDS[title]] if title in LEGENDS else []
    lines += ["", "## Clients", "", "| client | asked | got | distance of label mixes |"]
    lines += ["|---|---:|---:|---:|"]
    for x in card["skew"]:
        asked, got = sum(x["asked"].values()), sum(x["got"].values())
        lines.append(f"| {_cell(x['client'])} | {asked} | {got} | {x['distance']:.3f} |")
    if card["missing"]:
        lines += ["", "## Asked for and not made", "", "| client | label | asked | got |"]
        lines += ["|---|---|---:|---:|"]
        lines += [
            f"| {_cell(x['client'])} | {_cell(x['label'])} | {x['asked']} | {x['got']} |"
            for x in card["missing"]
        ]
    return "\n".join(lines) + "\n"


def _said(card: Card) -> list[str]:
    privacy, gate = card["privacy"], card["gate"]
    source = card["source"]
    who = source["kind"] if source["kind"] == "templates" else f"{source['kind']} {source['model']}"
    lines = [
        f"- {card['rows']} rows, seed {card['seed']}, made by {who}",
        f"- private text: {privacy['private_text']}",
        f"- privacy: {_epsilon(privacy)}",
    ]
    if gate is None:
        return [*lines, "- gate: not asked for; nothing says that this set helps"]
    return [*lines, f"- gate: {'admitted' if gate['admitted'] else 'rejected'}: {gain(gate)}"]


def gain(gate: Mapping[str, Any]) -> str:
    """Say what the gate measured."""
    if gate["gain"] is None:
        return f"a run diverged; {gate['metric']} cannot be compared"
    if gate["low"] is None:
        found = f"gain in {gate['metric']} {gate['gain']:+.4f} in a first pair of runs"
        return f"{found}; no further pair could have it admitted"
    count = len(gate["seeds"])
    over = f"{count} {'paired seeds' if len(gate['having']) == count else 'controls'}"
    return (
        f"gain in {gate['metric']} {gate['gain']:+.4f}, {gate['confidence']:.0%} interval"
        f" {gate['low']:+.4f} to {gate['high']:+.4f}, {over}"
    )


def _epsilon(privacy: Mapping[str, Any]) -> str:
    if privacy["epsilon"] is None:
        return "no guarantee: private text decided which rows were refused"
    if privacy["votes"] is None:
        return "nothing private was used"
    votes = privacy["votes"]
    return (
        f"epsilon {privacy['epsilon']:.3f} at delta {privacy['delta']:g} for each of"
        f" {votes['clients']} clients ({votes['rounds']} rounds of votes, noise"
        f" {votes['noise_multiplier']:.3f}, {votes['accountant']}); it covers {privacy['covers']}"
    )


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = (
        f"| {name.replace('_', ' ')} | {f'{x:.4g}' if isinstance(x, float) else x} |"
        for name, x in figures.items()
    )
    return ["| | |", "|---|---:|", *rows]


def _cell(text: str) -> str:
    """Keep a name within its cell."""
    return " ".join(text.split()).replace("|", "\\|")
