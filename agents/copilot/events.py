"""What happens in a chat, as whoever shows it is told: made of the chat's records alone."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, JsonValue

from agents.copilot.records import (
    Answered,
    Asked,
    Call,
    Chat,
    ChatRecord,
    Doubt,
    Refused,
    Result,
    Status,
)
from agents.facts import Fact
from agents.knobs import RECORD


class Event(BaseModel):
    """Something to be shown."""

    model_config = RECORD


class Text(Event):
    """An answer, or words between calls of tools.

    Attributes:
        checked: whether it is an answer, whose numbers were checked; other words were not.
        doubts: sentences that the facts do not support, to be marked.
    """

    kind: Literal["text"] = "text"
    text: str
    checked: bool = True
    doubts: tuple[Doubt, ...] = ()


class Called(Event):
    """A tool is called."""

    kind: Literal["call"] = "call"
    call: str
    name: str
    args: dict[str, JsonValue]


class Facts(Event):
    """What a tool returned that reads."""

    kind: Literal["facts"] = "facts"
    call: str
    name: str
    facts: tuple[Fact, ...]
    shown: str
    note: str


class Approval(Event):
    """A call waits for a person.

    Attributes:
        about: what he should know, names included.
        args_schema: JSON Schema of the arguments, for a form to edit them.
    """

    kind: Literal["approval"] = "approval"
    call: str
    name: str
    args: dict[str, JsonValue]
    about: tuple[str, ...]
    args_schema: dict[str, JsonValue]


class Outcome(Event):
    """What came of a call that acts, or of one that was refused or failed."""

    kind: Literal["outcome"] = "outcome"
    call: str
    name: str
    status: Status
    facts: tuple[Fact, ...]
    shown: str
    note: str


class Again(Event):
    """An answer was not shown, because the facts do not support it; the model is asked again."""

    kind: Literal["again"] = "again"
    problems: tuple[str, ...]


class Failed(Event):
    """The model gave no answer; why, in a line."""

    kind: Literal["failed"] = "failed"
    reason: str


def events_of(record: ChatRecord, chat: Chat, acting: frozenset[str]) -> Iterator[Event]:
    """Yield what is to be shown of a record.

    Args:
        record: of the chat.
        chat: all of it.
        acting: names of the tools that act.
    """
    match record:
        case Asked(failure=""):
            if record.text.strip() and record.calls:
                yield Text(text=record.text, checked=False)
            for call in record.calls:
                yield Called(call=call.id, name=call.name, args=call.args)
        case Asked():
            yield Failed(reason=record.failure)
        case Result():
            yield of_result(record, named(chat, record.call), acting)
        case Refused():
            yield Again(problems=record.problems)
        case Answered() if record.text:
            yield Text(text=record.text, doubts=record.doubts)
        case _:
            pass


def of_result(record: Result, call: Call, acting: frozenset[str]) -> Facts | Outcome:
    """Show what came of a call."""
    rest = {"facts": record.facts, "shown": record.shown, "note": record.note}
    if record.status == "done" and call.name not in acting:
        return Facts(call=call.id, name=call.name, **rest)
    return Outcome(call=call.id, name=call.name, status=record.status, **rest)


def named(chat: Chat, id: str) -> Call:
    """Return the call of an id."""
    asked = (record for record in chat.records if isinstance(record, Asked))
    return next(call for record in asked for call in record.calls if call.id == id)
