"""What a run's decisions say, as plain rows: knows records; draws nothing, imports no torch."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from agents.facts import Observation
from agents.knobs import KNOBS
from agents.proposals import Proposal
from agents.seen import seen_again
from federation.errors import FedpilotError
from federation.runs.records import DecisionRecord
from federation.runs.run import Run
from ui.web.figures import training_loss
from ui.web.forms import number_text
from ui.web.moved import moves, rule_of, values_of

BY_RULE = "by rule"
VERDICTS = {
    "accepted": (":material/check_circle:", "allowed"),
    "abstained": (":material/do_not_disturb_on:", "nothing proposed"),
    "rejected": (":material/block:", "refused"),
}
"""The guard's verdict -> its icon and what people call it."""


class Row(NamedTuple):
    """One decision.

    Attributes:
        round: from 1.
        source: one of :data:`ui.web.language.SOURCES`.
        by: the policy.
        changed: what moved, as "lr 0.01 → 0.005"; empty if nothing did.
        verdict: the guard's, as people call it; of a run without pilot, that a rule decided.
        low: lowest loss that was expected, nats per token; None if nothing was.
        high: highest.
        loss: training loss after the round; None before it is played.
        why: the reason given.
    """

    round: int
    source: str
    by: str
    changed: str
    verdict: str
    low: float | None
    high: float | None
    loss: float | None
    why: str

    @property
    def hit(self) -> bool | None:
        """Whether the loss came to lie where it was expected; None if that cannot be said."""
        if self.low is None or self.high is None or self.loss is None:
            return None
        return self.low <= self.loss <= self.high

    @property
    def notable(self) -> bool:
        """Whether something moved, was refused, or came out otherwise than expected."""
        refused = self.source == "fallback" or self.verdict == VERDICTS["rejected"][1]
        return bool(self.changed) or refused or self.hit is False


def rows(run: Run) -> list[Row]:
    """Return the decisions of a run, the oldest first."""
    losses, found = training_loss(run), list[Row]()
    for n, decision in run.history.decisions.items():
        low, high = expected(decision) or (None, None)
        found.append(
            Row(
                n + 1,
                decision.source,
                decision.policy,
                ", ".join(moves(run, decision)),
                verdict_of(decision),
                low,
                high,
                losses.get(n + 1),
                decision.reason,
            )
        )
    return found


def verdict_of(decision: DecisionRecord) -> str:
    """Say in a word what the guard made of the answer."""
    verdict = decision.details.get("verdict")
    return VERDICTS[verdict][1] if isinstance(verdict, str) and verdict in VERDICTS else BY_RULE


def proposal_of(decision: DecisionRecord) -> Proposal | None:
    """Return what was proposed; None if nothing was, or nothing that can be read."""
    return as_proposal(decision.details.get("proposal"))


def as_proposal(values: JsonValue) -> Proposal | None:
    """Read a proposal; a newer fedpilot may say more in it than is understood here."""
    try:
        return Proposal.model_validate(values, extra="ignore") if values else None
    except ValidationError:
        return None


def expected(decision: DecisionRecord) -> tuple[float, float] | None:
    """Return the training loss that was expected, lowest and highest, nats per token."""
    proposal = proposal_of(decision)
    return proposal.expected if proposal else None


def told(decision: DecisionRecord) -> dict[str, str]:
    """Return what asking has cost and who was asked, for people; the raw answer left out."""
    trace = decision.details.get("trace")
    known = trace if isinstance(trace, dict) else {}
    found = {
        name.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
        for name, value in known.items()
        if name != "raw" and value not in (None, "")
    }
    asked = decision.details.get("asked")
    head = {"asked": str(asked)} if isinstance(asked, str) else {}
    return head | found | {"seconds": f"{decision.seconds:.3g}"}


def raw_of(decision: DecisionRecord) -> str:
    """Return the model's answer as it came; empty if no model was asked."""
    trace = decision.details.get("trace")
    raw = trace.get("raw") if isinstance(trace, dict) else None
    return raw if isinstance(raw, str) else ""


def violations_of(decision: DecisionRecord) -> list[str]:
    """Return why an answer was refused."""
    found = decision.details.get("violations")
    return [str(x) for x in found] if isinstance(found, list) else []


class Others(NamedTuple):
    """Who would have done what.

    Attributes:
        policies: names of the columns: what was applied first, then every shadow.
        rows: knob with its unit, and a text for each column.
    """

    policies: list[str]
    rows: list[dict[str, str]]


def others(decision: DecisionRecord, before: Mapping[str, float]) -> Others:
    """Put what was applied beside what every shadow policy would have done.

    Args:
        decision: of a round.
        before: every knob's value before it: what a policy leaves alone stays so.
    """
    shadows = decision.details.get("shadows")
    known = shadows if isinstance(shadows, dict) else {}
    columns: dict[str, JsonValue] = {"applied": dict(values_of(decision)), **known}
    names = [name for name in KNOBS if name in before or name in values_of(decision)]
    lines = []
    for name in names:
        word, unit = name.replace("_", " "), KNOBS[name].unit
        line = {"knob": word if unit in ("steps", "clients") else f"{word}, {unit}"}
        for column, values in columns.items():
            line[column] = would_be(values, name, before.get(name))
        lines.append(line)
    if rule := rule_of(decision):
        lines.append({"knob": "clients chosen by"} | chosen_by(decision, rule, known))
    return Others(list(columns), lines)


def chosen_by(
    decision: DecisionRecord, rule: str, shadows: Mapping[str, JsonValue]
) -> dict[str, str]:
    """Write by which rule clients are chosen: as applied, and as every shadow would have it."""
    bounds = decision.details.get("selection_bounds")
    current = bounds.get("current") if isinstance(bounds, dict) else None
    before = current.get("rule", rule) if isinstance(current, dict) else rule
    found = {"applied": rule}
    for policy, values in shadows.items():
        choice = values.get("selection") if isinstance(values, dict) else None
        own = choice.get("rule", before) if isinstance(choice, dict) else before
        found[policy] = str(own) if isinstance(values, dict) else "no answer"
    return found


def would_be(values: JsonValue, name: str, before: float | None) -> str:
    """Write a knob's value under a policy: its own, the one of before, or that it failed."""
    if not isinstance(values, dict):
        return "no answer"
    value = values.get(name, before)
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.4g}"


class Seen(NamedTuple):
    """The observation of a decision, made again.

    Attributes:
        observation: None if it cannot be made again.
        matches: whether its hash is the journal's; None if the journal has none.
        why: in a line, why there is none or it does not match; empty otherwise.
    """

    observation: Observation | None
    matches: bool | None
    why: str


def look_again(run: Run, round: int) -> Seen:
    """Make the observation of a decision again and compare it with the journal.

    Args:
        run: a run of any kind.
        round: from 0.
    """
    recorded = run.history.decisions[round].details.get("observation_sha256")
    if not isinstance(recorded, str):
        return Seen(None, None, "A rule of the core decided; nobody was shown facts.")
    try:
        observation = seen_again(run, round)
    except FedpilotError as error:
        return Seen(None, None, str(error))
    if observation.sha256 == recorded:
        return Seen(observation, True, "")
    why = "made again from the records it comes to another hash than the journal's"
    fork = run.history.fork
    if fork is not None and round <= fork.round:
        why += "; the round is the parent's, which had another configuration"
    return Seen(observation, False, why)


def fact_rows(observation: Observation, recent: int | None = None) -> list[dict[str, object]]:
    """Return facts as rows, the newest round first.

    Args:
        observation: what was seen.
        recent: only of so many rounds before the decision; all if omitted.
    """
    first = 0 if recent is None else observation.round - recent
    kept = [f for f in observation.facts if f.round is None or f.round >= first]
    kept.sort(key=lambda fact: -1 if fact.round is None else -fact.round)
    return [
        {
            "round": None if fact.round is None else fact.round + 1,
            "id": fact.id,
            "value": number_text(fact.value),
            "unit": fact.unit,
        }
        for fact in kept
    ]


def with_round(fact: str) -> str:
    """Write an id of a fact with its round as people count: ids count from 0, pages from 1."""
    round = round_of(fact)
    return f"{fact} (round {round})" if round else fact


def round_of(fact: str) -> int | None:
    """Return the round that an id of a fact names, from 1; None if it names none."""
    name, at, number = fact.rpartition("@")
    return int(number) + 1 if at and name and number.isdecimal() and len(number) < 10 else None
