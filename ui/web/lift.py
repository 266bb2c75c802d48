"""What a pilot gains, as far as runs of the same folder have measured it; never an estimate.

Two things measure it: finished runs that differ in nothing but the pilot and the seed, of which one
has no pilot, paired by their seed; and a study one of whose arms differs from its control in
nothing but the pilot.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agents.study.ledger import JOURNAL, Study
from agents.study.statistics import Judgement
from federation.errors import FedpilotError
from ui.web.comparing import main_figure, recipe, verdicts
from ui.web.language import METRICS
from ui.web.store import Opened

HOW = (
    "run the same configuration with and without [pilot], both to the end and under three seeds or"
    " more; or conduct a study with both as arms"
)
"""How a lift comes to be measured."""
PILOT = "pilot"
STUDY_OWN = "evaluation"
"""Table that a study has otherwise than runs that train alike."""

Key = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Lift:
    """By how much runs with a pilot were better than those without.

    Attributes:
        mean: improvement, positive is better.
        low: lower end of its interval.
        high: upper end.
        pairs: of runs, each under one seed.
        verdict: better, worse or inconclusive.
        unit: of the improvement, in words.
        source: what measured it, in words.
    """

    mean: float
    low: float
    high: float
    pairs: int
    verdict: str
    unit: str
    source: str

    @property
    def interval(self) -> str:
        """Its interval."""
        return f"{self.low:+.3f} to {self.high:+.3f}"

    @property
    def told(self) -> str:
        """All of it, and what it rests on, in words."""
        return (
            f"{self.mean:+.3f} ({self.interval}) of {self.unit}, {self.verdict}: {self.pairs} pairs"
            f" with and without it ({self.source})"
        )


def lifts(runs: Sequence[Opened], studies: Iterable[Path]) -> dict[str, Lift]:
    """Return the lift of every run whose pilot was measured, by the most pairs there are.

    Args:
        runs: of a folder.
        studies: directories of the same folder.
    """
    if not any(has_pilot(opened.run.config) for opened in runs):
        return {}
    known = {key: lift for path in studies for key, lift in of_study(path, changed_at(path))}
    keys = {opened.name: frozenset(recipe(opened.run.asked).items()) for opened in runs}
    trained = {name: without(key, STUDY_OWN) for name, key in keys.items()}
    piloted = [opened.name for opened in runs if has_pilot(opened.run.config)]
    found = {name: known[trained[name]] for name in piloted if trained[name] in known}
    for name, lift in of_pairs(runs, keys).items():
        if name not in found or found[name].pairs <= lift.pairs:
            found[name] = lift
    return found


def has_pilot(config: Mapping[str, object]) -> bool:
    """Tell whether somebody decides the rounds of a run."""
    return bool(config.get(PILOT))


def without(key: Key, *tables: str) -> Key:
    """Return what decides what a run learns, but for some tables."""
    return frozenset((name, value) for name, value in key if name.split(".")[0] not in tables)


def of_pairs(runs: Sequence[Opened], keys: Mapping[str, Key]) -> dict[str, Lift]:
    """Judge the pilots of finished runs against runs that are the same without one.

    Args:
        runs: of a folder.
        keys: name of a run -> what decides what it learns.
    """
    groups: dict[Key, list[Opened]] = {}
    for opened in runs:
        groups.setdefault(without(keys[opened.name], PILOT), []).append(opened)
    found: dict[str, Lift] = {}
    for group in groups.values():
        plain = [o for o in group if not has_pilot(o.run.config)]
        piloted = [o for o in group if has_pilot(o.run.config)]
        if plain and piloted:
            found |= of_group(plain[0], piloted, group, keys)
    return found


def of_group(
    control: Opened, piloted: list[Opened], group: list[Opened], keys: Mapping[str, Key]
) -> dict[str, Lift]:
    """Judge pilots, all of one configuration; several are judged together."""
    metric = main_figure([o for o in group if o.status == "finished"] or group)
    told = verdicts([control, *piloted], group, metric)
    found = {}
    for arm in told.arms:
        lift = arm.judged and as_lift(arm.judged, METRICS.get(metric, metric), "runs here")
        sisters = [o.name for o in piloted if keys[o.name] == keys[arm.name]]
        found |= dict.fromkeys(sisters, lift) if lift else {}
    return found


def as_lift(judged: Judgement, unit: str, source: str, sign: float = 1.0) -> Lift | None:
    """Turn a judgement into a lift; None if it has no interval.

    Args:
        judged: of an arm beside a control.
        unit: of the figure.
        source: who judged.
        sign: -1 where the control has the pilot and the arm has none.
    """
    if judged.mean is None or judged.low is None or judged.high is None:
        return None
    low, high = sorted((sign * judged.low, sign * judged.high))
    turned = {"better": "worse", "worse": "better"} if sign < 0 else {}
    verdict = turned.get(judged.verdict, judged.verdict)
    return Lift(sign * judged.mean, low, high, judged.pairs, verdict, unit, source)


def changed_at(path: Path) -> int:
    """Return when a study was written to last; 0 if nothing of it is there."""
    try:
        return (path / JOURNAL).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def of_study(path: Path, changed: int) -> tuple[tuple[Key, Lift], ...]:
    """Return what a study that has its verdict proved of pilots: configuration -> lift.

    Args:
        path: its directory.
        changed: when it was written to last, so that it is read again then, and only then.
    """
    try:
        study = Study.open(path)
        return tuple(proved(study))
    except FedpilotError:
        return ()  # the page of studies says what is wrong with it


def proved(study: Study) -> Iterable[tuple[Key, Lift]]:
    """Yield the configurations with a pilot that a study compared with the same without one."""
    if study.told.verdict is None:
        return
    spec, source = study.spec, f"study {study.path.name}"
    control = arm_key(study, spec.arms[spec.control])
    for name, judged in study.told.verdict.found.items():
        own = arm_key(study, study.told.arms[name].overrides)
        if without(own, PILOT) != without(control, PILOT) or steers(own) == steers(control):
            continue
        sign = 1.0 if steers(own) else -1.0
        if lift := as_lift(judged, METRICS.get(spec.metric.name, spec.metric.name), source, sign):
            yield (own if steers(own) else control), lift


def arm_key(study: Study, overrides: tuple[str, ...]) -> Key:
    """Return what decides what an arm of a study learns."""
    config = study.spec.config(overrides, 0, study.path.name)
    own = recipe(json.loads(config.model_dump_json()))
    return without(frozenset(own.items()), STUDY_OWN)


def steers(key: Key) -> bool:
    """Tell whether a configuration has a pilot: an empty table is none."""
    return any(k.startswith(f"{PILOT}.") for k, _ in key)
