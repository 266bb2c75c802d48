"""What pairs of figures prove: the noise floor, intervals that may be looked at again, verdicts.

A pair is one arm and the control under the same seed; its *improvement* is how much better the arm
was, positive is better whatever the metric.  Improvements are taken as independent draws of a
normal distribution.  With 3 to 30 pairs nobody can check that, and a bootstrap would not be safer:
of 5 values it knows 126 resamples, and its intervals are too short.

**Sequential stopping.**  After each pair from the third on one may stop, for whatever reason.
Bounds on |t| are such that the probability that a t statistic *ever* leaves them by chance is at
most alpha: at the k-th of n planned pairs alpha k / n of it is spent (Lan and DeMets 1983,
Biometrika 70:659; the linear function of Kim and DeMets 1987, Biometrika 74:149).  The joint
distribution of the t statistics of a growing normal sample has no unknown parameter when there is
no difference, so the bounds are found by simulating it, exactly but for the draws, instead of
by the usual approximation with normal quantiles, which is poor at 2 degrees of freedom.  "Ever"
holds at every random time, so a study may stop on figures of the *validation* split and be judged
on those of the test split, which are correlated with them.  The intervals are the repeated
confidence intervals of Jennison and Turnbull (1989, J. R. Statist. Soc. B 51:305).  An always-valid
t interval (Wang and Ramdas 2023, arXiv:2310.03722, section 4) would need no planned number of
pairs, which a study with a budget has anyway; even with the best prior for every number of pairs it
is 1.8 times as wide at 3 of 5 pairs and 1.4 times at 5 of 5.

**Many arms.**  Holm's procedure (1979, Scand. J. Statist. 6:65) over these bounds: of m arms the
first is tested at alpha / m, after every rejection the rest at a larger level.  An interval is
given at the level at which its arm was tested, so it excludes "no difference" exactly if the test
rejected.  The probability of one wrong verdict or more is at most alpha; each interval covers with
probability 1 - alpha at least.

**The floor.**  Statistical significance is no relevance: an arm must also be better, on average, by
more than the control differs from itself under other seeds.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from agents.knobs import RECORD
from federation.address import generator

FEWEST = 3
"""Pairs without which nothing is said."""
MARGIN = 1.5
"""Half-widths by which an interval on validation has to exclude 0 before its arm needs no more
pairs.  The test split has noise of its own, so what is just proved on one is often not on the
other: simulated, an effect of 2.9 standard deviations of a pair is found in 64 % of studies of up
to 8 pairs at a margin of 1 (4.7 pairs on average), in 86 % at 1.5 (5.9 pairs), in all at 8 pairs
always.  Any margin keeps the error rate."""
DRAWS = 200_000
"""Samples that the bounds are made of: alpha = 0.05 comes out as 0.05 +- 0.0005."""

Result = Literal["better", "worse", "inconclusive"]


class Judgement(BaseModel):
    """What the pairs of one arm prove.

    Attributes:
        verdict: better or worse than the control; or nothing proved.
        mean: improvement over the control, mean of the pairs; None if one is not finite.
        low: lower end of its interval; None where there is none.
        high: upper end.
        level: probability with which the interval covers, whenever one stopped.
        pairs: how many there were.
        lost: how many of them have no finite figure, because a run diverged.
        why: in a few words.
    """

    model_config = RECORD

    verdict: Result
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    pairs: int = Field(ge=0)
    lost: int = Field(default=0, ge=0)
    why: str


def noise_floor(figures: Sequence[float], planned: int, alpha: float) -> float:
    """Return what the mean of so many pairs of the same configuration stays below by chance.

    Any two runs of the control under different seeds are such a pair (A/A).  Their differences have
    mean 0, and the mean square over all pairs of n runs is twice the sample variance, with n - 1
    degrees of freedom.  The mean of ``planned`` other pairs then lies within the floor with
    probability ``1 - alpha`` (a prediction interval).

    Args:
        figures: of the control, one for each seed.
        planned: pairs of a study.
        alpha: how often it may be exceeded by chance.
    """
    from scipy.stats import t

    spread = math.sqrt(2 * float(np.var(figures, ddof=1)))
    return float(t.ppf(1 - alpha / 2, len(figures) - 1)) * spread / math.sqrt(planned)


@lru_cache(maxsize=256)
def bounds_on_t(alpha: float, planned: int) -> dict[int, float]:
    """Return for each number of pairs the |t| that is exceeded, at any of them, by chance.

    Args:
        alpha: probability with which any of the bounds is ever exceeded if there is no difference.
        planned: most pairs.
    """
    draw = generator("bounds on t", planned)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    left = np.ones(DRAWS, dtype=bool)  # samples that exceeded no bound yet
    found: dict[int, float] = {}
    for n in range(1, planned + 1):
        value = draw.standard_normal(DRAWS)
        total += value
        squares += value * value
        if n < FEWEST:
            continue
        spread = np.sqrt(np.maximum(squares - total * total / n, 1e-300) / (n - 1))
        t = np.abs(total) / (spread * math.sqrt(n))
        over = int(DRAWS * alpha * n / planned) - int(np.count_nonzero(~left))
        found[n] = float(np.sort(t[left])[-over - 1]) if over > 0 else math.inf
        left &= t <= found[n]
    return found


def interval(improvements: Sequence[float], alpha: float, planned: int) -> tuple[float, float]:
    """Return the repeated confidence interval of the mean improvement.

    Args:
        improvements: finite, of :data:`FEWEST` pairs at least.
        alpha: probability with which it ever fails to cover.
        planned: most pairs.
    """
    x = np.asarray(improvements, dtype=np.float64)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    half = error * bounds_on_t(alpha, planned)[len(x)] if error else 0.0
    return float(x.mean()) - half, float(x.mean()) + half


def judge(
    improvements: Mapping[str, Sequence[float]], *, floor: float, alpha: float, planned: int
) -> dict[str, Judgement]:
    """Give every arm a verdict.

    Args:
        improvements: arm -> improvement of each of its pairs.  All arms of a study, also those
            without pairs: Holm counts them.
        floor: smallest mean improvement that is worth a verdict.
        alpha: probability of one wrong verdict or more.
        planned: most pairs of an arm.
    """
    found = {name: unfit(x) for name, x in improvements.items()}
    left = [name for name, judged in found.items() if judged is None]
    level = alpha / max(1, len(improvements))
    proved: list[str] = []
    while left:
        level = alpha / (len(improvements) - len(proved))
        ends = {name: interval(improvements[name], level, planned) for name in left}
        clear = {name: clearness(own) for name, own in ends.items()}
        new = max(left, key=clear.__getitem__)
        if clear[new] <= 1:
            break
        proved.append(new)
        left.remove(new)
        found[new] = worded(improvements[new], ends[new], level, floor)
    for name in left:
        own = interval(improvements[name], level, planned)
        found[name] = worded(improvements[name], own, level, floor)
    return {name: judged for name, judged in found.items() if judged is not None}


def clearness(ends: tuple[float, float]) -> float:
    """Return how many half-widths an interval's middle is away from 0; above 1 it excludes 0."""
    middle, half = abs(ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    return middle / half if half else (math.inf if middle else 0.0)


def unfit(improvements: Sequence[float]) -> Judgement | None:
    """Say why pairs allow no interval; None if they do."""
    pairs = len(improvements)
    lost = sum(not math.isfinite(x) for x in improvements)
    if lost:
        why = f"no finite figure in {lost} of {pairs} pairs: training diverged"
    elif pairs < FEWEST:
        why = f"{pairs} of the {FEWEST} pairs that an interval needs"
    else:
        return None
    return Judgement(verdict="inconclusive", pairs=pairs, lost=lost, why=why)


def worded(
    improvements: Sequence[float], ends: tuple[float, float], level: float, floor: float
) -> Judgement:
    """Say what an interval means."""
    mean, (low, high) = float(np.mean(improvements)), ends
    verdict: Result = "inconclusive"
    if clearness(ends) <= 1:
        within = -floor <= low and high <= floor
        why = "within the noise floor" if within else "the interval includes zero"
    elif abs(mean) < floor:
        why = "a difference, but smaller than the noise floor"
    else:
        verdict = "better" if mean > 0 else "worse"
        why = "the interval excludes no difference, and the mean exceeds the noise floor"
    return Judgement(
        verdict=verdict,
        mean=mean,
        low=low,
        high=high,
        level=1 - level,
        pairs=len(improvements),
        why=why,
    )


def decided(judged: Judgement, floor: float) -> bool:
    """Tell whether more pairs of an arm are not worth their cost.

    It is clearly better or worse; or it diverged; or its whole interval is within the noise floor.
    """
    if judged.low is None or judged.high is None:
        return judged.lost > 0
    if max(abs(judged.low), abs(judged.high)) <= floor:
        return True
    return judged.verdict != "inconclusive" and clearness((judged.low, judged.high)) >= MARGIN
