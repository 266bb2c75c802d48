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
from agents.canary import CAUTIOUS, how_many, is_far, is_first_of_model, judged, moved
from agents.claims import as_text
from agents.cohorts import Choices
from agents.explain import of_record
from agents.facts import Fact, Observation
from agents.guard import Ruling, client_steps, rule_on
from agents.knobs import SETTINGS, configured
from agents.made_up import DETAIL, MadeUp
from agents.proposals import Action, Answer, Policy, Proposal
from agents.rollback import undone
from agents.seen import applied, budget_before, seen, values_before
from agents.selection import Selection
from agents.spec import PilotSpec, build_policy, completed
from federation.cohort.planner import RulePlanner
from federation.cohort.standing import Standing
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
    from federation.plan import Reports, RoundPlan


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
        selection: how clients are chosen; None: as before.
        action: whether the run goes on after the round.
    """

    answer: Answer
    ruling: Ruling
    applied: dict[str, float]
    source: str
    name: str
    selection: Selection | None = None
    action: Action = "continue"


class PilotPlanner(RulePlanner):
    """Decides rounds by a policy, within bounds."""

    def __init__(
        self,
        setup: "Setup",
        history: History,
        traffic: int,
        spec: PilotSpec,
        made_up: MadeUp | None = None,
    ) -> None:
        """Start before the first round.

        Args:
            setup: what is run.
            history: the records of the run, growing as it goes on.
            traffic: bytes that a client receives and sends in a round.
            spec: who decides, within which bounds.
            made_up: what was decided on made-up rows before the run began.

        Raises:
            ConfigError: if the pilot and the rest of the configuration contradict each other.
        """
        super().__init__(setup.config, setup.clients, setup.data.splits.train.sizes, traffic)
        self._history = history
        self._spec = spec
        self._made_up = made_up
        self._told: dict[int, tuple[Fact, ...]] = {}
        self._outer = spec.outer(setup.config, len(setup.clients))
        self._policy = build_policy(spec.proposer, len(self._outer), spec)
        self._fallback = completed(build_policy(spec.on_failure, len(self._outer)), spec)
        self._shadows = [
            completed(build_policy(name, len(self._outer)), spec) for name in spec.shadows
        ]
        self._choices = spec.selection and Choices.of(
            setup.config, spec.selection, self._outer, self._clients, self._excluded
        )
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
        bounds = self._choices and self._choices.bounds(self._history, round)
        return seen(self._history, self._config, self._spec, self._outer, round, bounds, self._told)

    def current(self, round: int) -> dict[str, float]:
        """Return every knob's value in the round before, as configured before round 0."""
        return values_before(self._history, self._config, round)

    def decide(self, round: int) -> DecisionRecord:
        """Ask, rule, and write down what was seen, said, allowed, and what others would say."""
        began = time.perf_counter()
        observation = self.observation(round)
        asked = self._history.asked.get(round) if self.asks(round) else None
        told = asked and self._history.answer_to(asked)
        decided = self.afforded(observation, self.decided(observation, asked, told))
        values = self.current(round) | decided.applied
        proposal = decided.answer.proposal
        why = proposal.rationale if proposal else decided.answer.failure
        record = self.cohort(round, values, decided.selection)
        return record.model_copy(
            update={
                "last": decided.action == "stop",
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
                    **shown(observation),
                    **record.details,
                    **self.begun(round),
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

    def is_tried(self, round: int, source: str, values: Mapping[str, float]) -> bool:
        """Tell whether some clients are to try values before a round is decided."""
        if self._spec.canary is None:
            return False
        before = self.current(round)
        first = source == "llm" and is_first_of_model(self._history, round)
        far = is_far(values, before, self._spec.trust)
        return bool(moved(values, before)) and (first or far)

    def afforded(self, observation: Observation, decided: Decided) -> Decided:
        """Refuse what would have to be tried, if the client-steps left do not last for that."""
        before, left = observation.values, observation.budget.get("client_steps", math.inf)
        values = before | decided.applied
        if not self.is_tried(observation.round, decided.source, values):
            return decided
        clients = how_many(self._spec.canary or 0.0, int(values["cohort_size"]))
        need = clients * values["steps"] + client_steps(before, observation.rounds_left)
        if need <= left:
            return decided
        why = f"it would have to be tried first: {need:g} client-steps, and {left:g} are left"
        refused = Ruling(verdict="rejected", violations=(why,))
        return Decided(decided.answer, refused, {}, "fallback", CAUTIOUS)

    def canary(self, decision: DecisionRecord, plan: "RoundPlan") -> tuple[str, ...]:
        """Let the first clients of a cohort try a far move, and the first of a language model."""
        if not self.is_tried(decision.round, decision.source, applied(decision)):
            return ()
        able = [client for client, n in zip(plan.clients, plan.steps_C, strict=True) if n]
        return tuple(able[: how_many(self._spec.canary or 0.0, len(plan.clients))])

    def tried(
        self, decision: DecisionRecord, reports: "Reports", spent: Mapping[str, int]
    ) -> DecisionRecord:
        """Keep a decision that did no harm; else the values before hold, as if nothing was said."""
        before = self.current(decision.round)
        values, losses = moved(applied(decision), before), reports.loss_C.tolist()
        came = {*reports.clients, *reports.rejected}
        clients = [client for client in decision.clients if client in came]
        found = judged(self._history, values, clients, losses, spent)
        if found.accepted:
            return decision.model_copy(update={"canary": found})
        record = self.cohort(decision.round, before)
        more = {"verdict": "rejected", "violations": [found.reason], "applied": before}
        changed = {
            "source": "fallback",
            "policy": CAUTIOUS,
            "reason": found.reason,
            "canary": found,
            "seconds": decision.seconds,
            "details": {**decision.details, **record.details, **more},
        }
        return record.model_copy(update=changed)

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

    def begun(self, round: int) -> dict[str, JsonValue]:
        """Return what the first decision keeps of what was decided before the run began."""
        if round or self._made_up is None:
            return {}
        return {DETAIL: self._made_up.model_dump(mode="json")}

    def cohort(
        self, round: int, values: Mapping[str, float], selection: Selection | None = None
    ) -> DecisionRecord:
        """Choose whom to ask with the values applied: by the core's rule, or as was decided."""
        work = self.work(round).model_copy(update={"steps": int(values["steps"])})
        if "lr" in self._outer:
            work = work.model_copy(update={"lr": values["lr"]})
        set_now = {name: values[name] for name in SETTINGS if name in self._outer}
        size = int(values["cohort_size"])
        cohort = self._config.cohort.model_copy(update={"size": size})
        if self._choices is None:
            record = self.chosen(round, work, cohort)
            return record.model_copy(update={"settings": set_now})
        found = self._choices.cohort(self._history, round, selection, cohort, self._online(round))
        record = self.asked(round, work, cohort.rule, found.clients)
        details = self._choices.details(found)
        return record.model_copy(update={"settings": set_now, "details": details})

    def _online(self, round: int) -> Standing:
        return self.standing.now(self.online(round))

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
    return ruled(policy.decide(observation), fallback, observation, policy.name)


def ruled(answer: Answer, fallback: Policy, observation: Observation, asked: str) -> Decided:
    """Let the guard rule on an answer; where it is refused, a rule decides."""
    ruling = rule_on(answer, observation)
    source, name, final = "fallback", fallback.name, ruling
    if ruling.verdict == "rejected":
        final = rule_on(fallback.decide(observation), observation)
    elif answer.proposal is not None:
        source, name = answer.proposal.source, asked
    return Decided(answer, ruling, final.values, source, name, final.selection, final.action)


def shown(observation: Observation) -> dict[str, JsonValue]:
    """Keep what of an observation does not follow from the records before it."""
    bounds = observation.selection
    return {} if bounds is None else {"selection_bounds": bounds.model_dump(mode="json")}


def shadows(policies: list[Policy], observation: Observation) -> dict[str, JsonValue]:
    """Say what other policies would have proposed."""
    found: dict[str, JsonValue] = {}
    for policy in policies:
        proposal = policy.decide(observation).proposal
        found[policy.name] = said(proposal) if proposal else None
    return found


def said(proposal: Proposal) -> dict[str, JsonValue]:
    """Write what would be otherwise, and nothing that would stay as it is."""
    found: dict[str, JsonValue] = dict(proposal.values)
    if proposal.selection is not None:
        found["selection"] = proposal.selection.model_dump(mode="json")
    return found | ({"action": "stop"} if proposal.action == "stop" else {})
