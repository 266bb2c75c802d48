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

from agents.explain import as_text, of_record
from agents.facts import Observation
from agents.guard import Ruling, client_steps, rule_on
from agents.knobs import configured
from agents.proposals import Answer, Policy
from agents.seen import budget_before, seen, values_before
from agents.spec import PilotSpec, build_policy
from federation.cohort.planner import RulePlanner
from federation.errors import ConfigError
from federation.runs.records import DecisionRecord, ExplanationRecord, Record, RoundRecord
from federation.runs.run import History
from federation.specs import ScheduleSpec

if TYPE_CHECKING:
    from federation.experiment import Setup


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
        self._policy = build_policy(spec.policy, len(self._outer), spec)
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
        return seen(self._history, self._config, self._spec, self._outer, round)

    def current(self, round: int) -> dict[str, float]:
        """Return every knob's value in the round before, as configured before round 0."""
        return values_before(self._history, self._config, round)

    def decide(self, round: int) -> DecisionRecord:
        """Ask, rule, and write down what was seen, said, allowed, and what others would say."""
        began = time.perf_counter()
        observation = self.observation(round)
        decided = decide(self._policy, self._fallback, observation)
        values = self.current(round) | decided.applied
        proposal = decided.answer.proposal
        record = self.cohort(round, values)
        return record.model_copy(
            update={
                "source": decided.source,
                "policy": decided.name,
                "reason": proposal.rationale if proposal else decided.answer.failure,
                "details": {
                    "observation_sha256": observation.sha256,
                    "asked": self._policy.name,
                    "proposal": proposal and proposal.model_dump(mode="json"),
                    "trace": decided.answer.trace,
                    "verdict": decided.ruling.verdict,
                    "violations": list(decided.ruling.violations),
                    "applied": values,
                    "shadows": shadows(self._shadows, observation),
                },
                "seconds": time.perf_counter() - began,
            }
        )

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
        left = budget_before(self._history, self._spec, round).get("client_steps", math.inf)
        if need > left:
            return f"{need:g} client-steps would be needed and {left:g} are left"
        return super().too_long(rounds)


def decide(policy: Policy, fallback: Policy, observation: Observation) -> Decided:
    """Ask a policy; where it fails or is refused, a rule."""
    answer = policy.decide(observation)
    ruling = rule_on(answer, observation)
    if ruling.verdict != "rejected":
        source = answer.proposal.source if answer.proposal else "heuristic"
        return Decided(answer, ruling, ruling.values, source, policy.name)
    instead = rule_on(fallback.decide(observation), observation)
    return Decided(answer, ruling, instead.values, "fallback", fallback.name)


def shadows(policies: list[Policy], observation: Observation) -> dict[str, JsonValue]:
    """Say what other policies would have proposed."""
    found: dict[str, JsonValue] = {}
    for policy in policies:
        proposal = policy.decide(observation).proposal
        found[policy.name] = dict(proposal.values) if proposal else None
    return found
