"""The arithmetic of scores: regret, areas, paired lift with an interval, inequality, F1.

Nothing here knows policies or tables.  Losses: lower is better.  Lift: positive is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from federation.address import generator

RESAMPLES = 2000
FEWEST = (
    6  # values that an interval needs: of fewer, no choice of halves leaves out 5 % of the means
)
CONFIDENCE = 0.95
EVALUATIONS = (5, 12, 25)
"""Budgets, in whole runs, after which a search is scored."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval.

    Attributes:
        mean: of the values.
        low: lower end.
        high: upper end.
        count: values that it is made of.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def contains_zero(self) -> bool:
        """Whether no difference is among what it allows."""
        return self.low <= 0.0 <= self.high

    def json(self) -> dict[str, float]:
        """Give it as plain values."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def interval(values: Sequence[float] | np.ndarray, *address: int | str) -> Interval:
    """Return the mean and the interval of Hartigan (1969, J. Am. Stat. Assoc. 64:1303) around it.

    The quantiles of the means of random halves (every value is in with probability 1/2).  Exact for
    independent values that are symmetric around one mean and of unequal spread, which paired
    differences over unlike scenarios are when there is no difference.  The percentile bootstrap
    is not: of 18 such values its intervals contain the truth in 92 to 94 % of cases instead of 95.
    Widened by sqrt(n / (n - 1)), so that it errs on the side of no difference.

    Args:
        values: one a (scenario, seed).
        address: of the draws.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < FEWEST or not np.isfinite(x).all():
        return Interval(float(x.mean()) if n else math.nan, math.nan, math.nan, n)
    chosen = generator("pilot bench", "halves", n, *address).random((RESAMPLES, n)) < 0.5
    chosen = chosen[chosen.any(axis=1)]
    apart = ((chosen @ x) / chosen.sum(axis=1) - x.mean()) * math.sqrt(n / (n - 1))
    low, high = x.mean() + np.quantile(apart, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(x.mean()), float(low), float(high), n)


def regret(chosen: np.ndarray, all_values: np.ndarray) -> np.ndarray:
    """Return normalised regret: 0 is the best there is, 1 is the median of all.

    Args:
        chosen: loss of what was held to be best, any shape.
        all_values: loss of every configuration, ``(configurations,)``; NaN where it diverged.
    """
    known = all_values[np.isfinite(all_values)]
    best, usual = known.min(), float(np.median(known))
    return (chosen - best) / (usual - best)


def area(curve: np.ndarray, evaluations: int) -> float:
    """Return the mean of a regret curve over the first evaluations, from the first on."""
    return float(np.mean(curve[:evaluations]))


@dataclass(frozen=True)
class Lift:
    """How much better one policy is than another, paired.

    Attributes:
        interval: of the mean difference.
        wins, ties, losses: pairs.
    """

    interval: Interval
    wins: int
    ties: int
    losses: int

    @property
    def words(self) -> str:
        """Say it in two words or three."""
        if not math.isfinite(self.interval.low):
            return "too few pairs"
        if self.interval.low > 0:
            return "lift"
        return "harm" if self.interval.high < 0 else "no lift"

    def json(self) -> dict[str, object]:
        """Give it as plain values."""
        counts = {"wins": self.wins, "ties": self.ties, "losses": self.losses}
        return {**self.interval.json(), **counts, "verdict": self.words}


def lift(policy: np.ndarray, other: np.ndarray, *address: int | str, tie: float = 1e-9) -> Lift:
    """Compare two policies on the same cells; lower figures are better.

    Args:
        policy: figure of the policy in every cell.
        other: of what it is compared with, in the same cells.
        address: of the draws of the interval.
        tie: differences up to this are ties.
    """
    gain = np.asarray(other, dtype=np.float64) - np.asarray(policy, dtype=np.float64)
    wins, losses = int((gain > tie).sum()), int((gain < -tie).sum())
    return Lift(interval(gain, *address), wins, len(gain) - wins - losses, losses)


def seed_noise(losses: np.ndarray) -> float:
    """Return the noise floor of one run: how far two runs of one configuration differ by chance.

    The residual of losses ``(seeds, configurations)`` after the seed's and the configuration's own
    level are taken out, of the better half of the configurations, times the square root of two.
    """
    known = losses[:, np.isfinite(losses).all(axis=0)]
    means = known.mean(axis=0)
    good = known[:, means <= np.median(means)]
    rest = good - good.mean(axis=0) - good.mean(axis=1, keepdims=True) + good.mean()
    freedom = (good.shape[0] - 1) * (good.shape[1] - 1)
    return math.sqrt(2 * float((rest**2).sum()) / freedom)


def gini(counts: Sequence[float]) -> float:
    """Return the Gini coefficient of participations: 0 all alike, towards 1 one has them all."""
    x = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(x)
    if not x.sum():
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ x / (n * x.sum()))


def f1(named: Sequence[str | None], true: Sequence[str | None]) -> dict[str, float]:
    """Return precision, recall and F1 of naming whom a run's fault is with; None: nobody."""
    pairs = list(zip(named, true, strict=True))
    right = sum(a is not None and a == b for a, b in pairs)
    said = sum(a is not None for a, _ in pairs)
    there = sum(b is not None for _, b in pairs)
    precision = right / said if said else 0.0
    recall = right / there if there else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
    }


def share(values: Sequence[bool] | np.ndarray) -> float:
    """Return the share that is true; of nothing, none."""
    return float(np.mean(values)) if len(values) else 0.0


def wilson(hits: int, count: int) -> Interval:
    """Return a share and its 95 % score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209)."""
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    z, p = 1.959963984540054, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), count)


def written(of: Mapping[str, float] | Interval, digits: int = 3) -> str:
    """Write a mean with its interval."""
    x = of if isinstance(of, Interval) else Interval(**of)  # pyright: ignore[reportArgumentType]
    if not math.isfinite(x.low):
        return f"{x.mean:.{digits}f}"
    return f"{x.mean:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"
