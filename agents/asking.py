"""A person between a proposal and what is applied: the question, the answer, and what it means.

Waiting is the session's (federation/steering.py).  A question goes into the journal before anybody
waits, with the proposal in it, so that a run that was stopped or killed asks the very same thing
again and no model is asked twice; the answer goes into the journal before it is used.
"""

from datetime import UTC, datetime

from pydantic import JsonValue

from agents.facts import Observation
from agents.guard import Ruling, rule_on
from agents.knobs import values_model
from agents.proposals import Answer, Proposal
from federation.runs import inbox
from federation.runs.records import AskedRecord, CommandRecord

SAID = {"approve": "approved", "edit": "edited", "reject": "rejected"}


def question(
    observation: Observation, policy: str, answer: Answer, ruling: Ruling, patience: float | None
) -> AskedRecord:
    """Ask whether a round is to be as it was proposed.

    Args:
        observation: what is known.
        policy: name of the policy that proposes.
        answer: what it said.
        ruling: what the guard made of that; what it refuses cannot be approved.
        patience: seconds after which the fallback decides; None: never.
    """
    bounds = observation.bounds
    return AskedRecord(
        id=f"round-{observation.round + 1}",
        round=observation.round,
        policy=policy,
        proposal=answer.proposal and answer.proposal.model_dump(mode="json"),
        violations=ruling.violations,
        values=observation.values,
        bounds={name: bound.model_dump(mode="json") for name, bound in bounds.items()},
        values_schema=values_model(bounds).model_json_schema(),
        since=datetime.now(UTC).isoformat(timespec="milliseconds"),
        patience=patience,
        details={"trace": answer.trace},
    )


def unfit(asked: AskedRecord, answer: inbox.Answer, observation: Observation) -> str:
    """Say why an answer cannot be used, by the rules that proposals are judged by."""
    if answer.answer == "approve" and asked.violations:
        return f"what was proposed is not allowed: {'; '.join(asked.violations)}"
    if answer.values and answer.answer != "edit":
        return f"values go with an edit, not with {answer.answer}"
    if not answer.values and answer.answer == "edit":
        return "an edit has values"
    proposal = meant(asked, answer.answer, answer.values)
    return "; ".join(rule_on(Answer(proposal=proposal), observation).violations)


def meant(asked: AskedRecord, answer: str, values: dict[str, float]) -> Proposal:
    """Return what a person wants: the proposal, the proposal but for some values, or no change."""
    if answer == "reject":
        return Proposal(source="human")
    allowed = asked.proposal is not None and not asked.violations
    proposal = Proposal.model_validate(asked.proposal) if allowed else Proposal()
    return proposal.model_copy(update={"source": "human", "values": proposal.values | values})


def answered(asked: AskedRecord, told: CommandRecord | None) -> Answer:
    """Return what came of a question, as the answer of a policy.

    Args:
        asked: the question.
        told: the command that answered it; None if the patience ended first.
    """
    trace = asked.details.get("trace")
    trace = trace if isinstance(trace, dict) else {}
    if told is None:
        failure = f"nobody answered within {asked.patience or 0:g} s"
        return Answer(proposal=None, failure=failure, trace=trace)
    said = inbox.Answer.model_validate(told.arguments | {"id": told.id, "by": told.by})
    return Answer(proposal=meant(asked, said.answer, said.values), trace=trace)


def details(asked: AskedRecord, told: CommandRecord | None) -> dict[str, JsonValue]:
    """Return what the record of a decision keeps of who was asked and what was answered."""
    proposed = asked.proposal and asked.proposal.get("values")
    found: dict[str, JsonValue] = {"id": asked.id, "proposed": proposed}
    if told is None:
        return found | {"by": None, "answer": None, "answered": None}
    values = told.arguments.get("values")
    return found | {"by": told.by, "answer": told.arguments["answer"], "answered": values}


def reason(asked: AskedRecord, told: CommandRecord) -> str:
    """Say in a line who decided what, and what was proposed for."""
    why = str((asked.proposal or {}).get("rationale") or "")
    words = f"{SAID[str(told.arguments['answer'])]} by {told.by}"
    return f"{words}: {why}" if why else words
