"""Runs side by side: figures along a common axis, what differs, and what pairs of seeds prove."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from agents.study.metric import METRICS as STUDIED
from agents.study.spec import MEASURED
from agents.study.statistics import Judgement, judge, noise_floor
from federation.runs.run import Run
from ui.web.figures import main_metric, measured, own_subject_of, training_loss
from ui.web.language import LOWER_IS_BETTER
from ui.web.store import Opened, differences, flattened

TRAINING = "training"
AXES = {
    "rounds": "rounds done",
    "client-steps": "client-steps done",
    "traffic": "traffic so far, both ways, MiB",
}
"""What curves are drawn along -> title of the axis."""
FEWEST, MOST = 2, 6
ALPHA = 0.05
ONE_CHOICE = ("algorithm", "pilot")
"""Tables whose keys go together: an algorithm brings its settings along, a pilot its bounds."""
MACHINE = ("engine",)
"""Tables that say how the machine is used, and not what is learnt."""


def metrics(runs: Iterable[Run]) -> list[str]:
    """List the figures that any of the runs has, training loss first."""
    there = dict.fromkeys(
        name for run in runs for e in run.evaluations if e.split == "test" for name in e.metrics
    )
    spread = ("_std", "_worst_decile")
    return [TRAINING, *(name for name in there if not name.endswith(spread))]


def series(run: Run, metric: str) -> Mapping[int, float]:
    """Return a figure by rounds done."""
    return training_loss(run) if metric == TRAINING else measured(run, metric)


def along(run: Run, axis: str) -> dict[int, float]:
    """Return where each round lies on an axis: rounds done -> client-steps, or MiB."""
    records = list(run.history.rounds.values())
    if axis == "rounds":
        amounts = [1.0] * len(records)
    elif axis == "client-steps":
        amounts = [float(record.client_steps) for record in records]
    else:
        amounts = [(record.bytes_up + record.bytes_down) / 2**20 for record in records]
    return dict(enumerate(accumulate(amounts, initial=0.0)))


def lower_is_better(metric: str) -> bool:
    """Tell which direction of a figure is the better one."""
    if metric in STUDIED:
        return STUDIED[metric].direction == "lower"
    return metric == TRAINING or metric in LOWER_IS_BETTER


def finals(run: Run) -> dict[str, float]:
    """Return what a run came to: its newest figures on everybody's test and its last loss."""
    found = dict(run.evaluation.get(own_subject_of(run), {}))
    losses = list(training_loss(run).values())
    if losses:
        found = {TRAINING: losses[-1], **found}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def main_figure(chosen: Sequence[Opened]) -> str:
    """Return the figure by which runs are judged: loss where all have it."""
    own = [finals(opened.run) for opened in chosen]
    return "nll" if all("nll" in found for found in own) else main_metric(chosen[0].run)


def best(values: Mapping[str, float], metric: str) -> list[str]:
    """Return the runs with the best figure, several if they are equal; none of fewer than two."""
    if len(values) < 2:
        return []
    target = min(values.values()) if lower_is_better(metric) else max(values.values())
    return [name for name, value in values.items() if value == target]


class Pair(NamedTuple):
    """The control and an arm under one seed.

    Attributes:
        seed: of both.
        control: name of the run.
        arm: name of the run.
        was: figure of the control.
        became: figure of the arm.
        improvement: of the arm over the control; positive is better.
    """

    seed: int
    control: str
    arm: str
    was: float
    became: float
    improvement: float


@dataclass(frozen=True)
class Arm:
    """A configuration beside the control.

    Attributes:
        name: the first of its runs that was chosen.
        changes: what it has otherwise: key -> its value and the control's, in words.
        pairs: seeds that both were run under.
        judged: what they prove; None where nothing can be said.
        why: why nothing can.
    """

    name: str
    changes: dict[str, str]
    pairs: tuple[Pair, ...]
    judged: Judgement | None = None
    why: str = ""


@dataclass(frozen=True)
class Verdicts:
    """What pairs prove about the arms beside a control.

    Attributes:
        control: the first run that was chosen.
        floor: smallest mean improvement that is worth a verdict; None if it is not known.
        seeds: of the control.
        arms: beside it.
    """

    control: str
    floor: float | None
    seeds: int
    arms: tuple[Arm, ...]


def recipe(config: Mapping[str, object]) -> dict[str, str]:
    """Return what of a configuration decides what is learnt, but for the seed."""
    flat = flattened(config)
    return {k: repr(v) for k, v in flat if k != "seed" and k.split(".")[0] not in MACHINE}


def verdicts(chosen: Sequence[Opened], known: Iterable[Opened], metric: str) -> Verdicts:
    """Judge the chosen configurations, pairing all runs of them that are known by their seed.

    Args:
        chosen: the first is the control.
        known: runs that may be sisters of the chosen: the same but for the seed.
        metric: by which they are judged, on everybody's test.
    """
    arms = grouped(chosen)
    everybody = list({o.name: o for o in (*chosen, *known)}.values())
    sisters = [by_seed(everybody, own[0].run.asked, metric) for own in arms]
    control, own = arms[0][0], sisters[0]
    found = [
        Arm(
            group[0].name,
            changed(control.run, group[0].run),
            paired(own, other, metric),
        )
        for group, other in zip(arms[1:], sisters[1:], strict=True)
    ]
    figures = [value for _, value in own.values()]
    planned = max([len(arm.pairs) for arm in found], default=0)
    floor = noise_floor(figures, planned, ALPHA) if len(figures) > 1 and planned else None
    refused = {arm.name: why for arm in found if (why := refusal(arm))}
    improvements = {
        arm.name: [pair.improvement for pair in arm.pairs]
        for arm in found
        if arm.name not in refused
    }
    judged: dict[str, Judgement] = {}
    if floor is not None and improvements:
        judged = judge(improvements, floor=floor, alpha=ALPHA, planned=planned)
    told = tuple(
        Arm(a.name, a.changes, a.pairs, judged.get(a.name), refused.get(a.name) or no_pairs(a))
        for a in found
    )
    return Verdicts(control.name, floor, len(own), told)


def grouped(chosen: Sequence[Opened]) -> list[list[Opened]]:
    """Put runs together that differ in nothing but the seed; the first chosen is the first."""
    groups: list[list[Opened]] = []
    for opened in chosen:
        same = [g for g in groups if recipe(g[0].run.asked) == recipe(opened.run.asked)]
        if same:
            same[0].append(opened)
        else:
            groups.append([opened])
    return groups


def by_seed(
    known: Iterable[Opened], config: Mapping[str, object], metric: str
) -> dict[int, tuple[str, float]]:
    """Return the finished runs of a configuration: seed -> name and figure, the first of each."""
    wanted = recipe(config)
    found: dict[int, tuple[str, float]] = {}
    for opened in known:
        seed, value = opened.run.config.get("seed"), finals(opened.run).get(metric)
        if not isinstance(seed, int) or value is None or opened.status != "finished":
            continue
        if seed not in found and recipe(opened.run.asked) == wanted:
            found[seed] = (opened.name, value)
    return dict(sorted(found.items()))


def paired(
    control: Mapping[int, tuple[str, float]], arm: Mapping[int, tuple[str, float]], metric: str
) -> tuple[Pair, ...]:
    """Pair runs by their seed."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    return tuple(
        Pair(seed, name, arm[seed][0], was, arm[seed][1], sign * (was - arm[seed][1]))
        for seed, (name, was) in control.items()
        if seed in arm
    )


def changed(control: Run, arm: Run) -> dict[str, str]:
    """Say what an arm has otherwise than the control, but for the seed and the machine."""
    rows = differences({"control": control.asked, "arm": arm.asked})
    return {
        key: f"{text(row['control'])} → {text(row['arm'])}"
        for key, row in rows.items()
        if key != "seed" and key.split(".")[0] not in MACHINE
    }


def refusal(arm: Arm) -> str:
    """Say why an arm is not judged; empty if it may be."""
    keys = list(arm.changes)
    other = [key for key in keys if key.split(".")[0] in MEASURED]
    if other:
        return f"they are not measured alike, they differ in {', '.join(other)}"
    together = {key.split(".")[0] for key in keys}
    if len(keys) > 1 and not (len(together) == 1 and together <= set(ONE_CHOICE)):
        return f"they differ in {len(keys)} keys, so nobody could say which of them it was"
    return ""


def no_pairs(arm: Arm) -> str:
    """Say that there is nothing to judge by."""
    if not arm.pairs:
        return "no seed was run under both, to the end"
    return ""


def text(value: object) -> str:
    """Write a value of a configuration in a cell."""
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(x) for x in value)
    return str(value)
