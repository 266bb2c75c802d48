"""Policies that ask a language model: alone, or as adviser of an optimizer that stays in charge.

One question a round, answered in a schema whose bounds are this round's.  The model sees facts and
bounds and nothing else.  A model alone tunes worse than a plain search; a search that it may
overrule now and then does best (Ferreira et al. 2026, arXiv:2603.24647).
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue, create_model

from agents.facts import Fact, Observation
from agents.knobs import KNOBS, RECORD, knob_fields
from agents.proposals import Answer, Policy, Proposal
from agents.selection import Selection, SelectionBounds, selection_model
from llm_tools import Answer as Reply
from llm_tools import ask, fill

SHOWN = 8  # rounds back that a model is shown
CITED = 5  # facts that it may cite
WHY = (str, Field(max_length=280, description="why, in a sentence"))


@dataclass(frozen=True)
class Adviser:
    """A language model that decides.

    Attributes:
        model: whom to ask, made by :func:`llm_tools.chat_model`.
        spec: its description, as the journal keeps it.
        deadline: seconds for one answer, repairs included.
    """

    model: Any
    spec: str
    deadline: float

    @property
    def name(self) -> str:
        """Name and version."""
        return f"llm:{self.spec}@2"

    def decide(self, observation: Observation) -> Answer:
        """Ask once; what goes wrong is in the answer."""
        for limited in ("calls", "tokens"):
            if observation.budget.get(limited, 1) <= 0:
                return Answer(proposal=None, failure=f"the budget of {limited} is spent")
        if observation.resting:
            return Answer(proposal=None, failure=observation.resting)
        prompt = fill("decide", **shown(observation))
        reply = ask(self.model, prompt, schema_of(observation), deadline_s=self.deadline)
        trace = traced(reply) | {"prompt": f"{prompt.name}@{prompt.version}"}
        if reply.value is None:
            return Answer(proposal=None, failure=f"{reply.failure}: {reply.reason}", trace=trace)
        return Answer(proposal=as_proposal(reply.value.model_dump()), trace=trace)


def traced(reply: "Reply[Any]") -> dict[str, JsonValue]:
    """Keep what an auditor asks for."""
    failed = {"failure": reply.failure.value} if reply.failure else {}
    return {
        "model": reply.model,
        "prompt_sha256": reply.prompt_sha256,
        "raw": reply.raw,
        "attempts": reply.attempts,
        "tokens": (reply.tokens_in or 0) + (reply.tokens_out or 0),
        **failed,
    }


def schema_of(observation: Observation) -> type[BaseModel]:
    """Return the schema of an answer: open knobs within their bounds, and ids that were shown.

    Grammars have fields written in this order, and a model reads what it has written: so the reason
    comes before what follows from it.
    """
    ids = tuple(fact.id for fact in recent(observation))
    fields: dict[str, Any] = {"rationale": WHY}
    if ids:
        cited = Field(max_length=CITED, description="ids of the facts it rests on")
        fields["evidence"] = (list[Literal[ids]], cited)
    fields |= knob_fields(observation.bounds)
    if observation.selection is not None:
        choice = Field(description="how the clients of the round are chosen")
        fields["selection"] = (selection_model(observation.selection), choice)
    if observation.may_stop:
        ends = Field(description="stop: this round is the last one")
        fields["action"] = (Literal["continue", "stop"], ends)
    loss = "training loss expected after this round"
    fields["expected"] = (float, Field(ge=0, le=100, description=loss))
    fields["margin"] = (float, Field(ge=0, le=100, description="how far it may be off"))
    fields["abstain"] = (bool, Field(description="true: everything stays as it is"))
    return create_model("Decision", __config__=RECORD, **fields)


def as_proposal(answer: dict[str, Any]) -> Proposal:
    """Turn an answer into a proposal."""
    loss, margin = answer.pop("expected"), answer.pop("margin")
    expected = max(0.0, loss - margin), loss + margin
    rest = {"rationale": answer.pop("rationale"), "evidence": tuple(answer.pop("evidence", ()))}
    choice, action = answer.pop("selection", None), answer.pop("action", "continue")
    if answer.pop("abstain"):
        return Proposal(expected=expected, source="llm", **rest)
    return Proposal(
        values={name: float(value) for name, value in answer.items()},
        selection=choice and Selection.model_validate(choice),
        action=action,
        expected=expected,
        source="llm",
        **rest,
    )


def recent(observation: Observation) -> list[Fact]:
    """Select the facts of the last rounds, and those of the run."""
    first = observation.round - SHOWN
    return [fact for fact in observation.facts if fact.round is None or fact.round >= first]


def shown(observation: Observation) -> dict[str, str]:
    """Write what a model is shown."""
    facts = (f"{fact.id} = {fact.value:g} {fact.unit}" for fact in recent(observation))
    knobs = (
        f"{name}: {KNOBS[name].meaning}, {KNOBS[name].unit}; now {bound.current:g},"
        f" allowed {bound.low:g} to {bound.high:g}"
        for name, bound in observation.bounds.items()
    )
    choice = observation.selection and shown_choice(observation.selection)
    return {
        "round": str(observation.round + 1),
        "left": str(observation.rounds_left),
        "facts": "\n".join(facts) or "none",
        "knobs": "\n".join([*knobs, *([choice] if choice else [])]),
    }


def shown_choice(bounds: SelectionBounds) -> str:
    """Write how clients may be chosen."""
    line = f"selection.rule: how clients are chosen, one of {', '.join(bounds.rules)}; now"
    out = ", ".join(bounds.current.exclude) or "nobody"
    most = f"; excluded: {out}, at most {bounds.most_excluded}" if bounds.most_excluded else ""
    return f"{line} {bounds.current.rule}{most}"


@dataclass(frozen=True)
class Hybrid:
    """An optimizer in charge, which a model may overrule in a share of the rounds.

    Attributes:
        search: who decides.
        adviser: who may overrule.
        share: of the rounds so far and this one, how many the adviser may have decided.
        warmup: rounds before the adviser is asked.
    """

    search: Policy
    adviser: Policy
    share: float
    warmup: int

    @property
    def name(self) -> str:
        """Names of both, and version."""
        return f"hybrid:{self.search.name}+{self.adviser.name}@1"

    def decide(self, observation: Observation) -> Answer:
        """Ask the optimizer, and the adviser if it is its turn; failing, it overrules nobody."""
        planned = self.search.decide(observation)
        taken = observation.sources.get("llm", 0) + 1
        if observation.round < self.warmup or taken > self.share * (observation.round + 1):
            return planned
        advised = self.adviser.decide(observation)
        if advised.proposal is None or advised.proposal.abstains:
            why = advised.failure or "abstained"
            return planned.model_copy(update={"trace": {**advised.trace, "adviser": why}})
        return advised
