"""A run being written: the rounds it plays, what its journal keeps of them, and how it ended.

Knows a planner, an engine and a writer.  Does not know what is trained on what, nor on what it is
judged: fine-tuning (experiment.py) and pre-training (pretraining/pretrain.py) say that.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from federation.algorithms.algorithm import Algorithm, advance
from federation.bits import NOTHING, same_arithmetic
from federation.cohort.planner import Planner
from federation.errors import FedpilotError, QuorumError, StoppedError
from federation.idling import Past
from federation.plan import Reports, RoundPlan
from federation.runs.interrupts import uninterrupted
from federation.runs.records import (
    Canary,
    DecisionRecord,
    EndRecord,
    EvaluationRecord,
    Record,
    RoundRecord,
)
from federation.runs.writer import RunWriter
from federation.steering import Steering
from federation.training.base import Base
from federation.training.engine import LocalEngine
from federation.tree import Tree, nbytes
from federation.undoing import undo

SPENT = ("bytes_down", "bytes_up", "tokens", "client_steps")
"""What training costs, of the figures of a round."""


@dataclass(frozen=True)
class Watch:
    """What is told of a run while it goes on.

    Attributes:
        record: called with every record that was appended to the journal.
        trained: called after every pass with how many clients it held.
        phase: called with a few words when something begins that takes a while.
    """

    record: Callable[[Record], None] = lambda record: None
    trained: Callable[[int], None] = lambda clients: None
    phase: Callable[[str], None] = lambda words: None


Judge = Callable[[Tree, int], Iterable[EvaluationRecord]]
"""Given the state after a round and its number: what there is to say of it."""


@dataclass
class Session:
    """A run being written.

    Attributes:
        algorithm: the federated algorithm.
        writer: the run directory.
        engine: where clients train.
        planner: who decides.
        state: server state after the last committed round.
        rounds: how many are configured.
        judge: who evaluates; called after every round.
        watch: who is told.
        rebuilt: makes the algorithm with other settings.
        first: parameters before round 0, so that idle reports are told; none: they are not.
        steering: what people command while it goes on.
    """

    algorithm: Algorithm
    writer: RunWriter
    engine: LocalEngine
    planner: Planner
    state: Tree
    rounds: int
    judge: Judge = lambda state, round: ()
    watch: Watch = field(default_factory=Watch)
    rebuilt: Callable[[Mapping[str, float]], Algorithm] | None = None
    first: torch.Tensor | None = None
    steering: Steering = field(init=False)
    _tried: Reports | None = field(init=False, default=None)
    _past: Past | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Listen to commands, and know where the model was."""
        if self.first is not None:
            self._past = Past(self.first, self.writer.before(self.first))
        self.steering = Steering(
            writer=self.writer,
            rounds=self.rounds,
            append=self.append,
            phase=self.watch.phase,
            too_long=self.planner.too_long,
            unfit=self.planner.unfit,
        )

    def append(self, record: Record) -> None:
        """Append a record and tell whoever watches."""
        with uninterrupted():
            self.writer.append(record)
        self.watch.record(record)

    def go_on(self, base: Base, data: str, facts: Mapping[str, str] = NOTHING) -> None:
        """Take over what the start record says, and what the committed rounds taught the planner.

        Args:
            base: the model that is trained.
            data: digest of the data.
            facts: hashes of what else it begins from, see :mod:`federation.bits`.

        Raises:
            ConfigError: if one of them, or dtype, would change the bits of the run.
        """
        history = self.writer.history
        if history.start is None:
            raise AssertionError("a run begins with a start record")
        same_arithmetic(history.start, base, data, facts)
        self.engine.chunk = history.start.chunk_size
        for round, record in history.rounds.items():
            self.planner.learn(record, history.decisions[round])

    def play_all(self) -> None:
        """Play the rounds that are left; what is commanded is followed before each.

        Raises:
            StoppedError: if the run was told to stop.
        """
        while self.goes_on():
            self.play()

    def goes_on(self) -> bool:
        """Follow what was commanded, and tell whether a round is left then.

        None is once all were played, or one that was decided to be the last.
        """
        self.steering.look()
        history = self.writer.history
        decision = history.decisions.get(history.last_round)
        # Whoever asked for more rounds is not overruled.
        ended = decision is not None and decision.last and not history.extra_rounds
        return self.writer.next_round < self.steering.total and not ended

    def algorithm_of(self, decision: DecisionRecord) -> Algorithm:
        """Give the engine and return the algorithm with the settings that were decided."""
        if not decision.settings or self.rebuilt is None:
            return self.algorithm
        algorithm = self.rebuilt(decision.settings)
        self.engine.task = replace(self.engine.task, algorithm=algorithm)
        return algorithm

    def play(self) -> None:
        """Play the next round: decide, train, combine, step, commit; evaluate if it is due."""
        began = time.perf_counter() - self.steering.idle
        round = self.writer.next_round
        decision = self.writer.decided or self.decide(round)
        plan, missing = self.planner.plan(decision)
        algorithm = self.algorithm_of(decision)
        sent, reports = algorithm.sent(self.state), None
        if plan.clients:
            reports = self.train(algorithm, plan)
            missing |= reports.rejected
        updates = reports.as_tree() if reports else None
        saved = self.writer.checkpoint(round, self.state, updates)
        seconds = time.perf_counter() - self.steering.idle - began
        # Evaluations and notes come before the round's record: at it all of them count.
        for evaluation in self.judge(self.state, round):
            self.append(evaluation)
        found: dict[str, Any] = figures(reports, plan) if reports else {"clients": ()}
        found["bytes_down"] = nbytes(sent) * len(decision.clients)
        found["idle"] = self._past.idle(reports, plan, sent) if self._past else {}
        record = RoundRecord(
            round=round,
            missing=missing,
            seconds=seconds,
            **with_refused(found, decision.canary),
            **saved._asdict(),
        )
        for note in self.planner.notes(record, decision):
            self.append(note)
        self.append(record)
        self.planner.learn(record, decision)

    def train(self, algorithm: Algorithm, plan: RoundPlan) -> Reports:
        """Let clients train and the server step; go back if the planner says that it diverged.

        Raises:
            QuorumError: if the server can make no state of the reports, and nothing is undone.
        """
        before, failure = self.state, None
        algorithm.check(plan.work)
        reports = self.reports(algorithm.sent(before), plan)
        try:
            self.state = advance(algorithm, before, reports, plan)
        except QuorumError as error:
            if not (reports.rejected or len(reports.clients) >= algorithm.quorum):
                raise  # too few were there: nothing diverged
            failure = error
        loss = mean_loss(reports, plan)
        back = self.planner.rollback(plan.round, loss, str(failure or ""))
        if back is not None:
            self.state = undo(self.writer, algorithm, plan, before, back)
            self.append(back)
        elif failure is not None:
            raise failure
        return reports

    def reports(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let clients train; those that tried what was decided have done so already."""
        tried, self._tried = self._tried, None
        if tried is None:
            return self.engine.train(sent, plan)
        parts, rest = [tried], [c for c in plan.clients if c not in tried.clients]
        if rest:
            parts.append(self.engine.train(sent, plan.only(rest)))
        return Reports.concat(parts).only(plan.clients)

    def tried(self, decision: DecisionRecord) -> DecisionRecord:
        """Let some clients train first where the planner wants it, and return what it makes of it.

        What they keep stays on disk if the decision holds, and is deleted if it does not.  Nothing
        counts before the decision is written down.
        """
        plan, _ = self.planner.plan(decision)
        clients = self.planner.canary(decision, plan)
        if not clients:
            return decision
        algorithm, plan = self.algorithm_of(decision), plan.only(clients)
        algorithm.check(plan.work)
        sent = algorithm.sent(self.state)
        reports = self.engine.train(sent, plan)
        spent = figures(reports, plan) | {"bytes_down": nbytes(sent) * len(clients)}
        found = self.planner.tried(decision, reports, {name: spent[name] for name in SPENT})
        if found.canary and found.canary.accepted:
            self._tried = reports
        else:
            self.writer.memory.discard()
        return found

    def decide(self, round: int) -> DecisionRecord:
        """Ask a person where one is to be asked, and write down what is decided.

        Raises:
            StoppedError: if the run was told to stop instead.
        """
        asked = self.planner.question(round)
        if asked is not None:
            if self.writer.history.asking is None:
                self.append(asked)
            self.steering.answer_to(asked)
        decision = self.tried(self.planner.decide(round))
        self.append(decision)
        return decision

    def end(self, status: Literal["finished", "stopped", "failed"], reason: str = "") -> None:
        """Say how the run ended, and to whom still commands it that it did."""
        self.append(EndRecord(status=status, reason=reason))
        self.steering.follow(ending="it has ended")


def mean_loss(reports: Reports, plan: RoundPlan) -> float:
    """Return the mean training loss of those that reported; 0 if none of them made a step.

    NaN if nobody reported.
    """
    if not reports.clients:
        return math.nan
    steps = plan.only(reports.clients).steps_C
    losses = [loss for loss, n in zip(reports.loss_C.tolist(), steps, strict=True) if n]
    return math.fsum(losses) / len(losses) if losses else 0.0


def figures(reports: Reports, plan: RoundPlan) -> dict[str, Any]:
    """Say what a journal keeps of the reports of a round."""
    clients = reports.clients
    return {
        "clients": clients,
        "loss": dict(zip(clients, reports.loss_C.tolist(), strict=True)),
        "update_norms": dict(zip(clients, reports.norm_C.tolist(), strict=True)),
        "bytes_up": nbytes(reports.tree_C),
        "tokens": int(reports.tokens_C.sum()),
        "client_steps": sum(plan.only(clients).steps_C),
    }


def with_refused(found: Mapping[str, Any], canary: Canary | None) -> dict[str, Any]:
    """Add to the figures of a round what a trial has cost that was refused."""
    if canary is None or canary.accepted:
        return dict(found)
    return {**found, **{name: found.get(name, 0) + getattr(canary, name) for name in SPENT}}


@contextmanager
def ending(session: Session) -> Iterator[None]:
    """Say in the journal how a run ended: finished, stopped by a person or program, or failed.

    A fault of ours and a kill say nothing: the run then reads as interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        session.end("stopped", "interrupted")
        raise
    except StoppedError as stop:
        session.end("stopped", stop.why)
        raise
    except FedpilotError as error:
        session.end("failed", str(error))
        raise
    session.end("finished")
