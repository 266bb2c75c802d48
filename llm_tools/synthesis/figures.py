"""Figures of a set of invented texts: how real, how varied, how far from anybody's own text.

Figures that compare with private text tell something of it: they are for its owner.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from llm_tools.synthesis.embedding import Vectors, tfidf_svd
from llm_tools.synthesis.filters import Near, has_canary
from llm_tools.synthesis.texts import Words, longest_shared, words

LEAST = 20  # texts of either side that a comparison needs
SAMPLE = 2000  # texts of either side that it looks at, evenly spaced
FOLDS = 5
BLEU = 4  # longest n-gram of the overlap of rows with each other
OVERLAPS = 200  # rows whose overlap with the others is measured


@dataclass(frozen=True)
class Figures:
    """Plain figures, by name."""

    def json(self) -> dict[str, float]:
        """Give them as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Diversity(Figures):
    """How much the rows of a set differ.

    Attributes:
        distinct_1: different words over all words (Li et al. 2016).
        distinct_2: the same of pairs.
        overlap: mean share of a row's 1- to 4-grams that stand in other rows too, the geometric
            mean over the four lengths; self-BLEU (Zhu et al. 2018) without its brevity penalty.
        spread: one minus the mean cosine of two rows.
    """

    distinct_1: float
    distinct_2: float
    overlap: float
    spread: float


def diversity(texts: Sequence[str]) -> Diversity:
    """Measure how much texts, two at least, differ."""
    split = [words(text) for text in texts]
    total = directions_sum(tfidf_svd(texts)(texts))
    n = len(texts)
    cosine = (total @ total - n) / (n * (n - 1))
    return Diversity(distinct(split, 1), distinct(split, 2), overlap(split), float(1 - cosine))


def directions_sum(vectors: Vectors) -> Vectors:
    """Add directions up: the square of their sum holds the cosines of all pairs."""
    return vectors.sum(axis=0)


def distinct(texts: Sequence[Words], n: int) -> float:
    """Return different n-grams over all of them; 0 if there are none."""
    found = [gram for text in texts for gram in _grams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def overlap(texts: Sequence[Words]) -> float:
    """Return how much of a text stands in others, 0 to 1."""
    holders = [_holders(texts, n) for n in range(1, BLEU + 1)]
    each = [_overlap_of(texts[i], holders) for i in spaced(len(texts), OVERLAPS)]
    return float(np.mean(each)) if each else 0.0


def _holders(texts: Sequence[Words], n: int) -> dict[tuple[str, ...], int]:
    """Count in how many texts each n-gram stands."""
    count: dict[tuple[str, ...], int] = {}
    for text in texts:
        for gram in set(_grams(text, n)):
            count[gram] = count.get(gram, 0) + 1
    return count


def _overlap_of(text: Words, holders: Sequence[dict[tuple[str, ...], int]]) -> float:
    shares = []
    for n, count in enumerate(holders, start=1):
        grams = list(_grams(text, n))
        if grams:
            shares.append(sum(count[gram] > 1 for gram in grams) / len(grams))
    return float(np.prod(shares) ** (1 / len(shares))) if shares else 0.0


def _grams(text: Words, n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(text[i:] for i in range(n)), strict=False)


@dataclass(frozen=True)
class Likeness(Figures):
    """How invented texts compare with real ones.

    Attributes:
        two_sample: accuracy of a classifier that tells them apart, out of fold; 0.5 is chance,
            1 is that it always can (Lopez-Paz & Oquab 2017, arXiv:1610.06545).
        two_sample_p: probability of so high an accuracy by chance.
        nearest: median cosine distance of an invented text to the nearest real one.
        nearest_least: the least of them.
        nearest_real: median distance of a real text to the nearest other real one.
    """

    two_sample: float
    two_sample_p: float
    nearest: float
    nearest_least: float
    nearest_real: float


def likeness(invented: Sequence[str], real: Sequence[str]) -> Likeness | None:
    """Compare invented with real texts; None if either are too few."""
    if min(len(invented), len(real)) < LEAST:
        return None
    n = min(len(invented), len(real), SAMPLE)
    ours, theirs = ([side[i] for i in spaced(len(side), n)] for side in (invented, real))
    embed = tfidf_svd([*ours, *theirs])
    ours, theirs = embed(ours), embed(theirs)
    accuracy, p = two_sample(ours, theirs)
    to_real = nearest(ours, theirs)
    among = nearest(theirs, theirs, itself=True)
    return Likeness(
        accuracy, p, float(np.median(to_real)), float(to_real.min()), float(np.median(among))
    )


def two_sample(ours: Vectors, theirs: Vectors) -> tuple[float, float]:
    """Return how well a logistic regression tells two equally large sets apart, and its p-value."""
    from scipy.stats import binom
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    side = np.repeat([0, 1], [len(ours), len(theirs)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with threadpool_limits(limits=1):
        said = cross_val_predict(
            LogisticRegression(max_iter=1000), np.concatenate([ours, theirs]), side, cv=folds
        )
    right = int(np.count_nonzero(said == side))
    return right / len(side), float(binom.sf(right - 1, len(side), 0.5))


def nearest(texts: Vectors, others: Vectors, *, itself: bool = False) -> NDArray[np.floating]:
    """Return each text's cosine distance to its nearest other, ``(n,)``.

    Args:
        texts: directions ``(n, D)``.
        others: directions.
        itself: ``texts`` and ``others`` are the same; a text is not its own neighbour.
    """
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    count = 2 if itself else 1
    with threadpool_limits(limits=1):
        index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(others)
        distances, _ = index.kneighbors(texts)
    return distances[:, -1]


@dataclass(frozen=True)
class Leakage(Figures):
    """What of private text stands in a set.

    Attributes:
        longest_shared: words of the longest passage that both have.
        near_copies: rows that are nearly a private text.
        canary_hits: rows that hold a planted text.
    """

    longest_shared: int
    near_copies: int
    canary_hits: int


def leakage(
    invented: Sequence[str],
    private: Sequence[str],
    *,
    similar: float,
    shingle: int,
    canaries: Sequence[str] = (),
) -> Leakage:
    """Search a set for private text."""
    near = Near(similar, shingle)
    for text in private:
        near.add(text)
    return Leakage(
        longest_shared(map(words, invented), map(words, private)),
        sum(near.like(text) for text in invented),
        sum(has_canary(text, canaries) for text in invented),
    )


def spaced(n: int, most: int) -> list[int]:
    """Choose at most so many of ``n`` places, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()
