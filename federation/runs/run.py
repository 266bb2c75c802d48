"""A run directory as its readers see it: what happened, what it came to, whether it still runs.

    config.json                       resolved configuration, written once
    journal.jsonl                     what happened, the truth about everything below
    state/round-0012.safetensors      server state after a round, its hash in the journal
    state/updates-0012.safetensors    what its clients reported, where that is kept
    clients/                          what clients keep (memory.py), hashes in the journal
    inbox/                            commands that were not followed yet (inbox.py)
    lock                              held by the writer (writer.py)

Reading takes no lock and needs no torch, until a checkpoint is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from federation.errors import ConfigError, CorruptError
from federation.runs import journal, storage, tree_files
from federation.runs.folder import (
    ADAPTER,
    BASELINES,
    CLIENTS,
    JOURNAL,
    STATE,
    as_asked,
    check_config,
    check_end,
    checkpoints_in,
    damage,
    is_run,
    read_config,
)
from federation.runs.history import History, history_of
from federation.runs.journal import Cursor, Entry
from federation.runs.keys import NOISE_KEY
from federation.runs.records import (
    AskedRecord,
    DecisionRecord,
    EvaluationRecord,
    RoundRecord,
)
from federation.training.memory import DiskMemory

if TYPE_CHECKING:
    from federation.tree import Tree

Status = Literal["running", "finished", "stopped", "failed", "interrupted"]
Figures = dict[str, dict[str, float]]
"""Subject (federated, base, local, ...) -> metric -> value."""


@dataclass(frozen=True)
class RunRound:
    """One round of a run: its record with the decision before it and the evaluations after it."""

    record: RoundRecord
    decision: DecisionRecord | None
    evaluations: tuple[EvaluationRecord, ...]

    @property
    def round(self) -> int:
        """Number of the round, from 0."""
        return self.record.round

    @property
    def evaluation(self) -> Figures:
        """Figures on the global test set after this round."""
        return self.figures("test")

    def figures(self, split: str) -> Figures:
        """Figures on a split after this round; empty if it was not evaluated then."""
        return _figures(self.evaluations, split)


def _figures(evaluations: Iterable[EvaluationRecord], split: str) -> Figures:
    """Take the latest figures of every subject on a split."""
    return {x.subject: dict(x.metrics) for x in evaluations if x.split == split}


@dataclass(frozen=True, eq=False)
class Run:
    """A run as it stood when it was opened: one like no other, so that it may be a key.

    Attributes:
        path: the run directory.
        config: the resolved configuration.
        entries: the journal, line by line.
        history: what these lines mean together.
    """

    path: Path
    config: dict[str, JsonValue]
    entries: tuple[Entry, ...]
    history: History
    _cursor: Cursor

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run, whether or not somebody is writing it.

        Raises:
            ConfigError: if there is no run at ``path``.
            CorruptError: if its journal or configuration was changed.
            StorageError: if it cannot be read.
        """
        path = Path(path)
        config = read_config(path)
        run = cls(path, config, (), History(), Cursor()).refresh()
        check_config(path, run.history.config_sha256)
        return run

    @classmethod
    def readable(cls, path: str | Path) -> tuple["Run", str]:
        """Read of a run what can be read: the records before the first one that was changed.

        Returns:
            The run, to be looked at and not to be gone on with, and what is wrong with it in a
            line; empty if nothing is.

        Raises:
            ConfigError: if there is no run at ``path``.
            StorageError: if it cannot be read.
        """
        path = Path(path)
        try:
            return cls.open(path), ""
        except CorruptError as error:
            why = str(error)
        try:
            config = read_config(path)
        except CorruptError:
            config = {}
        there = (path / JOURNAL).exists()
        entries = tuple(journal.salvage(path / JOURNAL)) if there else ()
        return cls(path, config, entries, history_of(entries), Cursor()), why

    def refresh(self) -> "Run":
        """Return the run as it stands now, reading only what was appended since.

        Raises:
            CorruptError: if the journal was changed.
            StorageError: if it cannot be read.
        """
        if not (self.path / JOURNAL).exists():
            return self
        new, cursor = journal.tail(self.path / JOURNAL, self._cursor)
        if not new:
            return self
        entries = (*self.entries, *new)
        return Run(self.path, self.config, entries, self.history.after(new), cursor)

    @property
    def status(self) -> Status:
        """Whether somebody is writing it at this moment, or else how it ended."""
        if storage.is_locked(self.path):
            return "running"
        return self.history.ended.status if self.history.ended else "interrupted"

    @property
    def paused(self) -> bool:
        """Whether it is being written and waits for somebody to let it go on."""
        return self.history.paused and self.status == "running"

    @property
    def asking(self) -> AskedRecord | None:
        """What a person is to answer before it goes on; also of a run that was stopped asking."""
        return self.history.asking

    @property
    def asked(self) -> dict[str, JsonValue]:
        """The configuration without what was made up for the run, for others like it."""
        return as_asked(self.config, self.path)

    @property
    def rounds_planned(self) -> int:
        """How many rounds there are to be: those configured, and those that were asked for."""
        return int(str(self.config.get("rounds", 0))) + self.history.extra_rounds

    @property
    def rounds(self) -> list[RunRound]:
        """Committed rounds in order."""
        after: dict[int | None, list[EvaluationRecord]] = {}
        for evaluation in self.history.evaluations:
            after.setdefault(evaluation.round, []).append(evaluation)
        return [
            RunRound(record, self.history.decisions.get(n), tuple(after.get(n, ())))
            for n, record in self.history.rounds.items()
        ]

    @property
    def evaluations(self) -> list[EvaluationRecord]:
        """Evaluations of committed rounds and of no round, in the order in which they were made."""
        return self.history.evaluations

    @property
    def evaluation(self) -> Figures:
        """The latest figures of every subject on the global test set."""
        return self.figures("test")

    def figures(self, split: str) -> Figures:
        """Return the latest figures of every subject on a split."""
        return _figures(self.history.evaluations, split)

    @property
    def bytes_up(self) -> int:
        """Bytes that clients sent in committed rounds."""
        return sum(record.bytes_up for record in self.history.rounds.values())

    @property
    def bytes_down(self) -> int:
        """Bytes that clients were sent in committed rounds."""
        return sum(record.bytes_down for record in self.history.rounds.values())

    @property
    def seconds(self) -> float:
        """Seconds spent in committed rounds."""
        return sum(record.seconds for record in self.history.rounds.values())

    def state(self, round: int | None = None) -> "Tree":
        """Load the server state after a round; after the newest that has a checkpoint, if not told.

        Raises:
            ConfigError: if there is no checkpoint of that round.
            CorruptError: if it is damaged.
            StorageError: if it cannot be read.
        """
        if round is None:
            round = max(checkpoint_files(self.path, self.history), default=-1)
        file = self.checkpoint(round)
        return tree_files.load_tree(file, self.history.rounds[round].checkpoint_sha256)

    def checkpoint(self, round: int) -> Path:
        """Name the file of the server state after a round, counted from 0; -1: after any.

        Raises:
            ConfigError: if there is none, naming the rounds that have one, counted from 1.
        """
        files = checkpoint_files(self.path, self.history)
        there = [n for n, file in files.items() if file.exists()]
        if round not in there:
            which = "any round" if round < 0 else f"round {round + 1}"
            those = ", ".join(str(n + 1) for n in there) or "none"
            raise ConfigError(
                f"{self.path} has no checkpoint of {which}; rounds that have one: {those}"
            )
        return files[round]

    @property
    def made(self) -> dict[Path, str | None]:
        """Files that a finished run made for others, and the sha256 of each."""
        files = self.history.ended.files if self.history.ended else {}
        return {self.path / name: sha256 for name, sha256 in files.items()}

    def export(self, path: str | Path) -> Path:
        """Copy the final global adapter to a new folder, as PEFT loads it.

        Args:
            path: a folder that does not exist; its parents are made.

        Returns:
            The folder.

        Raises:
            ConfigError: if ``path`` exists, or the run has no adapter.
            CorruptError: if the adapter is not as it was written.
            StorageError: if it cannot be written; no half of an adapter is left behind.
        """
        path, adapter = Path(path), self.path / ADAPTER
        if path.exists():
            raise ConfigError(f"{path} exists; name a folder that does not")
        if not adapter.is_dir():
            raise ConfigError(f"{self.path} has no adapter: {self._why_no_adapter}")
        for file, sha256 in self.made.items():
            if problem := damage(file, sha256):
                raise CorruptError(f"{problem}; restore it from a copy")
        with storage.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
                made = Path(folder) / path.name
                made.mkdir()
                for file in adapter.iterdir():
                    copyfile(file, made / file.name)
                made.rename(path)
        storage.sync_directory(path.parent)
        return path

    @property
    def _why_no_adapter(self) -> str:
        if self.history.ended is None or self.history.ended.status != "finished":
            return f"it is not finished; go on with: fedpilot resume {self.path}"
        return "what it trained is no global LoRA adapter"


def problems(path: str | Path) -> list[str]:
    """Check everything of a run whose hash was recorded; say what is not as it was written.

    Returns:
        One line for each problem; empty if the run is whole.  A torn last line is none: it never
        counted.

    Raises:
        ConfigError: if there is no run at ``path``.
        StorageError: if it cannot be read.
    """
    path = Path(path)
    try:
        made = checkpoints_in(path / STATE)  # before the journal, which a running writer outruns
        run = Run.open(path)
        check_end(path, run.history.highest, made)
    except CorruptError as error:
        return [str(error)]
    rounds = run.history.rounds
    files = checkpoint_files(path, run.history)
    # Older checkpoints are deleted as the run goes on; the newest must be there.
    must = {n: file for n, file in files.items() if n == max(files) or file.exists()}
    hashes = {file: rounds[n].checkpoint_sha256 for n, file in must.items()}
    memory = memory_after(path, run.history, run.history.last_round)
    hashes |= memory.files() | memory.superseded()
    hashes |= {
        file: rounds[n].updates_sha256
        for n, file in updates_files(path, run.history).items()
        if file.exists()
    }
    hashes |= run.made
    given = {path / name: sha256 for name, sha256 in run.history.given.items()}
    # Whoever was given a copy of a run was not given the secret of its noise.
    hashes |= {file: x for file, x in given.items() if file.name != NOISE_KEY or file.exists()}
    found = [what for file, sha256 in hashes.items() if (what := damage(file, sha256))]
    return found + [what for inner in _baselines(path) for what in problems(inner)]


def _baselines(path: Path) -> list[Path]:
    """List the runs that a run holds."""
    return sorted(inner for inner in (path / BASELINES).glob("*") if is_run(inner))


def checkpoint_files(path: Path, history: History) -> dict[int, Path]:
    """Map every committed round that made a checkpoint to its file, which may be deleted by now."""
    made = ((n, record.checkpoint) for n, record in history.rounds.items())
    return {n: path / STATE / name for n, name in made if name}


def updates_files(path: Path, history: History) -> dict[int, Path]:
    """Map every committed round whose updates were kept to their file, which may be deleted now."""
    kept = ((n, record.updates) for n, record in history.rounds.items())
    return {n: path / STATE / name for n, name in kept if name}


def memory_after(path: Path, history: History, last: int) -> DiskMemory:
    """Rebuild what clients kept after round ``last``; -1 means before round 0."""
    kept = {n: record.kept if n > history.forgotten else {} for n, record in history.rounds.items()}
    rounds = ((n, kept) for n, kept in kept.items() if n <= last)
    return DiskMemory.restored(path / CLIENTS, rounds)
