"""How an organisation's customers write: casing, greetings, typos, abbreviations.

Works on finished text written in lower case.  It never touches a word that has a digit or a capital
letter, so names, codes, dates and amounts survive exactly as they were drawn.
"""

import re
from dataclasses import dataclass

import numpy as np

from federation.data.organisations.phrases import chance, expand, pick

_STARTS = re.compile(r"(?:^|(?<=[.!?] ))[a-z]|\bi\b")
# The comma of "May 12, 2025" is part of the date.
_STOPS = re.compile(r"(?:[.!?;]+|,(?! \d{4}\b))(?=\s|$)")
_SHORT = {
    "please": "pls", "you": "u", "thanks": "thx", "because": "bc", "tomorrow": "tmrw",
    "are": "r", "your": "ur", "message": "msg", "with": "w/", "about": "abt", "people": "ppl",
    "before": "b4", "really": "rly", "and": "&", "okay": "ok", "information": "info",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How messages look.  All rates are probabilities.

    Attributes:
        greets, closes: per message, that it opens with a greeting, ends with a closing.
        greetings, closings: phrases in the grammar of ``phrases``.
        typos: per word, that it is mistyped.
        shortens: per word that has one, that its chat abbreviation is written.
        lower: per message, that capitals at sentence starts are left out.
        unpunctuated: per message, that the marks between sentences are left out.
        asides: per message, that it says something beside the point.
    """

    name: str
    greets: float
    closes: float
    greetings: str
    closings: str
    typos: float = 0.0
    shortens: float = 0.0
    lower: float = 0.0
    unpunctuated: float = 0.0
    asides: float = 0.3


FORMAL = Style(
    "formal",
    0.9,
    0.8,
    "[dear [sir or madam|team|all]|good [morning|afternoon|evening]|to whom it may concern],",
    "[kind|best|with best] regards[.|]|yours [sincerely|faithfully].|thank you for your help.",
    asides=0.5,
)
PLAIN = Style(
    "plain",
    0.5,
    0.3,
    "[hello|hi|good [morning|afternoon]][,|.]",
    "[thanks|thank you][.| in advance.| for your help.]",
    typos=0.005,
    lower=0.1,
)
TERSE = Style(
    "terse", 0.05, 0.05, "[hi|hello].", "thanks.", lower=0.5, unpunctuated=0.5, asides=0.1
)
CHATTY = Style(
    "chatty",
    0.9,
    0.7,
    "[hi|hey|hello|hiya][ there| everyone| again|][!|,] [hope [all is|you are] well.|]",
    "[thanks [so much|a lot|a million]!|cheers!|you are the best!|have a [lovely|great] day!]",
    typos=0.01,
    shortens=0.1,
    lower=0.3,
    asides=0.7,
)
HASTY = Style(
    "hasty",
    0.3,
    0.2,
    "[hi|hey|yo|hello]",
    "[thanks|asap please|thank you|please hurry]",
    typos=0.07,
    shortens=0.5,
    lower=0.9,
    unpunctuated=0.6,
)
STYLES = (FORMAL, PLAIN, TERSE, CHATTY, HASTY)


def dress(body: str, style: Style, rng: np.random.Generator) -> str:
    """Put a greeting before and a closing after a message, then write it in the style."""
    if chance(rng, style.greets):
        body = f"{expand(style.greetings, {}, rng)} {body}"
    if chance(rng, style.closes):
        body = f"{body} {pick_closing(style, rng)}"
    return write(body, style, rng)


def pick_closing(style: Style, rng: np.random.Generator) -> str:
    """Draw one of the closings of a style."""
    return expand(f"[{style.closings}]", {}, rng)


def write(text: str, style: Style, rng: np.random.Generator) -> str:
    """Apply abbreviations, typos, punctuation and casing of a style to text in lower case."""
    if style.typos or style.shortens:
        text = " ".join(_word(word, style, rng) for word in text.split(" "))
    if chance(rng, style.unpunctuated):
        text = _STOPS.sub("", text)
    if chance(rng, style.lower):
        return text
    return _STARTS.sub(lambda found: found.group().upper(), text)


def _word(word: str, style: Style, rng: np.random.Generator) -> str:
    if word in _SHORT and chance(rng, style.shortens):
        return _SHORT[word]
    if len(word) > 3 and word.isalpha() and word.islower() and chance(rng, style.typos):
        return mistype(word, rng)
    return word


def mistype(word: str, rng: np.random.Generator) -> str:
    """Swap, drop or double one inner letter."""
    at = 1 + int(rng.random() * (len(word) - 2))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return pick(rng, (swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]))
