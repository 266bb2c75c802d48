"""Topics of texts that carry no label: TF-IDF, latent semantics, k-means.

This module knows texts and vectors.  It does not know clients: ``federation.data.partition`` makes
topics into clients, ``federation.data.heterogeneity`` counts them like labels.  scikit-learn is
imported when a topic is asked for.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from federation.address import address, generator
from federation.data.clients import Column, Integers
from federation.errors import DataError

if TYPE_CHECKING:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

Floats = NDArray[np.floating]

FIT_ROWS = 20_000  # texts that topics are learned from; all others are only assigned
BLOCK = 4_096  # texts in memory at a time while they are assigned
DIMENSIONS = 64  # of the latent space; 50 to 300 is customary, k-means likes few
MAX_TERMS = 30_000


def topics(texts: Iterable[str], n: int, count: int, *, seed: int) -> Column:
    """Sort texts into topics: TF-IDF, truncated SVD (Deerwester et al., 1990), k-means.

    Topics are learned from at most 20,000 texts chosen by address; the rest are assigned in blocks,
    so memory does not grow with the number of texts.  One thread, hence the same bits every time on
    one machine.

    Args:
        texts: read twice, so not an iterator.
        n: number of texts.
        count: number of topics.
        seed: data seed.

    Returns:
        The topic of each text; topic 0 is the largest.  Names show the two weightiest terms.

    Raises:
        DataError: if the texts cannot be told apart into that many topics.
    """
    from threadpoolctl import threadpool_limits

    if isinstance(texts, Iterator):
        raise ValueError("texts are read twice: pass something that can be iterated again")
    with threadpool_limits(limits=1):
        sample = list(_sample(texts, n, seed))
        space = _learn_space(sample, count, seed)
        centres, _ = _k_means(space.vectors(sample), count, seed)
        codes = np.concatenate(
            [_nearest(space.vectors(block), centres) for block in _blocks(texts)]
        )
    if len(codes) != n:
        raise ValueError(f"{len(codes)} texts for {n} rows")
    return _largest_first(codes, _names(space, centres))


def cluster(vectors: Floats, count: int, *, seed: int) -> Column:
    """Sort rows into topics by k-means over given vectors, such as sentence embeddings.

    Args:
        vectors: one row per text, ``(n, d)``; only their directions count.
        count: number of topics.
        seed: data seed.

    Raises:
        DataError: if there are fewer than ``count`` different directions.
    """
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        directions = np.asarray(normalize(vectors))
        _, codes = _k_means(directions, count, seed)
    return _largest_first(codes, [""] * count)


@dataclass(frozen=True)
class _Space:
    """A latent space that texts are mapped into."""

    tfidf: "TfidfVectorizer"
    svd: "TruncatedSVD"

    def vectors(self, texts: list[str]) -> Floats:
        """Return the direction of each text, ``(n, dimensions)``; zero where no word is known."""
        from sklearn.preprocessing import normalize

        return np.asarray(normalize(self.svd.transform(self.tfidf.transform(texts))))


def _learn_space(sample: list[str], count: int, seed: int) -> _Space:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(sample) < count:
        raise DataError(f"{len(sample)} rows cannot make {count} topics; lower count")
    tfidf = TfidfVectorizer(
        stop_words="english", sublinear_tf=True, max_df=0.5, max_features=MAX_TERMS
    )
    try:
        weights = tfidf.fit_transform(sample)
    except ValueError as error:  # scikit-learn: "empty vocabulary", "no terms remain"
        raise DataError("the texts have no words to tell topics by; use another rule") from error
    terms = len(tfidf.get_feature_names_out())
    if terms < 2:  # a text then has the word or has it not, and scikit-learn maps no single column
        raise DataError("the texts have one word to tell topics by; use another rule")
    # TruncatedSVD takes no more dimensions than there are terms.
    dimensions = min(DIMENSIONS, terms)
    svd = TruncatedSVD(dimensions, random_state=_state(seed, "svd"))
    return _Space(tfidf, svd.fit(weights))


def _k_means(vectors: Floats, count: int, seed: int) -> tuple[Floats, Integers]:
    """Return the centres, ``(count, d)``, and the cluster of each row."""
    from sklearn.cluster import k_means

    different = len(np.unique(vectors.round(6), axis=0))
    if different < count:
        raise DataError(f"only {different} different texts for {count} topics; lower count")
    state = _state(seed, "k-means")
    found = k_means(vectors, count, n_init=4, random_state=state)  # pyright: ignore[reportArgumentType]
    return np.asarray(found[0]), np.asarray(found[1])


def _nearest(vectors: Floats, centres: Floats) -> Integers:
    return ((centres**2).sum(axis=1) - 2 * vectors @ centres.T).argmin(axis=1)


def _state(seed: int, purpose: str) -> int:
    return address(seed, "topics", purpose) % 2**32  # what scikit-learn takes for a seed


def _sample(texts: Iterable[str], n: int, seed: int) -> Iterator[str]:
    chosen = np.ones(n, dtype=bool)
    if n > FIT_ROWS:
        chosen[:] = False
        chosen[generator(seed, "topics", "sample").choice(n, FIT_ROWS, replace=False)] = True
    return (text for text, taken in zip(texts, chosen, strict=True) if taken)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while block := list(islice(rest, BLOCK)):
        yield block


def _names(space: _Space, centres: Floats) -> list[str]:
    """Name each topic by the two terms with most weight in its centre."""
    terms = space.tfidf.get_feature_names_out()
    weights = centres @ np.asarray(space.svd.components_)
    heaviest = np.argsort(-weights, axis=1, kind="stable")[:, :2]
    return ["".join(f"-{_plain(str(terms[i]))}" for i in row) for row in heaviest]


def _plain(term: str) -> str:
    """Drop accents, so that more names are file names as they are."""
    return unicodedata.normalize("NFKD", term).encode("ascii", "ignore").decode() or term


def _largest_first(codes: Integers, suffixes: list[str]) -> Column:
    sizes = np.bincount(codes, minlength=len(suffixes))
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    names = tuple(f"topic-{i:02d}{suffixes[old]}" for i, old in enumerate(order))
    return Column(rank[codes], names)
