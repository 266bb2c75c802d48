"""A look at a source before anything is trained: its first rows and their fields.

Reads as a run would, but asks no hub; knows nothing of models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from federation.config import ORGANISATIONS, Config
from federation.data.dataset import records
from federation.errors import DataError
from ui.web.forms import Table, got, put
from ui.web.written import sendable

ROWS = 20
MOST_FIELDS = 60  # that a preview shows
LONGEST = 300  # characters of a field that a preview shows
OF_DATA = (
    "data.source", "data.count", "data.examples", "data.text_unit", "data.seed", "seed",
)  # fmt: skip
"""Keys that decide which rows there are."""
OF_CLIENTS = ("seed", "model.base", "data")
"""Keys that decide who holds what."""


@dataclass(frozen=True)
class Sample:
    """The beginning of a source.

    Attributes:
        fields: that occur in it.
        origins: of its first rows, as errors name them.
        rows: the first rows, whole.
    """

    fields: tuple[str, ...]
    origins: tuple[str, ...]
    rows: tuple[Mapping[str, object], ...]


def part(table: Mapping[str, Any], keys: tuple[str, ...]) -> Table:
    """Return a table with these keys alone."""
    found: Table = {}
    for key in keys:
        if (value := got(table, key)) is not None:
            put(found, key, value)
    return found


def is_here(source: str, base_dir: Path) -> bool:
    """Tell whether a source can be read without asking a hub."""
    if source == ORGANISATIONS or has_magic(source):
        return True
    try:
        return (base_dir / Path(source).expanduser()).exists()
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null, of no user
        return False


def look(table: Mapping[str, Any], base_dir: Path) -> Sample | None:
    """Read the first rows of an experiment's source.

    Args:
        table: of the experiment; only what decides its rows is read.
        base_dir: where relative paths start.

    Returns:
        None of a source that is not here.

    Raises:
        DataError: if a row cannot be read.
        ConfigError: if the source cannot be used.
    """
    config = Config.from_table(part(table, OF_DATA))
    if not is_here(config.data.source, base_dir):
        return None
    return sampled(records(config, base_dir))


def sampled(source: Any) -> Sample:
    """Take the beginning of a source."""
    found = list(islice(source, ROWS))
    if not found:
        raise DataError(f"{source.name}: has no rows; check data.source")
    rows = tuple({sendable(k): sent(x) for k, x in row.items()} for _, row in found)
    fields = dict.fromkeys(name for row in rows for name in row)
    return Sample(tuple(fields), tuple(o for o, _ in found), rows)


def sent(value: object) -> object:
    """Return a value of a row; a text as one that a browser can be sent."""
    return sendable(value) if isinstance(value, str) else value


def stamp(source: str, base_dir: Path) -> str:
    """Say which state of a source this is: files change under the same name."""
    try:
        found = (base_dir / Path(source).expanduser()).stat()
    except (OSError, ValueError, RuntimeError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def shown(row: Mapping[str, object]) -> dict[str, str]:
    """Return a row as a preview shows it: its first fields as texts, shortened."""
    first = islice(row.items(), MOST_FIELDS)
    return {name: shortened("" if x is None else sendable(str(x))) for name, x in first}


def shortened(text: str) -> str:
    """Cut a text where a preview ends."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
