"""``fedpilot chat``: talk about a run; what acts is asked for."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agents.copilot.copilot import Copilot, open_copilot
from agents.copilot.desk import ACTS
from agents.copilot.events import Approval, Event, Failed
from federation.errors import ConfigError
from ui import tables
from ui.conversation import Screen
from ui.progress import watching

if TYPE_CHECKING:
    from federation.session import Watch


def main(args: Namespace) -> int:
    """Talk: what ``--say`` says, or what is typed."""
    if args.json and not args.say:
        raise ConfigError("--json is for scripts: say something with --say TEXT")
    if args.client_steps is not None and args.client_steps < 0:
        raise ConfigError(f"--client-steps must be at least 0, got {args.client_steps}")
    for name in args.yes_to:
        if name not in ACTS:
            raise ConfigError(f"--yes-to {name}: write one of {', '.join(sorted(ACTS))}")
    with open_copilot(
        args.directory,
        model=args.model,
        chat=args.chat,
        max_client_steps=args.client_steps,
        watching=shown_progress,
    ) as copilot:
        chat = copilot.desk.chat.path
        again = f"fedpilot chat {args.directory} --chat {chat.name}"
        again += f" --model {args.model}" if args.model else ""
        args.go_on = again.replace("{", "{{").replace("}", "}}")  # what Ctrl-C says
        talk = Talk(copilot, frozenset(args.yes_to), again)
        if args.json:
            talk.as_script(args.say)
            tables.print_json(
                {
                    "path": str(args.directory),
                    "chat": chat.name,
                    "events": [event.model_dump(mode="json") for event in talk.seen],
                    "waiting": [approval.call for approval in copilot.pending],
                }
            )
        else:
            talk.screen = Screen(tables.out(), quiet=args.model is not None)
            talk.as_script(args.say) if args.say else talk.typed()
        return talk.ended()


@contextmanager
def shown_progress(rounds: int) -> Iterator["Watch"]:
    """Show the progress of rounds that a call plays."""
    with watching(rounds) as watch:
        yield watch


@dataclass
class Talk:
    """A conversation at a terminal or for a script.

    Attributes:
        copilot: whom one talks to.
        yes_to: tools whose calls are approved without asking.
        again: the command that goes on with this chat.
        screen: where events are shown; None: they are only collected.
        seen: all events.
    """

    copilot: Copilot
    yes_to: frozenset[str]
    again: str
    screen: Screen | None = None
    seen: list[Event] = field(default_factory=list)

    def show(self, events: Iterable[Event]) -> None:
        """Show events as they come."""
        for event in events:
            self.seen.append(event)
            if self.screen:
                self.screen.show(event)

    def consent(self) -> None:
        """Approve what was allowed beforehand."""
        while allowed := [x for x in self.copilot.pending if x.name in self.yes_to]:
            self.show(self.copilot.decide(allowed[0].call, "approve", by="standing consent"))

    def as_script(self, texts: Iterable[str]) -> None:
        """Say texts in turn; stop where a person has to decide or the model failed."""
        self.consent()
        for text in texts:
            if self.screen:
                self.screen.said(text)
            self.show(self.copilot.say(text))
            self.consent()
            if self.copilot.pending or isinstance(self.seen[-1], Failed):
                break

    def typed(self) -> None:
        """Read what is typed until it ends."""
        assert self.screen is not None
        self.screen.welcome(self.copilot)
        self.show(self.copilot.pending)
        while True:
            self.consent()
            if self.copilot.pending:
                if not self.decided(self.copilot.pending[0]):
                    return
                continue
            text = self.screen.ask("you> ")
            if text is None or text in ("exit", "quit"):
                return
            if text:
                self.show(self.copilot.say(text))
            elif self.copilot.unanswered:
                self.show(self.copilot.go_on())

    def decided(self, waiting: Approval) -> bool:
        """Ask a person about one call; whether he is still there."""
        assert self.screen is not None
        answer = self.screen.ask(f"{waiting.name}: approve? [y]es [n]o [e]dit> ")
        match answer and answer[0].lower():
            case None:
                return False
            case "y":
                self.show(self.copilot.decide(waiting.call, "approve"))
            case "n":
                reason = self.screen.ask("why (may be empty)> ") or ""
                self.show(self.copilot.decide(waiting.call, "reject", reason=reason))
            case "e":
                self.edited(waiting)
            case _:
                self.screen.line("write y, n or e")
        return True

    def edited(self, waiting: Approval) -> None:
        """Let a person write other arguments."""
        assert self.screen is not None
        text = self.screen.ask("arguments> ", json.dumps(waiting.args))
        try:
            args = read_table(text or "")
            events = list(self.copilot.decide(waiting.call, "edit", args=args))
        except ConfigError as error:
            self.screen.line(str(error))
            return
        self.show(events)

    def ended(self) -> int:
        """Say how to go on; a failure of the model is one."""
        waiting = self.copilot.pending
        if waiting:
            names = ", ".join(approval.name for approval in waiting)
            print(f"waits for a decision: {names}; decide with: {self.again}", file=sys.stderr)
        elif self.screen and not self.screen.scripted:
            print(f"go on with: {self.again}", file=sys.stderr)
        if (
            self.seen
            and isinstance(last := self.seen[-1], Failed)
            and (not self.screen or self.screen.scripted)
        ):
            from agents.synthesis.make import ModelFailed

            raise ModelFailed(f"the model gave no answer: {last.reason}; go on with: {self.again}")
        return 0


def read_table(text: str) -> dict[str, Any]:
    """Read arguments.

    Raises:
        ConfigError: if they are no JSON object.
    """
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the arguments are not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError('the arguments are no JSON object, such as {"lr": 0.005}')
    return table
