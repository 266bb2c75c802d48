"""A grammar of phrases in one line of text: ``[hi|hello|] can i {action} {item}``.

``[a|b|]`` draws one alternative (an empty one is allowed, nesting too), ``{slot}`` draws from the
vocabulary of that name.  It knows nothing of domains or tasks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Slots = Mapping[str, Sequence[str] | Callable[[np.random.Generator], str]]

_GAPS = re.compile(r" ([.,!?;])")
_TOKENS = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")


class Slot(str):
    """The name of a vocabulary, where a literal would be a plain string."""

    __slots__ = ()


Phrase = tuple["str | Slot | Choice", ...]


class Choice(tuple[Phrase, ...]):
    """Alternatives, each a phrase."""

    __slots__ = ()


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Draw one item, all equally likely."""
    return items[int(rng.random() * len(items))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw an integer, both ends included."""
    return low + int(rng.random() * (high - low + 1))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Draw a yes with the given probability."""
    return rng.random() < probability


def expand(template: str, slots: Slots, rng: np.random.Generator) -> str:
    """Draw one text of a template.  Vocabularies may hold templates themselves.

    Raises:
        KeyError: if the template names a slot that is not in ``slots``.
        ValueError: if the brackets of the template do not match.
    """
    out: list[str] = []
    _write(parse(template), slots, rng, out)
    # An empty alternative leaves a gap, perhaps before a mark.
    return _GAPS.sub(r"\1", " ".join("".join(out).split()))


def _write(phrase: Phrase, slots: Slots, rng: np.random.Generator, out: list[str]) -> None:
    for part in phrase:
        if isinstance(part, Choice):
            _write(pick(rng, part), slots, rng, out)
        elif isinstance(part, Slot):
            source = slots[part]
            text = source(rng) if callable(source) else pick(rng, source)
            _write(parse(text), slots, rng, out)
        else:
            out.append(part)


@lru_cache(maxsize=65536)
def parse(template: str) -> Phrase:
    """Parse a template once; the result is shared by every draw."""
    tokens = _TOKENS.findall(template)
    phrase, end = _phrase(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"unmatched {tokens[end]!r} in the template {template!r}")
    return phrase


def _phrase(tokens: Sequence[str], at: int) -> tuple[Phrase, int]:
    parts: list[str | Slot | Choice] = []
    while at < len(tokens) and tokens[at] not in "|]":
        token = tokens[at]
        if token == "[":
            choice, at = _choice(tokens, at + 1)
            parts.append(choice)
        else:
            parts.append(Slot(token[1:-1]) if token[0] == "{" else token)
            at += 1
    return tuple(parts), at


def _choice(tokens: Sequence[str], at: int) -> tuple[Choice, int]:
    options: list[Phrase] = []
    while True:
        phrase, at = _phrase(tokens, at)
        options.append(phrase)
        if at == len(tokens):
            raise ValueError(f"a bracket is never closed in {''.join(tokens)!r}")
        if tokens[at] == "]":
            return Choice(options), at + 1
        at += 1
