"""The directory of a study, its one writer, and what its records mean together.

study.json        the question and everything registered, written once, its hash in the journal
journal.jsonl     what happened, chained by hashes
runs/             a run directory for every arm and seed
search.db         trials of the search, as Optuna keeps them; made again from the journal
report.md         made again from all of it, with its pictures
inbox/            the command to stop, until it is followed (stopping.py)
lock              held by the writer
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from agents.study import records
from agents.study.records import (
    Advice,
    Arm,
    Floor,
    Look,
    Measured,
    Proposed,
    Registered,
    SearchEnded,
    Stopped,
    StudyRecord,
    Tried,
    Unsealed,
    Verdict,
)
from agents.study.spec import StudySpec, from_table
from federation.errors import ConfigError, CorruptError
from federation.runs import journal, storage
from federation.runs.folder import is_run
from federation.runs.interrupts import uninterrupted
from federation.runs.journal import Journal
from federation.runs.run import problems as run_problems

SPEC, JOURNAL, RUNS = "study.json", "journal.jsonl", "runs"


@dataclass
class Told:
    """What the records of a study mean together.

    Attributes:
        measured: folder of a run -> its record, in order.
        arms: name -> its record, in order; the control is the first.
    """

    registered: Registered | None = None
    measured: dict[str, Measured] = field(default_factory=dict)
    floor: Floor | None = None
    proposed: list[Proposed] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    search_ended: SearchEnded | None = None
    arms: dict[str, Arm] = field(default_factory=dict)
    advice: Advice | None = None
    looks: list[Look] = field(default_factory=list)
    stopped: Stopped | None = None
    unsealed: Unsealed | None = None
    verdict: Verdict | None = None

    def add(self, record: StudyRecord) -> None:
        """Take the next record into account."""
        match record:
            case Measured():
                self.measured[record.run] = record
            case Arm():
                self.arms[record.name] = record
            case Proposed():
                self.proposed.append(record)
            case Tried():
                self.tried.append(record)
            case Look():
                self.looks.append(record)
            case _:
                setattr(self, records.NAMES[type(record)], record)

    @property
    def client_steps(self) -> int:
        """What the finished runs have cost."""
        return sum(record.client_steps for record in self.measured.values())

    def figures(self, arm: str) -> dict[int, float]:
        """Return the validation figures of an arm by seed."""
        return {x.seed: x.validation for x in self.measured.values() if x.arm == arm}


@dataclass(frozen=True)
class Study:
    """A study as its readers see it.

    Attributes:
        path: its directory.
        spec: what was registered.
        told: what happened.
    """

    path: Path
    spec: StudySpec
    told: Told

    @classmethod
    def open(cls, path: Path) -> "Study":
        """Read a study, whether or not somebody is writing it.

        Raises:
            ConfigError: if there is none at ``path``.
            CorruptError: if its journal or what was registered was changed.
        """
        spec = read_spec(path)
        entries = journal.read(path / JOURNAL) if (path / JOURNAL).exists() else []
        return cls(path, spec, told_by(path, entries))


def problems(path: Path) -> list[str]:
    """Check the journal of a study, what it registered, and every run that it measured.

    Returns:
        One line for each problem; empty if the study is as it was written.

    Raises:
        ConfigError: if there is no study at ``path``.
    """
    try:
        study = Study.open(path)
    except CorruptError as error:
        return [str(error)]
    found: list[str] = []
    for name in study.told.measured:
        run = path / RUNS / name
        found += run_problems(run) if is_run(run) else [f"{run} is missing"]
    return found


def is_study(path: Path) -> bool:
    """Tell whether a folder holds a study."""
    return (path / SPEC).is_file()


def read_spec(path: Path) -> StudySpec:
    """Read what was registered.

    Raises:
        ConfigError: if there is no study at ``path``.
        CorruptError: if it is no JSON.
    """
    if not is_study(path):
        raise ConfigError(f"{path} is not a study: it has no {SPEC}; check the path")
    with storage.explained(path / SPEC):
        text = (path / SPEC).read_bytes()
    try:
        table = json.loads(text)
    except ValueError as error:
        raise CorruptError(f"{path / SPEC} is damaged: {error}; restore it from a copy") from None
    return from_table(table, str(path / SPEC))


def told_by(path: Path, entries: list[journal.Entry]) -> Told:
    """Take all lines of a journal into account.

    Raises:
        CorruptError: if a record is not of its kind, or what was registered was changed.
    """
    told = Told()
    for entry in entries:
        try:
            record = records.opened(entry.record)
        except ValidationError:
            raise CorruptError(
                f"{path / JOURNAL} record {entry.seq} is not a record of its kind: it was written"
                " by another version; go on with that one"
            ) from None
        if record is not None:
            told.add(record)
    registered = told.registered
    if registered and registered.spec_sha256 != storage.sha256_file(path / SPEC):
        raise CorruptError(
            f"{path / SPEC} was changed since the study began; restore it from a copy, or start a"
            " new study"
        )
    return told


@dataclass(frozen=True)
class Ledger:
    """The writing end of a study; whoever holds it holds the lock."""

    study: Study
    journal: Journal

    @property
    def path(self) -> Path:
        """The directory of the study."""
        return self.study.path

    @property
    def spec(self) -> StudySpec:
        """What was registered."""
        return self.study.spec

    @property
    def told(self) -> Told:
        """What happened so far."""
        return self.study.told

    def append(self, record: StudyRecord) -> None:
        """Write a record down; it counts from then on."""
        with uninterrupted():
            self.journal.append(records.sealed(record))
            self.told.add(record)


@contextmanager
def writing(path: Path, spec: StudySpec | None = None) -> Iterator[Ledger]:
    """Open a study for writing: a new one with what is registered, or one that is there.

    Raises:
        ConfigError: if there is none, or ``path`` is in use for something else.
        LockedError: if another process writes it.
        CorruptError: if it was changed.
        StorageError: if it cannot be written.
    """
    if spec is not None:
        refuse_used(path)
        with storage.explained(path):
            path.mkdir(parents=True, exist_ok=True)
    elif not is_study(path):
        read_spec(path)
    lock = storage.lock(path)
    try:
        storage.sweep(path)
        if spec is not None:
            refuse_used(path)
            storage.atomic_write(path / SPEC, spec.model_dump_json(indent=2).encode())
        with storage.explained(path):
            (path / RUNS).mkdir(exist_ok=True)
        with Journal(path / JOURNAL) as book:
            study = Study(path, read_spec(path), told_by(path, book.entries))
            ledger = Ledger(study, book)
            if ledger.told.registered is None:
                ledger.append(Registered(spec_sha256=storage.sha256_file(path / SPEC)))
            yield ledger
    finally:
        lock.release()


def refuse_used(path: Path) -> None:
    """Refuse a directory in which anything stands but the traces of a study that never began.

    Raises:
        ConfigError: saying what to do instead.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; choose another --out")
    if is_study(path):
        raise ConfigError(
            f"{path} holds a study; choose another --out, or go on with: fedpilot study {path}"
        )
    with storage.explained(path):
        names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if any(name != storage.LOCK and not storage.is_temporary(name) for name in names):
        raise ConfigError(f"{path} is not empty and holds no study; choose another --out")
