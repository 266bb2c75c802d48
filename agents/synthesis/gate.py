"""The gate: a set is admitted only if a small run with it beats the same run without it.

Both arms have the same seed, model, rounds and client-steps; in one of them clients also train on
the set.  The federation is one and the same in all pairs: a set is judged for those clients and
their rows, and what differs from pair to pair is the first adapter, cohorts and batches.  The
interval is Student's over paired differences; it does not cover another federation.  Pairs end
where the set cannot be admitted any more: of three, with the first that is no better.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agents.synthesis.make import Say
from agents.synthesis.profile import GateSpec
from federation.config import Config
from federation.data.dataset import plain_templates, with_defaults
from federation.errors import ConfigError
from federation.runs.run import Run
from llm_tools.synthesis.rows import Row

if TYPE_CHECKING:
    from federation.experiment import Setup

LOWER_IS_BETTER = ("nll",)
MEASURED_BY = {"choice_accuracy": "choice"}


@dataclass(frozen=True)
class Verdict:
    """What came of the runs.

    Attributes:
        admitted: whether the whole interval of the gain lies above zero.
        metric: what was measured.
        seeds: of the pairs; fewer than were asked for if these said enough.
        without: the metric of every control run.
        having: the metric of every run with the set.
        gain: mean by which the set makes it better; negative: worse.
        low, high: interval of the mean; of a single pair without end.
        confidence: of the interval.
    """

    admitted: bool
    metric: str
    seeds: tuple[int, ...]
    without: tuple[float, ...]
    having: tuple[float, ...]
    gain: float
    low: float
    high: float
    confidence: float

    def json(self) -> dict[str, object]:
        """Give it as plain values."""
        return asdict(self)


def of_runs(config: Config, spec: GateSpec, cache: Path, say: Say) -> Callable[[Path], Verdict]:
    """Return the gate of a configuration, which :func:`judge` passes sets through.

    Raises:
        ConfigError: if it cannot be one, before anything is made or trained.
    """
    check(config, spec)
    check_fields(config)
    return partial(judge, config=config, spec=spec, cache=cache, say=say)


def judge(rows: Path, config: Config, spec: GateSpec, cache: Path, say: Say) -> Verdict:
    """Run both arms for every seed, or until no further pair could have the set admitted.

    Args:
        rows: the set, as a file that a run reads.
        config: a run small enough to be made often, on data whose test set stands for the task.
        spec: how many pairs, and what is measured.
        cache: folder of tokenised data.
        say: is told of progress.

    Raises:
        ConfigError: if the configuration cannot be such a run.
        DataError: if its data cannot be used, or the set trains clients it only tests on.
    """
    from federation.experiment import set_up

    check(config, spec)
    seeds = tuple(config.seed + i for i in range(spec.seeds))
    arms: dict[str, list[float]] = {"without": [], "with": []}
    setup: Setup | None = None
    with TemporaryDirectory(prefix="fedpilot-gate-") as folder:
        for seed in seeds:
            for arm, figures in arms.items():
                say(f"gate: seed {seed}, {arm} the set")
                changed = arm_of(config, seed, rows if arm == "with" else None)
                setup = set_up(changed, None, cache, like=setup)
                run = played(setup, Path(folder) / f"{arm}-{seed}")
                figures.append(own_figures(run, spec.split)[spec.metric])
            if is_hopeless(spec, gains_of(spec, *arms.values())):
                break
    return verdict(spec, seeds[: len(arms["with"])], arms["without"], arms["with"])


def check(config: Config, spec: GateSpec) -> None:
    """Refuse what cannot be a gate before anything is trained.

    Raises:
        ConfigError: if it trains on extra rows already, or does not measure the metric.
    """
    if config.data.extra is not None:
        raise ConfigError("--gate: its data.extra is where the set goes; remove it")
    measured = MEASURED_BY.get(spec.metric, spec.metric)
    if measured not in config.evaluation.metrics:
        raise ConfigError(
            f"--gate: its evaluation.metrics lack {measured!r}, which the profile's gate.metric"
            " asks for; add it, or change gate.metric"
        )


def check_fields(config: Config) -> None:
    """Refuse a run whose templates, key or label made-up rows would not have.

    Raises:
        ConfigError: naming the field, and how it can be told where it stands.
    """
    spec = with_defaults(config.data)
    try:
        plain_templates(spec).check([*Row.model_fields, *spec.extra_fields])
    except ConfigError as error:
        raise ConfigError(
            f"--gate: made-up rows have {', '.join(Row.model_fields)}, and the run reads others:"
            f' {error}; name them: data.extra_fields = {{MISSING = "a made-up field"}}'
        ) from None


def arm_of(config: Config, seed: int, rows: Path | None) -> Config:
    """Return the run of one arm, of the same federation under every seed."""
    config = config.under(seed)
    evaluation = config.evaluation.model_copy(update={"every": config.rounds, "baselines": ()})
    data = config.data
    if rows is not None:
        data = data.model_copy(update={"extra": str(rows.absolute())})
    return config.model_copy(update={"data": data, "evaluation": evaluation, "pilot": {}})


def played(setup: "Setup", out: Path) -> Run:
    """Run an arm; the base model, which all arms share, is not judged."""
    from federation.experiment import write
    from federation.session import Watch

    return write(replace(setup, judges_base=False), out, Watch())


def own_figures(run: Run, split: str) -> dict[str, float]:
    """Return the figures of what a run trained, on a split of its data."""
    figures = list(run.figures(split).values())
    if not figures:
        raise ConfigError(f"--gate: its data has no {split} rows; give data.split.{split} a share")
    return figures[0]


def gains_of(
    spec: GateSpec, without: Iterable[float], having: Iterable[float]
) -> NDArray[np.float64]:
    """Return by how much the set makes the metric better, pair by pair."""
    sign = -1.0 if spec.metric in LOWER_IS_BETTER else 1.0
    return sign * (np.array([*having]) - np.array([*without]))


def needed(spec: GateSpec, pairs: int) -> float:
    """Return the t of so many pairs above which a set is admitted."""
    return student(spec.confidence, pairs)


def student(confidence: float, count: int) -> float:
    """Return Student's t of a two-sided interval from so many values."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, count - 1))


def is_hopeless(spec: GateSpec, gains: NDArray[np.float64]) -> bool:
    """Tell whether a set cannot be admitted any more, whatever the pairs to come say.

    To stop then changes no verdict.  With k gains g of n known, the t of all n is largest if each
    of the others is sum(g^2) / sum(g); where sum(g) is not positive, if they are without bound.
    """
    if not np.isfinite(gains).all():
        return True
    n, total, squares = spec.seeds, max(0.0, float(gains.sum())), float((gains**2).sum())
    share = n - len(gains) + (total**2 / squares if squares else 0.0)  # (sum g)^2 / sum(g^2) of n
    return share < n and (n - 1) * share / (n - share) <= needed(spec, n) ** 2


def verdict(
    spec: GateSpec, seeds: tuple[int, ...], without: Iterable[float], having: Iterable[float]
) -> Verdict:
    """Judge paired figures; a run that diverged admits nothing."""
    without, having = tuple(without), tuple(having)
    gains = gains_of(spec, without, having)
    n, mean, reach = len(gains), math.nan, math.inf
    if np.isfinite(gains).all():
        mean = float(gains.mean())
        reach = needed(spec, n) * float(gains.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    low, high = mean - reach, mean + reach
    admitted = low > 0
    return Verdict(admitted, spec.metric, seeds, without, having, mean, low, high, spec.confidence)
