"""Runs of the studies in a folder: finished ones are read, unfinished ones resumed, others begun.

A run's folder is named after what decides its figures (configuration, rows, weights of the base),
so that nothing is taken over from another model or protocol.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import federation
from benchmarks.results_data import stored
from benchmarks.results_studies import TUNING_SEED, Arm, Study
from federation.config import Config
from federation.runs.run import Run

DIGITS = 10  # of a hash in a folder's name


@dataclass(frozen=True)
class Place:
    """Where a study finds its data and leaves its runs.

    Attributes:
        data: folder of the public data sets.
        cache: folder of the rows made of them.
        runs: folder of run directories.
    """

    data: Path
    cache: Path
    runs: Path


@dataclass(frozen=True)
class Done:
    """The runs of a study.

    Attributes:
        study: what was compared.
        runs: (setting, arm, seed) -> its run.
        tried: arm -> value -> loss on the tuning seed; empty where there was nothing to choose.
        chosen: arm -> tuned quantities by key.
    """

    study: Study
    runs: dict[tuple[str, str, int], Run] = field(default_factory=dict)
    tried: dict[str, dict[float, float]] = field(default_factory=dict)
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)

    def all_runs(self) -> Iterator[Run]:
        """Yield the runs of the table."""
        yield from self.runs.values()


def carry_out(study: Study, place: Place, seeds: int) -> Done:
    """Choose every arm's values on the tuning seed, then run all settings, arms and seeds."""
    done = Done(study)
    for arm in study.arms:
        choose(done, arm, place)
    for seed in range(seeds):
        for setting in study.settings:
            for arm in study.arms:
                run = played(study, setting, arm, seed, done.chosen[arm.name], place)
                done.runs[setting, arm.name, seed] = run
    return done


def choose(done: Done, arm: Arm, place: Place) -> None:
    """Try an arm's grid on the tuning seed; take the value of least loss on the clients' tests."""
    study = done.study
    taken = done.chosen.get(arm.after, {})
    losses: dict[float, float] = {}
    if len(arm.grid) > 1:
        for value in arm.grid:
            values = {**taken, arm.tunes: value}
            run = played(study, study.tuned_on, arm, TUNING_SEED, values, place)
            losses[value] = own_loss(run)
    done.tried[arm.name] = losses
    own = {arm.tunes: min(arm.grid, key=lambda x: losses.get(x, 0.0))} if arm.grid else {}
    done.chosen[arm.name] = taken | own


def own_loss(run: Run) -> float:
    """Return the loss on the clients' own tests, mean over clients; infinite if it diverged."""
    loss = metrics_of(run, "clients")["nll"]
    return loss if math.isfinite(loss) else math.inf


def metrics_of(run: Run, split: str) -> dict[str, float]:
    """Return the figures of what a run trained, by metric."""
    return next(figures for who, figures in run.figures(split).items() if who != "base")


def played(
    study: Study, setting: str, arm: Arm, seed: int, values: Mapping[str, float], place: Place
) -> Run:
    """Return a finished run: read, resumed or run from the beginning."""
    from federation import resume, run_experiment

    source = stored(study.rows(place.data, seed, arm.name), place.cache, study.name)
    config = study.config(setting, arm, seed, source, values)
    name = "-".join(part for part in (setting, arm.name, f"seed{seed}") if part)
    path = place.runs / study.name / f"{slug(name)}-{identity(config, source)}"
    if not (path / "config.json").exists():
        say(str(path))
        return run_experiment(config, path)
    run = Run.open(path)
    return run if run.status == "finished" else resume(path)


def slug(name: str) -> str:
    """Make a name fit for a folder."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)


def identity(config: Config, source: Path) -> str:
    """Hash what decides a run's figures; where the file of the rows lies does not."""
    data = config.data.model_copy(update={"source": source.name})
    settled = config.model_copy(update={"data": data}).model_dump_json()
    return hashlib.sha256(f"{settled}{weights()}".encode()).hexdigest()[:DIGITS]


@cache
def weights() -> str:
    """Hash the weights of the built-in model."""
    file = Path(str(federation.__file__)).parent / "nano" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def say(line: str) -> None:
    """Say on stderr what is going on."""
    print(line, file=sys.stderr, flush=True)
