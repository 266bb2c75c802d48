"""Who took part how often, and whom the model serves how well: plain values from records."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

import numpy as np

from federation.data.heterogeneity import gini
from federation.runs.records import EvaluationRecord
from federation.runs.run import Run
from ui.web.figures import own_subject_of

CLIENTS = "clients"
"""Split on which every client's own test is judged."""


class Part(NamedTuple):
    """What is known of a client.

    Attributes:
        client: its name.
        asked: rounds in which it was asked.
        reported: rounds in which it reported.
        last: round in which it was asked last, from 1; None: never.
        training: its newest training loss, nats per token.
        served: loss of the run's model on its own test, nats per token.
        alone: loss of its own model on it.
    """

    client: str
    asked: int
    reported: int
    last: int | None
    training: float | None
    served: float | None
    alone: float | None


class Fairness(NamedTuple):
    """How evenly clients are served: figures of the run's model over clients, nats per token.

    Attributes:
        after: round after which it was judged, from 1.
        mean: over clients.
        worst: over the tenth of them that is served worst.
        spread: standard deviation over clients.
    """

    after: int
    mean: float
    worst: float
    spread: float


def parts(run: Run) -> list[Part]:
    """Return what is known of every client that was asked or judged, the busiest first."""
    asked: dict[str, int] = {}
    reported: dict[str, int] = {}
    last: dict[str, int] = {}
    training: dict[str, float] = {}
    for n, record in run.history.rounds.items():
        for client in (*record.clients, *record.missing):
            asked[client] = asked.get(client, 0) + 1
            last[client] = n + 1
        for client in record.clients:
            reported[client] = reported.get(client, 0) + 1
        training |= record.loss
    served = newest(run, own_subject_of(run))
    alone = newest(run, "local")
    served_by = of_clients(served)
    alone_by = of_clients(alone)
    found = [
        Part(
            client,
            asked.get(client, 0),
            reported.get(client, 0),
            last.get(client),
            training.get(client),
            served_by.get(client),
            alone_by.get(client),
        )
        for client in dict.fromkeys((*asked, *served_by))
    ]
    return sorted(found, key=lambda part: (-part.reported, -part.asked))


def newest(run: Run, subject: str) -> EvaluationRecord | None:
    """Return the newest evaluation of a model on clients' own tests."""
    own = [e for e in run.evaluations if e.split == CLIENTS and e.subject == subject]
    return own[-1] if own else None


def of_clients(evaluation: EvaluationRecord | None, metric: str = "nll") -> Mapping[str, float]:
    """Return a figure of every client."""
    return evaluation.per_client.get(metric, {}) if evaluation else {}


def fairness(run: Run) -> Fairness | None:
    """Say how evenly clients are served; None before that was judged."""
    evaluation = newest(run, own_subject_of(run))
    if evaluation is None:
        return None
    figures = evaluation.metrics
    names = ("nll", "nll_worst_decile", "nll_std")
    mean, worst, spread = (figures.get(name, math.nan) for name in names)
    after = len(run.history.rounds) if evaluation.round is None else evaluation.round + 1
    return Fairness(after, mean, worst, spread)


def inequality(counts: Iterable[int]) -> float:
    """Return the Gini coefficient of participation: 0 all alike, towards 1 only one took part."""
    values = np.asarray(list(counts), dtype=np.int64)
    return gini(values) if values.size and values.sum() else 0.0


def better_alone(found: Iterable[Part]) -> list[Part]:
    """Return the clients that their own model serves better than the run's."""
    both = [p for p in found if p.served is not None and p.alone is not None]
    return [p for p in both if (p.alone or 0.0) < (p.served or 0.0)]


MOST = 400  # updates in a picture; more are not told apart, and cost a browser seconds


def lengths(run: Run, most: int = MOST) -> list[tuple[int, str, float]]:
    """Return round (from 1), client and the length of its update, of the newest rounds.

    Args:
        run: whose rounds.
        most: updates; of the newest round all are returned.
    """
    found: list[tuple[int, str, float]] = []
    for n, record in reversed(run.history.rounds.items()):
        if found and len(found) + len(record.update_norms) > most:
            break
        norms = reversed(record.update_norms.items())
        found += [(n + 1, client, norm) for client, norm in norms if math.isfinite(norm)]
    return found[::-1]


def average(values: Iterable[float]) -> float | None:
    """Average what is finite; None of nothing."""
    finite = [x for x in values if math.isfinite(x)]
    return fmean(finite) if finite else None
