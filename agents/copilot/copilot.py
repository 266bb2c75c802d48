"""A conversation about a run: say something, be told, decide what may be done.

The engine of ``fedpilot chat`` and of the interface.  ``say``, ``decide`` and ``go_on`` yield
events until the copilot has answered, failed, or waits for a person; a kill loses nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import JsonValue

from agents.copilot import records
from agents.copilot.checks import doubts
from agents.copilot.desk import Desk
from agents.copilot.events import Approval, Event
from agents.copilot.ground import Ground, Watching, unwatched
from agents.copilot.records import Answered, Asked, Decided, Opened, Refused, Said
from agents.copilot.rules import Rules
from agents.guard import client_steps
from federation.errors import ConfigError
from federation.runs.run import Run
from llm_tools import LLMError, fill

Verdict = Literal["approve", "edit", "reject"]
LONGEST = 20_000  # characters that a person may say at once
WENT_ON = "the person said something else instead of deciding"


class Brain(Protocol):
    """Whoever decides what is called and what is answered."""

    @property
    def opened(self) -> dict[str, str]:
        """What the journal keeps of it: model, prompt, prompt_sha256."""
        ...

    def turn(self, desk: Desk) -> Iterator[Event]:
        """Go on from the records until there is an answer, a failure, or somebody has to decide."""
        ...


@dataclass
class Copilot:
    """A conversation about a run.

    Attributes:
        desk: carries calls out.
        brain: decides which.
    """

    desk: Desk
    brain: Brain

    @property
    def pending(self) -> list[Approval]:
        """Calls that wait for a person."""
        return self.desk.pending

    @property
    def unanswered(self) -> bool:
        """Whether what was said last has no answer, and nothing is pending."""
        return not isinstance(self.desk.chat.last, Answered | None) and not self.pending

    def say(self, text: str) -> Iterator[Event]:
        """Say something; what was pending is rejected.

        Raises:
            ConfigError: if it is empty or too long.
        """
        text = text.strip()
        if not text or len(text) > LONGEST:
            raise ConfigError(f"say something of 1 to {LONGEST:,} characters, got {len(text):,}")
        for waiting in self.pending:
            decided = Decided(call=waiting.call, verdict="reject", reason=WENT_ON)
            self.desk.chat.append(decided)
        for call in self.desk.chat.open_calls:
            self.desk.perform(call)
        self.desk.chat.append(Said(text=text))
        yield from self.go_on()

    def decide(
        self,
        call: str,
        verdict: Verdict,
        *,
        args: Mapping[str, JsonValue] | None = None,
        reason: str = "",
        by: Literal["person", "standing consent"] = "person",
    ) -> Iterator[Event]:
        """Decide on a call that waits.

        Args:
            call: its id.
            verdict: what is to be done with it.
            args: edit: all arguments, instead of the model's.
            reason: reject: what the model is told.
            by: who decides.

        Raises:
            ConfigError: if it does not wait, or the edit is against the schema or the guard; it
                then still waits.
        """
        desk = self.desk
        waiting = {approval.call: approval for approval in self.pending}
        if call not in waiting:
            there = ", ".join(waiting) or "none"
            raise ConfigError(f"no call {call!r} waits for a decision; waiting: {there}")
        if (args is None) == (verdict == "edit"):
            raise ConfigError("an edit needs arguments, and nothing else has them")
        if args is not None and (why := desk.refusal(waiting[call].name, args)):
            raise ConfigError(f"{waiting[call].name}: the edit is refused: {why}")
        decided = Decided(call=call, verdict=verdict, args=dict(args or {}), reason=reason, by=by)
        desk.chat.append(decided)
        desk.perform(next(x for x in desk.chat.open_calls if x.id == call))
        yield from desk.news()
        yield from self.go_on()

    def go_on(self) -> Iterator[Event]:
        """Go on from where the conversation stands; after a failure or a kill, ask again."""
        desk = self.desk
        while self.unanswered:
            last = desk.chat.last
            if isinstance(last, Asked) and not last.calls and not last.failure:
                self.conclude(last.text)
                yield from desk.news()
                continue
            yield from self.brain.turn(desk)
            yield from desk.news()
            last = desk.chat.last
            if isinstance(last, Asked) and last.failure:
                return
        yield from self.pending

    def conclude(self, text: str) -> None:
        """Check an answer: refuse it once, then show it with marks."""
        chat = self.desk.chat
        names = self.desk.ground().names
        found = doubts(text, chat.facts, [*names.clients, *names.runs])
        if found and not any(isinstance(record, Refused) for record in chat.since_said()):
            problems = tuple(dict.fromkeys(p for doubt in found for p in doubt.problems))
            told = fill("unsupported", words="; ".join(problems))
            prompt = f"{told.name}@{told.version}"
            chat.append(Refused(problems=problems, prompt=prompt, told=told.text))
        else:
            chat.append(Answered(text=text, doubts=found))


@contextmanager
def open_copilot(
    path: str | Path,
    *,
    model: str | None = None,
    chat: str | None = None,
    max_client_steps: int | None = None,
    deadline_s: float = 60.0,
    cache: Path | None = None,
    watching: Watching = unwatched,
    make: "Callable[[], Brain] | None" = None,
) -> Iterator[Copilot]:
    """Open a conversation about a run.

    Args:
        path: the run, which may be running; nothing is written into its journal.
        model: whom to ask, as :func:`llm_tools.chat_model` takes it; by rule if omitted.
        chat: name of a chat to go on with; a new one if omitted.
        max_client_steps: that what is started from the chat may take in all; as many as the run
            plans if omitted.
        deadline_s: seconds for every turn of the model.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watching: shows the progress of rounds that are played.
        make: makes another brain, for tests.

    Raises:
        ConfigError: if there is no such run or chat, or the model cannot be used.
        LockedError: if somebody else is having this chat.
        CorruptError: if run or chat were changed.
    """
    run = Run.open(path)
    ground = Ground.of(run)
    budget = max_client_steps
    if budget is None:
        budget = int(client_steps(ground.values, ground.config.rounds))
    brain = make() if make else brain_of(model, deadline_s)
    with records.writing(run.path, chat) as book:
        desk = Desk(run, book, budget, cache, watching)
        desk.mend()
        book.append(Opened(client_steps=budget, **brain.opened))
        desk.nothing_new()
        yield Copilot(desk, brain)


def brain_of(model: str | None, deadline_s: float) -> Brain:
    """Return who answers.

    Raises:
        ConfigError: if the model cannot be used.
    """
    if model is None:
        return Rules()
    try:
        from agents.copilot.agent import Agent
        from llm_tools import chat_model

        return Agent(chat_model(model), model, deadline_s)
    except LLMError as error:
        raise ConfigError(f"chat: {error}") from None
