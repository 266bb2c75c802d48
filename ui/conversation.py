"""A conversation on a terminal: events in, lines out; knows no tool by name."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text as Line

from agents.copilot.checks import sentences
from agents.copilot.copilot import Copilot
from agents.copilot.events import Again, Approval, Called, Event, Facts, Failed, Outcome, Text
from agents.copilot.records import Answered, Opened, Said

MARK = "[unsupported: {}]"
COLOURS = {"done": "green", "refused": "yellow", "rejected": "yellow"}
SHOWN = 6  # things said before that are listed when a chat is gone on with


@dataclass
class Screen:
    """Where a conversation is shown.

    Attributes:
        console: prints.
        quiet: facts are counted and not listed; the model tells what is in them.
        scripted: nothing is typed.
    """

    console: Console
    quiet: bool
    scripted: bool = True
    _called: set[str] = field(default_factory=set)

    def line(self, text: str, style: str = "", indent: int = 0) -> None:
        """Print a text, every line of it indented."""
        for part in text.split("\n"):
            self.console.print(Line(" " * indent + plain(part), style=style), soft_wrap=True)

    def welcome(self, copilot: Copilot) -> None:
        """Say where one is; of a chat that is gone on with, what was said last."""
        self.scripted = False
        desk = copilot.desk
        opened = next(r for r in reversed(desk.chat.records) if isinstance(r, Opened))
        rounds = len(desk.run.history.rounds)
        self.line(
            f"{desk.run.path}: {desk.run.status}, {rounds} rounds; chat {desk.chat.path.name}"
        )
        if opened.model == "rules":
            self.line("rules answer; write help for what there is, exit to end", "dim")
        else:
            self.line(f"{opened.model} answers; write exit to end", "dim")
        told = [r for r in desk.chat.records if isinstance(r, Said | Answered)]
        for record in told[-SHOWN:]:
            self.line(f"{'you> ' if isinstance(record, Said) else ''}{record.text}", "dim")
        if copilot.unanswered:
            self.line("what you said last has no answer yet; press Enter to ask again", "yellow")

    def said(self, text: str) -> None:
        """Show what a script says."""
        self.line(f"you> {text}", "bold")

    def ask(self, prompt: str, filled: str = "") -> str | None:
        """Read a line; None where there are no more.

        Args:
            prompt: what stands before it.
            filled: text to begin with, to be changed.
        """
        with suppress(ImportError):  # without it there is no history and no editing
            import readline

            hook: Callable[[], None] | None = (
                (lambda: readline.insert_text(filled)) if filled else None
            )
            readline.set_startup_hook(hook)
        try:
            return input(prompt).strip()
        except EOFError:
            print(file=sys.stdout)
            return None

    def show(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Text():
                self.text(event)
            case Called():
                self._called.add(event.call)
                self.line(f"· {event.name}{listed(event.args)}", "cyan")
            case Facts():
                self.facts(event)
            case Approval():
                if event.call not in self._called:
                    self.line(f"· {event.name}{listed(event.args)}", "cyan")
                self.line("waits for you", "bold yellow", 2)
                for about in event.about:
                    self.line(about, indent=2)
            case Outcome():
                self.line(f"{event.status}: {event.name}", COLOURS.get(event.status, "red"), 2)
                if not self.quiet or event.status != "done":
                    self.line(event.shown, indent=2)
                if event.note:
                    self.line(event.note, indent=2)
            case Again():
                words = "; ".join(event.problems)
                self.line(f"an answer was refused and is asked for again: {words}", "dim", 2)
            case Failed() if not self.scripted:
                self.line(f"no answer: {event.reason}", "red")
                self.line("press Enter to ask again, or say something else", "dim")
            case _:
                pass

    def facts(self, event: Facts) -> None:
        """Show what a tool returned, or how much."""
        if self.quiet:
            count = len(event.facts)
            self.line(f"{count} fact{'' if count == 1 else 's'}", "dim", 2)
        else:
            self.line(event.shown, indent=2)
        if event.note:
            self.line(event.note, "dim", 2)

    def text(self, event: Text) -> None:
        """Show an answer; behind what no fact supports stands why."""
        if not event.checked:
            self.line(f"{event.text}  [not checked]", "dim")
            return
        if not event.doubts:
            self.line(event.text)
            return
        problems = {doubt.sentence: doubt.problems for doubt in event.doubts}
        for sentence in sentences(event.text):
            shown = Line(plain(sentence))
            if sentence in problems:
                shown.stylize("yellow")
                shown.append(f"  {MARK.format('; '.join(problems[sentence]))}", "bold red")
            self.console.print(shown, soft_wrap=True)


def plain(text: str) -> str:
    """Replace what steers a terminal: a model or a name could hold it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def listed(args: Mapping[str, JsonValue]) -> str:
    """Write arguments."""
    return "".join(f" {name}={value}" for name, value in args.items())
