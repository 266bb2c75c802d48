"""The journal: an append-only file of typed records, one JSON line each, chained by hashes.

A line is ``{"seq", "schema", "prev", "time", "kind", "body", "crc"}``.  ``prev`` is the sha256 of
the line before (newline included), so that an edited, deleted or reordered line is found by whoever
reads the file; ``crc`` is the CRC-32 of the line's own text before it, so that the last line, which
nobody has hashed yet, cannot rot unnoticed.  ``time`` is for people and part of no comparison.

A line counts once its newline is on the disk.  What follows the last newline is *torn*: a write
that a crash cut short.  Readers ignore it; the writer, on reopening, saves it beside the journal
and drops it.

Knows nothing of what records mean together: that is run.py.
"""

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from federation.errors import CorruptError
from federation.runs import storage
from federation.runs.records import SCHEMA, Record, WarningRecord, body, parse

NO_LINE = "0" * 64
"""``prev`` of the first line."""


@dataclass(frozen=True)
class Entry:
    """A record and where it stands.

    Attributes:
        seq: position in the journal, from 0.
        schema: version of the records when it was written.
        time: when it was written, UTC, ISO 8601.
        record: the record itself.
    """

    seq: int
    schema: int
    time: str
    record: Record


class _Envelope(BaseModel):
    """The fixed fields of a line; a newer schema may add others."""

    model_config = ConfigDict(frozen=True)

    seq: int
    schema_: int = Field(alias="schema")
    prev: str
    time: str
    kind: str
    body: JsonValue


class Cursor(NamedTuple):
    """How far a journal was read: byte offset, records before it, hash of the line before it."""

    offset: int = 0
    seq: int = 0
    prev: str = NO_LINE


class Fault(NamedTuple):
    """The first record that is not as it was written, and what is wrong with it."""

    seq: int
    why: str

    def __str__(self) -> str:
        """Say which record and what is wrong, as the end of a sentence about the journal."""
        return f"record {self.seq} {self.why}"


class Verification(NamedTuple):
    """Records that are in order, bytes of a torn last line, and the first fault if there is one."""

    records: int
    torn: int
    fault: Fault | None


def encode(entry: Entry, prev: str) -> bytes:
    """Write a line, newline included."""
    envelope = {
        "seq": entry.seq,
        "schema": entry.schema,
        "prev": prev,
        "time": entry.time,
        "kind": entry.record.kind,
        "body": body(entry.record),
    }
    text = json.dumps(envelope, separators=(",", ":"), allow_nan=False).encode()
    return text[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(text)


def tail(path: Path, cursor: Cursor = Cursor()) -> tuple[list[Entry], Cursor]:  # noqa: B008
    """Read the whole lines after a cursor, checking the chain.

    Returns:
        The new entries, and the cursor from which to ask next time.

    Raises:
        CorruptError: if a record was changed, deleted or reordered, or the file was cut.
        StorageError: if the file cannot be read.
    """
    entries, cursor, _, fault = _read(path, cursor)
    if fault:
        raise CorruptError(f"{path} {fault}; restore it from a copy, or start a new run")
    return entries, cursor


def read(path: Path) -> list[Entry]:
    """Read all whole lines of a journal.  Raises as :func:`tail` does."""
    return tail(path)[0]


def salvage(path: Path) -> list[Entry]:
    """Read the whole lines before the first fault, if there is one.

    Raises:
        StorageError: if the file cannot be read.
    """
    return _read(path, Cursor())[0]


def verify(path: Path) -> Verification:
    """Check a whole journal and name the first bad record, instead of raising.

    Raises:
        StorageError: if the file cannot be read.
    """
    entries, _, torn, fault = _read(path, Cursor())
    return Verification(len(entries), torn, fault)


class Journal:
    """The writing end.  One writer at a time: whoever opens it holds the run's lock."""

    def __init__(self, path: Path) -> None:
        """Open a journal for appending, creating it if it is not there; mend a torn last line.

        Attributes set: ``entries`` (what stood in it), ``path``.

        Raises:
            CorruptError: if it was tampered with, or a newer fedpilot wrote it.
            StorageError: if it cannot be read or written.
        """
        self.path = path
        self.entries: list[Entry] = []
        self._cursor, torn = Cursor(), 0
        if path.exists():
            self.entries, self._cursor = tail(path)
            _refuse_newer(path, self.entries)
            torn = path.stat().st_size - self._cursor.offset
        saved = self._save_torn(torn) if torn else None
        self._fd = storage.open_append(path)
        if saved:
            self._drop_torn(saved)

    def append(self, record: Record) -> Entry:
        """Append a record and wait until it is on the disk.

        Raises:
            StorageError: if it could not be written; the journal is then as it was before.
        """
        entry = Entry(self._cursor.seq, SCHEMA, _now(), record)
        line = encode(entry, self._cursor.prev)
        storage.append(self._fd, self.path, line, self._cursor.offset)
        self._cursor = _after(self._cursor, line)
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Close the file; the journal needs nothing else to be complete."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _save_torn(self, torn: int) -> Path:
        """Copy a torn last line beside the journal, under the first free name."""
        copy = storage.free_name(self.path.with_name("journal.torn"))
        with storage.explained(self.path):
            data = self.path.read_bytes()
        storage.atomic_write(copy, data[-torn:])
        return copy

    def _drop_torn(self, copy: Path) -> None:
        """Cut the journal after its last whole line, and say so in it."""
        storage.truncate(self._fd, self.path, self._cursor.offset)
        text = f"recovered {len(self.entries)} records; 1 torn line saved as {copy.name}"
        self.append(WarningRecord(about="journal", text=text))


def _read(path: Path, cursor: Cursor) -> tuple[list[Entry], Cursor, int, Fault | None]:
    """Read from a cursor: entries, new cursor, bytes of a torn last line, the first fault."""
    with storage.explained(path), open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) < cursor.offset:
            return [], cursor, 0, Fault(cursor.seq - 1, "is gone: the file was cut")
        file.seek(cursor.offset)
        data = file.read()
    lines, torn = _whole_lines(data)
    entries: list[Entry] = []
    for line in lines:
        entry = _decode(line, cursor)
        if isinstance(entry, Fault):
            return entries, cursor, torn, entry
        entries.append(entry)
        cursor = _after(cursor, line)
    return entries, cursor, torn, None


def _whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """Split into whole lines (newline included) and the number of torn bytes after them.

    After a power cut a file system may have kept the end of the last write and lost its beginning,
    which then reads as zeros; JSON contains no zero byte, so such a line is torn as well.
    """
    lines = [line + b"\n" for line in data.split(b"\n")]
    torn = len(lines.pop()) - 1
    if not torn and lines and b"\0" in lines[-1]:
        torn = len(lines.pop())
    return lines, torn


def _decode(line: bytes, cursor: Cursor) -> Entry | Fault:
    """Read the line that stands at a cursor, or say what is wrong there."""
    head, _, crc = line.rpartition(b',"crc":"')
    if crc != b'%08x"}\n' % zlib.crc32(head + b"}"):
        return Fault(cursor.seq, "was changed: its checksum does not match")
    try:
        envelope = _Envelope.model_validate_json(head + b"}")
        if envelope.seq != cursor.seq:
            return Fault(cursor.seq, f"is missing: record {envelope.seq} stands in its place")
        if envelope.prev != cursor.prev:
            return Fault(
                max(cursor.seq - 1, 0), "was changed: the next one holds another hash of it"
            )
        record = parse(envelope.kind, envelope.body, envelope.schema_)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Fault(cursor.seq, f"is not a record of its kind: {where}: {first['msg']}")
    return Entry(cursor.seq, envelope.schema_, envelope.time, record)


def _after(cursor: Cursor, line: bytes) -> Cursor:
    """Move a cursor past a line."""
    digest = hashlib.sha256(line).hexdigest()
    return Cursor(cursor.offset + len(line), cursor.seq + 1, digest)


def _refuse_newer(path: Path, entries: list[Entry]) -> None:
    """Refuse to write where a newer version has written: what it meant would be lost.

    Raises:
        CorruptError: naming the record.
    """
    for entry in entries:
        if entry.schema > SCHEMA:
            raise CorruptError(
                f"{path} record {entry.seq} has schema {entry.schema}, this fedpilot knows "
                f"{SCHEMA}: upgrade fedpilot to go on with this run"
            )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
