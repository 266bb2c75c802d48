"""A far move is tried by a few clients before the rest of the cohort is trained with it.

By the engine law nothing is trained twice: what those few report is their part of the round.  They
are judged by their training loss, against what they had the last time they trained, or the last
cohort where they never did.  It is worse if it lies above that by more than twice the standard
error of such a difference, as measured on the newest rounds, or is no number.  A trial tells only
of knobs that local training feels; what the server does with the reports it cannot show.

Everything follows from the journal.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from agents.facts import Fact
from agents.knobs import KNOBS
from agents.rollback import is_good
from federation.runs.history import History
from federation.runs.records import Canary

CAUTIOUS = "canary@1"
"""Who decides a round whose trial failed: the values before are played."""
FELT = ("lr", "steps", "mu")
"""Knobs that show in the training loss of the round in which they move."""
FAR = 0.5
"""Share of the trust region, by ratio, beyond which a move is far."""
RECENT = 5
"""Rounds on which the noise is measured."""

Values = Mapping[str, float]


def moved(values: Values, before: Values) -> dict[str, float]:
    """Return what clients would feel of new values."""
    return {name: values[name] for name in FELT if name in values and values[name] != before[name]}


def is_far(values: Values, before: Values, trust: float) -> bool:
    """Tell whether a knob that clients feel moves by more than :data:`FAR` of the trust region."""
    most = FAR * math.log(trust)
    ratios = [value / before[name] for name, value in moved(values, before).items()]
    return any(abs(math.log(ratio)) > most * (1 + 1e-9) for ratio in ratios)


def is_first_of_model(history: History, round: int) -> bool:
    """Tell whether no language model has moved anything before a round."""
    decisions = (history.decisions[n] for n in range(round))
    proposals = (x.details.get("proposal") for x in decisions if x.source == "llm")
    return not any(isinstance(found, dict) and found.get("values") for found in proposals)


def how_many(share: float, cohort: int) -> int:
    """Return how many clients of a cohort try first: one at least."""
    return max(1, math.ceil(share * cohort - 1e-9))


@dataclass(frozen=True)
class Known:
    """What rounds so far tell of training losses.

    Attributes:
        last: client -> its loss when it last trained in a round that was not undone.
        cohort: mean loss of the last such round; None if there was none.
        noise: standard deviation of how far a client's loss lies from what was known of it before;
            None if fewer than two are known.
    """

    last: Mapping[str, float]
    cohort: float | None
    noise: float | None

    @classmethod
    def of(cls, history: History) -> "Known":
        """Read it from the records."""
        last, cohort = dict[str, float](), None
        apart: deque[list[float]] = deque(maxlen=RECENT)
        for round, record in history.rounds.items():
            losses = {name: loss for name, loss in record.loss.items() if math.isfinite(loss)}
            if not losses or not is_good(history, round):
                continue
            known = fmean(losses.values()) if cohort is None else cohort
            apart.append([loss - last.get(name, known) for name, loss in losses.items()])
            last |= losses
            cohort = fmean(losses.values())
        pooled = [x for round in apart for x in round]
        return cls(last, cohort, stdev(pooled) if len(pooled) > 1 else None)

    def before(self, clients: Sequence[str]) -> float | None:
        """Return the mean loss that clients had before."""
        if self.cohort is None:
            return None
        return fmean(self.last.get(client, self.cohort) for client in clients)

    def limit(self, clients: Sequence[str]) -> float | None:
        """Return the mean loss above which clients are worse than before, beyond noise."""
        before = self.before(clients)
        if before is None or self.noise is None:
            return None
        return before + 2 * self.noise / math.sqrt(len(clients))


def judged(
    history: History,
    values: Values,
    clients: Sequence[str],
    losses: Sequence[float],
    spent: Mapping[str, int],
) -> Canary:
    """Judge what came of a trial.

    Args:
        history: what the records before the round's decision mean together.
        values: knob -> value that was tried.
        clients: who tried it.
        losses: training losses of those whose update is a number.
        spent: what it has cost.
    """
    known = Known.of(history)
    before, limit = known.before(clients), known.limit(clients)
    loss = fmean(losses) if losses else math.nan
    if len(losses) < len(clients):
        reason = f"{len(clients) - len(losses)} of {len(clients)} clients that tried it diverged"
    elif not math.isfinite(loss):
        reason = "the training loss of the clients that tried it is no number"
    elif limit is not None and loss > limit:
        reason = f"the training loss of the clients that tried it, {loss:.4g}, is above {limit:.4g}"
    else:
        reason = ""
    return Canary(
        clients=tuple(clients),
        values=dict(values),
        loss=loss,
        before=before,
        limit=limit,
        accepted=not reason,
        reason=reason,
        **spent,
    )


def told(canary: Canary, round: int, facts: Mapping[str, Fact]) -> tuple[str, tuple[str, ...]]:
    """Say in words what was tried and what came of it; return the facts that it rests on, too.

    Args:
        canary: of the round.
        round: the round.
        facts: what is known, by id; figures of too few clients are not.
    """
    names = [f"canary_{name}@{round}" for name in ("clients", *canary.values, "loss", "limit")]
    count, *tried = (facts[name] for name in names[:-2])
    loss, limit = (facts.get(name) for name in names[-2:])
    turned = zip(canary.values, tried, strict=True)
    what = ", ".join(f"{KNOBS[name].meaning} {fact.value:.4g}" for name, fact in turned)
    text = f"Tried first by {count.value:.0f} of the clients: {what}"
    if loss:
        text += f"; their training loss was {loss.value:.3f} nats per token"
        text += f", and up to {limit.value:.3f} was allowed" if limit else ""
    text += "." if canary.accepted else ". It was refused, and the values before were applied."
    return text, tuple(name for name in names if name in facts)
