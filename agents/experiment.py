"""Runs that a pilot steers, and runs that repeat what was once decided.

The functions of the core with one thing added: who decides.  A configuration without a ``[pilot]``
table runs by rule, as the core alone would run it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from agents.made_up import MadeUp, made_up_of
from agents.pilot import PilotPlanner
from agents.spec import PilotSpec, SyntheticSpec, build_policy
from federation import experiment, forks
from federation.cohort.planner import Planner, RulePlanner
from federation.config import Config
from federation.data.dataset import resolved
from federation.errors import ConfigError
from federation.experiment import Setup
from federation.runs.folder import MADE_UP
from federation.runs.history import History
from federation.runs.records import DecisionRecord, RollbackRecord
from federation.runs.run import Run
from federation.runs.writer import refuse_used
from federation.session import Watch


def piloted(
    setup: Setup, history: History, traffic: int, *, made_up: MadeUp | None = None
) -> Planner:
    """Let the configured pilot decide; the rules of the core where there is none."""
    spec = PilotSpec.of_run(setup.config)
    if spec is None:
        return experiment.by_rule(setup, history, traffic)
    asked = "synthetic" in setup.config.pilot
    return PilotPlanner(setup, history, traffic, spec, made_up if asked else None)


def run_experiment(
    config: Config,
    out: str | Path,
    *,
    base_dir: Path | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> Run:
    """Run a federated experiment, steered by its pilot if it has one.

    Arguments, result and errors are those of :func:`federation.experiment.run_experiment`.
    """
    if spec := PilotSpec.of(config):  # what is wrong is told before a model is loaded
        for name in (spec.proposer, *spec.shadows):
            build_policy(name, len(spec.bounds) or 1, spec)
        if spec.synthetic:
            config = warmed_up(config, spec.synthetic, Path(out), base_dir, cache, watch or Watch())
    planning = partial(piloted, made_up=made_up_of(Path(out)))
    return experiment.run_experiment(
        config, out, base_dir=base_dir, cache=cache, watch=watch, planning=planning
    )


def warmed_up(
    config: Config,
    spec: SyntheticSpec,
    out: Path,
    base_dir: Path | None,
    cache: Path | None,
    watch: Watch,
) -> Config:
    """Make rows up before the run begins, and let it begin from them if they were admitted."""
    from agents.synthesis.warm import warmed

    refuse_used(out)
    config = resolved(config, base_dir or Path.cwd())
    return warmed(config, spec, out / MADE_UP, cache, watch.phase)


def resume(path: str | Path, *, cache: Path | None = None, watch: Watch | None = None) -> Run:
    """Go on with a run, steered by its pilot if it has one; decisions that were taken stay.

    Arguments, result and errors are those of :func:`federation.experiment.resume`.
    """
    planning = partial(piloted, made_up=made_up_of(Path(path)))
    return experiment.resume(path, cache=cache, watch=watch, planning=planning)


def fork(
    path: str | Path,
    out: str | Path,
    round: int,
    *,
    overrides: Sequence[str] = (),
    rounds: int | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> Run:
    """Run on from the state of a run after one of its rounds, steered by its pilot if it has one.

    Arguments, result and errors are those of :func:`federation.forks.fork`.
    """
    return forks.fork(
        path,
        out,
        round,
        overrides=overrides,
        rounds=rounds,
        cache=cache,
        watch=watch,
        planning=piloted,
    )


class Recorded(RulePlanner):
    """Decides what was decided before: reads a journal, asks nobody."""

    def __init__(self, setup: Setup, traffic: int, history: History) -> None:
        """Start before the first round of a repetition of a run with these records."""
        config = setup.config
        super().__init__(config, setup.clients, setup.data.splits.train.sizes, traffic)
        self._recorded = history

    def decide(self, round: int) -> DecisionRecord:
        """Repeat the decision of a round; its source becomes "replay"."""
        decision = self._recorded.decisions[round]
        # A round that was to be the last need not have been: somebody may have asked for more.
        last = decision.last and round == self._recorded.last_round
        return decision.model_copy(update={"source": "replay", "seconds": 0.0, "last": last})

    def rollback(self, round: int, loss: float, failure: str) -> RollbackRecord | None:
        """Undo what was undone."""
        return self._recorded.rollbacks.get(round)


def replay(
    path: str | Path, out: str | Path, *, cache: Path | None = None, watch: Watch | None = None
) -> Run:
    """Repeat a finished run from its journal, without the policy that decided it.

    On the machine of the run, at its number of threads, the result has the same bits.

    Args:
        path: the run.
        out: a directory that does not exist or is empty.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.

    Raises:
        ConfigError: if the run is not finished or is no fine-tuning run, or ``out`` is in use.
    """
    run = Run.open(path)
    if run.status != "finished" or run.history.start is None:
        raise ConfigError(
            f"{path} is {run.status}, and only a finished run is repeated; finish it by: fedpilot"
            f" resume {path}"
        )
    config = Config.from_table(run.config, f"{path}/config.json")
    start = run.history.start
    engine = config.engine.model_copy(update={"chunk": start.chunk_size, "threads": start.threads})
    evaluation = config.evaluation.model_copy(update={"baselines": ()})
    lengthened = {"rounds": run.rounds_planned}
    config = config.model_copy(update=lengthened | {"engine": engine, "evaluation": evaluation})

    def repeated(setup: Setup, history: History, traffic: int) -> Planner:
        return Recorded(setup, traffic, run.history)

    setup = replace(experiment.set_up(config, None, cache), planning=repeated)
    if run.history.fork is None:
        return experiment.write(setup, Path(out), watch or Watch())
    forks.begin(run, Path(out), run.history.fork.round, config)
    return experiment.write_on(setup, Path(out), watch or Watch())
