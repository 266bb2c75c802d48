"""Who trains next, and with how much work: the decisions of a run, taken by the configured rules.

A planner turns what is known before a round into a decision record, and a decision into a plan.
Taking them apart makes a round replayable: the decision is in the journal, the plan follows from
it by address.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from federation.cohort.devices import available, cut_stragglers, dropped, speeds
from federation.cohort.selection import CohortSpec, select
from federation.cohort.standing import Standing
from federation.config import Config
from federation.errors import ConfigError
from federation.plan import Reports, RoundPlan
from federation.runs.inbox import Answer
from federation.runs.records import (
    AskedRecord,
    DecisionRecord,
    Record,
    RollbackRecord,
    RoundRecord,
)
from federation.specs import LocalWork


class Planner(Protocol):
    """Decides rounds."""

    def decide(self, round: int) -> DecisionRecord:
        """Say who is asked in a round, and to do what."""
        ...

    def typical(self) -> RoundPlan:
        """Return a round as configured, to be measured: nobody is asked and nothing is recorded."""
        ...

    def plan(self, decision: DecisionRecord) -> tuple[RoundPlan, dict[str, str]]:
        """Return the plan of those that will report, and why each of the others will not."""
        ...

    def canary(self, decision: DecisionRecord, plan: RoundPlan) -> tuple[str, ...]:
        """Say which clients of a plan are to try a decision before it is written down, if any."""
        ...

    def tried(
        self, decision: DecisionRecord, reports: Reports, spent: Mapping[str, int]
    ) -> DecisionRecord:
        """Return the decision after some clients have tried it: the same, or what holds instead.

        Args:
            decision: what was tried.
            reports: of those that tried it; whoever diverged is among the rejected.
            spent: bytes_down, bytes_up, tokens and client_steps of the trial.

        Returns:
            A decision with its ``canary``.
        """
        ...

    def notes(self, record: RoundRecord, decision: DecisionRecord) -> Iterable[Record]:
        """Yield what there is to be said of a round that is about to be committed."""
        ...

    def learn(self, record: RoundRecord, decision: DecisionRecord) -> None:
        """Take note of a committed round."""
        ...

    def question(self, round: int) -> AskedRecord | None:
        """Say what a person is to be asked before a round is decided; none: nobody is asked.

        Where the journal has the question already, it is that one.
        """
        ...

    def unfit(self, asked: AskedRecord, answer: Answer) -> str:
        """Say why an answer to a question cannot be used; nothing if it can."""
        ...

    def too_long(self, rounds: int) -> str:
        """Say why a run cannot get so many rounds in all; nothing if it can."""
        ...

    def rollback(self, round: int, loss: float, failure: str) -> RollbackRecord | None:
        """Say whether a round that was trained is to be undone, and to which one.

        Args:
            round: the round.
            loss: mean training loss of its clients.
            failure: why the server could make no state of it; empty if it could.
        """
        ...


class RulePlanner:
    """The configured selection rule, schedule and simulated devices.

    Attributes:
        standing: what is known of every registered client.
    """

    def __init__(
        self, config: Config, clients: Sequence[str], examples: np.ndarray, traffic: int
    ) -> None:
        """Start before the first round.

        Args:
            config: the run's configuration.
            clients: ids of the registered clients, in registry order.
            examples: training examples of each.
            traffic: bytes that a client receives and sends in a round, for simulated devices.

        Raises:
            ConfigError: if a client to be excluded is not registered, or too few are left.
        """
        self._config = config
        self._clients = tuple(clients)
        self._index = {client: i for i, client in enumerate(self._clients)}
        self._excluded = excluded(config.cohort, self._index)
        self._speeds = speeds(config.devices, config.seed, len(clients))
        self._traffic = traffic
        seconds = config.work.steps * self._speeds.seconds_per_step_N
        self.standing = Standing.fresh(
            examples, seconds=seconds + traffic / self._speeds.bandwidth_N
        )

    def work(self, round: int) -> LocalWork:
        """Return what each client does in a round: the configured work at the scheduled rate."""
        config = self._config
        factor = config.schedule.factor(round, config.rounds)
        return config.work.model_copy(update={"lr": config.work.lr * factor})

    def decide(self, round: int) -> DecisionRecord:
        """Choose a cohort by the configured rule among the clients that are online."""
        return self.chosen(round, self.work(round), self._config.cohort)

    def typical(self) -> RoundPlan:
        """Let the rules make the plan of round 0."""
        return self.plan(self.chosen(0, self.work(0), self._config.cohort))[0]

    def chosen(self, round: int, work: LocalWork, cohort: CohortSpec) -> DecisionRecord:
        """Let a rule choose whom to ask for some work."""
        standing, seed = self.standing.now(self.online(round)), self._config.seed
        chosen = select(cohort, standing, seed, round, self._excluded)
        return self.asked(round, work, cohort.rule, chosen)

    def online(self, round: int) -> np.ndarray:
        """Say which of the registered clients may be asked in a round, ``(N,)`` bool."""
        return available(self._config.devices, self._config.seed, round, len(self._clients))

    def asked(
        self, round: int, work: LocalWork, rule: str, chosen: Iterable[int]
    ) -> DecisionRecord:
        """Write down that clients are asked, by index, for some work."""
        return DecisionRecord(
            round=round,
            source="heuristic",
            policy=rule,
            clients=tuple(self._clients[i] for i in chosen),
            work=work.model_dump(mode="json"),
        )

    def plan(self, decision: DecisionRecord) -> tuple[RoundPlan, dict[str, str]]:
        """Let the simulated devices say who reports, and how many steps the slow ones make."""
        config = self._config
        index = [self._index[client] for client in decision.clients]
        work = LocalWork.model_validate(decision.work)
        asked = decision.steps or work.steps
        steps, late = cut_stragglers(config.devices, self._speeds, index, asked, self._traffic)
        lost = late | dropped(config.devices, config.seed, decision.round, index)
        plan = RoundPlan(
            round=decision.round,
            population=len(self._clients),
            clients=decision.clients,
            work=work,
            seed=config.seed,
            steps=tuple(int(n) for n in steps),
            batch_sizes=decision.batch_sizes,
            # Kept apart, so that whoever plays the round again comes to the same bits.
            first=tried.clients if (tried := decision.canary) and tried.accepted else (),
        )
        missing = {self._clients[i]: reason for i, reason in lost.items()}
        return plan.only([c for c in decision.clients if c not in missing]), missing

    def canary(self, decision: DecisionRecord, plan: RoundPlan) -> tuple[str, ...]:
        """Let nobody try: what rules decide is done."""
        return ()

    def tried(
        self, decision: DecisionRecord, reports: Reports, spent: Mapping[str, int]
    ) -> DecisionRecord:
        """Leave the decision as it is."""
        return decision

    def notes(self, record: RoundRecord, decision: DecisionRecord) -> Iterable[Record]:
        """Say nothing: the figures speak."""
        return ()

    def question(self, round: int) -> AskedRecord | None:
        """Ask nobody: rules decide alone."""
        return None

    def unfit(self, asked: AskedRecord, answer: Answer) -> str:
        """Take no answer: nobody was asked."""
        return "rules decide, and ask nobody"

    def too_long(self, rounds: int) -> str:
        """Refuse rounds for which the schedule has no learning rate."""
        schedule, planned = self._config.schedule, self._config.rounds
        if rounds <= planned or (schedule.kind == "constant" and not schedule.warmup):
            return ""
        return f"[schedule] is laid out over {planned} rounds; use fedpilot fork"

    def rollback(self, round: int, loss: float, failure: str) -> RollbackRecord | None:
        """Undo nothing."""
        return None

    def learn(self, record: RoundRecord, decision: DecisionRecord) -> None:
        """Note who was asked, who trained and with which loss."""
        self.standing = self.standing.after(
            record.round,
            [self._index[client] for client in decision.clients],
            [self._index[client] for client in record.clients],
            [record.loss[client] for client in record.clients],
        )


def excluded(cohort: CohortSpec, index: Mapping[str, int]) -> frozenset[int]:
    """Return the indices of the clients that are never asked.

    Args:
        cohort: who is excluded by name, and how many are to be asked.
        index: registered client -> its index.

    Raises:
        ConfigError: if one of them is not registered, or fewer are left than are asked.
    """
    for name in cohort.exclude:
        if name not in index:
            raise ConfigError(f"cohort.exclude: there is no client {name!r}; check its name")
    found = frozenset(index[name] for name in cohort.exclude)
    if found and (left := len(index) - len(found)) < cohort.size:
        raise ConfigError(
            f"cohort.exclude leaves {left} clients and cohort.size is {cohort.size}:"
            " exclude fewer, or lower cohort.size"
        )
    return found
