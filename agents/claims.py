"""Sentences that rest on facts, and whether they do.

A claim cites facts.  A number in its text must be the value of a cited fact or the difference of
two, written to the digits shown; a sentence that states another number is refused.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Literal

from pydantic import BaseModel, Field

from agents.facts import Fact
from agents.knobs import RECORD

Kind = Literal["change", "no_change", "risk", "decision", "hypothesis", "tested"]
NUMBER = re.compile(r"(?<![\w@.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w@])")


class Claim(BaseModel):
    """One sentence about a round and the facts it rests on.

    Attributes:
        kind: what sort of statement it is.
        text: the sentence.
        cites: ids of facts.
    """

    model_config = RECORD

    kind: Kind
    text: str = Field(max_length=400)
    cites: tuple[str, ...]


def unsupported(claim: Claim, facts: Mapping[str, Fact]) -> list[str]:
    """List what a claim states and the record does not say; empty if it checks out."""
    return unfounded(NUMBER.findall(claim.text), claim.cites, facts)


def unfounded(numbers: Iterable[str], cites: Iterable[str], facts: Mapping[str, Fact]) -> list[str]:
    """List cited ids that are no facts, and numbers that are in none of the cited facts.

    Args:
        numbers: as they are written.
        cites: ids.
        facts: what is known, by id.
    """
    cites = tuple(cites)
    unknown = [f"{cited} is no fact" for cited in cites if cited not in facts]
    values = [facts[cited].value for cited in cites if cited in facts]
    rounds = {facts[cited].round for cited in cites if cited in facts}
    known = [*values, *(a - b for a, b in permutations(values, 2))]
    known += [r + 1 for r in rounds if r is not None]
    wrong = [
        f"{number} is in no cited fact"
        for number in numbers
        if not any(shows(number, value) for value in known)
    ]
    return unknown + wrong


def shows(number: str, value: float) -> bool:
    """Tell whether a written number is a value, to the digits written."""
    if "e" in number:
        digits = len(number.split("e")[0].replace("-", "").replace(".", ""))
        return float(f"{value:.{digits}g}") == float(number)
    places = len(number.partition(".")[2])
    return float(f"{value:.{places}f}") == float(number)


def as_text(claims: Iterable[Claim]) -> str:
    """Join claims into a paragraph; which round they are of is said where it changes."""
    told, said = "", []
    for claim in claims:
        head, _, rest = claim.text.partition(": ")
        again = bool(rest) and head == told and head.startswith("Round ")
        said.append(rest[:1].upper() + rest[1:] if again else claim.text)
        told = head if head.startswith("Round ") else told
    return " ".join(said)
