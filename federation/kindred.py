"""Rows like those that a client holds, held by others; and what a change does to the loss on them.

A client whose rows are plenty elsewhere seems to do harm if it is judged on everybody's rows: what
it teaches is known, and it takes weight from the rest.  So it is judged on rows that ask what its
own rows ask.  Prompts are sorted into topics, since a label may be what is wrong, and rows of the
others are weighed until their topics are mixed as the client's are.  That an example should be
judged by its effect on its own kind first is the point of Schoch, Xu and Ji 2022 (arXiv:2211.06800,
CS-Shapley), there with classes and Shapley values.

Shape suffixes: R repeats, N rows that are judged, K topics.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from federation.errors import DataError
from federation.runs.records import ContributionsRecord, Effect

if TYPE_CHECKING:
    from federation.data.clients import Clients
    from federation.experiment import Setup

TOPICS = 12  # most topics
VOUCHED = 0.5  # share of a client's rows that others must hold the like of
ROWS = 2.0  # fewest rows like its own, in effect, from which an interval is made
OUTLIER = 3.5  # robust z-score (Iglewicz and Hoaglin 1993) from which a figure stands out


def kindred(
    setup: "Setup", clients: Sequence[str], rows_N: np.ndarray, held: "Clients | None" = None
) -> dict[str, np.ndarray]:
    """Weigh rows so that their topics are mixed as those of a client's training rows.

    Args:
        setup: whose rows they are.
        clients: for whom.
        rows_N: numbers of the rows that are judged.
        held: which of them are whose; as the test split is held if omitted.

    Returns:
        client -> weight of every row, ``(N,)``; its own rows have none.  A client is missing if
        others hold too little that is like its rows for anybody to vouch for it.
    """
    trained = {client: setup.data.train_rows(client) for client in clients}
    everything = np.unique(np.concatenate([rows_N, *trained.values()]))
    examples = setup.data.corpus.examples
    texts = [x.prompt or x.response for x in (examples[int(row)] for row in everything)]
    topic = told_apart(texts, setup.config.seed)
    at_N = topic[np.searchsorted(everything, rows_N)]
    held = held or setup.data.judged.test
    found = {}
    for client, rows in trained.items():
        mix_K = np.bincount(topic[np.searchsorted(everything, rows)], minlength=topic.max() + 1)
        own = held.rows(client) if client in held.names else rows[:0]
        weight_N = weights(mix_K / max(1, len(rows)), at_N, np.isin(rows_N, own))
        if weight_N is not None:
            found[client] = weight_N
    return found


def told_apart(texts: Sequence[str], seed: int) -> np.ndarray:
    """Sort texts into as many topics as they can be told into, :data:`TOPICS` at most."""
    from federation.data.topics import topics

    count = min(TOPICS, len(texts))
    while count > 1:
        try:
            return np.asarray(topics(texts, len(texts), count, seed=seed).codes)
        except DataError:  # too few of them differ
            count //= 2
    return np.zeros(len(texts), np.int64)


def weights(mix_K: np.ndarray, at_N: np.ndarray, own_N: np.ndarray) -> np.ndarray | None:
    """Weigh rows by topic until they are mixed as a client's are; None if nobody can vouch for it.

    Args:
        mix_K: share of every topic in what the client trains on.
        at_N: topic of every row.
        own_N: whether a row is the client's own.
    """
    all_K = np.bincount(at_N, minlength=len(mix_K))
    others_K = np.bincount(at_N[~own_N], minlength=len(mix_K))
    if mix_K @ (others_K / np.maximum(all_K, 1)) < VOUCHED:
        return None
    return np.where(own_N, 0.0, (mix_K / np.maximum(others_K, 1))[at_N])


def weighed(nats_RN: np.ndarray, tokens_N: np.ndarray, weight_N: np.ndarray) -> Effect:
    """Return the effect on the loss of weighed rows, and its 95 % interval over rows.

    Args:
        nats_RN: nats that a change adds to every row, in every repeat.
        tokens_N: tokens of every row.
        weight_N: weight of every row.

    Returns:
        In nats per token.  Rows count as drawn at random; few, and losses that are no numbers,
        have no interval.
    """
    total = float(weight_N @ tokens_N)
    values = tuple((nats_RN @ weight_N / total).tolist())
    mean = math.fsum(values) / len(values)
    rows = float(weight_N.sum() ** 2 / (weight_N**2).sum())
    if rows < ROWS or not math.isfinite(mean):
        return Effect(mean=mean, values=values)
    from scipy.stats import t

    away_N = weight_N * (nats_RN.mean(0) - mean * tokens_N)
    error = math.sqrt(float(away_N @ away_N) * rows / (rows - 1)) / total
    half = float(t.ppf(0.975, rows - 1)) * error
    return Effect(mean=mean, low=mean - half, high=mean + half, values=values)


def outlyingness(figures: Mapping[str, float]) -> dict[str, float]:
    """Return how far each figure lies from the median, in robust standard deviations."""
    middle = median(figures.values())
    spread = 1.4826 * median(abs(x - middle) for x in figures.values())
    return {name: (x - middle) / max(spread, 1e-12) for name, x in figures.items()}


def spoilers(record: ContributionsRecord) -> tuple[str, ...]:
    """Name the clients of a round that spoil rows like their own, worst first.

    Those are clients whose interval lies below zero and whose figure lies far below the others'.
    """
    means = {name: x.mean for name, x in record.own.items() if math.isfinite(x.mean)}
    if not means:
        return ()
    below = {name for name, x in record.own.items() if x.high is not None and x.high < 0}
    far = {name for name, z in outlyingness(means).items() if z < -OUTLIER}
    return tuple(sorted(below & far, key=means.__getitem__))


def worst_first(record: ContributionsRecord) -> list[str]:
    """Order the clients of a round: by what they do to rows like their own, most harmful first.

    Then those whom nobody can vouch for, by what they do to everybody's; no numbers come last.
    """

    def place(client: str) -> tuple[bool, float]:
        mean = record.own.get(client, record.effects[client]).mean
        return client not in record.own, math.inf if math.isnan(mean) else mean

    return sorted(record.effects, key=place)
