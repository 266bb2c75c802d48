"""What the records of a run mean together: rounds that count, what was decided, said and commanded.

A rewind is a ``resume`` record that names the round from which the run goes on.  From that line on
rounds and what was said of later rounds are void; decisions stay, because a round that is run
again is run as it was decided, without asking anybody again.  What a person commanded stays too.

A ``fork`` record stands after the rounds that a run has of its parent: from that line on the
configuration is the run's own, and nothing is known of what its parent did later.

Knows no file.
"""

from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from itertools import islice

from federation.runs.journal import Entry
from federation.runs.records import (
    AskedRecord,
    CommandRecord,
    ContributionsRecord,
    DecisionRecord,
    EndRecord,
    EvaluationRecord,
    ExplanationRecord,
    ForkRecord,
    Record,
    ResumeRecord,
    RollbackRecord,
    RoundRecord,
    StartRecord,
    UnknownRecord,
    WarningRecord,
    WhatIfRecord,
)

RETAINED = 3
"""How many of the newest checkpoints are kept for going back."""
AGAIN = 2
"""Idle reports that make a rider, if they are most of what it reported."""


@dataclass
class History:
    """What the records of a run mean together, with rewinds applied.

    Attributes:
        rounds: round -> its record, in order, without gaps.
        decisions: round -> the latest decision for it, also of rounds that are yet to be run again.
        highest: highest round that was ever committed, void ones included; -1 if none.
        commands: id -> a command that was followed or refused, of this run and no parent.
        asked: round -> what a person was asked before it.
        rollbacks: round -> how it was undone, of those that were.
        extra_rounds: rounds that were asked for beyond those configured.
        paused: whether the run was told to wait, and not yet to go on.
        fork: where the run comes from, if it is a fork.
        forgotten: round up to which what clients kept does not hold any more; -1 if none.
        ended: how the run ended, if nothing was resumed since.
    """

    start: StartRecord | None = None
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    decisions: dict[int, DecisionRecord] = field(default_factory=dict)
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    explanations: list[ExplanationRecord] = field(default_factory=list)
    whatifs: list[WhatIfRecord] = field(default_factory=list)
    contributions: list[ContributionsRecord] = field(default_factory=list)
    warnings: list[WarningRecord] = field(default_factory=list)
    commands: dict[str, CommandRecord] = field(default_factory=dict)
    asked: dict[int, AskedRecord] = field(default_factory=dict)
    rollbacks: dict[int, RollbackRecord] = field(default_factory=dict)
    extra_rounds: int = 0
    paused: bool = False
    fork: ForkRecord | None = None
    forgotten: int = -1
    highest: int = -1
    ended: EndRecord | None = None

    def add(self, record: Record) -> None:
        """Take the next record into account."""
        match record:
            case StartRecord():
                self.start = record
            case DecisionRecord():
                self.decisions[record.round] = record
            case RoundRecord():
                self.rounds[record.round] = record
                self.highest = max(self.highest, record.round)
            case EvaluationRecord():
                self.evaluations.append(record)
            case ExplanationRecord():
                self.explanations.append(record)
            case WhatIfRecord():
                self.whatifs.append(record)
            case ContributionsRecord():
                self.contributions.append(record)
            case WarningRecord():
                self.warnings.append(record)
            case CommandRecord():
                self._command(record)
            case AskedRecord():
                self.asked[record.round] = record
            case RollbackRecord():
                self.rollbacks[record.round] = record
            case ForkRecord():
                self._begin_anew(record)
            case ResumeRecord():
                self._rewind(-1 if record.round is None else record.round)
            case EndRecord():
                self.ended, self.paused = record, False
            case UnknownRecord():
                pass

    def after(self, entries: Iterable[Entry]) -> "History":
        """Take further lines of the journal into account; this history stays as it is."""
        grown = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list):
                setattr(grown, name, value.copy())
        for entry in entries:
            grown.add(entry.record)
        return grown

    @property
    def last_round(self) -> int:
        """The last committed round; -1 before round 0."""
        return next(reversed(self.rounds), -1)

    @property
    def config_sha256(self) -> str | None:
        """Hash of the configuration by which the run goes on; None before it began."""
        if self.fork is not None:
            return self.fork.config_sha256
        return self.start and self.start.config_sha256

    @property
    def asking(self) -> AskedRecord | None:
        """What a person was asked before the next round, if that is not decided."""
        next_round = self.last_round + 1
        return None if next_round in self.decisions else self.asked.get(next_round)

    @property
    def given(self) -> dict[str, str]:
        """What stood in the run directory when the run began: file -> its sha256."""
        began = self.fork or self.start
        return began.files if began else {}

    def answer_to(self, asked: AskedRecord) -> CommandRecord | None:
        """Return the answer to a question that was accepted, if there is one."""
        answers = (x for x in self.commands.values() if x.command == "answer" and x.accepted)
        return next((x for x in answers if x.arguments.get("asked") == asked.id), None)

    def newest_checkpoints(self, most: int = RETAINED) -> list[RoundRecord]:
        """List the rounds to which the run may be rewound, newest first."""
        newest_first = (self.rounds[n] for n in reversed(self.rounds))
        return list(islice((record for record in newest_first if record.checkpoint), most))

    def _rewind(self, last: int) -> None:
        """Void what came of the rounds after ``last``; whoever resumes a run wants it to go on."""
        self.ended, self.paused = None, False
        self.rounds = {n: record for n, record in self.rounds.items() if n <= last}
        self.evaluations = [x for x in self.evaluations if x.round is None or x.round <= last]
        self.explanations = [x for x in self.explanations if x.round is None or x.round <= last]
        self.whatifs = [x for x in self.whatifs if x.round + x.rounds - 1 <= last]
        self.contributions = [x for x in self.contributions if x.round <= last]
        self.rollbacks = {n: record for n, record in self.rollbacks.items() if n <= last}

    def _command(self, record: CommandRecord) -> None:
        """Take a command into account."""
        self.commands[record.id] = record
        if not record.accepted:
            return
        if record.command in ("pause", "resume"):
            self.paused = record.command == "pause"
        elif record.command == "more_rounds":
            self.extra_rounds += int(str(record.arguments["n"]))

    def _begin_anew(self, record: ForkRecord) -> None:
        """Forget what the parent planned beyond the round of the fork."""
        self._rewind(record.round)
        self.fork, self.extra_rounds, self.highest = record, 0, record.round
        self.commands = {}
        self.forgotten = self.forgotten if record.memory else record.round
        self.decisions = {n: x for n, x in self.decisions.items() if n <= record.round}
        self.asked = {n: x for n, x in self.asked.items() if n <= record.round}


def history_of(entries: Iterable[Entry]) -> History:
    """Take all lines of a journal into account."""
    return History().after(entries)


def riders(rounds: Iterable[RoundRecord]) -> dict[str, int]:
    """Name the clients most of whose reports were idle, and how many; the worst first."""
    came, idle = Counter[str](), Counter[str]()
    for record in rounds:
        came.update(record.clients)
        idle.update(record.idle.keys())
    often = {name: n for name, n in idle.items() if n >= AGAIN and 2 * n > came[name]}
    return {name: often[name] for name in sorted(often, key=lambda name: (-often[name], name))}
