"""A run from beginning to end: set up, rounds, evaluations, baselines, export; and its resumption.

Knows how the parts work together.  Decisions come from a planner (a rule here; a pilot
elsewhere), facts go to the run directory, and nothing else is remembered: a run can be killed at
any instant and resumed.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from federation.algorithms.algorithm import Algorithm
from federation.algorithms.settings import CENTRALISED
from federation.baselines import as_baseline
from federation.bits import start_record
from federation.cohort.planner import Planner, RulePlanner
from federation.cohort.selection import check_population
from federation.config import Config
from federation.data.dataset import FederatedData, centralise, load_data, resolved
from federation.data.splits import left_out
from federation.errors import ConfigError
from federation.evaluation.assess import assess
from federation.pretraining.pretrain import pretrain
from federation.pretraining.recipe import recipe_of, texts_of
from federation.runs.folder import ADAPTER, BASELINES
from federation.runs.history import History
from federation.runs.keys import NOISE_KEY, draw_key, read_key
from federation.runs.peft_files import save_adapter
from federation.runs.records import EvaluationRecord, Record, RoundRecord, WarningRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter, refuse_used
from federation.session import Judge, Session, Watch, ending
from federation.specs import LoRASpec
from federation.training.base import Base, check_sequences, hash_of, load_base
from federation.training.build import (
    UNKEYED,
    build_algorithm,
    build_trainable,
    first_params,
    rehearsed,
    with_settings,
)
from federation.training.engine import LocalEngine, measure_chunk
from federation.training.local import Task
from federation.training.lora import LoRA
from federation.tree import Tree, nbytes

Planning = Callable[["Setup", History, int], Planner]
"""Given a setup, the records of its run and the bytes a client moves in a round: who decides."""


def by_rule(setup: "Setup", history: History, traffic: int) -> Planner:
    """Let the configured rules decide.

    Raises:
        ConfigError: if the configuration asks for a pilot, which the core alone has not.
    """
    if setup.config.pilot:
        raise ConfigError("this configuration has a [pilot]: run it with agents.run_experiment")
    return RulePlanner(setup.config, setup.clients, setup.data.splits.train.sizes, traffic)


@dataclass(frozen=True)
class Setup:
    """What a configuration means on this machine.

    Attributes:
        config: the configuration.
        base: the frozen model.
        data: rows, clients and splits.
        task: what is trained on what, by which algorithm.
        params: the first parameters ``(P,)``.
        judges_base: whether the base model is evaluated before the first round.
        planning: makes who decides its rounds.
        key: of the privacy noise, once a run has one.
    """

    config: Config
    base: Base
    data: FederatedData
    task: Task
    params: Tensor
    judges_base: bool = True
    planning: "Planning" = by_rule
    key: str = UNKEYED

    def rebuilt(self, settings: Mapping[str, float]) -> Algorithm:
        """Build the algorithm with other settings, and the same noise."""
        return build_algorithm(with_settings(self.config, settings), self.key)

    @property
    def algorithm(self) -> Algorithm:
        """The federated algorithm."""
        return self.task.algorithm

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids of the registered clients, in registry order."""
        return self.data.splits.names


def default_cache() -> Path:
    """Return the folder for tokenised data: the user's cache folder (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "fedpilot"


def set_up(
    config: Config,
    base_dir: Path | None = None,
    cache: Path | None = None,
    like: Setup | None = None,
) -> Setup:
    """Load model and data and build what the configuration names.

    Base and trainable of ``like``, a setup of the same model and adapter, serve again.

    Raises:
        ConfigError: if something in it cannot be used.
        DataError: if the data cannot be read or does not suffice.
    """
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    algorithm = build_algorithm(config)
    model = config.model
    base = like.base if like else load_base(model.base, model.dtype, device=model.device)
    data = load_data(config, base.tokenizer, base_dir or Path.cwd(), cache or default_cache())
    check_sequences(base, data.corpus.tokens)
    if config.algorithm.name == CENTRALISED:
        data = centralise(data)
    check_population(config.cohort, len(data.splits.names))
    trainable = like.task.trainable if like else build_trainable(config, base)
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    task = Task(base, trainable, algorithm, data.corpus.tokens)
    params = first_params(trainable, config.seed, base_dir or Path.cwd())
    return Setup(config, base, data, task, params.to(wide))


def beginnings(setup: Setup) -> dict[str, str]:
    """Hash what a run begins from and reads again when it goes on (bits.BEGINNINGS)."""
    facts = {"model": setup.base.digest}
    if isinstance(setup.config.adapter, LoRASpec) and setup.config.adapter.start is not None:
        facts["start"] = hash_of(setup.params)
    return facts


def run_experiment(
    config: Config,
    out: str | Path,
    *,
    base_dir: Path | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
    planning: Planning = by_rule,
) -> Run:
    """Run a federated experiment into a new run directory.

    Args:
        config: what to run.
        out: a directory that does not exist or is empty.
        base_dir: where relative paths of the data start; the current folder if omitted.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.
        planning: makes who decides the rounds.

    Returns:
        The finished run, opened for reading.

    Raises:
        ConfigError: if the configuration cannot be used, or ``out`` is in use.
        DataError: if the data cannot be used.
        StorageError: if the disk is full; what was committed stays and can be resumed.
        StoppedError: if it was told to stop, and did; it can be resumed.
    """
    watch = watch or Watch()
    refuse_used(Path(out))  # before a model is loaded
    config = resolved(config, base_dir or Path.cwd())
    watch.phase("loading model and data")
    setup = replace(set_up(config, base_dir, cache), planning=planning)
    report = setup.data.corpus.report
    if report.cut_responses:
        watch.phase(report.cut(config.data.max_tokens))
    return write(setup, Path(out), watch)


def resume(
    path: str | Path,
    *,
    cache: Path | None = None,
    watch: Watch | None = None,
    planning: Planning = by_rule,
) -> Run:
    """Go on with a run that was stopped, killed or failed, to the bits an undisturbed run reaches.

    Raises:
        ConfigError: if there is no run at ``path``, or it needs another machine or version, or it
            pre-trains and does not say on which texts.
        CorruptError: if its records were changed, or no checkpoint is whole.
        LockedError: if another process is writing it.
        StoppedError: if it was told to stop, and did.
    """
    watch = watch or Watch()
    run = Run.open(path)
    if (recipe := recipe_of(run)) is not None:
        return pretrain(recipe, texts_of(run), run.path, watch)
    config = Config.from_table(run.config, f"{path}/config.json")
    watch.phase("loading model and data")
    setup = replace(set_up(config, None, cache), planning=planning)
    return write_on(setup, Path(path), watch)


def write(setup: Setup, path: Path, watch: Watch) -> Run:
    """Run what is set up into a new run directory."""
    with RunWriter.create(path, setup.config.model_dump_json(indent=2)) as writer:
        setup = keyed(setup, writer)
        finish(setup, begin(setup, writer, watch))
    return Run.open(path)


def write_on(setup: Setup, path: Path, watch: Watch) -> Run:
    """Go on with a run directory."""
    with RunWriter.reopen(path) as writer:
        setup = keyed(setup, writer)
        finish(setup, begin(setup, writer, watch))
    return Run.open(path)


def keyed(setup: Setup, writer: RunWriter) -> Setup:
    """Give the privacy noise its secret: drawn once, kept in the run, readable by its owner alone.

    It must not follow from the run's seed, which anybody may know; and a resumed run needs the very
    same one again.

    Raises:
        CorruptError: if the key of a run that began is gone or damaged.
    """
    if setup.config.upload.noise is None:
        return setup
    file = writer.path / NOISE_KEY
    if not file.exists() and writer.history.start is None:
        draw_key(file)
    key = read_key(file)
    algorithm = build_algorithm(setup.config, key)
    return replace(setup, task=replace(setup.task, algorithm=algorithm), key=key)


def begin(setup: Setup, writer: RunWriter, watch: Watch) -> Session:
    """Open a session on a new or reopened run directory."""
    writer.keep_updates = setup.config.engine.keep_updates
    down = setup.algorithm.sent(setup.algorithm.init(setup.params))
    up = rehearsed(setup.algorithm, setup.params, setup.config.work)
    session = Session(
        algorithm=setup.algorithm,
        writer=writer,
        engine=LocalEngine(setup.task, setup.data.train_rows, writer.memory, done=watch.trained),
        planner=setup.planning(setup, writer.history, nbytes(down) + nbytes(up)),
        state=begun(setup.algorithm, writer) or setup.algorithm.init(setup.params),
        rounds=setup.config.rounds,
        judge=judge(setup, writer),
        watch=watch,
        rebuilt=setup.rebuilt,
        # Under noise nothing is told of single reports: no account would have it.
        first=None if setup.config.upload.noise is not None else setup.params,
    )
    data, facts = setup.data.corpus.digest, beginnings(setup)
    if writer.history.start is None:
        if setup.config.engine.chunk == "auto":
            watch.phase("measuring how many clients a pass are fastest")
        chunk = chosen_chunk(setup, session.engine, session.planner)
        seed = setup.config.seed
        first = start_record(writer, setup.base, seed=seed, chunk=chunk, data=data, facts=facts)
        session.append(first)
        for text in left_out(setup.data.judged) if setup.judges_base else ():
            session.append(WarningRecord(about="client", text=text))
    session.go_on(setup.base, data, facts)
    if setup.judges_base and not writer.history.rounds:
        watch.phase("evaluating the base model")
        append_new(session, assess(setup, None, writer.memory, None))
    return session


def begun(algorithm: Algorithm, writer: RunWriter) -> Tree | None:
    """Load the state to go on from; what the algorithm of a fork alone has begins afresh."""
    state, history = writer.load(), writer.history
    if state is None or history.fork is None or history.fork.round != history.last_round:
        return state
    return {group: state.get(group, x) for group, x in algorithm.init(state["params"]).items()}


def judge(setup: Setup, writer: RunWriter) -> Judge:
    """Return who evaluates a run: every so many rounds, and after the last."""
    every, configured = setup.config.evaluation.every, setup.config.rounds

    def evaluations(state: Tree, round: int) -> Iterable[EvaluationRecord]:
        rounds = configured + writer.history.extra_rounds
        last = round + 1 == rounds or writer.history.decisions[round].last
        due = (round + 1) % every == 0 or last
        return assess(setup, state, writer.memory, round) if due else ()

    return evaluations


def append_new(session: Session, records: Iterable[EvaluationRecord]) -> None:
    """Append evaluations of no round, except those that an interrupted start already made."""
    made = {(x.subject, x.split) for x in session.writer.history.evaluations if x.round is None}
    for record in records:
        if (record.subject, record.split) not in made:
            session.append(record)


def chosen_chunk(setup: Setup, engine: LocalEngine, planner: Planner) -> int:
    """Return the configured number of clients a pass, or measure the fastest."""
    spec = setup.config.engine
    limit = setup.task.trainable.rows_per_pass
    if spec.chunk != "auto":
        return min(spec.chunk, limit or spec.chunk)
    plan = planner.typical()
    if not plan.clients or not plan.work.steps:
        return 1
    return measure_chunk(engine, setup.params, plan, spec.token_budget)


def finish(setup: Setup, session: Session) -> None:
    """Play what is left, run the baselines, export the adapter, and say how it ended."""
    if session.writer.history.ended and session.writer.history.ended.status == "finished":
        return
    with ending(session):
        session.play_all()
        # A run that was extended, or ended early, has baselines of as many rounds.
        config = setup.config.model_copy(update={"rounds": session.writer.next_round})
        setup = replace(setup, config=config)
        export(setup, session.state, session.writer.path)
        for name in setup.config.evaluation.baselines:
            session.watch.phase(f"baseline: {name}")
            add_baseline(setup, session, name)


def export(setup: Setup, state: Tree, run: Path) -> None:
    """Write the global adapter of a run as PEFT has it; other models have none."""
    if setup.algorithm.is_personal:
        return
    trainable = setup.task.trainable
    if isinstance(trainable, LoRA):
        save_adapter(run / ADAPTER, state["params"], trainable, setup.config.model.base)


def add_baseline(setup: Setup, session: Session, name: str) -> None:
    """Run or resume a baseline inside the run directory and copy its figures into the journal."""
    path = session.writer.path / BASELINES / name
    baseline = as_baseline(setup, name, session.engine.chunk)
    watch = replace(session.watch, record=and_steered(session))
    if not (path / "config.json").exists():
        run = write(baseline, path, watch)
    elif (run := Run.open(path)).status != "finished":
        run = write_on(baseline, path, watch)
    last = setup.config.rounds - 1
    figures = (x for x in run.evaluations if x.subject == name and x.round == last)
    append_new(session, (x.model_copy(update={"round": None}) for x in figures))


def and_steered(session: Session) -> Callable[[Record], None]:
    """Let commands to a run be followed between the rounds of its baselines too."""

    def told(record: Record) -> None:
        session.watch.record(record)
        if isinstance(record, RoundRecord):
            session.steering.look()

    return told
