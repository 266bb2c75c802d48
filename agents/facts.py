"""What a pilot is told: numbers with a name, a unit and an id, and never a client's words.

A fact is an aggregate over a cohort.  Texts, tensors and names of clients have no field to travel
in; a figure over fewer clients than ``smallest`` is left out.  An observation has a hash over its
canonical JSON, so that a decision can be traced to exactly what was seen: the journal keeps the
hash, and the observation is made again from the records before the decision.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal

from pydantic import BaseModel, Field

from agents.knobs import RECORD, Bound
from agents.made_up import of_details
from agents.selection import MOST_EXCLUDED, SelectionBounds
from federation.runs.history import riders
from federation.runs.records import Canary, DecisionRecord, EvaluationRecord, RoundRecord
from federation.runs.run import History

Unit = Literal[
    "nats per token",
    "per step",
    "steps",
    "clients",
    "norm",
    "bytes",
    "rounds",
    "client-steps",
    "rows",
    "per round",
    "per squared norm",
]

UNITS: dict[str, Unit] = {
    "lr": "per step",
    "steps": "steps",
    "cohort_size": "clients",
    "server_lr": "per round",
    "mu": "per squared norm",
}
"""Of the knobs."""

DIVERGED = "diverged"  # how the engine's reasons for such a client begin
WRITTEN = 6  # digits that a fact has: what is hashed must not hang on the last bit


class Fact(BaseModel):
    """One number that is known.

    Attributes:
        id: how a proposal or an explanation cites it, unique in its observation.
        name: what it is.
        value: finite.
        round: the round it belongs to; None: to the run.
        clients: how many clients it is made of; 0: it is no figure of clients.
    """

    model_config = RECORD

    id: str = Field(pattern="^[a-z][a-z0-9_]*(@[0-9]+)?$", description="how it is cited")
    name: str = Field(description="what it is")
    value: float = Field(description="the number")
    unit: Unit = Field(description="of the value")
    round: int | None = Field(default=None, ge=0, description="the round it belongs to")
    clients: int = Field(default=0, ge=0, description="how many clients it is made of")

    @cached_property
    def text(self) -> str:
        """Canonical JSON, made once: a fact is part of every later observation."""
        return canonical(self.model_dump(mode="json"))


class Observation(BaseModel):
    """What is known when a round has to be decided.

    Attributes:
        round: the round to be decided.
        rounds_left: rounds to come, this one included.
        facts: what is known, oldest first.
        bounds: open knob -> how far it may be turned now.
        values: every knob's value now, open or not.
        budget: what is left of what is limited: client_steps, calls (of a language model), tokens.
        sources: who decided the rounds so far -> how many of them.
        seed: of the run: a policy that draws, draws by (seed, round).
        selection: what may be chosen of who is asked; None: nothing.
        may_stop: whether the run may end early after this round.
        resting: why a language model is not asked; empty: one may be.
    """

    model_config = RECORD

    schema_version: Literal[2] = 2
    round: int = Field(ge=0)
    rounds_left: int = Field(ge=1)
    facts: tuple[Fact, ...]
    bounds: dict[str, Bound]
    values: dict[str, float]
    budget: dict[str, float] = {}
    sources: dict[str, int] = {}
    seed: int = Field(ge=0)
    selection: SelectionBounds | None = None
    may_stop: bool = False
    resting: str = Field(default="", exclude_if=lambda why: not why)  # older hashes hold

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON, which is put together of that of the facts."""
        plain = self.model_dump(mode="json", exclude={"facts"})
        before = canonical({name: x for name, x in plain.items() if name < "facts"})
        after = canonical({name: x for name, x in plain.items() if name > "facts"})
        facts = ",".join(fact.text for fact in self.facts)
        text = f'{before[:-1]},"facts":[{facts}],{after[1:]}'
        return hashlib.sha256(text.encode()).hexdigest()

    def series(self, name: str) -> dict[int, float]:
        """Return the values of a figure by round, oldest first."""
        return {f.round: f.value for f in self.facts if f.name == name and f.round is not None}


def canonical(values: object) -> str:
    """Write JSON values in the one form that is hashed."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(values: object) -> str:
    """Hash JSON values in their canonical form."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def observe(
    history: History,
    bounds: Mapping[str, Bound],
    values: Mapping[str, float],
    budget: Mapping[str, float],
    *,
    round: int,
    rounds: int,
    seed: int,
    smallest: int,
    selection: SelectionBounds | None = None,
    may_stop: bool = False,
    resting: str = "",
    told: dict[int, tuple[Fact, ...]] | None = None,
) -> Observation:
    """Say what the journal of a run tells before a round.

    Args:
        history: what the records mean together.
        bounds: how far every open knob may be turned.
        values: every knob's value now.
        budget: what is left of what is limited.
        round: the round to be decided.
        rounds: of the run.
        seed: of the run.
        smallest: figures over fewer clients are left out.
        selection: what may be chosen of who is asked.
        may_stop: whether the run may end early after this round.
        resting: why a language model is not asked.
        told: round -> its facts, as far as they were made before; what is new is added.
    """
    told = {} if told is None else told
    after: dict[int | None, list[EvaluationRecord]] = {}
    for evaluation in history.evaluations:
        after.setdefault(evaluation.round, []).append(evaluation)
    for n in range(round):
        if n not in told:
            record, decision = history.rounds[n], history.decisions.get(n)
            told[n] = tuple(facts_of_round(record, decision, after.get(n, ()), smallest))
    facts = [found for n in range(round) for found in told[n]]
    if selection is not None and selection.most_excluded and smallest <= 1:
        single = facts_of_clients(history, round)
        facts += [fact for told in single.values() for fact in told]
        selection = selection.model_copy(update={"known": tuple(single)})
    return Observation(
        round=round,
        rounds_left=rounds - round,
        facts=tuple(facts),
        bounds=dict(bounds),
        values=dict(values),
        budget=dict(budget),
        sources=dict(Counter(history.decisions[n].source for n in range(round))),
        seed=seed,
        selection=selection,
        may_stop=may_stop,
        resting=resting,
    )


def pseudonyms(history: History, round: int) -> dict[str, str]:
    """Number the clients that were asked before a round, in the order of their first time."""
    asked = (name for n in range(round) for name in history.decisions[n].clients)
    return {name: f"c{number}" for number, name in enumerate(dict.fromkeys(asked), 1)}


def facts_of_clients(history: History, round: int) -> dict[str, list[Fact]]:
    """Return, by pseudonym, how often clients failed that ever did; of the worst of them.

    A client that is always there and works has no facts of its own.  What a client reported is not
    among them: only that it did not, that its update was no number, or that most of its updates
    held no work of its own.
    """
    names = pseudonyms(history, round)
    missed, diverged = Counter[str](), Counter[str]()
    for n in range(round):
        for name, reason in history.rounds[n].missing.items():
            missed[names[name]] += 1
            diverged[names[name]] += reason.startswith(DIVERGED)
    lazy = riders(history.rounds[n] for n in range(round))
    idle = Counter({names[name]: rounds for name, rounds in lazy.items()})

    def failed(client: str) -> tuple[int, int, int]:
        return -diverged[client] - idle[client], -missed[client], int(client[1:])

    worst = sorted(missed.keys() | idle.keys(), key=failed)[:MOST_EXCLUDED]
    return {
        client: [
            fact(f"missed_{client}", missed[client], "rounds", None, 1),
            fact(f"diverged_{client}", diverged[client], "rounds", None, 1),
            *([fact(f"idle_{client}", idle[client], "rounds", None, 1)] if idle[client] else []),
        ]
        for client in worst
    }


def facts_of_round(
    record: RoundRecord,
    decision: DecisionRecord | None,
    evaluations: Iterable[EvaluationRecord],
    smallest: int,
) -> Iterator[Fact]:
    """Yield what is known of one round; the test set is not: it judges and never steers."""
    n = record.round
    trained = len(record.clients)
    if decision is not None:
        yield fact("lr", decision.work["lr"], "per step", n)
        yield fact("steps", decision.work["steps"], "steps", n)
        yield fact("cohort_size", len(decision.clients), "clients", n)
        for name, value in decision.settings.items():
            yield fact(name, value, UNITS[name], n)
    yield fact("reported", trained, "clients", n)
    yield fact("bytes_up", record.bytes_up, "bytes", n)
    diverged = sum(reason.startswith(DIVERGED) for reason in record.missing.values())
    if trained + diverged >= smallest:
        yield fact("diverged", diverged, "clients", n, trained + diverged)
    if record.idle and trained >= smallest:
        yield fact("idle", len(record.idle), "clients", n, trained)
    finite = [x for x in record.loss.values() if math.isfinite(x)]  # of no step there is no loss
    if len(finite) >= smallest:
        yield fact("loss", fmean(finite), "nats per token", n, len(finite))
    if len(finite) > max(2, smallest):  # mean and spread of two are the figures of both
        yield fact("loss_spread", stdev(finite), "nats per token", n, len(finite))
    norms = [x for x in record.update_norms.values() if math.isfinite(x)]
    if len(norms) >= smallest:
        yield fact("update_norm", fmean(norms), "norm", n, len(norms))
    if decision is not None and decision.canary is not None:
        yield from facts_of_canary(n, decision.canary, smallest)
    for evaluation in evaluations:
        value = evaluation.metrics.get("nll", math.nan)
        if evaluation.split == "validation" and math.isfinite(value):
            yield fact("validation_loss", value, "nats per token", n)


def facts_of_canary(round: int, canary: Canary, smallest: int) -> Iterator[Fact]:
    """Yield what some clients tried before a round was decided, and what came of it."""
    clients = len(canary.clients)
    yield fact("canary_clients", clients, "clients", round)
    for name, value in canary.values.items():
        yield fact(f"canary_{name}", value, UNITS[name], round)
    for name, value in (("canary_loss", canary.loss), ("canary_limit", canary.limit)):
        if clients >= smallest and value is not None and math.isfinite(value):
            yield fact(name, value, "nats per token", round, clients)


def facts_of_made_up(decision: DecisionRecord, smallest: int) -> Iterator[Fact]:
    """Yield what the first decision says of made-up rows; for explanations, as is what follows."""
    found, n = of_details(decision.details), decision.round
    if found is None or len(found.asked) < smallest:
        return
    yield fact("made_up_clients", len(found.asked), "clients", n, len(found.asked))
    yield fact("made_up_rows", found.made, "rows", n, len(found.asked))
    if found.steps:
        yield fact("made_up_steps", found.steps, "steps", n)
    ends = {"gate_gain": found.gain, "gate_low": found.low, "gate_high": found.high}
    for name, value in ends.items():
        if value is not None and math.isfinite(value):
            yield fact(name, value, "nats per token", n, found.population)


def facts_of_undoing(history: History, round: int, smallest: int) -> Iterator[Fact]:
    """Yield how a round was undone, if it was: what it came to, and which round holds again.

    They are for explanations: what a policy sees of an undone round are its facts as of any other.

    Args:
        history: what the records of a run mean together.
        round: the round.
        smallest: figures over fewer clients are left out.
    """
    back = history.rollbacks.get(round)
    if back is None:
        return
    # Rounds are counted from 1, as people do; 0 is the state before the first.
    yield fact("restored", 0 if back.to is None else back.to + 1, "rounds", round)
    clients = len(history.decisions[round].clients) if round in history.decisions else 0
    if math.isfinite(back.loss) and clients >= smallest:
        yield fact("undone_loss", back.loss, "nats per token", round, clients)
    if back.limit is not None:
        yield fact("undone_limit", back.limit, "nats per token", round)


def fact(name: str, value: object, unit: Unit, round: int | None, clients: int = 0) -> Fact:
    """Make a fact, rounded to :data:`WRITTEN` digits; of no round, it is one of the run."""
    number = float(f"{float(str(value)):.{WRITTEN}g}")
    id = name if round is None else f"{name}@{round}"
    return Fact(id=id, name=name, value=number, unit=unit, round=round, clients=clients)
