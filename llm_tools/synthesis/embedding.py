"""Texts as vectors, so that near is alike.

The space is learnt from invented texts alone.  Whoever maps private texts into it learns nothing
from anyone else's, and a space learnt from private texts would have to be paid for in epsilon.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_tools.synthesis.texts import words

Vectors = NDArray[np.floating]
Embedding = Callable[[Sequence[str]], Vectors]
"""Texts to directions ``(n, D)``: rows of length one, or zero where nothing is known of a text."""
Learn = Callable[[Sequence[str]], Embedding]
"""Learns an embedding from texts that anybody may see."""

DIMENSIONS = 64  # of the latent space
MAX_TERMS = 30_000
_STATE = 0  # of the randomised SVD: the space follows from the texts alone


def tfidf_svd(public: Sequence[str]) -> Embedding:
    """Learn a space: TF-IDF over words, truncated SVD (Deerwester et al. 1990).

    A vocabulary so small that it is a space already stays as it is.

    Args:
        public: texts that anybody may see.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    if not any(map(words, public)):
        return lambda texts: np.zeros((len(texts), 1))
    tfidf = TfidfVectorizer(
        tokenizer=words,
        token_pattern=None,  # pyright: ignore[reportArgumentType]
        lowercase=False,
        sublinear_tf=True,
        max_features=MAX_TERMS,
    )
    with threadpool_limits(limits=1):
        weights: Any = tfidf.fit_transform(public)
        few = weights.shape[1] <= DIMENSIONS
        svd = TruncatedSVD(min(DIMENSIONS, *weights.shape), random_state=_STATE)
        with np.errstate(invalid="ignore", divide="ignore"):  # of variances nobody reads
            latent = None if few else svd.fit(weights)

    def embed(texts: Sequence[str]) -> Vectors:
        with threadpool_limits(limits=1):
            found: Any = tfidf.transform(texts)
            return directions(found.toarray() if latent is None else latent.transform(found))

    return embed


def directions(vectors: Vectors) -> Vectors:
    """Scale rows to length one; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors, dtype=float), where=norms > 1e-9)
