"""The pilot inside the round loop: observe, ask the policy, let the guard rule, write it all down.

It decides what the rules of the core would have decided, with the values that the guard let
through. A policy that fails or is refused is replaced for that round by a rule, and the record says
so: ``source`` is "fallback".
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from agents import asking
from agents.explain import as_text, of_record
from agents.facts import Observation, observe
from agents.guard import Ruling, client_steps, rule_on
from agents.knobs import bounds_now, configured
from agents.proposals import Answer, Policy
from agents.rollback import narrowed, standing, undone
from agents.spec import PilotSpec, build_policy
from federation.cohort.planner import RulePlanner
from federation.errors import ConfigError
from federation.runs import inbox
from federation.runs.history import History
from federation.runs.records import (
    AskedRecord,
    CommandRecord,
    DecisionRecord,
    ExplanationRecord,
    Record,
    RollbackRecord,
    RoundRecord,
)
from federation.specs import ScheduleSpec

if TYPE_CHECKING:
    from federation.experiment import Setup


CAREFUL = "rollback@1"
"""Who decides the round after one that was undone: the last good values are played again."""


@dataclass(frozen=True)
class Decided:
    """What came of asking.

    Attributes:
        answer: the policy's.
        ruling: the guard's, on that answer.
        applied: what is applied in the end, which is the fallback's where the answer was refused.
        source: who it is from.
        name: policy that it is from, with its version.
    """

    answer: Answer
    ruling: Ruling
    applied: dict[str, float]
    source: str
    name: str


class PilotPlanner(RulePlanner):
    """Decides rounds by a policy, within bounds."""

    def __init__(self, setup: "Setup", history: History, traffic: int, spec: PilotSpec) -> None:
        """Start before the first round.

        Args:
            setup: what is run.
            history: the records of the run, growing as it goes on.
            traffic: bytes that a client receives and sends in a round.
            spec: who decides, within which bounds.

        Raises:
            ConfigError: if the pilot and the rest of the configuration contradict each other.
        """
        super().__init__(setup.config, setup.clients, setup.data.splits.train.sizes, traffic)
        self._history = history
        self._spec = spec
        self._outer = spec.outer(setup.config, len(setup.clients))
        self._policy = build_policy(spec.proposer, len(self._outer), spec)
        self._fallback = build_policy(spec.on_failure, len(self._outer))
        self._shadows = [build_policy(name, len(self._outer)) for name in spec.shadows]
        if "lr" in self._outer and setup.config.schedule != ScheduleSpec():
            raise ConfigError(
                "pilot.bounds.lr and [schedule] both steer the learning rate; drop one"
            )
        need = client_steps(configured(setup.config), setup.config.rounds)
        if spec.max_client_steps and need > spec.max_client_steps:
            raise ConfigError(
                f"pilot.max_client_steps is {spec.max_client_steps} and the run as configured takes"
                f" {need:g}: raise it, or lower rounds, work.steps or cohort.size"
            )

    def observation(self, round: int) -> Observation:
        """Say what is known before a round."""
        values = self.current(round)
        return observe(
            self._history,
            bounds_now(self.limits(values), values, self._spec.trust),
            values,
            self.budget(round),
            round=round,
            rounds=self._config.rounds + self._history.extra_rounds,
            seed=self._config.seed,
            smallest=self._spec.smallest,
        )

    def current(self, round: int) -> dict[str, float]:
        """Return every knob's value in the round before; in the last good one if that was undone.

        Before round 0 it is as configured.
        """
        last = standing(self._history, round - 1)
        before = None if last is None else self._history.decisions.get(last)
        return configured(self._config) | (applied(before) if before else {})

    def limits(self, values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return the outer limits of the open knobs, drawn in by what diverged."""
        tried = {n: self.values_of(n) for n in self._history.decisions}
        drawn = narrowed(self._outer, self._history, tried, configured(self._config))
        return {
            name: (min(least, values[name]), max(most, values[name]))
            for name, (least, most) in drawn.items()
        }

    def values_of(self, round: int) -> dict[str, float]:
        """Return every knob's value in a round that was decided."""
        return configured(self._config) | applied(self._history.decisions[round])

    def decide(self, round: int) -> DecisionRecord:
        """Ask, rule, and write down what was seen, said, allowed, and what others would say."""
        began = time.perf_counter()
        observation = self.observation(round)
        asked = self._history.asked.get(round) if self.asks(round) else None
        told = asked and self._history.answer_to(asked)
        decided = self.decided(observation, asked, told)
        values = self.current(round) | decided.applied
        proposal = decided.answer.proposal
        why = proposal.rationale if proposal else decided.answer.failure
        record = self.cohort(round, values)
        return record.model_copy(
            update={
                "source": decided.source,
                "policy": decided.name,
                "reason": asking.reason(asked, told) if asked and told else why,
                "details": {
                    "observation_sha256": observation.sha256,
                    "asked": self._policy.name,
                    "proposal": proposal and proposal.model_dump(mode="json"),
                    "trace": decided.answer.trace,
                    "verdict": decided.ruling.verdict,
                    "violations": list(decided.ruling.violations),
                    "applied": values,
                    "shadows": shadows(self._shadows, observation),
                    **({"person": asking.details(asked, told)} if asked else {}),
                },
                "seconds": time.perf_counter() - began,
            }
        )

    def decided(
        self, observation: Observation, asked: AskedRecord | None, told: CommandRecord | None
    ) -> Decided:
        """Ask the policy, or take what a person answered, or nobody after a round was undone."""
        back = self._history.rollbacks.get(observation.round - 1)
        if back is not None:
            why = f"round {back.round + 1} was undone: {back.reason}"
            refused = Ruling(verdict="rejected", violations=(why,))
            return Decided(Answer(proposal=None, failure=why), refused, {}, "fallback", CAREFUL)
        if asked is None:
            return decide(self._policy, self._fallback, observation)
        return ruled(
            asking.answered(asked, told), self._fallback, observation, f"human:{asked.policy}"
        )

    def asks(self, round: int) -> bool:
        """Tell whether a person is asked before a round."""
        return self._spec.asks and round - 1 not in self._history.rollbacks

    def question(self, round: int) -> AskedRecord | None:
        """Ask a person about the policy's proposal, if one is to be asked."""
        if not self.asks(round):
            return None
        if self._history.asking is not None:
            return self._history.asking
        observation = self.observation(round)
        answer = self._policy.decide(observation)
        ruling = rule_on(answer, observation)
        return asking.question(observation, self._policy.name, answer, ruling, self._spec.patience)

    def unfit(self, asked: AskedRecord, answer: inbox.Answer) -> str:
        """Judge an answer as a proposal is judged."""
        return asking.unfit(asked, answer, self.observation(asked.round))

    def rollback(self, round: int, loss: float, failure: str) -> RollbackRecord | None:
        """Undo a round that diverged, if that is wanted."""
        if self._spec.rollback is None:
            return None
        return undone(self._history, self._spec.rollback, round, loss, failure)

    def notes(self, record: RoundRecord, decision: DecisionRecord) -> Iterator[Record]:
        """Explain the round by rule."""
        claims, facts = of_record(self._history, record, decision, self._spec.smallest)
        cited = sorted({cited for claim in claims for cited in claim.cites})
        yield ExplanationRecord(
            round=record.round,
            source="heuristic",
            text=as_text(claims),
            details={
                "claims": [claim.model_dump(mode="json") for claim in claims],
                "facts": {name: facts[name].value for name in cited},
            },
        )

    def cohort(self, round: int, values: Mapping[str, float]) -> DecisionRecord:
        """Let the core's rule choose whom to ask, with the values applied."""
        work = self.work(round).model_copy(update={"steps": int(values["steps"])})
        if "lr" in self._outer:
            work = work.model_copy(update={"lr": values["lr"]})
        size = int(values["cohort_size"])
        return self.chosen(round, work, self._config.cohort.model_copy(update={"size": size}))

    def too_long(self, rounds: int) -> str:
        """Refuse rounds that the budget of client-steps does not last for."""
        round = self._history.last_round + 1
        need = client_steps(self.current(round), rounds - round)
        left = self.budget(round).get("client_steps", math.inf)
        if need > left:
            return f"{need:g} client-steps would be needed and {left:g} are left"
        return super().too_long(rounds)

    def budget(self, round: int) -> dict[str, float]:
        """Return what is left before a round of what is limited."""
        spec, rounds = self._spec, range(round)
        steps = sum(self._history.rounds[n].client_steps for n in rounds)
        traces = [asked_for(self._history.decisions[n]) for n in rounds]
        spent = {
            "client_steps": (spec.max_client_steps, steps),
            "calls": (spec.max_calls, sum(trace.get("attempts", 0) for trace in traces)),
            "tokens": (spec.max_tokens, sum(trace.get("tokens", 0) for trace in traces)),
        }
        limited = {name: (most, used) for name, (most, used) in spent.items() if most is not None}
        return {name: float(most - used) for name, (most, used) in limited.items()}


def decide(policy: Policy, fallback: Policy, observation: Observation) -> Decided:
    """Ask a policy; where it fails or is refused, a rule."""
    return ruled(policy.decide(observation), fallback, observation, policy.name)


def ruled(answer: Answer, fallback: Policy, observation: Observation, name: str) -> Decided:
    """Let the guard rule on an answer; where it is refused, a rule decides."""
    ruling = rule_on(answer, observation)
    if ruling.verdict != "rejected":
        source = answer.proposal.source if answer.proposal else "heuristic"
        return Decided(answer, ruling, ruling.values, source, name)
    instead = rule_on(fallback.decide(observation), observation)
    return Decided(answer, ruling, instead.values, "fallback", fallback.name)


def shadows(policies: list[Policy], observation: Observation) -> dict[str, JsonValue]:
    """Say what other policies would have proposed."""
    found: dict[str, JsonValue] = {}
    for policy in policies:
        proposal = policy.decide(observation).proposal
        found[policy.name] = dict(proposal.values) if proposal else None
    return found


def asked_for(decision: DecisionRecord) -> dict[str, float]:
    """Return what a decision has cost in calls and tokens of a language model."""
    trace = decision.details.get("trace")
    if not isinstance(trace, dict):
        return {}
    return {k: float(v) for k, v in trace.items() if isinstance(v, int | float)}


def applied(decision: DecisionRecord) -> dict[str, float]:
    """Return the knobs' values that a decision applied."""
    values = decision.details.get("applied")
    return {k: float(str(v)) for k, v in values.items()} if isinstance(values, dict) else {}
