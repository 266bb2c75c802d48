"""Where calls of tools are judged and carried out, whoever makes them.

Order: schema, guard, a person's approval where the tool acts, schema and guard again (he may have
edited the call, and the run may have gone on), then the deed, then its record.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

from pydantic import JsonValue, ValidationError

from agents.copilot.acting import ACTING
from agents.copilot.events import Approval, Event, events_of
from agents.copilot.ground import Found, Ground, Tool, Unusable, Watching, unwatched
from agents.copilot.records import Call, Chat, Result, Status
from agents.copilot.tools import READING
from agents.copilot.whatif import WHAT_IF
from federation.errors import FedpilotError
from federation.runs.run import Run
from llm_tools.errors import in_words

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (*READING, WHAT_IF, *ACTING)}
ACTS = frozenset(tool.name for tool in TOOLS.values() if tool.acts)

EDITED = "The person changed the arguments before it was carried out: {}."
REJECTED = "The person did not approve it; nothing was done."
KILLED = "It was approved and cut off while it was being carried out; it may be done in part."
FAILED = "It failed; the person was shown why. Do not repeat it unless the person asks."


@dataclass
class Desk:
    """A run, a chat about it, and what is done in it.

    Attributes:
        run: as last read.
        chat: its records.
        budget: client-steps that the chat may spend in all.
        cache: folder for tokenised data; the user's if None.
        watching: shows the progress of rounds that a call plays.
        lock: held while a call is carried out; a model may call several tools at once.
    """

    run: Run
    chat: Chat
    budget: int
    cache: Path | None = None
    watching: Watching = unwatched
    lock: RLock = field(default_factory=RLock)
    _told: int = 0

    def ground(self) -> Ground:
        """Look at the run as it is now."""
        self.run = self.run.refresh()
        left = max(0, self.budget - self.chat.client_steps)
        return Ground.of(self.run, self.chat.facts, left, self.cache, self.watching)

    def news(self) -> Iterator[Event]:
        """Yield what is to be shown of the records since this was last asked."""
        while self._told < len(self.chat.records):
            self._told += 1
            yield from events_of(self.chat.records[self._told - 1], self.chat, ACTS)

    def nothing_new(self) -> None:
        """Take everything so far as shown."""
        self._told = len(self.chat.records)

    def call(self, name: str, args: Mapping[str, JsonValue], ahead: int = 0) -> Call:
        """Give a call an id that is unique in the chat; servers' ids need not be."""
        return Call(id=f"t{self.chat.calls + ahead + 1}", name=name, args=dict(args))

    def waits(self, call: Call) -> bool:
        """Tell whether a call needs a person now: it acts, may pass, and was not decided on."""
        if call.name not in ACTS or call.id in self.chat.decided:
            return False
        return not self.refusal(call.name, call.args)

    @property
    def pending(self) -> list[Approval]:
        """Calls that wait for a person."""
        return [self.approval(call) for call in self.chat.open_calls if self.waits(call)]

    def approval(self, call: Call) -> Approval:
        """Say what a person is asked."""
        tool, ground = TOOLS[call.name], self.ground()
        return Approval(
            call=call.id,
            name=call.name,
            args=call.args,
            about=tuple(tool.notes(ground, arguments(tool, call.args))),
            args_schema=tool.args.model_json_schema(),
        )

    def refusal(self, name: str, args: Mapping[str, JsonValue]) -> str:
        """Say why a call may not be; empty if it may."""
        tool = TOOLS.get(name)
        if tool is None:
            return f"there is no such tool; there are {', '.join(TOOLS)}"
        try:
            values = arguments(tool, args)
        except ValidationError as error:
            return in_words(error)
        return "; ".join(tool.faults(self.ground(), values))

    def perform(self, call: Call) -> Result:
        """Carry a call out, unless something is against it; write down what came of it."""
        with self.lock:
            known = self.chat.results.get(call.id)
            if known is not None:
                return known
            began = time.perf_counter()
            status, found = self._deed(call)
            result = Result(
                call=call.id,
                status=status,
                facts=found.facts,
                shown=found.shown,
                note=found.note,
                client_steps=found.client_steps,
                seconds=time.perf_counter() - began,
            )
            self.chat.append(result)
            return result

    def _deed(self, call: Call) -> tuple[Status, Found]:
        decided = self.chat.decided.get(call.id)
        if decided is not None and decided.verdict == "reject":
            reason = f" They say: {decided.reason}" if decided.reason else ""
            return "rejected", Found(text=self.hidden(REJECTED + reason))
        edited = decided is not None and decided.verdict == "edit"
        args = decided.args if decided is not None and edited else call.args
        if why := self.refusal(call.name, args):
            return "refused", Found(text=f"Refused, nothing was done: {why}")
        tool, ground = TOOLS[call.name], self.ground()
        if tool.acts and decided is None:
            raise AssertionError(f"{tool.name} was about to act without approval")
        try:
            found = tool.do(ground, arguments(tool, args))
        except Unusable as error:
            return "refused", Found(text=f"Refused: {error}")
        except FedpilotError as error:  # its words may hold names, or what stands in a file
            return "failed", Found(text=FAILED, note=str(error))
        if not edited:
            return "done", found
        words = self.hidden(EDITED.format(json.dumps(args, sort_keys=True)))
        text = f"{words}\n{found.text}".strip()
        return "done", Found(found.facts, text, found.note, found.client_steps)

    def hidden(self, text: str) -> str:
        """Replace names in what a person said by pseudonyms."""
        return self.ground().names.hidden(text)

    def mend(self) -> None:
        """After a kill: say of approved calls without result that they were cut off."""
        for call in self.chat.open_calls:
            decided = self.chat.decided.get(call.id)
            if decided is not None and decided.verdict != "reject":
                self.chat.append(Result(call=call.id, status="cut off", shown=KILLED))


def arguments(tool: Tool, args: Mapping[str, JsonValue]) -> Any:
    """Read a tool's arguments strictly: nothing undeclared, nothing coerced.

    Raises:
        ValidationError: saying what is wrong.
    """
    return tool.args.model_validate_json(json.dumps(dict(args)), strict=True)
