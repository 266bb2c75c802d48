"""What comes of the commands that a run finds in its inbox while it goes on.

They are looked at before every round, and several times a second while the run is paused or waits
for a person.  Each is followed or refused by appending its record, and what follows from it follows
from the journal alone: a run that is killed and resumed knows what it was told.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from federation.errors import StoppedError
from federation.runs import inbox, storage
from federation.runs.folder import BASELINES
from federation.runs.history import History
from federation.runs.inbox import Answer, Command, GoOn, MoreRounds, Pause, Stop
from federation.runs.records import AskedRecord, CommandRecord, Record, WarningRecord
from federation.runs.writer import RunWriter

POLL = 0.1
"""Seconds between two looks into the inbox of a run that waits."""

MOST_ROUNDS = 1_000_000


@dataclass
class Steering:
    """The commands to one run.

    Attributes:
        writer: the run directory.
        rounds: how many are configured.
        append: appends a record and tells whoever watches.
        phase: told in a few words what the run waits for.
        too_long: says why there cannot be so many rounds in all; nothing if there can.
        unfit: says why an answer to a question cannot be used; nothing if it can.
        idle: seconds that were spent waiting for people so far.
    """

    writer: RunWriter
    rounds: int
    append: Callable[[Record], None]
    phase: Callable[[str], None]
    too_long: Callable[[int], str]
    unfit: Callable[[AskedRecord, Answer], str]
    idle: float = 0.0

    @property
    def history(self) -> History:
        """What the journal says so far."""
        return self.writer.history

    @property
    def total(self) -> int:
        """Rounds that there will be: those configured, and those that were asked for."""
        return self.rounds + self.history.extra_rounds

    def look(self) -> None:
        """Follow what was commanded; return when the run may go on.

        Raises:
            StoppedError: if it is to end.
        """
        self.follow()
        if self.history.paused:
            self.phase(f"paused; go on with: fedpilot steer {self.writer.path} resume")
        while self.history.paused:
            self._wait()

    def answer_to(self, asked: AskedRecord) -> CommandRecord | None:
        """Wait for the answer to a question; nothing if the patience ends first.

        Time during which the run is paused is no waiting for the answer.

        Raises:
            StoppedError: if the run is to end instead.
        """
        waited, said = 0.0, False
        while (answer := self.history.answer_to(asked)) is None or self.history.paused:
            if answer is None and asked.patience is not None and waited >= asked.patience:
                return None
            if not said:
                self.phase(
                    f"round {asked.round + 1} waits for a person to answer {asked.id}:"
                    f" fedpilot steer {self.writer.path} approve {asked.id}"
                )
                said = True
            counts = not self.history.paused
            waited += self._wait() * counts
        return answer

    def _wait(self) -> float:
        """Look again after a moment; return the seconds that went by."""
        began = time.perf_counter()
        time.sleep(POLL)
        self.follow()
        seconds = time.perf_counter() - began
        self.idle += seconds
        return seconds

    def follow(self, ending: str = "") -> None:
        """Take all commands out of the inbox, each followed or refused.

        Args:
            ending: why the run neither waits nor goes on any more, if it ends.

        Raises:
            StoppedError: if one of them was to stop.
        """
        stop = ""
        for file in inbox.files(self.writer.path):
            command = inbox.read(file)
            if isinstance(command, str):
                aside = storage.set_aside(file)
                text = f"{file.name} is no command: {command}; kept as {aside.name}"
                self.append(WarningRecord(about="inbox", text=text))
            elif command is not None:
                reason = self._acknowledge(command, ending or stop)
                storage.remove([file])
                if isinstance(command, Stop) and not reason:
                    stop = f"stopped by {command.by}"
        if stop:
            raise StoppedError(self.writer.path, stop)

    def _acknowledge(self, command: Command, ending: str) -> str:
        """Write down whether a command is followed; return why it is not.

        One that the journal knows is not followed again.
        """
        if command.id in self.history.commands:
            return "it was acknowledged before"
        reason = self._refusal(command, ending)
        record = CommandRecord(
            id=command.id,
            command=command.command,
            arguments=inbox.arguments(command),
            by=command.by,
            accepted=not reason,
            reason=reason,
            round=self.writer.next_round,
        )
        self.append(record)
        return reason

    def _refusal(self, command: Command, ending: str) -> str:
        """Say why a command cannot be followed; nothing if it can."""
        match command:
            case Pause():
                return ending or ("it is paused already" if self.history.paused else "")
            case GoOn():
                return ending or ("" if self.history.paused else "it is not paused")
            case Stop():
                return ending
            case MoreRounds(n=n):
                return self._too_many(n)
            case Answer():
                return self._wrong(command)

    def _too_many(self, n: int) -> str:
        """Say why so many rounds more cannot be played."""
        if self.history.ended and self.history.ended.status == "finished":
            return "it is finished; use fedpilot fork"
        if (self.writer.path / BASELINES).exists():
            return "its baselines were begun, for the rounds that there are"
        if self.total + n > MOST_ROUNDS:
            return f"it would have more than {MOST_ROUNDS} rounds"
        return self.too_long(self.total + n)

    def _wrong(self, answer: Answer) -> str:
        """Say why an answer cannot be used."""
        asked = self.history.asking
        if asked is None or asked.id != answer.asked:
            open = f"the question is {asked.id}" if asked else "nothing is asked"
            return f"{answer.asked} is no question that waits; {open}"
        if self.history.answer_to(asked):
            return f"{asked.id} was answered already"
        return self.unfit(asked, answer)
