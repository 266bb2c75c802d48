"""What a decision moved: knobs, and how clients are chosen; plain texts from records."""

import math
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from agents.proposals import Proposal
from federation.runs.records import DecisionRecord
from federation.runs.run import Run

CHOICES = {
    "rule": "chosen by",
    "exclude": "excluded",
    "candidates": "candidates a place",
    "exploration": "share by chance",
}
"""What of the choice of clients may be decided -> what people call it."""
KEYS = {"lr": ("work", "lr"), "steps": ("work", "steps"), "cohort_size": ("cohort", "size")}


def values_of(decision: DecisionRecord) -> dict[str, float]:
    """Return the knobs' values that a decision applied; without a pilot, those of the work."""
    applied = decision.details.get("applied")
    if isinstance(applied, dict):
        return {k: float(v) for k, v in applied.items() if isinstance(v, int | float)}
    work = {k: decision.work.get(k) for k in ("lr", "steps")}
    known = {k: float(v) for k, v in work.items() if isinstance(v, int | float)}
    return known | {"cohort_size": float(len(decision.clients))}


def moves(run: Run, decision: DecisionRecord) -> list[str]:
    """Say what a decision moved, as "lr 0.01 → 0.005"; the first one, against the configuration."""
    earlier = run.history.decisions.get(decision.round - 1)
    before = values_of(earlier) if earlier else {}
    if earlier is None and "applied" in decision.details:
        before = configured(run.config)
    return [*of_knobs(before, values_of(decision)), *of_choice(decision)]


def configured(config: Mapping[str, JsonValue]) -> dict[str, float]:
    """Return what a configuration, as a run keeps it, says of the knobs that every run has."""
    found = {}
    for name, (table, key) in KEYS.items():
        inner = config.get(table)
        value = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(value, int | float):
            found[name] = float(value)
    return found


def of_knobs(before: Mapping[str, float], now: Mapping[str, float]) -> Iterator[str]:
    """Yield which knobs moved."""
    for name, value in now.items():
        old = before.get(name, value)
        if not math.isclose(old, value, rel_tol=1e-9):
            yield f"{name} {old:.4g} → {value:.4g}"


def of_choice(decision: DecisionRecord) -> Iterator[str]:
    """Yield what of the choice of clients is otherwise than it was before the decision."""
    now, bounds = decision.details.get("selection"), decision.details.get("selection_bounds")
    was = bounds.get("current") if isinstance(bounds, dict) else None
    if not isinstance(now, dict) or not isinstance(was, dict):
        return
    for key, word in CHOICES.items():
        if key in now and key in was and now[key] != was[key]:
            yield f"{word} {text_of(was[key])} → {text_of(now[key])}"


def text_of(value: JsonValue) -> str:
    """Write a value of the choice of clients."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nobody"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rule_of(decision: DecisionRecord) -> str:
    """Return the rule by which the clients of a round were chosen; empty if that is not decided."""
    choice = decision.details.get("selection")
    return str(choice.get("rule", "")) if isinstance(choice, dict) else ""


def beside_knobs(proposal: Proposal) -> list[str]:
    """Say what a proposal wants besides turning knobs."""
    wanted = []
    if (choice := proposal.selection) is not None:
        wanted.append(f"clients chosen by {choice.rule}")
        if choice.exclude:
            wanted.append(f"excluded {', '.join(choice.exclude)}")
    if proposal.action != "continue":
        wanted.append(f"{proposal.action} after this round")
    return wanted
