"""What clients keep between rounds: gathered into rows for a cohort, scattered back after it.

Memories with the same two methods: :class:`RamMemory` for tests and benchmarks, :class:`DiskMemory`
for runs, :class:`Overlay` for playing rounds of a run again.  They cost work only for the clients
they are asked about, whatever the population.  None knows what is kept, or of what algorithm.

Shape suffixes: C clients, P flat parameters.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from federation.errors import CorruptError
from federation.runs import storage, tree_files

if TYPE_CHECKING:
    from federation.tree import Tree


SUFFIX = ".safetensors"


class ClientMemory(Protocol):
    """What clients keep between rounds."""

    def gather(self, clients: Sequence[str], fresh: "Tree") -> "Tree":
        """Stack what clients keep, groups ``(C, ...)``, in the order of ``clients``.

        Args:
            clients: ids, each at most once.
            fresh: what a client keeps that has kept nothing yet, without C.
        """
        ...

    def scatter(self, clients: Sequence[str], tree_C: "Tree") -> None:
        """Let each client keep its row of ``tree_C``; a later ``gather`` returns it."""
        ...


class RamMemory:
    """Memory that lives and dies with the process."""

    def __init__(self) -> None:
        """Start with clients that have kept nothing."""
        self._kept: dict[str, Tree] = {}

    def gather(self, clients: Sequence[str], fresh: "Tree") -> "Tree":
        """Stack what clients keep.  See :class:`ClientMemory`."""
        return stack((self._kept.get(client, fresh) for client in clients), len(clients), fresh)

    def scatter(self, clients: Sequence[str], tree_C: "Tree") -> None:
        """Let each client keep its row.  See :class:`ClientMemory`."""
        self._kept.update(zip(clients, unstack(tree_C, len(clients)), strict=True))


class Overlay:
    """Memory that begins as another one and is written beside it: the other stays as it is."""

    def __init__(self, below: ClientMemory, known: "Tree | None" = None) -> None:
        """Start with what clients keep in another memory.

        Args:
            below: the other memory; only read.
            known: what a client keeps there that has kept nothing yet, if another algorithm wrote
                it: of its groups, those are taken that are asked for.
        """
        self._below = below
        self._known = known
        self._kept: dict[str, Tree] = {}

    def gather(self, clients: Sequence[str], fresh: "Tree") -> "Tree":
        """Stack what clients keep.  See :class:`ClientMemory`."""
        return stack((self._one(client, fresh) for client in clients), len(clients), fresh)

    def scatter(self, clients: Sequence[str], tree_C: "Tree") -> None:
        """Let each client keep its row.  See :class:`ClientMemory`."""
        self._kept.update(zip(clients, unstack(tree_C, len(clients)), strict=True))

    def _one(self, client: str, fresh: "Tree") -> "Tree":
        if client in self._kept:
            return self._kept[client]
        known = fresh if self._known is None else self._known
        below_C = self._below.gather([client], known)
        return {**fresh, **{group: x_C[0] for group, x_C in below_C.items() if group in fresh}}


class Version(NamedTuple):
    """What a client keeps since a round: the round, and the sha256 of its file."""

    round: int
    sha256: str


class Superseded(NamedTuple):
    """A version that no longer counts; an older checkpoint may still need it.

    Attributes:
        by: round that replaced it.
        since: round that wrote it.
        path: its file.
        sha256: of that.
    """

    by: int
    since: int
    path: Path
    sha256: str

    def held_after(self, round: int) -> bool:
        """Tell whether it counted after a round."""
        return self.since <= round < self.by


class DiskMemory:
    """Memory in files, one per client and version, that changes only when a round commits.

    A file is named after its client and the round that wrote it and never changes.  The journal's
    round records say which version counts (``RoundRecord.kept``), so a round that did not commit
    leaves files that nobody reads.  An older version stays as long as a checkpoint to which the run
    might be rewound needs it.

    Attributes:
        round: the round being run; what is scattered becomes its version.
        written: client -> sha256 of what it keeps since this round; goes into its record.
    """

    def __init__(self, directory: Path) -> None:
        """Start with clients that have kept nothing, before round 0.

        Args:
            directory: where the files are; must exist before anything is scattered.
        """
        self.directory = directory
        self.round = 0
        self.written: dict[str, str] = {}
        self._committed: dict[str, Version] = {}
        self._superseded: list[Superseded] = []

    @classmethod
    def restored(
        cls, directory: Path, rounds: Iterable[tuple[int, Mapping[str, str]]]
    ) -> "DiskMemory":
        """Rebuild the memory as it stood after some committed rounds.  Reads no client's file.

        Args:
            directory: where the files are.
            rounds: (round, its ``kept``) of every round that counts, in order.
        """
        memory = cls(directory)
        for number, kept in rounds:
            memory.round, memory.written = number, dict(kept)
            memory.commit()
        there = memory._listing()
        memory._superseded = [old for old in memory._superseded if old.path in there]
        return memory

    def gather(self, clients: Sequence[str], fresh: "Tree") -> "Tree":
        """Stack what clients keep.  See :class:`ClientMemory`.

        Raises:
            CorruptError: if a file is missing, damaged or not like ``fresh``.  A damaged one is set
                aside, so that resuming goes back to a checkpoint that does not need it.
            StorageError: if a file cannot be read.
        """
        return stack((self._load(client, fresh) for client in clients), len(clients), fresh)

    def scatter(self, clients: Sequence[str], tree_C: "Tree") -> None:
        """Let each client keep its row.  See :class:`ClientMemory`.

        Raises:
            StorageError: if the disk is full or failing.
        """
        if not tree_C:
            return
        hashes: dict[str, str] = {}
        storage.atomic_write_many(self._encoded(clients, tree_C, hashes))
        self.written.update(hashes)

    def commit(self) -> None:
        """Make this round's versions the ones that count, and begin the next round."""
        for client, sha256 in self.written.items():
            if old := self._committed.get(client):
                path = self._path(client, old.round)
                self._superseded.append(Superseded(self.round, old.round, path, old.sha256))
            self._committed[client] = Version(self.round, sha256)
        self.written = {}
        self.round += 1

    def discard(self) -> None:
        """Delete this round's versions: clients keep what they kept before it.

        Raises:
            StorageError: if a file cannot be deleted.
        """
        storage.remove(self._path(client, self.round) for client in self.written)
        self.written = {}

    def forget(self, oldest: int, spared: int = -1) -> None:
        """Delete versions that only rounds before ``oldest`` needed.

        Args:
            oldest: round of the oldest checkpoint to which the run may be rewound.
            spared: a round after which everything is to stay as well; -1: none.

        Raises:
            StorageError: if a file cannot be deleted.
        """
        unneeded = [x for x in self._superseded if x.by <= oldest and not x.held_after(spared)]
        storage.remove(x.path for x in unneeded)
        self._superseded = [x for x in self._superseded if x not in unneeded]

    def files(self) -> dict[Path, str]:
        """Map the files that count to their recorded sha256."""
        return {self._path(client, v.round): v.sha256 for client, v in self._committed.items()}

    def superseded(self) -> dict[Path, str]:
        """Map the files that stay for older checkpoints to their recorded sha256."""
        return {old.path: old.sha256 for old in self._superseded}

    def missing(self) -> list[Path]:
        """List the files that count and are not there."""
        there = self._listing()
        return [path for path in self.files() if path not in there]

    def sweep(self) -> None:
        """Delete what rounds left that never committed or were rewound; not what was set aside."""
        needed = {*self.files(), *(old.path for old in self._superseded)}
        storage.remove(path for path in self._listing() - needed if path.suffix == SUFFIX)

    def _load(self, client: str, fresh: "Tree") -> "Tree":
        """Read what one client keeps."""
        version = self._version(client)
        if version is None:
            return fresh
        path = self._path(client, version.round)
        if not path.exists():
            raise CorruptError(f"{path} is missing; resume the run to go back to an older round")
        try:
            kept = tree_files.load_tree(path, version.sha256)
        except CorruptError as error:
            aside = storage.set_aside(path)
            todo = f"kept as {aside.name}; resume the run to go back to an older round"
            raise CorruptError(f"{error}; {todo}") from error
        tree_files.check_tree(kept, fresh, path)
        return kept

    def _version(self, client: str) -> Version | None:
        if client in self.written:
            return Version(self.round, self.written[client])
        return self._committed.get(client)

    def _encoded(
        self, clients: Sequence[str], tree_C: "Tree", hashes: dict[str, str]
    ) -> Iterable[tuple[Path, bytes]]:
        """Encode row by row, noting the hashes, so that one row at a time is in memory twice."""
        notes = {"round": str(self.round)}
        for client, row in zip(clients, unstack(tree_C, len(clients)), strict=True):
            data = tree_files.encode_tree(row, {"client": client, **notes})
            hashes[client] = hashlib.sha256(data).hexdigest()
            yield self._path(client, self.round), data

    def _listing(self) -> set[Path]:
        if not self.directory.exists():
            return set()
        with storage.explained(self.directory):
            return set(self.directory.iterdir())

    def _path(self, client: str, number: int) -> Path:
        """Name a client's file: a readable part, a hash of the whole id, the round."""
        readable = re.sub(r"[^A-Za-z0-9_]+", "-", client)[:40]
        digest = hashlib.blake2b(client.encode(), digest_size=8).hexdigest()
        return self.directory / f"{readable}-{digest}.r{number:04d}{SUFFIX}"


def stack(kept: Iterable["Tree"], count: int, fresh: "Tree") -> "Tree":
    """Stack trees like ``fresh`` along a new clients axis C of length ``count``."""
    tree_C = {group: x.new_empty((count, *x.shape)) for group, x in fresh.items()}
    for row, tree in enumerate(kept):
        for group, x_C in tree_C.items():
            x_C[row] = tree[group]
    return tree_C


def unstack(tree_C: "Tree", count: int) -> Iterable["Tree"]:
    """Yield each client's row as a tree of its own memory, so that none keeps the matrix alive."""
    for row in range(count):
        yield {group: x_C[row].clone() for group, x_C in tree_C.items()}
