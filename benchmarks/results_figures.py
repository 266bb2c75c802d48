"""Figures of a study's runs: what the journals hold, and how arms differ over seeds.

Knows nothing of how they are written down.  Shape suffix: S seeds.
"""

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.results_runs import Done
from benchmarks.results_studies import Column
from federation.evaluation.assess import SUBJECTS
from federation.evaluation.scores import HIGHER_IS_BETTER, worst_decile
from federation.runs.records import EvaluationRecord
from federation.runs.run import Run

BASE = "base"  # the arm that trains nothing; it is judged in every run


@dataclass(frozen=True)
class Difference:
    """By how much one arm is better than another, positive: better.

    Attributes:
        mean: over seeds, of differences within a seed.
        spread: their standard deviation (divided by S - 1); NaN for one seed.
    """

    mean: float
    spread: float

    @property
    def is_clear(self) -> bool:
        """Tell whether it is outside the spread over seeds."""
        return abs(self.mean) > self.spread  # never with one seed: NaN compares false


def values(done: Done, setting: str, arm: str, column: Column) -> np.ndarray:
    """Return a figure of an arm in a setting for every seed, ``(S,)``."""
    seeds = sorted({seed for where, _, seed in done.runs if where == setting})
    return np.array([value(done, setting, arm, seed, column) for seed in seeds])


def value(done: Done, setting: str, arm: str, seed: int, column: Column) -> float:
    """Return a figure of an arm in one seed."""
    record = evaluation(done, setting, arm, seed, column.split)
    if column.split != "clients":
        return record.metrics[column.metric]
    clients = common_clients(done, setting, seed)
    figures = np.array([record.per_client[column.metric][client] for client in clients])
    return worst_decile(column.metric, figures) if column.worst else float(figures.mean())


def evaluation(done: Done, setting: str, arm: str, seed: int, split: str) -> EvaluationRecord:
    """Find what a run recorded of its arm on a split; the base is judged in any run but local's."""
    if arm == BASE:
        arms = [name for where, name, of in done.runs if (where, of) == (setting, seed)]
        shared = next(name for name in arms if name not in SUBJECTS)
        return record_of(done.runs[setting, shared, seed], BASE, split)
    subject = arm if arm in SUBJECTS else "federated"
    return record_of(done.runs[setting, arm, seed], subject, split)


def record_of(run: Run, subject: str, split: str) -> EvaluationRecord:
    """Return the latest evaluation of a subject on a split."""
    found = [x for x in run.evaluations if (x.subject, x.split) == (subject, split)]
    return found[-1]


def common_clients(done: Done, setting: str, seed: int) -> list[str]:
    """List the clients that every arm of a setting was judged on."""
    sets = [
        set(evaluation(done, setting, name, seed, "clients").per_client["nll"])
        for where, name, of in done.runs
        if (where, of) == (setting, seed)
    ]
    return sorted(set.intersection(*sets))


def difference(done: Done, setting: str, one: str, other: str, column: Column) -> Difference:
    """Say by how much one arm is better than another on the same rows."""
    sign = 1 if column.metric in HIGHER_IS_BETTER else -1
    gain_S = values(done, setting, one, column) - values(done, setting, other, column)
    return Difference(sign * float(gain_S.mean()), spread(gain_S))


def spread(values_S: np.ndarray) -> float:
    """Return the sample standard deviation over seeds; NaN for one seed."""
    return float(values_S.std(ddof=1)) if len(values_S) > 1 else math.nan


def best(done: Done, setting: str, arms: list[str], column: Column) -> str | None:
    """Name the arm that is better than each of the others outside the spread, if there is one."""
    for one in arms:
        gains = [difference(done, setting, one, other, column) for other in arms if other != one]
        if all(gain.mean > 0 and gain.is_clear for gain in gains):
            return one
    return None
