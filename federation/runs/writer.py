"""The one writer of a run directory.

A round is committed in this order: what clients keep, the checkpoint, the updates where they are
kept, the round record.  The
record's line is the commit point: files that no line names do not exist for anybody and are swept
up when the writer comes back.  So a kill at any instant loses at most the round in flight, and
what is run again starts from the same bits.  Whatever else belongs to a round (its decision, its
evaluations, its explanation) is appended before the round record: after it, a kill could lose it.

Knows nothing of training: it is told the state and the records.
"""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from federation.errors import ConfigError, CorruptError
from federation.runs import storage, tree_files
from federation.runs.folder import (
    CLIENTS,
    CONFIG,
    JOURNAL,
    MADE_UP,
    STATE,
    check_config,
    check_end,
    check_given,
    checkpoints_in,
    given,
    made,
    read_config,
    updates_in,
)
from federation.runs.history import RETAINED, History, history_of
from federation.runs.journal import Entry, Journal
from federation.runs.records import (
    DecisionRecord,
    EndRecord,
    Record,
    ResumeRecord,
    RoundRecord,
    WarningRecord,
)
from federation.runs.run import checkpoint_files, memory_after

if TYPE_CHECKING:
    from torch import Tensor

    from federation.tree import Tree


class Saved(NamedTuple):
    """What was saved, as fields of the round record: ``RoundRecord(..., **saved._asdict())``."""

    checkpoint: str
    checkpoint_sha256: str
    kept: dict[str, str]
    updates: str | None = None
    updates_sha256: str | None = None


class RunWriter:
    """The one writer of a run directory, from ``create`` or ``reopen`` until ``close``.

    Attributes:
        path: the run directory.
        history: what the journal says so far.
        memory: what clients keep; scattered into during a round, committed with its record.
        pinned: rounds whose checkpoints are to stay (the best one, say).  Not remembered across
            ``reopen``: pin again before the next round commits.
        keep_updates: of how many of the newest rounds the clients' updates stay, and the
            checkpoints before them.  Not remembered either.
    """

    def __init__(self, path: Path, lock: storage.Lock, journal: Journal, history: History) -> None:
        """Wrap what ``create`` and ``reopen`` have opened; not for use elsewhere."""
        self.path = path
        self.history = history
        self.pinned: set[int] = set()
        self.keep_updates = 0
        self.memory = memory_after(path, history, history.last_round)
        self._lock = lock
        self._journal = journal

    @classmethod
    def create(cls, path: str | Path, config_json: str) -> "RunWriter":
        """Start a new run directory and take its lock.

        Args:
            path: a directory that does not exist or is empty; parents are made.
            config_json: the resolved configuration, kept as it is.

        Raises:
            ConfigError: if ``path`` is in use.
            LockedError: if another process is starting a run there.
            StorageError: if it cannot be written.
        """
        path = Path(path)
        refuse_used(path)
        with storage.explained(path):
            path.mkdir(parents=True, exist_ok=True)
        storage.sync_directory(path.parent)
        lock = storage.lock(path)
        try:
            refuse_used(path)
            storage.atomic_write(path / CONFIG, config_json.encode())
            return cls._opened(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def reopen(cls, path: str | Path) -> "RunWriter":
        """Take the lock of an existing run and go back to its newest whole checkpoint.

        The journal is checked from its first line; a torn last line is saved aside and dropped.
        Damaged checkpoints are set aside (``.bad-1``) with a warning.  A ``resume`` record says
        from which round the run goes on.

        Raises:
            ConfigError: if there is no run at ``path``.
            LockedError: if another process writes it.
            CorruptError: if the journal or the configuration was changed, or no checkpoint is
                whole.
            StorageError: if it cannot be read or written.
        """
        writer = cls.amend(path)
        try:
            writer._resume()
        except BaseException:
            writer.close()
            raise
        return writer

    @classmethod
    def amend(cls, path: str | Path) -> "RunWriter":
        """Take the lock of an existing run to add what was found out about it; nothing is rewound.

        What its rounds came to, and how it ended, stays as it is.

        Raises:
            ConfigError: if there is no run at ``path``.
            LockedError: if another process writes it.
            CorruptError: if the journal or the configuration was changed.
            StorageError: if it cannot be read or written.
        """
        path = Path(path)
        read_config(path)
        lock = storage.lock(path)
        try:
            writer = cls._opened(path, lock)
        except BaseException:
            lock.release()
            raise
        try:
            writer._check()
        except BaseException:
            writer.close()
            raise
        return writer

    @classmethod
    def _opened(cls, path: Path, lock: storage.Lock) -> "RunWriter":
        """Open the journal, make sure the directories are there, sweep up unfinished files."""
        for directory in (path, path / STATE, path / CLIENTS):
            with storage.explained(directory):
                directory.mkdir(exist_ok=True)
            storage.sweep(directory)
        journal = Journal(path / JOURNAL)
        return cls(path, lock, journal, history_of(journal.entries))

    @property
    def next_round(self) -> int:
        """The round to be run next."""
        return self.history.last_round + 1

    @property
    def decided(self) -> DecisionRecord | None:
        """The decision already taken for ``next_round``, which a resumed run keeps to."""
        return self.history.decisions.get(self.next_round)

    @property
    def config_sha256(self) -> str:
        """Hash of config.json, for the start record."""
        return storage.sha256_file(self.path / CONFIG)

    @property
    def given(self) -> dict[str, str]:
        """Hashes of what stands in the directory and decides the bits, for the start record."""
        return given(self.path)

    def load(self) -> "Tree | None":
        """Load the server state to which ``reopen`` went back; none before round 0.

        Raises:
            CorruptError: if it was damaged since ``reopen``.
            StorageError: if it cannot be read.
        """
        if not self.history.rounds:
            return None
        last = self.history.last_round
        path = checkpoint_files(self.path, self.history)[last]
        return tree_files.load_tree(path, self.history.rounds[last].checkpoint_sha256)

    def before(self, first: "Tensor") -> "Tensor | None":
        """Load the parameters that the newest round began with; none if they are not there, whole.

        Args:
            first: those that round 0 began with.

        Raises:
            StorageError: if they cannot be read.
        """
        if self.history.last_round == 0:
            return first
        round = self.history.last_round - 1
        file = checkpoint_files(self.path, self.history).get(round)
        if file is None or not file.exists():
            return None
        try:
            state = tree_files.load_tree(file, self.history.rounds[round].checkpoint_sha256)
        except CorruptError:  # nothing but who is idle in one round hangs on it
            return None
        return state["params"]

    def checkpoint(self, round: int, state: "Tree", updates: "Tree | None" = None) -> Saved:
        """Save the server state after a round.  It counts once the round's record is appended.

        Args:
            round: the round being run.
            state: the server state after it.
            updates: what its clients reported; kept if updates are.

        Raises:
            ValueError: if ``round`` is not the one being run.
            StorageError: if the disk is full or failing.
        """
        self._expect(round)
        name = f"round-{round:04d}.safetensors"
        sha256 = tree_files.save_tree(self.path / STATE / name, state, {"round": str(round)})
        saved = Saved(name, sha256, dict(self.memory.written))
        if updates is None or not self.keep_updates:
            return saved
        file = f"updates-{round:04d}.safetensors"
        kept = tree_files.save_tree(self.path / STATE / file, updates, {"round": str(round)})
        return saved._replace(updates=file, updates_sha256=kept)

    def append(self, record: Record) -> Entry:
        """Append a record.  A round record commits its round; the end record of a finished run is
        completed by the hashes of what the run made.

        Raises:
            ValueError: if a round record is not of the round being run, or does not name what its
                clients keep.
            StorageError: if the disk is full or failing.
        """
        if isinstance(record, RoundRecord):
            self._expect(record.round)
            if record.kept != self.memory.written:
                raise ValueError(
                    f"round {record.round}: kept is not what the clients' memory wrote"
                )
        if isinstance(record, EndRecord) and record.status == "finished":
            record = record.model_copy(update={"files": made(self.path)})
        entry = self._journal.append(record)
        self.history.add(record)
        if isinstance(record, RoundRecord):
            self.memory.commit()
        if isinstance(record, RoundRecord | EndRecord):
            self._clear_old()
        return entry

    def close(self) -> None:
        """Let go of the run.  Without an ``end`` record it reads as interrupted."""
        self._journal.close()
        self._lock.release()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let go of the run."""
        self.close()

    def _expect(self, round: int) -> None:
        if round != self.next_round:
            raise ValueError(f"round {round} cannot be committed: round {self.next_round} is next")

    def _clear_old(self) -> None:
        """Delete checkpoints, memories and updates that nobody can need any more."""
        # The updates of a round are applied to the state before it.
        most = max(RETAINED, self.keep_updates + 1)
        retained = {record.round for record in self.history.newest_checkpoints(most)}
        # A fork is repeated from where it began.
        first = self.history.fork.round if self.history.fork else -1
        if retained:
            self.memory.forget(min(retained), spared=first)
            there = checkpoints_in(self.path / STATE)
            storage.remove(there[n] for n in there.keys() - retained - self.pinned - {first})
        oldest = self.history.last_round - self.keep_updates
        storage.remove(x for n, x in updates_in(self.path / STATE).items() if n <= oldest)

    def _check(self) -> None:
        """Refuse a directory whose parts are not of one run."""
        check_config(self.path, self.history.config_sha256)
        check_given(self.path, self.history.given)
        check_end(self.path, self.history.highest, checkpoints_in(self.path / STATE))

    def _resume(self) -> None:
        """Go back to the newest whole checkpoint, say so in the journal, sweep up the rest."""
        last = self._newest_whole()
        if self.history.start:
            self.append(ResumeRecord(round=last))
        self.memory = memory_after(self.path, self.history, self.history.last_round)
        self.memory.sweep()
        there = checkpoints_in(self.path / STATE)
        storage.remove(there[n] for n in there.keys() - self.history.rounds.keys())

    def _newest_whole(self) -> int | None:
        """Find the round to go on from; set damaged checkpoints aside and warn of each.

        Returns:
            The round; none if the run made no checkpoint yet and begins anew.

        Raises:
            CorruptError: if no checkpoint is whole.
        """
        candidates = self.history.newest_checkpoints()
        for record in candidates:
            why = self._unusable(record)
            if why is None:
                return record.round
            text = f"{why}; going back to an older round"
            self.append(WarningRecord(round=record.round, about="checkpoint", text=text))
        if candidates:
            rounds = ", ".join(str(record.round) for record in candidates)
            raise CorruptError(
                f"{self.path}: no checkpoint is whole (rounds {rounds}); restore {STATE}/ and "
                f"{CLIENTS}/ from a copy, or start a new run with another --out"
            )
        return None

    def _unusable(self, record: RoundRecord) -> str | None:
        """Say why the run cannot go on from a round, if it cannot."""
        path = checkpoint_files(self.path, self.history)[record.round]
        if not path.exists():
            return f"checkpoint {path.name} is missing"
        if storage.sha256_file(path) != record.checkpoint_sha256:
            return f"checkpoint {path.name} is damaged, kept as {storage.set_aside(path).name}"
        missing = memory_after(self.path, self.history, record.round).missing()
        if missing:
            names = f"{CLIENTS}/{missing[0].name}"
            return f"round {record.round} needs {len(missing)} missing files, the first is {names}"
        return None


def refuse_used(path: Path) -> None:
    """Refuse a directory in which anything stands but the traces of a run that never began.

    Raises:
        ConfigError: saying what to do instead.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; choose another --out")
    with storage.explained(path):
        names = {entry.name for entry in path.iterdir()}
    if CONFIG in names:
        raise ConfigError(f"{path} holds a run; choose another --out, or: fedpilot resume {path}")
    traces = {storage.LOCK, MADE_UP}
    if any(name not in traces and not storage.is_temporary(name) for name in names):
        raise ConfigError(f"{path} is not empty and holds no run; choose another --out")
