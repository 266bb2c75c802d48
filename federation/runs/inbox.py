"""Commands to a run that goes on: files in its ``inbox/``, one each, taken out by the run alone.

Whoever steers a run writes ``inbox/<id>.json``, whole or not at all.  The writer of the run reads
it before a round, appends a ``command`` record that says whether it was followed, and only then
deletes the file: the record is the acknowledgement.  A command whose id the journal knows already
is deleted unread, so that a kill between the two, a double click or a second tab does nothing
twice.

Knows files and what a command may say; what comes of one is steering.py's.  Light: no torch.
"""

import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from federation.config import describe
from federation.errors import ConfigError
from federation.runs import journal, storage
from federation.runs.folder import INBOX, JOURNAL, is_run
from federation.runs.history import history_of

LARGEST = 16_384
"""Bytes of a command at most."""

_COMMAND = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def new_id() -> str:
    """Make up an id; ids made later sort later."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


Id = Annotated[
    str,
    Field(
        default_factory=new_id,
        pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="letters, digits, - and _; one id is followed once",
    ),
]
By = Annotated[str, Field(default="person", min_length=1, max_length=80, description="who says so")]


class Pause(BaseModel):
    """Wait before the next round."""

    model_config = _COMMAND

    command: Literal["pause"] = "pause"
    id: Id
    by: By


class GoOn(BaseModel):
    """Wait no longer."""

    model_config = _COMMAND

    command: Literal["resume"] = "resume"
    id: Id
    by: By


class Stop(BaseModel):
    """End after the round in flight; the run can be gone on with."""

    model_config = _COMMAND

    command: Literal["stop"] = "stop"
    id: Id
    by: By


class MoreRounds(BaseModel):
    """Play further rounds, beyond those that are planned."""

    model_config = _COMMAND

    command: Literal["more_rounds"] = "more_rounds"
    id: Id
    by: By
    n: int = Field(default=1, ge=1, le=1_000_000, description="how many more")


class Answer(BaseModel):
    """Answer the question what a round should be."""

    model_config = _COMMAND

    command: Literal["answer"] = "answer"
    id: Id
    by: By
    asked: str = Field(min_length=1, max_length=80, description="id of the question")
    answer: Literal["approve", "edit", "reject"] = Field(
        description="approve: as proposed; edit: but for these values; reject: everything stays"
    )
    values: dict[str, float] = Field(
        default={}, max_length=64, description="edit: knob -> value; others are as proposed"
    )


Command = Pause | GoOn | Stop | MoreRounds | Answer

COMMANDS: dict[str, type[Command]] = {
    known.model_fields["command"].default: known for known in get_args(Command)
}


def arguments(command: Command) -> dict[str, JsonValue]:
    """Return what a command says besides who says what."""
    return command.model_dump(mode="json", exclude={"id", "command", "by"})


def parse(values: Any) -> Command:
    """Turn JSON values into a command.

    Raises:
        ConfigError: saying in one line what is wrong.
    """
    name = values.get("command") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in COMMANDS:
        raise ConfigError(f"there is no command {name!r}; there are {', '.join(COMMANDS)}")
    try:
        return COMMANDS[name].model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe(error, COMMANDS[name])}") from None


# --- Whoever steers ----------------------------------------------------------------------------

_POSTING = threading.Lock()  # threads of one process share the name of a temporary file


def post(path: str | Path, command: Command) -> str:
    """Put a command into the inbox of a run that goes on.

    Args:
        path: the run directory.
        command: what is to be done.

    Returns:
        The id of the command.  If a command of that id waits or was acknowledged, nothing is done.

    Raises:
        ConfigError: if there is no run at ``path``, or nobody is writing it.
        StorageError: if it cannot be written.
    """
    path = Path(path)
    if not is_run(path):
        raise ConfigError(f"{path} is not a run directory; check the path")
    if not storage.is_locked(path):
        raise ConfigError(
            f"{path} is not running, so nobody would follow the command; go on with it by:"
            f" fedpilot resume {path}"
        )
    if command.id not in acknowledged(path):
        put(path, command)
    return command.id


def put(path: Path, command: Command) -> None:
    """Write a command into an inbox, whether or not somebody reads it; the first of an id stays.

    Raises:
        StorageError: if it cannot be written.
    """
    file = file_of(path, command.id)
    with _POSTING:
        with storage.explained(file):
            file.parent.mkdir(exist_ok=True)
        if not file.exists():
            storage.atomic_write(file, command.model_dump_json().encode())


def waiting(path: str | Path, known: Container[str] | None = None) -> list[Command]:
    """List the commands that a run has not acknowledged yet, oldest first.

    Files that are no commands are left out: the run sets them aside and warns of them.

    Args:
        path: the run directory.
        known: ids of those that it acknowledged; read from its journal if omitted.

    Raises:
        CorruptError: if the journal was changed.
        StorageError: if something cannot be read.
    """
    found = [x for file in files(Path(path)) if isinstance(x := read(file), BaseModel)]
    if known is None:
        known = acknowledged(Path(path)) if found else set()
    return [command for command in found if command.id not in known]


def acknowledged(path: Path) -> set[str]:
    """Return the ids of the commands that a run has followed or refused."""
    file = path / JOURNAL
    return set(history_of(journal.read(file)).commands) if file.exists() else set()


# --- The writer of the run ---------------------------------------------------------------------


def file_of(path: Path, id: str) -> Path:
    """Name the file of a command."""
    return path / INBOX / f"{id}.json"


def files(path: Path) -> list[Path]:
    """List what lies in an inbox, oldest first; not what is being written or was set aside."""
    folder = path / INBOX
    if not folder.is_dir():
        return []
    with storage.explained(folder):
        names = [x for x in folder.iterdir() if x.suffix == ".json" and x.name[0] != "."]
    return [file for _, _, file in sorted(_aged(names))]


def _aged(names: list[Path]) -> Iterator[tuple[int, str, Path]]:
    """Yield the age of files by which they are ordered; one that is gone by now was followed."""
    for file in names:
        with suppress(FileNotFoundError):
            yield os.lstat(file).st_mtime_ns, file.name, file


def read(file: Path) -> Command | str | None:
    """Read a command, or say why the file is none; nothing if it is gone by now.

    Raises:
        StorageError: if the disk fails.
    """
    with storage.explained(file), suppress(FileNotFoundError):
        found = os.lstat(file)
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            return "it is no file"
        if found.st_size > LARGEST:
            return f"it has {found.st_size} bytes, {LARGEST} are allowed"
        return _understood(file.read_bytes(), file.stem)
    return None


def _understood(text: bytes, id: str) -> Command | str:
    """Turn the text of a file into the command of its name, or say why it is none."""
    try:
        command = parse(json.loads(text))
    except (ValueError, RecursionError):
        return "it is no JSON"
    except ConfigError as error:
        return str(error)
    return command if command.id == id else f"it holds the command {command.id!r}"
