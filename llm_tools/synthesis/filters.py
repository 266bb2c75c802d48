"""What of a generator's output may stay: a sieve that says for every refused row why.

Nothing a row says is ever obeyed: it is text that is measured.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llm_tools.synthesis.rows import Brief, Row
from llm_tools.synthesis.texts import Protected, words

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 128
BANDS = (32, 4)
"""Bands and rows of the index: pairs of similarity 0.7 are missed with probability 2e-4, and what
is found is measured exactly."""
_HASH_SEED = 1  # of the permutations; the same for all, so that signatures can be compared

# What chat templates and tokenizers read as structure, in a row, would be obeyed where it is used.
_MARKUP = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")


class Fault(StrEnum):
    """Why a row is refused.  Closed: reports count by these names."""

    SCHEMA = "schema"  # a field is missing, empty, unknown or of another type
    MARKUP = "markup"  # control characters, or marks that a chat template would obey
    LENGTH = "length"  # outside the bounds of its brief
    LABEL = "label"  # not the label, client or answer that its brief asks for
    CONTRADICTION = "contradiction"  # asks what an earlier row asks, and answers otherwise
    PROTECTED = "protected"  # repeats a passage of private or test text
    CANARY = "canary"  # holds a planted text
    DUPLICATE = "duplicate"  # nearly an earlier row


@dataclass(frozen=True)
class Rules:
    """What a sieve lets pass.

    Attributes:
        similar: Jaccard similarity of shingles from which two rows are duplicates.
        shingle: words of a shingle.
        ngram: words in a row that may not be shared with protected text.
        canaries: texts that may not occur, planted in private text to see whether it leaks.
    """

    similar: float = 0.7
    shingle: int = 3
    ngram: int = 13
    canaries: tuple[str, ...] = ()


def shingles(text: str, n: int) -> frozenset[str]:
    """Return the sets of ``n`` words in a row; all of a shorter text is one shingle."""
    found = words(text)
    return frozenset(" ".join(found[i : i + n]) for i in range(max(1, len(found) - n + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of what two sets have together that both have."""
    return len(a & b) / len(a | b) if a | b else 1.0


class Near:
    """Texts seen so far, to tell whether a further one is nearly one of them.

    MinHash signatures in a banded index (Broder 1997; Leskovec et al. 2014, section 3.4) propose,
    the exact Jaccard similarity decides.
    """

    def __init__(self, similar: float, shingle: int) -> None:
        """Start with nothing seen."""
        self._similar, self._shingle = similar, shingle
        self._seen: dict[int, frozenset[str]] = {}

    @cached_property
    def _index(self) -> "MinHashLSH":
        from datasketch import MinHashLSH

        return MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)

    def like(self, text: str) -> bool:
        """Whether a text is nearly one that was added."""
        wanted = shingles(text, self._shingle)
        return self._like(wanted, signature(wanted))

    def add(self, text: str) -> bool:
        """Add a text unless it is nearly one that was added; say whether it was."""
        wanted = shingles(text, self._shingle)
        hashed = signature(wanted)
        if self._like(wanted, hashed):
            return False
        self._index.insert(len(self._seen), hashed)
        self._seen[len(self._seen)] = wanted
        return True

    def _like(self, wanted: frozenset[str], hashed: "MinHash") -> bool:
        proposed: Any = self._index.query(hashed)
        return any(jaccard(wanted, self._seen[i]) >= self._similar for i in proposed)


def signature(wanted: frozenset[str]) -> "MinHash":
    """Return the MinHash of a set of shingles."""
    from datasketch import MinHash

    hashed = MinHash(num_perm=PERMUTATIONS, seed=_HASH_SEED)
    hashed.update_batch([shingle.encode() for shingle in sorted(wanted)])
    return hashed


def has_canary(text: str, canaries: Iterable[str]) -> bool:
    """Whether one of the planted texts occurs, whatever its case and spacing."""
    there = f" {' '.join(words(text))} "
    planted = (words(canary) for canary in canaries)
    return any(f" {' '.join(canary)} " in there for canary in planted if canary)


@dataclass
class Sieve:
    """Lets rows pass one after another, and remembers those that passed."""

    rules: Rules
    protected: Protected = field(default_factory=lambda: Protected((), 13))

    @cached_property
    def _near(self) -> Near:
        return Near(self.rules.similar, self.rules.shingle)

    @cached_property
    def _answers(self) -> dict[tuple[str, ...], str]:
        return {}

    def admit(self, raw: Mapping[str, Any], brief: Brief) -> Row | Fault:
        """Return the row, which counts as seen from now on, or what is wrong with it."""
        try:
            row = Row.model_validate(dict(raw))
        except ValidationError:
            return Fault.SCHEMA
        if fault := self._fault(row, brief):
            return fault
        question = tuple(words(row.question))
        if self._answers.get(question, row.response) != row.response:
            return Fault.CONTRADICTION
        if not self._near.add(row.text):
            return Fault.DUPLICATE
        self._answers[question] = row.response
        return row

    def _fault(self, row: Row, brief: Brief) -> Fault | None:
        """Judge a row by itself."""
        texts = (row.instruction, row.context, row.response)
        if any(map(has_markup, texts)):
            return Fault.MARKUP
        if not brief.shortest <= sum(map(len, texts)) <= brief.longest:
            return Fault.LENGTH
        if not fits(row, brief):
            return Fault.LABEL
        if has_canary(row.text, self.rules.canaries):
            return Fault.CANARY
        return Fault.PROTECTED if self.protected.repeated_in(words(row.text)) else None


def fits(row: Row, brief: Brief) -> bool:
    """Whether a row is what its brief asks for, its answer included where that is the label."""
    same = (row.client, row.domain, row.task, row.label) == (
        brief.client,
        brief.domain,
        brief.task,
        brief.label,
    )
    if not brief.choices:
        return same
    return same and tuple(row.choices) == brief.choices and row.response == brief.label


def has_markup(text: str) -> bool:
    """Whether a text has characters or marks that are more than text where it is used."""
    hidden = any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") for c in _visible(text))
    return hidden or _MARKUP.search(text) is not None


def _visible(text: str) -> str:
    """Leave out line ends, tabs, and the joiners that some scripts are written with."""
    return text.translate(dict.fromkeys(map(ord, "\n\t\u200c\u200d")))
