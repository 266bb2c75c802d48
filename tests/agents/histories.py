"""Journals in memory: what a pilot would have seen."""

import math
from collections.abc import Sequence

from agents.facts import Observation, observe
from agents.knobs import Bound
from agents.selection import RULES, Selection, SelectionBounds
from federation.runs.records import DecisionRecord, EvaluationRecord, RoundRecord
from federation.runs.run import History
from federation.specs import LocalWork

CLIENTS = ("ward-a", "ward-b", "ward-c")
EVEN = Selection(rule="uniform", candidates=2, exploration=0.1)


def history(
    losses: Sequence[float], lrs: Sequence[float] | None = None, clients: tuple[str, ...] = CLIENTS
) -> History:
    """A run whose clients all had the same loss in a round, or diverged if it is no number."""
    found = History()
    for n, loss in enumerate(losses):
        lr = lrs[n] if lrs else 0.01
        work = LocalWork(lr=lr, steps=4).model_dump(mode="json")
        found.add(
            DecisionRecord(
                round=n, source="heuristic", policy="uniform", clients=clients, work=work
            )
        )
        if not math.isfinite(loss):
            lost = dict.fromkeys(clients, "diverged: its update is not finite")
            found.add(RoundRecord(round=n, clients=(), missing=lost))
            continue
        found.add(
            RoundRecord(
                round=n,
                clients=clients,
                loss=dict.fromkeys(clients, loss),
                update_norms=dict.fromkeys(clients, 1.5),
                client_steps=4 * len(clients),
                bytes_up=1000,
            )
        )
    return found


def bounds(lr: float = 0.01, trust: float = 2.0) -> dict[str, Bound]:
    return {
        "lr": Bound(low=lr / trust, high=lr * trust, least=1e-4, most=1.0, current=lr),
        "steps": Bound(low=2, high=8, least=1, most=20, current=4),
    }


def seen(found: History, **changes: object) -> Observation:
    rounds = len(found.rounds)
    last = found.decisions[max(found.decisions)] if found.decisions else None
    lr = last.work["lr"] if last else 0.01
    values = {"lr": lr, "steps": 4.0, "cohort_size": 3.0}
    arguments = {"round": rounds, "rounds": rounds + 5, "seed": 3, "smallest": 2, "budget": {}}
    return observe(found, bounds(float(str(lr))), values, **(arguments | changes))  # type: ignore[arg-type]


def validated(found: History, round: int, nll: float, split: str = "validation") -> None:
    found.add(EvaluationRecord(round=round, subject="federated", split=split, metrics={"nll": nll}))


def limits_of(**changes: object) -> SelectionBounds:
    table = {
        "rules": RULES[:4],
        "exploration": 0.1,
        "most_excluded": 1,
        "known": ("c2",),
        "population": 9,
        "current": EVEN,
    }
    return SelectionBounds.model_validate(table | changes)


def unequal(rounds: int, spread: float, missing: int = 0, diverges: str = "") -> History:
    """A history of three clients whose losses lie apart, some of which do not report."""
    found = history([2.0] * rounds)
    for n in range(rounds):
        loss = {"ward-a": 2 - spread, "ward-b": 2.0, "ward-c": 2 + spread}
        lost = dict.fromkeys([f"late-{i}" for i in range(missing)], "late")
        asked = (*loss, *lost)
        if diverges:
            lost |= {diverges: "diverged: its update is not finite"}
            loss.pop(diverges)
        decision = found.decisions[n].model_copy(update={"clients": asked})
        found.decisions[n] = decision
        found.rounds[n] = RoundRecord(round=n, clients=tuple(loss), loss=loss, missing=lost)
    return found
