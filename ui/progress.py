"""Progress of a run on stderr: bars in a terminal, one line a round anywhere else.

Knows a run only through what :class:`federation.experiment.Watch` is told.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from federation.runs.records import (
    AskedRecord,
    CommandRecord,
    DecisionRecord,
    EvaluationRecord,
    Record,
    RoundRecord,
    WarningRecord,
)
from ui.results import NAMES, mean, question

if TYPE_CHECKING:
    from federation.experiment import Watch

SHOWN = ("nll", "exact_match", "rouge_l", "choice_accuracy")


@contextmanager
def watching(rounds: int, done: int = 0) -> Iterator["Watch"]:
    """Show progress while a run goes on.

    Args:
        rounds: how many there will be.
        done: how many were there before.
    """
    from federation.experiment import Watch

    if not sys.stderr.isatty():
        lines = Lines(rounds)
        yield Watch(record=lines.record, phase=lines.say)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        bars = Bars(progress, rounds, done)
        yield Watch(record=bars.record, trained=bars.trained, phase=bars.phase)


@dataclass
class Lines:
    """One line a round."""

    rounds: int
    began: float = field(default_factory=time.perf_counter)
    found: str = ""  # by the evaluation after a round, until the round's own record comes

    def say(self, words: str) -> None:
        """Print a line with the seconds since the beginning."""
        print(f"{time.perf_counter() - self.began:7.1f} s  {words}", file=sys.stderr, flush=True)

    def record(self, record: Record) -> None:
        """Print what a round came to, what an evaluation found and what went wrong."""
        match record:
            case RoundRecord():
                words = f"round {record.round + 1} of {self.rounds}: {round_words(record)}"
                self.say(words + self.found)
                self.found = ""
            case EvaluationRecord(split="test", round=None, subject="base"):
                self.say(f"base model on the test set: {figures_words(record)}")
            case EvaluationRecord(split="test", round=int()):
                self.found = f"; test set: {figures_words(record)}"
            case WarningRecord():
                self.say(f"warning: {record.text}")
            case AskedRecord():
                self.say(question(record))
            case CommandRecord():
                self.rounds += further(record)
                self.say(command_words(record))
            case _:
                pass


class Bars:
    """Rounds, and clients within the round."""

    def __init__(self, progress: Progress, rounds: int, done: int) -> None:
        """Put two bars on a display."""
        self.progress = progress
        self.rounds = rounds
        self.main: TaskID = progress.add_task(aligned("rounds"), True, rounds, done, note="")
        self.inner: TaskID = progress.add_task(aligned("  clients"), total=None, note="")

    def phase(self, words: str) -> None:
        """Say what begins; a baseline begins its rounds anew."""
        subject = words.removeprefix("baseline: ")
        if subject != words:
            name = aligned(NAMES.get(subject, subject))
            self.progress.reset(self.main, total=self.rounds, description=name)
        self.progress.reset(self.inner, note="")
        self.progress.update(self.main, note=words)

    def trained(self, clients: int) -> None:
        """Advance the clients of the round."""
        self.progress.advance(self.inner, clients)

    def record(self, record: Record) -> None:
        """Show what was decided, what a round came to and what went wrong."""
        match record:
            case DecisionRecord():
                self.progress.reset(self.inner, total=len(record.clients))
            case RoundRecord():
                note = round_words(record)
                self.progress.update(self.main, completed=record.round + 1, note=note)
            case EvaluationRecord(split="test", round=int()):
                self.progress.update(self.inner, note=f"test set: {figures_words(record)}")
            case WarningRecord():
                self.progress.console.print(f"warning: {record.text}", markup=False)
            case AskedRecord():
                self.progress.console.print(question(record), markup=False)
            case CommandRecord():
                self.rounds += further(record)
                self.progress.update(self.main, total=self.rounds)
                self.progress.console.print(command_words(record), markup=False)
            case _:
                pass


def aligned(name: str) -> str:
    """Give names one width, so that bars keep their place."""
    return f"{name:<{max(map(len, NAMES.values()))}}"


def further(record: CommandRecord) -> int:
    """Say how many rounds a command added."""
    adds = record.accepted and record.command == "more_rounds"
    return int(str(record.arguments["n"])) if adds else 0


def command_words(record: CommandRecord) -> str:
    """Say what was commanded, and what came of it."""
    words = f"{record.command.replace('_', ' ')}, by {record.by}"
    return words if record.accepted else f"{words}: refused, {record.reason}"


def round_words(record: RoundRecord) -> str:
    """Say what a round came to."""
    loss = mean(record.loss)
    count = len(record.clients)
    words = f"{count} client{'' if count == 1 else 's'}" if count else "nobody reported"
    if record.clients:
        none = "diverged" if record.client_steps else "unknown, as nobody made a step"
        words = f"loss {none if loss is None else f'{loss:.3f}'}, {words}"
    lost = f", {len(record.missing)} missing" if record.missing else ""
    return f"{words}{lost}, {record.seconds:.1f} s"


def figures_words(record: EvaluationRecord) -> str:
    """Say what an evaluation found."""
    names = {"nll": "loss", "exact_match": "exact match"}
    shown = (
        f"{names.get(name, name)} {value:.3f}" if math.isfinite(value) else f"{name} diverged"
        for name, value in record.metrics.items()
        if name in SHOWN
    )
    return ", ".join(shown)
