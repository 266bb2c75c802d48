"""A run from beginning to end: set up, rounds, evaluations, baselines, export; and its resumption.

Knows how the parts work together.  Decisions come from a planner (a rule here; a pilot
elsewhere), facts go to the run directory, and nothing else is remembered: a run can be killed at
any instant and resumed.
"""

import platform
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from federation.algorithms.algorithm import Algorithm, run_round
from federation.cohort.devices import DevicesSpec
from federation.cohort.planner import Planner, RulePlanner
from federation.cohort.selection import CohortSpec, check_population
from federation.config import AlgorithmSpec, Config
from federation.data.dataset import FederatedData, centralise, load_data, resolved
from federation.errors import ConfigError, FedpilotError
from federation.evaluation.assess import assess
from federation.plan import Reports, RoundPlan
from federation.runs import storage
from federation.runs.interrupts import uninterrupted
from federation.runs.peft_files import save_adapter
from federation.runs.records import EndRecord, EvaluationRecord, Record, RoundRecord, StartRecord
from federation.runs.run import ADAPTER, Run
from federation.runs.writer import RunWriter
from federation.training.base import Base, load_base
from federation.training.build import CENTRALISED, build_algorithm, build_trainable
from federation.training.engine import LocalEngine, measure_chunk
from federation.training.local import Task
from federation.training.lora import LoRA
from federation.tree import Tree, nbytes

NOISE_KEY = "noise.key"
BASELINES = "baselines"  # folder of a run that holds the runs of its baselines


@dataclass(frozen=True)
class Watch:
    """What is told of a run while it goes on.

    Attributes:
        record: called with every record that was appended to the journal.
        trained: called after every pass with how many clients it held.
        phase: called with a few words when something begins that takes a while.
    """

    record: Callable[[Record], None] = lambda record: None
    trained: Callable[[int], None] = lambda clients: None
    phase: Callable[[str], None] = lambda words: None


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
    """

    config: Config
    base: Base
    data: FederatedData
    task: Task
    params: Tensor
    judges_base: bool = True

    @property
    def algorithm(self) -> Algorithm:
        """The federated algorithm."""
        return self.task.algorithm

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids of the registered clients, in registry order."""
        return self.data.splits.names


def default_cache() -> Path:
    """Return the folder for tokenised data: the user's cache folder."""
    return Path.home() / ".cache" / "fedpilot"


def set_up(config: Config, base_dir: Path | None = None, cache: Path | None = None) -> Setup:
    """Load model and data and build what the configuration names.

    Raises:
        ConfigError: if something in it cannot be used.
        DataError: if the data cannot be read or does not suffice.
    """
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    algorithm = build_algorithm(config)
    base = load_base(config.model.base, config.model.dtype)
    data = load_data(config, base.tokenizer, base_dir or Path.cwd(), cache or default_cache())
    if config.algorithm.name == CENTRALISED:
        data = centralise(data)
    check_population(config.cohort, len(data.splits.names))
    trainable = build_trainable(config, base)
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    task = Task(base, trainable, algorithm, data.corpus.tokens)
    return Setup(config, base, data, task, trainable.initial(config.seed).to(wide))


@dataclass
class Session:
    """A run being written.

    Attributes:
        setup: what is run.
        writer: the run directory.
        engine: where clients train.
        planner: who decides.
        state: server state after the last committed round.
        watch: who is told.
    """

    setup: Setup
    writer: RunWriter
    engine: LocalEngine
    planner: Planner
    state: Tree
    watch: Watch = field(default_factory=Watch)

    def append(self, record: Record) -> None:
        """Append a record and tell whoever watches."""
        with uninterrupted():
            self.writer.append(record)
        self.watch.record(record)

    def play(self) -> None:
        """Play the next round: decide, train, combine, step, commit; evaluate if it is due."""
        began = time.perf_counter()
        round = self.writer.next_round
        decision = self.writer.decided
        if decision is None:
            decision = self.planner.decide(round)
            self.append(decision)
        plan, missing = self.planner.plan(decision)
        sent, reports = self.setup.algorithm.sent(self.state), None
        if plan.clients:
            self.state, reports = run_round(self.setup.algorithm, self.engine, self.state, plan)
            missing |= reports.rejected
        saved = self.writer.checkpoint(round, self.state)
        seconds = time.perf_counter() - began
        # Evaluations come before the round's record: it is the point at which all of them count.
        if self.is_due(round):
            for evaluation in assess(self.setup, self.state, self.writer.memory, round):
                self.append(evaluation)
        record = RoundRecord(
            round=round,
            missing=missing,
            bytes_down=nbytes(sent) * len(decision.clients),
            seconds=seconds,
            **(figures(reports, plan) if reports else {"clients": ()}),
            **saved._asdict(),
        )
        self.append(record)
        self.planner.learn(record, decision)

    def is_due(self, round: int) -> bool:
        """Tell whether a round ends with an evaluation."""
        config = self.setup.config
        return (round + 1) % config.evaluation.every == 0 or round + 1 == config.rounds


def figures(reports: Reports, plan: RoundPlan) -> dict[str, Any]:
    """Say what a journal keeps of the reports of a round."""
    clients = reports.clients
    return {
        "clients": clients,
        "loss": dict(zip(clients, reports.loss_C.tolist(), strict=True)),
        "update_norms": dict(zip(clients, reports.norm_C.tolist(), strict=True)),
        "bytes_up": nbytes(reports.tree_C),
        "tokens": int(reports.tokens_C.sum()),
        "client_steps": sum(plan.only(clients).steps_C),
    }


def run_experiment(
    config: Config,
    out: str | Path,
    *,
    base_dir: Path | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> Run:
    """Run a federated experiment into a new run directory.

    Args:
        config: what to run.
        out: a directory that does not exist or is empty.
        base_dir: where relative paths of the data start; the current folder if omitted.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.

    Returns:
        The finished run, opened for reading.

    Raises:
        ConfigError: if the configuration cannot be used, or ``out`` is in use.
        DataError: if the data cannot be used.
        StorageError: if the disk is full; what was committed stays and can be resumed.
    """
    watch = watch or Watch()
    config = resolved(config, base_dir or Path.cwd())
    watch.phase("loading model and data")
    return write(set_up(config, base_dir, cache), Path(out), watch)


def resume(path: str | Path, *, cache: Path | None = None, watch: Watch | None = None) -> Run:
    """Go on with a run that was stopped, killed or failed, to the bits an undisturbed run reaches.

    Raises:
        ConfigError: if there is no run at ``path``, or it needs another machine or version.
        CorruptError: if its records were changed, or no checkpoint is whole.
        LockedError: if another process is writing it.
    """
    watch = watch or Watch()
    config = Config.from_table(Run.open(path).config, f"{path}/config.json")
    watch.phase("loading model and data")
    return write_on(set_up(config, None, cache), Path(path), watch)


def write(setup: Setup, path: Path, watch: Watch) -> Run:
    """Run what is set up into a new run directory."""
    with RunWriter.create(path, setup.config.model_dump_json(indent=2)) as writer:
        finish(begin(keyed(setup, path), writer, watch))
    return Run.open(path)


def write_on(setup: Setup, path: Path, watch: Watch) -> Run:
    """Go on with a run directory."""
    with RunWriter.reopen(path) as writer:
        finish(begin(keyed(setup, path), writer, watch))
    return Run.open(path)


def keyed(setup: Setup, path: Path) -> Setup:
    """Give the privacy noise its secret: drawn once, kept in the run, readable by its owner alone.

    It must not follow from the run's seed, which anybody may know; and a resumed run needs it
    again.
    """
    if setup.config.upload.noise is None:
        return setup
    file = path / NOISE_KEY
    if not file.exists():
        with storage.explained(file):
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16), encoding="ascii")
    algorithm = build_algorithm(setup.config, file.read_text(encoding="ascii"))
    return replace(setup, task=replace(setup.task, algorithm=algorithm))


def begin(setup: Setup, writer: RunWriter, watch: Watch) -> Session:
    """Open a session on a new or reopened run directory."""
    traffic = 2 * nbytes(setup.algorithm.sent(setup.algorithm.init(setup.params)))
    planner = RulePlanner(setup.config, setup.clients, setup.data.splits.train.sizes, traffic)
    engine = LocalEngine(setup.task, setup.data.train_rows, writer.memory, done=watch.trained)
    state = writer.load() or setup.algorithm.init(setup.params)
    session = Session(setup, writer, engine, planner, state, watch)
    if writer.history.start is None:
        watch.phase("measuring how many clients a pass are fastest")
        session.append(start_record(setup, writer, chosen_chunk(setup, engine, planner)))
    if setup.judges_base and not writer.history.rounds:
        watch.phase("evaluating the base model")
        append_new(session, assess(setup, None, writer.memory, None))
    start = writer.history.start
    if start is None:
        raise AssertionError("a run begins with a start record")
    same_arithmetic(start, setup)
    engine.chunk = start.chunk_size
    for round, record in writer.history.rounds.items():
        planner.learn(record, writer.history.decisions[round])
    return session


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
    plan, _ = planner.plan(planner.decide(0))
    if not plan.clients or not plan.work.steps:
        return 1
    return measure_chunk(engine, setup.params, plan, spec.token_budget)


def start_record(setup: Setup, writer: RunWriter, chunk: int) -> StartRecord:
    """Say what decides the bits of this run."""
    names = ("torch", "transformers", "numpy", "tokenizers")
    return StartRecord(
        seed=setup.config.seed,
        chunk_size=chunk,
        threads=torch.get_num_threads(),
        dtype=str(setup.base.dtype).removeprefix("torch."),
        versions={name: version(name) for name in names} | {"python": platform.python_version()},
        config_sha256=writer.config_sha256,
        machine={
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "grafts": ",".join(setup.base.grafts),
            "data": setup.data.corpus.digest,
        },
    )


def same_arithmetic(start: StartRecord, setup: Setup) -> None:
    """Take over the recorded number of threads; refuse data or dtype that would change the bits."""
    torch.set_num_threads(start.threads)
    if start.machine.get("data") != setup.data.corpus.digest:
        raise ConfigError("the data changed since this run began; restore it, or start a new run")
    dtype = str(setup.base.dtype).removeprefix("torch.")
    if start.dtype != dtype:
        raise ConfigError(
            f"this run began in {start.dtype} and this machine would go on in {dtype}; "
            f'set model.dtype = "{start.dtype}" in its config.json or resume it where it began'
        )


def finish(session: Session) -> None:
    """Play what is left, run the baselines, export the adapter, and say how it ended."""
    if session.writer.history.ended and session.writer.history.ended.status == "finished":
        return
    try:
        while session.writer.next_round < session.setup.config.rounds:
            session.play()
        export(session.setup, session.state, session.writer.path)
        for name in session.setup.config.evaluation.baselines:
            session.watch.phase(f"baseline: {name}")
            add_baseline(session, name)
    except KeyboardInterrupt:
        session.append(EndRecord(status="stopped", reason="interrupted"))
        raise
    except FedpilotError as error:
        session.append(EndRecord(status="failed", reason=str(error)))
        raise
    session.append(EndRecord(status="finished"))


def export(setup: Setup, state: Tree, run: Path) -> None:
    """Write the global model of a run: a PEFT adapter, or a folder of all weights."""
    if setup.algorithm.is_personal:
        return
    trainable = setup.task.trainable
    if isinstance(trainable, LoRA):
        save_adapter(run / ADAPTER, state["params"], trainable, setup.config.model.base)


def baseline_config(config: Config, name: str) -> Config:
    """Return the configuration of a baseline with the same client-steps as ``config``.

    ``local``: the same cohorts, batches and work, but nothing is shared.  ``centralised``: one
    model on the rows of all clients, as many steps a round as the cohort makes together, moments
    never reset.
    """
    evaluation = config.evaluation.model_copy(update={"baselines": (), "every": config.rounds})
    plain = {"evaluation": evaluation, "upload": type(config.upload)()}
    if name == "local":
        return config.model_copy(update=plain | {"algorithm": AlgorithmSpec(name="local")})
    steps = config.work.steps * config.cohort.size
    return config.model_copy(
        update=plain
        | {
            "algorithm": AlgorithmSpec(name="centralised"),
            "work": config.work.model_copy(update={"steps": steps, "keep_optimizer": True}),
            "cohort": CohortSpec(size=1),
            "devices": DevicesSpec(),
        }
    )


def as_baseline(setup: Setup, name: str, chunk: int) -> Setup:
    """Return the setup of a baseline on the same model and data, with the same clients a pass."""
    config = baseline_config(setup.config, name)
    engine = config.engine.model_copy(update={"chunk": chunk})
    config = config.model_copy(update={"engine": engine})
    return replace(
        setup,
        config=config,
        data=centralise(setup.data) if name == CENTRALISED else setup.data,
        task=replace(setup.task, algorithm=build_algorithm(config)),
        judges_base=False,
    )


def add_baseline(session: Session, name: str) -> None:
    """Run or resume a baseline inside the run directory and copy its figures into the journal."""
    path = session.writer.path / BASELINES / name
    setup = as_baseline(session.setup, name, session.engine.chunk)
    if not (path / "config.json").exists():
        run = write(setup, path, session.watch)
    elif (run := Run.open(path)).status != "finished":
        run = write_on(setup, path, session.watch)
    last = session.setup.config.rounds - 1
    figures = (x for x in run.evaluations if x.subject == name and x.round == last)
    append_new(session, (x.model_copy(update={"round": None}) for x in figures))
