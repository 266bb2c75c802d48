"""The worker of a chat: performs what was posted to it, in order, and appends to its journal.

    python -m ui.web.talking FOLDER RUN CHAT

Every letter is performed once, whatever is killed when: before it is begun it is noted how long the
chat's journal was, so that afterwards the journal itself says whether it was.  The copilot stays
open while one model is asked; another model opens it anew.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from agents.copilot.copilot import LONGEST, Brain, Copilot, open_copilot
from agents.copilot.records import ChatRecord, Decided, Said
from federation.errors import FedpilotError
from federation.runs import storage
from llm_tools.errors import in_words
from ui.web import mail
from ui.web.chats import WAITING

IDLE = 600.0  # seconds without a letter after which it ends
NOTED = "noted.json"

Letter = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Model = Annotated[str, Field(max_length=500, description="whom to ask; empty: by rule")]


class Say(BaseModel):
    """A person says something."""

    model_config = Letter

    kind: Literal["say"] = "say"
    text: str = Field(min_length=1, max_length=LONGEST)
    model: Model = ""


class Decide(BaseModel):
    """A person decides on a call."""

    model_config = Letter

    kind: Literal["decide"] = "decide"
    call: str = Field(max_length=80)
    verdict: Literal["approve", "edit", "reject"]
    args: dict[str, JsonValue] | None = None
    reason: str = Field(default="", max_length=2000)
    model: Model = ""


class GoOn(BaseModel):
    """What has no answer yet is to be asked again."""

    model_config = Letter

    kind: Literal["go_on"] = "go_on"
    model: Model = ""


LETTERS: TypeAdapter[Say | Decide | GoOn] = TypeAdapter(
    Annotated[Say | Decide | GoOn, Field(discriminator="kind")]
)


class Worker:
    """Holds a chat."""

    def __init__(
        self,
        folder: Path,
        run: Path,
        chat: str,
        stack: ExitStack,
        make: Callable[[], Brain] | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            folder: of the letters.
            run: what the chat is about.
            chat: its name.
            stack: closes the copilot in the end.
            make: makes another brain, for tests.
        """
        self._folder, self._run, self._chat, self._stack = folder, run, chat, stack
        self._copilot: Copilot | None = None
        self._model, self._make = "", make

    def perform(self, id: str, letter: mail.Letter) -> Mapping[str, object]:
        """Do what a letter says; a mistake of the user's is the answer."""
        try:
            asked = LETTERS.validate_python(letter)
            copilot = self.copilot(asked.model)
            for _ in self.events(copilot, id, asked):
                self.tell(copilot)
            self.tell(copilot)
        except ValidationError as error:
            return {"done": True, "failure": in_words(error)}
        except FedpilotError as error:
            return {"done": True, "failure": str(error)}
        return {"done": True}

    def copilot(self, model: str) -> Copilot:
        """Return the copilot that asks a model, opening it if it asked another one.

        Raises:
            ConfigError: if there is no such chat or model.
            LockedError: if somebody else is having the chat.
        """
        if self._copilot is None or model != self._model:
            self._stack.close()
            self._copilot = None
            opened = open_copilot(self._run, model=model or None, chat=self._chat, make=self._make)
            self._copilot, self._model = self._stack.enter_context(opened), model
        return self._copilot

    def events(self, copilot: Copilot, id: str, asked: Say | Decide | GoOn) -> Iterable[object]:
        """Yield what comes of a letter; of one that was begun before a kill, what is left."""
        records = copilot.desk.chat.records
        noted = mail.table(self._folder / NOTED) or {}
        begun = noted.get("id") == id
        since = records[int(noted.get("records", 0)) :] if begun else []
        if not begun:
            note = json.dumps({"id": id, "records": len(records)})
            storage.atomic_write(self._folder / NOTED, note.encode())
        match asked:
            case Say() if not said(since, asked.text):
                yield from copilot.say(asked.text)
            case Decide() if not decided(since, asked.call):
                yield from copilot.decide(
                    asked.call, asked.verdict, args=asked.args, reason=asked.reason
                )
            case _:
                yield from copilot.go_on()

    def tell(self, copilot: Copilot) -> None:
        """Write down what waits for a person, with what he should know."""
        waiting = [approval.model_dump(mode="json") for approval in copilot.pending]
        storage.atomic_write(self._folder / WAITING, json.dumps({"waiting": waiting}).encode())


def said(records: Sequence[ChatRecord], text: str) -> bool:
    """Tell whether records hold what was said."""
    return any(isinstance(x, Said) and x.text == text.strip() for x in records)


def decided(records: Sequence[ChatRecord], call: str) -> bool:
    """Tell whether records hold a decision on a call."""
    return any(isinstance(record, Decided) and record.call == call for record in records)


def main(folder: Path, run: Path, chat: str, idle_s: float = IDLE) -> int:
    """Perform letters until there were none for a while."""
    with ExitStack() as stack:
        mail.serve(folder, Worker(folder, run, chat, stack).perform, idle_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
