"""Where rows come from: files, folders and hubs, read one row at a time.

This module knows file formats and names the file and the row in every complaint.  It does not know
templates, tokenizers or clients.  JSONL, CSV, Parquet, text and saved datasets are streamed, so a
source may be larger than memory; a JSON array is parsed whole, file by file.
"""

import csv
import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from federation.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, object]
TextUnit = Literal["line", "paragraph", "document"]

SHOWN = 5  # bad rows that a complaint names
_BLOCK = 1024  # rows of a columnar file that are in memory at a time
_HUB_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+)(:(?P<split>[\w.-]+))?)?")


@dataclass(frozen=True)
class Records:
    """Rows that can be read again and again without ever being in memory together.

    Attributes:
        name: the source as the user wrote it.
        read: starts a new pass; yields (origin, row), where an origin is "dolly.jsonl row 17".
        digest: hashes the content (hex sha256, or the fingerprint of a hub data set).
    """

    name: str
    read: Callable[[], Iterator[tuple[str, Row]]]
    digest: Callable[[], str]

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Start a new pass over (origin, row)."""
        return self.read()

    def fields(self, sample: int = 100) -> tuple[str, ...]:
        """Name the fields that occur in the first ``sample`` rows, in order of appearance."""
        return tuple(dict.fromkeys(name for _, row in islice(self, sample) for name in row))


def located(name: str, base_dir: Path, asked: str) -> Path:
    """Turn what a person wrote into a path.

    Raises:
        DataError: if no system has such a path, or it names the home of nobody.
    """
    try:
        path = base_dir / Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        shown = name if len(name) <= 60 else f"{name[:59]}…"
        raise DataError(f"{shown}: {_first_line(error)[:60].rstrip('.')}; check {asked}") from error
    return path


def read_records(
    source: str, base_dir: Path, *, text: TextUnit = "line", asked: str = "data.source"
) -> Records:
    """Open a source of rows.

    Args:
        source: a file (.jsonl, .ndjson, .json with an array, .csv, .parquet, .txt), a glob of such
            files, a folder written by ``datasets.save_to_disk``, or a Hugging Face data set as
            ``name``, ``name:config`` or ``name:config:split`` (split ``train`` unless given).
        base_dir: folder that relative paths start from.
        text: what one record of a .txt file is: a non-empty line, a paragraph (lines up to a blank
            one) or the whole file.  Its field is named ``text``.
        asked: what named the source, for complaints: a key or an option.

    Raises:
        DataError: here if the source is missing, empty or of an unknown kind; while reading, at the
            first row that cannot be read.
    """
    path = located(source, base_dir, asked)
    if path.is_dir():
        return _saved_dataset(source, path)
    if path.exists():
        return _files(source, [(source, path)], text, asked)
    if glob.has_magic(source):
        return _files(source, _expand(source, base_dir, asked), text, asked)
    hub = _HUB_ID.fullmatch(source)
    if hub is None or _means_a_file(source, base_dir):
        raise DataError(f"{source}: no such file in {base_dir.resolve()}; check {asked}")
    split = hub["split"] or "train"
    return _hub_dataset(source, hub["name"], hub["config"], split, base_dir, asked)


def _means_a_file(source: str, base_dir: Path) -> bool:
    """Tell a mistyped path from a hub name before the network is asked (and waited for)."""
    folder, _, last = source.rpartition("/")
    in_a_folder = folder != "" and (base_dir / folder).is_dir()
    return in_a_folder or Path(last).suffix in _FORMATS or (not folder and "." in last)


def _expand(pattern: str, base_dir: Path, asked: str) -> list[tuple[str, Path]]:
    expanded = str(Path(pattern).expanduser())
    names = sorted(glob.glob(expanded, root_dir=base_dir, recursive=True))
    found = [(name, base_dir / name) for name in names if (base_dir / name).is_file()]
    if not found:
        raise DataError(f"{pattern}: no file in {base_dir.resolve()} matches; check {asked}")
    return found


def _files(source: str, files: Sequence[tuple[str, Path]], text: TextUnit, asked: str) -> Records:
    """Read files one after another; every file must hold at least one row."""
    for name, path in files:
        if path.suffix.lower() not in _FORMATS:
            known = " ".join(sorted(_FORMATS))
            raise DataError(f"{name}: unknown suffix {path.suffix!r}; known are {known}")
        if not path.is_file():
            raise DataError(f"{name}: is not a regular file; check {asked}")
        if path.stat().st_size == 0:
            raise DataError(f"{name}: is empty; give it rows or leave it out of {asked}")

    def read() -> Iterator[tuple[str, Row]]:
        for name, path in files:
            yield from _rows(name, path, text, asked)

    def digest() -> str:
        parts = [f"{path.suffix.lower()} {_sha256(name, path)}" for name, path in files]
        return hashlib.sha256("\n".join([text, *parts]).encode()).hexdigest()

    return Records(source, read, digest)


def _rows(name: str, path: Path, text: TextUnit, asked: str) -> Iterator[tuple[str, Row]]:
    empty = True
    try:
        for number, row in _FORMATS[path.suffix.lower()](name, path, text):
            empty = False
            yield f"{name} row {number}", row
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {_first_line(error)}") from error
    if empty:
        raise DataError(f"{name}: has no rows; give it rows or leave it out of {asked}")


def _sha256(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {_first_line(error)}") from error


@dataclass
class BadRows:
    """What cannot be used of a source, gathered so that one complaint names several rows."""

    first: DataError | None = None
    rows: list[str] = field(default_factory=list)

    @contextmanager
    def noted(self, row: str) -> Iterator[None]:
        """Note that a row cannot be used, and go on."""
        try:
            yield
        except DataError as error:
            self.first = self.first or error
            self.rows.append(row)

    def refuse(self) -> None:
        """Complain of the first row in full, and of the next by number.

        Raises:
            DataError: if there is a bad row.
        """
        if self.first is None or len(self.rows) == 1:
            if self.first is not None:
                raise self.first
            return
        others = ", ".join(self.rows[1:SHOWN])
        more = ", ..." if len(self.rows) > SHOWN else ""
        raise DataError(
            f"{self.first}; {len(self.rows):,} rows in all cannot be used, also {others}{more}"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lines(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, decoded line with its line end)."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{name} row {number}: invalid UTF-8 at byte {error.start} of the line; "
                    "save the file as UTF-8"
                ) from error


def _parse_json(where: str, document: str) -> object:
    try:
        return json.loads(document)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{where}: bad JSON: {error.msg} at {at}; mend the file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: bad JSON: {_first_line(error)}; mend the file") from error


def _as_row(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be an object with named fields, got {type(value).__name__}")
    return value


def _read_jsonl(name: str, path: Path, text: TextUnit) -> Iterator[tuple[int, Row]]:
    bad = BadRows()
    for number, line in _lines(name, path):
        if line.strip():
            where = f"{name} row {number}"
            with bad.noted(where):
                row = _as_row(where, _parse_json(where, line))
                if not bad.rows:
                    yield number, row
    bad.refuse()


def _read_json(name: str, path: Path, text: TextUnit) -> Iterator[tuple[int, Row]]:
    rows = _parse_json(name, "".join(line for _, line in _lines(name, path)))
    if not isinstance(rows, list):
        raise DataError(
            f"{name}: must hold an array of objects, got {type(rows).__name__}; "
            "name the file .jsonl if it has one object a line"
        )
    for number, row in enumerate(rows, start=1):
        yield number, _as_row(f"{name} row {number}", row)


def _read_csv(name: str, path: Path, text: TextUnit) -> Iterator[tuple[int, Row]]:
    # The module's limit of 128 KiB a field is process-wide; whole articles in a column are normal.
    csv.field_size_limit(2**31 - 1)
    # Strict, because otherwise a quote that is never closed swallows the rest of the file.
    reader = csv.reader((line for _, line in _lines(name, path)), strict=True)
    header: list[str] = []
    number = 0
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = _csv_header(name, cells)
                continue
            number += 1
            if len(cells) != len(header):
                todo = "separate cells by commas" if len(header) == 1 else "mend the row"
                raise DataError(
                    f"{name} row {number} (line {reader.line_num}): has {len(cells)} cells, "
                    f"the header has {len(header)}; {todo}"
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        where = f"{name} row {number + 1} (line {reader.line_num})"
        raise DataError(f"{where}: bad CSV: {error}; mend the row") from error


def _csv_header(name: str, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if "" in header or len(set(header)) < len(header):
        raise DataError(f"{name}: column names must be present and differ, got {header}")
    other = next((sign for sign in (";", "\t", "|") if sign in header[0]), None)
    if len(header) == 1 and other:
        raise DataError(f"{name}: cells are separated by {other!r}; write it with commas")
    return header


def _read_parquet(name: str, path: Path, text: TextUnit) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BLOCK):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name} after row {number}: cannot be read as Parquet: {_first_line(error)}"
        ) from error


def _read_text(name: str, path: Path, text: TextUnit) -> Iterator[tuple[int, Row]]:
    for number, record in _text_units(_lines(name, path), text):
        yield number, {"text": record}


def _text_units(lines: Iterable[tuple[int, str]], unit: TextUnit) -> Iterator[tuple[int, str]]:
    """Join lines into records; yield (number of the first line, record)."""
    start, held = 1, list[str]()
    for number, raw in lines:
        line = raw.removesuffix("\n").removesuffix("\r")
        blank = not line.strip()
        if held and (unit == "line" or (unit == "paragraph" and blank)):
            yield start, "\n".join(held)
            held = []
        if not held:
            start = number
        if held or not blank:
            held.append(line)
    if held:
        yield start, "\n".join(held).rstrip("\n")


_FORMATS: dict[str, Callable[[str, Path, TextUnit], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}


def _saved_dataset(source: str, path: Path) -> Records:
    """Open a folder that ``datasets.save_to_disk`` wrote; of several splits, ``train``."""
    import datasets
    import pyarrow as pa

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{source}: is a folder but not one that datasets.save_to_disk wrote; "
            f"for the files in it give a glob such as {source.rstrip('/')}/*.jsonl"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if "train" not in loaded:
            splits = " ".join(map(str, loaded))
            raise DataError(f"{source}: has no split 'train'; give the folder of one of: {splits}")
        loaded = loaded["train"]

    def digest() -> str:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [f"{file.relative_to(path)} {_sha256(source, file)}" for file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    return _dataset(source, loaded, digest)


def _hub_dataset(
    source: str, name: str, config: str | None, split: str, base_dir: Path, asked: str
) -> Records:
    """Download a data set from the Hugging Face hub, or take it from that library's cache."""
    import datasets
    import httpx

    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise DataError(
            f"{source}: is no file in {base_dir.resolve()}, and cannot be loaded as a Hugging Face "
            f"data set: {_first_line(error)}; check {asked} or the connection"
        ) from error
    if not isinstance(loaded, datasets.Dataset):
        raise DataError(f"{source}: split {split!r} is not one table; name one split")
    # The library's own content address: stable for one revision of the data.
    return _dataset(source, loaded, lambda: f"{source} {split} {loaded._fingerprint}")


def _dataset(source: str, table: "Dataset", digest: Callable[[], str]) -> Records:
    if len(table) == 0:
        raise DataError(f"{source}: has no rows")

    def read() -> Iterator[tuple[str, Row]]:
        for number, row in enumerate(table, start=1):
            yield f"{source} row {number}", _as_row(f"{source} row {number}", row)

    return Records(source, read, digest)
