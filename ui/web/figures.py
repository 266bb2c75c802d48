"""What a page says of a run in numbers: plain values from its records; knows nothing of drawing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean, median
from typing import NamedTuple, TypeVar

from federation.errors import FedpilotError
from federation.pretraining.recipe import recipe_of
from federation.runs.run import Run
from ui.results import asked, mean, own_subject

T = TypeVar("T")
RECENT = 5  # rounds from whose seconds the rest is estimated
MAIN = ("exact_match", "choice_accuracy", "rouge_l", "nll")
"""Figures that a run is judged by, the first that was measured."""


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        done: committed rounds.
        planned: rounds that there are to be; at least ``done``.
        seconds_left: at the pace of the last rounds; None before there is one.
    """

    done: int
    planned: int
    seconds_left: float | None

    @property
    def share(self) -> float:
        """Done of planned, 0 to 1."""
        return min(1.0, self.done / self.planned) if self.planned else 0.0


def progress(run: Run) -> Progress:
    """Say how far a run is."""
    done = len(run.history.rounds)
    planned = max(done, rounds_planned(run))
    recent = [record.seconds for record in list(run.history.rounds.values())[-RECENT:]]
    left = fmean(recent) * (planned - done) if recent else None
    return Progress(done, planned, left)


def rounds_planned(run: Run) -> int:
    """Return how many rounds there are to be; 0 if its configuration is not understood."""
    try:
        return run.rounds_planned if recipe_of(run) is None else asked(run).rounds
    except FedpilotError:
        return 0


class Limit(NamedTuple):
    """Something of which a pilot may spend so much.

    Attributes:
        name: what it is.
        used: so far.
        most: that it may.
    """

    name: str
    used: float
    most: float


def limits(run: Run) -> list[Limit]:
    """Return what a run's pilot spent of what it may spend; empty where nothing is limited."""
    pilot = run.config.get("pilot")
    if not isinstance(pilot, dict):
        return []
    used = {
        "max_client_steps": ("client-steps", client_steps(run)),
        "max_calls": ("calls of the model", traced(run, "attempts")),
        "max_tokens": ("tokens of the model", traced(run, "tokens")),
    }
    most = {key: pilot.get(key) for key in used}
    return [
        Limit(used[key][0], used[key][1], float(value))
        for key, value in most.items()
        if isinstance(value, int | float)
    ]


def traced(run: Run, key: str) -> float:
    """Add up what decisions have noted of asking a language model."""
    traces = [decision.details.get("trace") for decision in run.history.decisions.values()]
    values = [trace.get(key) for trace in traces if isinstance(trace, dict)]
    return math.fsum(value for value in values if isinstance(value, int | float))


class Cost(NamedTuple):
    """What asking a language model for decisions has cost.

    Attributes:
        tokens: in and out, as far as the server reported them.
        seconds: that deciding took where a model was asked.
    """

    tokens: int
    seconds: float


def cost(run: Run) -> Cost | None:
    """Return what a run's pilot has cost; None where no model was asked."""
    if not traced(run, "attempts"):
        return None
    asked = [
        decision.seconds
        for decision in run.history.decisions.values()
        if isinstance(trace := decision.details.get("trace"), dict) and trace.get("attempts")
    ]
    return Cost(int(traced(run, "tokens")), math.fsum(asked))


def client_steps(run: Run) -> float:
    """Count the optimizer steps of all clients in committed rounds."""
    return float(sum(record.client_steps for record in run.history.rounds.values()))


@lru_cache(maxsize=16)
def training_loss(run: Run) -> Mapping[int, float]:
    """Return the cohort's mean training loss by round, counted from 1, nats per token."""
    losses = {n + 1: mean(record.loss) for n, record in run.history.rounds.items()}
    return {round: loss for round, loss in losses.items() if loss is not None}


def measured(run: Run, metric: str, split: str = "test") -> dict[int, float]:
    """Return a figure of the run's own model by rounds done; 0 is the base model."""
    own = own_subject_of(run)
    found = {}
    for evaluation in run.evaluations:
        value = evaluation.metrics.get(metric, math.nan)
        if evaluation.split != split or not math.isfinite(value):
            continue
        if evaluation.subject == own and evaluation.round is not None:
            found[evaluation.round + 1] = value
        elif evaluation.subject == "base" and evaluation.round is None:
            found[0] = value
    return dict(sorted(found.items()))


def since_base(tested: Mapping[int, float]) -> float | None:
    """Return the newest figure less the base model's; None where one of the two is not measured.

    Args:
        tested: by rounds done, the oldest first; 0 is the base model.
    """
    if 0 not in tested or len(tested) == 1:
        return None
    return list(tested.values())[-1] - tested[0]


def own_subject_of(run: Run) -> str:
    """Return whose model a run trains; "federated" where its configuration is not understood."""
    try:
        return own_subject(run)
    except FedpilotError:
        return "federated"


def main_metric(run: Run) -> str:
    """Return the figure by which a run is judged."""
    there = {name for e in run.evaluations if e.split == "test" for name in e.metrics}
    return next((name for name in MAIN if name in there), "nll")


def judged_rows(run: Run, split: str = "test") -> str:
    """Say on how many rows the newest figures of the run's own model on a split rest."""
    own = own_subject_of(run)
    newest = [e for e in run.evaluations if e.split == split and e.subject == own][-1:]
    if newest and newest[0].rows is not None:
        return f"{newest[0].rows:,} rows"
    evaluation = run.config.get("evaluation")
    most = evaluation.get("max_examples") if isinstance(evaluation, dict) else None
    return f"at most {most:,} rows" if isinstance(most, int) else "an unknown number of rows"


def noise(values: Iterable[float]) -> float | None:
    """Estimate how much a series scatters from one round to the next, its trend taken out.

    The robust spread of second differences, whose variance is six times that of independent noise.

    Returns:
        A standard deviation; None of fewer than five values.
    """
    series = list(values)
    if len(series) < 5:
        return None
    second = [a - 2 * b + c for a, b, c in zip(series, series[1:], series[2:], strict=False)]
    return 1.4826 * median(abs(x) for x in second) / math.sqrt(6)


def sparkline(run: Run, most: int = 60) -> list[float]:
    """Return the main figure over rounds, thinned out; the training loss if nothing is tested."""
    series = list(measured(run, main_metric(run)).values())
    if len(series) < 3:
        series = list(training_loss(run).values())
    return thinned(series, most)


def thinned(series: Sequence[T], most: int) -> list[T]:
    """Keep at most so many values, evenly spaced, the last one among them."""
    if len(series) <= most:
        return list(series)
    step = (len(series) - 1) / (most - 1)
    return [series[round(i * step)] for i in range(most)]


def seconds_text(seconds: float | None) -> str:
    """Write a duration as people say it."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
