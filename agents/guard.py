"""What is allowed: a proposal is applied as it stands or refused with reasons, never bent.

Privacy is out of reach by construction: clip and noise are no knobs, so there is nothing to propose
for them, and under noise no cohort but a uniform one passes (agents/selection.py).
"""

import math
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, Field

from agents.facts import Observation
from agents.knobs import KNOBS, RECORD
from agents.proposals import Action, Answer, Proposal, Verdict
from agents.selection import Selection, faults_of_selection


class Ruling(BaseModel):
    """What the guard made of an answer.

    Attributes:
        verdict: rejected answers change nothing.
        violations: why it was rejected, one line each.
        values: knob -> value, what may be applied.
        selection: how clients are chosen; None: as before.
        action: whether the run goes on after the round.
    """

    model_config = RECORD

    verdict: Verdict
    violations: tuple[str, ...] = ()
    values: dict[str, float] = Field(default={})
    selection: Selection | None = None
    action: Action = "continue"


def rule_on(answer: Answer, observation: Observation) -> Ruling:
    """Judge an answer to an observation."""
    if answer.proposal is None:
        return Ruling(verdict="rejected", violations=(answer.failure,))
    violations = tuple(faults(answer.proposal, observation))
    if violations:
        return Ruling(verdict="rejected", violations=violations)
    proposal = answer.proposal
    if proposal.abstains:
        return Ruling(verdict="abstained")
    return Ruling(
        verdict="accepted",
        values=proposal.values,
        selection=proposal.selection,
        action=proposal.action,
    )


def faults(proposal: Proposal, observation: Observation) -> Iterator[str]:
    """Yield what is wrong with a proposal."""
    known = {fact.id for fact in observation.facts}
    for cited in proposal.evidence:
        if cited not in known:
            yield f"evidence {cited!r} is no fact that was shown"
    if proposal.expected and not proposal.expected[0] <= proposal.expected[1]:
        yield f"expected loss {proposal.expected[0]:g} to {proposal.expected[1]:g} is no interval"
    for name, value in proposal.values.items():
        yield from faults_of_value(name, value, observation)
    values = observation.values | proposal.values
    bounds = observation.selection
    held = bounds.current if bounds is not None and "cohort_size" in proposal.values else None
    if (chosen := proposal.selection or held) is not None:
        yield from faults_of_selection(chosen, bounds, proposal.evidence, values)
    if proposal.action == "stop" and not observation.may_stop:
        yield "the run may not end after this round"
    need = client_steps(values, observation.rounds_left)
    left = observation.budget.get("client_steps", math.inf)
    if proposal.values and need > left:
        yield f"{need:g} client-steps would be needed and {left:g} are left"


def client_steps(values: Mapping[str, float], rounds: int) -> float:
    """Return the client-steps of so many rounds with these values of the knobs."""
    return values["steps"] * values["cohort_size"] * rounds


def faults_of_value(name: str, value: float, observation: Observation) -> Iterator[str]:
    """Yield what is wrong with one value."""
    bound = observation.bounds.get(name)
    if bound is None:
        yield f"{name} may not be changed"
    elif not math.isfinite(value):
        yield f"{name} {value} is no number"
    elif not bound.low <= value <= bound.high:
        yield f"{name} {value:g} is outside {bound.low:g} to {bound.high:g}"
    elif KNOBS[name].whole and value != round(value):
        yield f"{name} {value:g} is not whole"
