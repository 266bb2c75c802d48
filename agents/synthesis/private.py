"""Private and test text as files, read for three things alone: to be kept out of a set, to vote,
and to be compared with.  Nothing of it is written anywhere or stands in a prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from federation.address import generator
from federation.data.sources import Row, read_records
from federation.runs.keys import draw_key, read_key

FIELDS = ("instruction", "context", "response")


@dataclass(frozen=True)
class Private:
    """Somebody's own text.

    Attributes:
        texts: of every client; they may vote.
        tests: what models will be judged on.
    """

    texts: dict[str, tuple[str, ...]]
    tests: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """All texts."""
        return [*(text for mine in self.texts.values() for text in mine), *self.tests]

    @property
    def digest(self) -> str:
        """Hash of who holds what."""
        return sha256(repr(sorted(self.texts.items())).encode()).hexdigest()


def read_private(files: Sequence[Path], key: str, tests: Sequence[Path] = ()) -> Private:
    """Read files of any kind that a run reads.

    Args:
        files: JSONL, CSV, Parquet, text, ...
        key: field that names a row's client; the file is the client of rows without it.
        tests: files with what models will be judged on.

    Raises:
        DataError: if a file is missing or cannot be read.
    """
    texts: dict[str, list[str]] = {}
    for file, row in rows_of(files):
        texts.setdefault(str(row.get(key) or file), []).append(text_of(row, key))
    judged = tuple(text_of(row, key) for _, row in rows_of(tests))
    return Private({client: tuple(mine) for client, mine in texts.items()}, judged)


def rows_of(files: Sequence[Path]) -> Iterator[tuple[Path, Row]]:
    """Yield the rows of files, and which file they are of."""
    for file in files:
        for _, row in read_records(str(file), Path.cwd(), asked="--private and --test"):
            yield file, row


def text_of(row: Row, key: str) -> str:
    """Return what is read and learnt of a row: the fields of instruction data, or all its texts."""
    fields = [name for name in FIELDS if name in row] or [name for name in row if name != key]
    return "\n".join(value for name in fields if isinstance(value := row[name], str))


def noise_from(file: Path, private: Private) -> Callable[[int, Sequence[str]], np.random.Generator]:
    """Return where the noise of votes comes from: a secret of this machine, never the seed.

    The same votes get the same noise, so a repeated call gives nothing further away; other votes
    get other noise, because two histograms under one noise would give away their difference.

    Args:
        file: holds the secret; drawn and written, readable by its owner alone, if it is not there.
        private: whose votes are protected.

    Raises:
        CorruptError: if the file is damaged.
        StorageError: if it cannot be written.
    """
    if not file.exists():
        draw_key(file)
    secret, whose = read_key(file), private.digest

    def noise(round: int, candidates: Sequence[str]) -> np.random.Generator:
        asked = sha256(repr(list(candidates)).encode()).hexdigest()
        return generator(secret, "votes", round, asked, whose)

    return noise
