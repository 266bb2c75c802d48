"""What is kept of a chat: typed records in a journal of its own, chained as a run's are.

A chat lies in ``DIR/chats/NAME/`` beside the run, whose own journal it never touches.  What is
asked of a model, shown to a person and waited for follows from the records alone, so that a chat
that was killed at any instant can be gone on with.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from agents.facts import Fact
from agents.knobs import RECORD
from federation.errors import ConfigError, CorruptError
from federation.runs import journal, storage
from federation.runs.journal import Journal
from federation.runs.records import Record, UnknownRecord

CHATS, JOURNAL, PREFIX = "chats", "journal.jsonl", "chat."

Status = Literal["done", "refused", "rejected", "failed", "cut off"]
"""Of a call: carried out; refused by schema or guard; by the person; it failed; it was killed."""


class ChatRecord(BaseModel):
    """A record of a chat."""

    model_config = RECORD


class Opened(ChatRecord):
    """The chat was opened, for the first time or again."""

    model: str = Field(description="spec of the language model; 'rules' without one")
    prompt: str = Field(default="", description="system prompt, name@version")
    prompt_sha256: str = Field(default="", description="of the system prompt")
    client_steps: int = Field(ge=0, description="that new runs of this chat may take in all")


class Said(ChatRecord):
    """A person said something."""

    text: str


class Call(ChatRecord):
    """A tool is to be called."""

    id: str = Field(description="unique in the chat")
    name: str
    args: dict[str, JsonValue]


class Asked(ChatRecord):
    """The model was asked for the next turn, and what came of it; rules ask nobody."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    failure: str = Field(default="", description="why there is nothing, in a line")
    prompt_sha256: str = Field(default="", description="of all messages and tools that were sent")
    tokens_in: int | None = Field(default=None, ge=0)
    tokens_out: int | None = Field(default=None, ge=0)
    seconds: float = Field(default=0.0, ge=0)


class Decided(ChatRecord):
    """A person decided on a call that acts; from here on it may have been carried out."""

    call: str
    verdict: Literal["approve", "edit", "reject"]
    args: dict[str, JsonValue] = Field(default={}, description="edit: instead of the model's")
    reason: str = Field(default="", description="what the model is told of a rejection")
    by: Literal["person", "standing consent"] = "person"


class Result(ChatRecord):
    """What came of a call."""

    call: str
    status: Status
    facts: tuple[Fact, ...] = ()
    shown: str = Field(description="what a model is told")
    note: str = Field(default="", description="for the person alone; may tell names")
    client_steps: int = Field(default=0, ge=0, description="that it cost")
    seconds: float = Field(default=0.0, ge=0)


class Refused(ChatRecord):
    """An answer states what no fact says; it was not shown, and asked for once more."""

    problems: tuple[str, ...]
    prompt: str = Field(description="what the model was told, name@version")
    told: str


class Doubt(BaseModel):
    """A sentence of an answer that the facts do not support."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sentence: str
    problems: tuple[str, ...]


class Answered(ChatRecord):
    """An answer as it is shown."""

    text: str
    doubts: tuple[Doubt, ...] = Field(default=(), description="what is marked as unsupported")


KINDS: dict[str, type[ChatRecord]] = {
    model.__name__.lower(): model
    for model in (Opened, Said, Asked, Decided, Result, Refused, Answered)
}


def sealed(record: ChatRecord) -> UnknownRecord:
    """Turn a record into one that the journal keeps as it is."""
    body = json.loads(record.model_dump_json())
    return UnknownRecord(kind=PREFIX + type(record).__name__.lower(), body=body)


def opened(record: Record) -> ChatRecord | None:
    """Turn a journal's record back; None if it is of another kind, as warnings are.

    Raises:
        ValidationError: if it is not a record of its kind.
    """
    model = KINDS.get(record.kind.removeprefix(PREFIX))
    if not isinstance(record, UnknownRecord) or model is None:
        return None
    return model.model_validate(record.body, strict=False)


@dataclass
class Chat:
    """A chat being written; whoever holds it holds its lock.

    Attributes:
        path: its folder.
        records: what happened, oldest first.
    """

    path: Path
    journal: Journal
    records: list[ChatRecord] = field(default_factory=list)

    def append(self, record: ChatRecord) -> None:
        """Write a record down; it counts from then on."""
        self.journal.append(sealed(record))
        self.records.append(record)

    @property
    def facts(self) -> dict[str, Fact]:
        """Every fact that a tool returned in this chat, the latest of an id."""
        return {x.id: x for r in self.records if isinstance(r, Result) for x in r.facts}

    @property
    def results(self) -> dict[str, Result]:
        """What came of calls, by their ids."""
        return {r.call: r for r in self.records if isinstance(r, Result)}

    @property
    def decided(self) -> dict[str, Decided]:
        """What a person decided, by the ids of calls."""
        return {r.call: r for r in self.records if isinstance(r, Decided)}

    @property
    def open_calls(self) -> list[Call]:
        """Calls of which nothing came yet, in order."""
        results = self.results
        asked = (r for r in self.records if isinstance(r, Asked))
        return [call for r in asked for call in r.calls if call.id not in results]

    @property
    def client_steps(self) -> int:
        """What new runs of this chat have cost."""
        return sum(r.client_steps for r in self.records if isinstance(r, Result))

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return sum(len(r.calls) for r in self.records if isinstance(r, Asked))

    @property
    def last(self) -> ChatRecord | None:
        """What was said, asked or done last; None before anything was."""
        happened = (r for r in reversed(self.records) if not isinstance(r, Opened))
        return next(happened, None)

    def since_said(self) -> list[ChatRecord]:
        """Return what came after the person last said something, that included."""
        at = [i for i, r in enumerate(self.records) if isinstance(r, Said)]
        return self.records[at[-1] :] if at else []


@contextmanager
def writing(run: Path, name: str | None = None) -> Iterator[Chat]:
    """Open a chat of a run for writing: a new one, or one to go on with.

    Args:
        run: the run's directory.
        name: of a chat that is there; a new one is numbered.

    Raises:
        ConfigError: if there is no such chat.
        LockedError: if another process writes it.
        CorruptError: if its journal was changed.
        StorageError: if it cannot be written.
    """
    path = existing(run, name) if name is not None else begun(run)
    lock = storage.lock(path)
    try:
        with Journal(path / JOURNAL) as book:
            yield Chat(path, book, read_all(path, book.entries))
    finally:
        lock.release()


def chats_of(run: Path) -> list[Path]:
    """List the chats of a run, those that never began left out."""
    return sorted(file.parent for file in (run / CHATS).glob(f"*/{JOURNAL}"))


def existing(run: Path, name: str) -> Path:
    """Return the folder of a chat.

    Raises:
        ConfigError: if there is none of that name.
    """
    names = [path.name for path in chats_of(run)]
    if name not in names:
        there = ", ".join(names) or "none yet"
        raise ConfigError(f"{run} has no chat {name!r} (there are: {there}); begin one without it")
    return run / CHATS / name


def begun(run: Path) -> Path:
    """Make a folder for a new chat, under the first number that is free."""
    number = 1
    with storage.explained(run / CHATS):
        (run / CHATS).mkdir(exist_ok=True)
        while True:
            path = run / CHATS / str(number)
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path


def read_all(path: Path, entries: list[journal.Entry]) -> list[ChatRecord]:
    """Read the records of a chat.

    Raises:
        CorruptError: if one is not of its kind.
    """
    found: list[ChatRecord] = []
    for entry in entries:
        try:
            record = opened(entry.record)
        except ValidationError:
            raise CorruptError(
                f"{path / JOURNAL} record {entry.seq} is not a record of its kind: it was written"
                " by another version; go on with that one, or begin a new chat"
            ) from None
        if record is not None:
            found.append(record)
    return found


def problems(run: Path) -> list[str]:
    """Check the journals of all chats of a run.

    Returns:
        One line for each that is not as it was written.
    """
    found: list[str] = []
    for path in chats_of(run):
        if fault := journal.verify(path / JOURNAL).fault:
            found.append(f"{path / JOURNAL} {fault}")
    return found
