"""Whether the numbers of an answer are in the facts that it cites, sentence by sentence.

The checker is that of explanations (agents/explain.py).  Here the text is anybody's: every digit in
it counts, wherever it stands, but for ids of facts, pseudonyms and nothing else.  Numbers in words
("three", "half") are not read.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping

from agents.claims import unfounded
from agents.copilot.records import Doubt
from agents.facts import Fact

ID = re.compile(r"(?<![\w@])[a-z][a-z0-9_]*@[0-9]+(?![\w@])")
BRACKETS = re.compile(r"\[([^\]\n]*)\]")
ENDS = re.compile(r"(?<=[.!?])\s+(?!\[)|\n+")
"""Where sentences end; ids in brackets after the full stop still belong to the sentence."""
NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
SIGNS = str.maketrans({"−": "-", "‐": "-", "‑": "-", "⁄": "/", "–": " ", "—": " "})
MOST = 6  # facts of one sentence: differences of many would support nearly every number


def doubts(text: str, facts: Mapping[str, Fact], names: Collection[str]) -> tuple[Doubt, ...]:
    """List the sentences of a text that state what their facts do not say.

    Args:
        text: the answer.
        facts: what the tools returned, by id.
        names: pseudonyms, whose digits are no numbers.
    """
    found = ((sentence, problems(sentence, facts, names)) for sentence in sentences(text))
    return tuple(Doubt(sentence=s, problems=tuple(p)) for s, p in found if p)


def sentences(text: str) -> list[str]:
    """Cut a text into sentences and lines."""
    return [part.strip() for part in ENDS.split(text) if part.strip()]


def problems(sentence: str, facts: Mapping[str, Fact], names: Collection[str]) -> list[str]:
    """Say what a sentence states that the facts it cites do not."""
    plain = unicodedata.normalize("NFKC", sentence).translate(SIGNS)
    cited = dict.fromkeys(ID.findall(plain))
    inside = re.findall(r"[a-z][a-z0-9_]*", " ".join(BRACKETS.findall(plain)))
    cited |= dict.fromkeys(word for word in inside if word in facts)
    if len(cited) > MOST:
        return [f"a sentence may cite {MOST} facts at most"]
    for name in sorted({*cited, *names}, key=len, reverse=True):
        plain = re.sub(rf"(?<![\w@]){re.escape(name)}(?![\w@])", " ", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    numbers = [number.lower() for number in NUMBER.findall(plain)]
    return list(dict.fromkeys(unfounded(numbers, cited, facts)))
