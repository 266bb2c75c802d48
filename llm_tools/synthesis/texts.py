"""Texts as words and n-grams, in any language.

Case, width and punctuation do not count.  Where a script puts no spaces between words, every
character is a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")

Words = Sequence[str]


def words(text: str) -> list[str]:
    """Split a text into its words, in lower case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def grams(text: Words, n: int) -> Iterator[int]:
    """Yield the n-grams of a text as 64-bit hashes; none if it has fewer words."""
    for i in range(len(text) - n + 1):
        yield _hash(text[i : i + n])


def _hash(gram: Words) -> int:
    return int.from_bytes(blake2b("\x1f".join(gram).encode(), digest_size=8).digest())


def longest_shared(texts: Iterable[Words], others: Iterable[Words]) -> int:
    """Return the number of words of the longest n-gram that both sides have."""
    texts, others = list(texts), list(others)
    low, high = 0, min((max(map(len, side), default=0) for side in (texts, others)), default=0)
    while low < high:  # whoever shares n words in a row shares n - 1
        n = (low + high + 1) // 2
        there = {gram for text in others for gram in grams(text, n)}
        if any(gram in there for text in texts for gram in grams(text, n)):
            low = n
        else:
            high = n - 1
    return low


class Protected:
    """Texts of which nothing longer than a few words may be repeated.

    A text shorter than n but with ``LEAST`` words or more is protected as a whole.
    """

    LEAST = 8

    def __init__(self, texts: Iterable[str], n: int) -> None:
        """Index the n-grams of texts."""
        self.n = n
        self._grams: set[int] = set()
        self._lengths = {n}
        for text in map(words, texts):
            if self.LEAST <= len(text) < n:
                self._lengths.add(len(text))
                self._grams.add(_hash(text))
            self._grams.update(grams(text, n))

    def repeated_in(self, text: Words) -> bool:
        """Whether a text repeats something that is protected."""
        return bool(self._grams) and any(
            gram in self._grams for n in self._lengths for gram in grams(text, n)
        )
