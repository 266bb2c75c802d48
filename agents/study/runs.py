"""The runs of a study: one run directory for every arm and seed, begun, gone on with or read.

The figure that steers a study is that of the validation split.  The one of the test split has a
function of its own, which is called where the verdict is made and nowhere else.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from agents.study import stopping
from agents.study.ledger import RUNS, Ledger
from agents.study.pairs import folder
from agents.study.records import Measured
from federation.config import Config
from federation.errors import ConfigError, CorruptError, StoppedError
from federation.runs.folder import is_run
from federation.runs.records import Record
from federation.runs.run import Run
from federation.session import Watch


def no_words(words: str) -> None:
    """Tell nobody."""


def nobody(name: str, rounds: int, done: int) -> AbstractContextManager[Watch]:
    """Watch a run for nobody."""
    return nullcontext(Watch())


@dataclass(frozen=True)
class StudyWatch:
    """What is told of a study while it goes on.

    Attributes:
        say: called with a few words when something begins or is found.
        during: given the name of a run, its rounds and those done before: watches it meanwhile.
    """

    say: Callable[[str], None] = no_words
    during: Callable[[str, int, int], AbstractContextManager[Watch]] = nobody


@dataclass(frozen=True)
class Bench:
    """Where runs are made.

    Attributes:
        ledger: the study.
        cache: folder for tokenised data; the user's if None.
        watch: who is told.
    """

    ledger: Ledger
    cache: Path | None = None
    watch: StudyWatch = StudyWatch()

    def measure(self, arm: str, overrides: tuple[str, ...], seed: int) -> Measured:
        """Make a run unless it is made, and write down its validation figure.

        Args:
            arm: whose it is.
            overrides: of the study's base.
            seed: run seed.

        Raises:
            ConfigError: if it cannot be run, or has no figure.
            CorruptError: if what is there is another run.
            StoppedError: if the study is to stop.
        """
        ledger, name = self.ledger, folder(arm, seed)
        if name in ledger.told.measured:
            return ledger.told.measured[name]
        stopping.heed(ledger.path)
        config = ledger.spec.config(overrides, seed, f"arm {arm}")
        run = self.played(ledger.path / RUNS / name, config)
        record = Measured(
            run=name,
            arm=arm,
            seed=seed,
            client_steps=sum(x.client_steps for x in run.history.rounds.values()),
            validation=figure(run, config, "validation", ledger.spec.metric.name),
        )
        ledger.append(record)
        return record

    def played(self, path: Path, config: Config) -> Run:
        """Begin a run, or go on with it, or open it if it is finished."""
        from agents.experiment import resume, run_experiment

        if not is_run(path):
            with self.heeding(path, config.rounds, 0) as watch:
                return run_experiment(self.pinned(config), path, cache=self.cache, watch=watch)
        run = Run.open(path)
        same_config(run, config)
        if run.status == "finished":
            return run
        with self.heeding(path, config.rounds, len(run.history.rounds)) as watch:
            return resume(path, cache=self.cache, watch=watch)

    @contextmanager
    def heeding(self, path: Path, rounds: int, done: int) -> Iterator[Watch]:
        """Watch a run, which is to stop when the study is to.

        Raises:
            StoppedError: if it was told to stop: so does the study.
        """
        study = self.ledger.path
        with self.watch.during(path.name, rounds, done) as watch:

            def record(written: Record) -> None:
                watch.record(written)
                stopping.pass_on(study, path)

            try:
                yield replace(watch, record=record)
            except StoppedError as stop:
                raise StoppedError(study, stop.why, stopping.GO_ON) from None

    def pinned(self, config: Config) -> Config:
        """Let all runs have as many clients a pass as the first one measured to be fastest."""
        first = (
            self.ledger.path / RUNS / folder(self.ledger.spec.control, self.ledger.spec.seeds[0])
        )
        start = Run.open(first).history.start if is_run(first) else None
        if start is None or config.engine.chunk != "auto":
            return config
        engine = config.engine.model_copy(update={"chunk": start.chunk_size})
        return config.model_copy(update={"engine": engine})


def same_config(run: Run, config: Config) -> None:
    """Check that a run is the one that is wanted; how it uses the machine may differ.

    Raises:
        CorruptError: if it is not.
    """
    from federation.data.dataset import resolved

    there = Config.from_table(run.asked, f"{run.path}/config.json")
    wanted = resolved(config, Path.cwd()).model_copy(update={"engine": there.engine})
    if there != wanted:
        raise CorruptError(
            f"{run.path} is not the run that the study wants; move it away, or start a new study"
        )


def figure(run: Run, config: Config, split: str, metric: str) -> float:
    """Return the last figure of a run's own model on a split.

    Raises:
        ConfigError: if it was not measured.
    """
    from federation.evaluation.assess import subject

    found = run.figures(split).get(subject(config.algorithm.name), {})
    if metric not in found:
        raise ConfigError(f"{run.path} has no {metric} of its model on {split}; is data.split 0?")
    return found[metric]


def test_figure(ledger: Ledger, record: Measured, overrides: tuple[str, ...]) -> float:
    """Return the test figure of a run: the one place that reads it."""
    config = ledger.spec.config(overrides, record.seed, f"arm {record.arm}")
    run = Run.open(ledger.path / RUNS / record.run)
    return figure(run, config, "test", ledger.spec.metric.name)


def curve(run: Run, config: Config, metric: str) -> list[tuple[int, float]]:
    """Return rounds done and the validation figure after them; 0 is the base model."""
    from federation.evaluation.assess import subject

    own = subject(config.algorithm.name)
    found = {
        -1 if x.round is None else x.round: x.metrics[metric]
        for x in run.evaluations
        if x.split == "validation"
        and metric in x.metrics
        and x.subject == ("base" if x.round is None else own)
    }
    return [(n + 1, value) for n, value in sorted(found.items()) if math.isfinite(value)]
