"""Track 2, tuning online: policies that turn the knobs of a run while it goes on.

The pilot itself decides, with its guard and its trust region; only the run directory is left out.
Every decision is compared with its shadow, the plateau rule: the same round is played from the same
state with what the rule would have done.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.pilot import PilotPlanner
from agents.policies.model import Adviser, Hybrid
from agents.policies.optimizer import TPE
from agents.proposals import Policy
from agents.spec import PilotSpec
from benchmarks.pilot.asked import Asked
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scenarios import BY_NAME, ROWS, Scenario, config
from benchmarks.pilot.scores import Lift, interval, lift, written
from benchmarks.pilot.searchers import NullAdviser
from benchmarks.pilot.simulate import Simulation, prepared, reconfigured, traffic
from benchmarks.pilot.texts import rows, write_rows
from federation.address import address
from federation.errors import QuorumError
from federation.experiment import Setup
from federation.runs.records import DecisionRecord
from federation.runs.run import History

PLACES = ("dirichlet-0.5", "quantity", "stragglers")
START = {"lr": 4e-3, "steps": 2.0, "cohort_size": 3.0}  # too low a rate, as one finds them
BOUNDS = {"lr": [1e-3, 0.1], "cohort_size": [2, 6]}
SHADOW = "heuristic"
ASKS = 60.0  # seconds that a model has: what it says is scored, not how fast


def hybrid_with_null() -> Policy:
    """Return the hybrid whose adviser draws."""
    spec = PilotSpec()
    return Hybrid(TPE(), NullAdviser(), spec.share, spec.warmup)


PLAIN: Mapping[str, dict[str, Any]] = {
    "fixed": {"policy": "fixed"},
    "plateau": {"policy": "heuristic"},
    "tpe": {"policy": "optimizer:tpe"},
    "cmaes": {"policy": "optimizer:cmaes"},
}
CONTROLS: Mapping[str, dict[str, Any]] = {
    "null": {"policy": "null"},
    "hybrid+null": {"policy": "optimizer:tpe"},
}


def policies(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the pilot's table for every policy that is scored."""
    found = {**PLAIN, **CONTROLS}
    for spec in models:
        asked = {"model": spec, "deadline": ASKS}
        found[f"llm:{spec}"] = {"policy": "llm", **asked}
        found[f"hybrid+{spec}"] = {"policy": "hybrid", **asked}
    return found


def piloted(
    name: str, table: Mapping[str, Any], model: Any = None
) -> Callable[[Setup, History], PilotPlanner]:
    """Return what makes the pilot of a policy, which asks a model whose answers are kept if any."""

    def make(setup: Setup, history: History) -> PilotPlanner:
        spec = PilotSpec.model_validate({"bounds": BOUNDS, "shadows": [SHADOW], **table})
        planner = PilotPlanner(setup, history, traffic(setup), spec)
        if name == "hybrid+null":  # a policy that no configuration may ask for
            planner._policy = hybrid_with_null()
        if isinstance(model, Asked):
            planner._policy = asking(planner._policy, model)
        return planner

    return make


def asking(policy: Policy, model: Asked) -> Policy:
    """Let a policy ask a model whose answers are kept, in the place of its own."""
    if isinstance(policy, Hybrid):
        return replace(policy, adviser=asking(policy.adviser, model))
    return replace(policy, model=model) if isinstance(policy, Adviser) else policy


@dataclass
class Steered:
    """A run that a policy has steered.

    Attributes:
        losses: validation loss after every round, nats per token.
        test: test loss at the end.
        bytes: moved up to and with every round.
        worse: by how much each decision was worse than its shadow's, nats per token; only of
            decisions that differ from it.
        repeats: by how much rounds differ from themselves under other draws.
        tokens: spent on a model.
        asked: questions that were put to it.
        failures: those of them that were not answered, or whose answer the guard refused.
        abstained: those on which it left everything as it was, or to the optimizer.
        sources: who decided how often.
    """

    losses: list[float] = field(default_factory=list)
    test: float = np.nan
    bytes: list[int] = field(default_factory=list)
    worse: list[float] = field(default_factory=list)
    repeats: list[float] = field(default_factory=list)
    tokens: int = 0
    asked: int = 0
    failures: int = 0
    abstained: int = 0
    sources: dict[str, int] = field(default_factory=dict)

    def reached(self, target: float) -> int | None:
        """Return the first round, counted from 0, whose loss is at most the target."""
        return next((n for n, loss in enumerate(self.losses) if loss <= target), None)


def steer(setup: Setup, name: str, table: Mapping[str, Any], model: Any = None) -> Steered:
    """Let a policy steer a run, and play every round's shadow beside it."""
    run = Simulation.of(setup, piloted(name, table, model))
    found, moved = Steered(), 0
    while len(run.history.rounds) < setup.config.rounds:
        before, round = run.state, len(run.history.rounds)
        if not run.play():
            break
        after, decision = run.state, run.history.decisions[round]
        loss = run.losses[-1].validation
        run.state = before
        apart = shadow_loss(run, decision)
        if apart is not None:
            found.worse.append(loss - apart)
        if name == "fixed":
            found.repeats.append(again(run, decision) - loss)
        run.state = after
        record = run.history.rounds[round]
        moved += record.bytes_up + record.bytes_down
        found.losses.append(loss)
        found.bytes.append(moved)
        found.sources[decision.source] = found.sources.get(decision.source, 0) + 1
        count_question(found, decision)
    found.test = run.losses[-1].test if run.losses else np.inf
    return found


def count_question(found: Steered, decision: DecisionRecord) -> None:
    """Count what asking a model before a decision came to, if one was asked."""
    trace: Any = decision.details.get("trace")
    if not isinstance(trace, dict) or "attempts" not in trace:
        return
    alone = decision.source == "llm" and decision.details["verdict"] == "abstained"
    left = alone or trace.get("adviser") == "abstained"
    found.asked, found.tokens = found.asked + 1, found.tokens + int(trace["tokens"])
    found.abstained += left
    found.failures += not (left or decision.source == "llm")


def shadow_loss(run: Simulation, decision: DecisionRecord) -> float | None:
    """Return the loss that the shadow's decision would have had; None if it is the same decision.

    A shadow that training would have diverged under has infinite loss.
    """
    planner = run.planner
    assert isinstance(planner, PilotPlanner)
    shadows = decision.details["shadows"]
    assert isinstance(shadows, dict)
    values = next(iter(shadows.values())) or {}
    assert isinstance(values, dict)
    turned = planner.current(decision.round) | {k: float(str(v)) for k, v in values.items()}
    other = planner.cohort(decision.round, turned)
    if (other.work, other.clients) == (decision.work, decision.clients):
        return None
    return played(run, other)


def played(run: Simulation, decision: DecisionRecord, seed: int | None = None) -> float:
    """Return the validation loss after a decision from where a run stands."""
    plan, _ = run.planner.plan(decision)
    try:
        state, _ = run.outcome(plan if seed is None else replace(plan, seed=seed))
    except QuorumError:
        return np.inf
    return run.judge.losses(state["params"]).validation


def again(run: Simulation, decision: DecisionRecord) -> float:
    """Return the loss of a round under other draws of its batches."""
    return played(run, decision, address(run.setup.config.seed, "pilot bench", "again"))


def play(
    base: Path, cache: Path, scenario: Scenario, seed: int, effort: Effort
) -> dict[str, Steered]:
    """Let every policy steer the same federation from the same start."""
    source = str(write_rows(cache / f"rows-{seed}.jsonl", rows(seed, ROWS)))
    own = config(scenario, seed, START, str(base), source, effort.rounds)
    setup = reconfigured(prepared(own, cache), own)
    return {
        name: steer(setup, name, table, effort.models.get(table.get("model", "")))
        for name, table in policies(effort.models).items()
    }


Runs = dict[tuple[str, int], dict[str, Steered]]
"""(scenario, seed) -> policy -> run."""


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Compare policies on some scenarios and seeds."""
    places = PLACES[:1] if effort.quick else PLACES
    played: Runs = {
        (name, seed): play(base, cache, BY_NAME[name], seed, effort)
        for name in places
        for seed in range(effort.seeds)
    }
    names = list(policies(effort.models))
    floor = 1.96 * float(np.std([x for own in played.values() for x in own["fixed"].repeats]))
    final = {name: np.array([own[name].test for own in played.values()]) for name in names}
    best = min(PLAIN, key=lambda name: float(final[name].mean()))
    lifts = {n: lift(final[n], final[best], "online", n) for n in names if n != best}
    near = lift(final["hybrid+null"], final["tpe"], "online", "hybrid")
    drawn = {n: lift(final[n], final["null"], "online", n, "null") for n in names if n != "null"}
    return Part(
        "online",
        "T2 Tune online",
        says(played, places, effort, best, floor, near),
        (grid(played, names, lifts, floor),),
        {
            "best_without_model": best,
            "round_noise_floor": floor,
            "final_test": {name: x.tolist() for name, x in final.items()},
            "lift": {name: x.json() for name, x in lifts.items()},
            "lift_over_null": {name: x.json() for name, x in drawn.items()},
            "hybrid_null_over_tpe": near.json(),
            "harmful": {name: harmful(played, name, floor) for name in names},
            **{
                key: {n: sum(getattr(own[n], key) for own in played.values()) for n in names}
                for key in ("tokens", "asked", "failures", "abstained")
            },
        },
    )


def harmful(played: Runs, name: str, floor: float) -> list[int]:
    """Count decisions that were worse than their shadow by more than noise, and all that differ."""
    worse = [x for own in played.values() for x in own[name].worse]
    return [sum(x > floor for x in worse), len(worse)]


def says(
    played: Runs, places: Sequence[str], effort: Effort, best: str, floor: float, near: Lift
) -> list[str]:
    """Write what was done and what it came to."""
    return [
        f"{len(played)} runs of {effort.rounds} rounds a policy ({', '.join(places)};"
        f" {effort.seeds} seeds). All start from learning rate {START['lr']:g}, which is too low,"
        " and may turn learning rate and cohort size within the pilot's trust region. A decision"
        " is harmful if the same round with what the plateau rule would have done ends lower by"
        f" more than {floor:.3f} nats per token, the noise of repeating a round with other draws"
        " (1.96 standard deviations, so chance alone makes some 2.5 %).",
        "The target is the validation loss that the fixed policy ends with. Brackets are 95 %"
        f" intervals over (scenario, seed); lift is over {best}, the best without a model.",
        f"Hybrid with the null model against the optimizer alone: test loss lower by"
        f" {written(near.interval)} nats per token.",
    ]


def grid(played: Runs, names: Sequence[str], lifts: Mapping[str, Lift], floor: float) -> Grid:
    """Tabulate every policy."""
    table = []
    for name in names:
        finals = [own[name].test for own in played.values()]
        reached = [own[name].reached(own["fixed"].losses[-1]) for own in played.values()]
        arrived = [n for n in reached if n is not None]
        moved = [
            own[name].bytes[n] / 1e6
            for own, n in zip(played.values(), reached, strict=True)
            if n is not None
        ]
        bad, all_of = harmful(played, name, floor)
        own = lifts.get(name)
        table.append(
            [
                name,
                written(interval(finals, "online", name)),
                written(own.interval) if own else "-",
                f"{own.wins}/{own.ties}/{own.losses}, {own.words}" if own else "-",
                f"{np.mean(arrived) + 1:.1f} ({len(arrived)}/{len(reached)})" if arrived else "-",
                f"{np.mean(moved):.2f}" if moved else "-",
                f"{bad}/{all_of} ({bad / all_of:.0%})" if all_of else "-",
                str(sum(x[name].tokens for x in played.values()) or "-"),
            ]
        )
    columns = [
        "policy",
        "final test loss, nats per token",
        "lift",
        "win/tie/loss",
        "rounds to target (reached)",
        "MB to target",
        "harmful decisions",
        "tokens",
    ]
    return Grid("Steering while it runs", columns, table)
