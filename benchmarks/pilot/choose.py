"""Track 3, selection: who is asked, where some are slow, rare or wrong.

The same planted federation under every rule.  Time is simulated: a round lasts as long as its
slowest reporter.  The target is the loss that uniform selection has after two thirds of its rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pilot import exclude
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scores import gini, interval, lift, written
from benchmarks.pilot.simulate import Simulation, prepared, reconfigured, traffic
from benchmarks.pilot.worlds import FLIPPER, RARE, RIDER, Riding, config
from federation.cohort.devices import round_seconds, simulated_seconds, speeds

FAULTS = (FLIPPER, RIDER)
DEVICES = {"speed_sigma": 0.8, "dropout": 0.1}
LIMIT = 5.0  # seconds; the median client needs about 3
RULES: Mapping[str, Mapping[str, Any]] = {
    "uniform": {"rule": "uniform"},
    "round robin": {"rule": "round_robin"},
    "power of choice": {"rule": "power_of_choice"},
    "oort": {"rule": "oort"},
    "oort, deadline": {"rule": "oort", "deadline": LIMIT},
    "deadline": {"rule": "deadline", "deadline": LIMIT},
}


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run under a rule.

    Attributes:
        loss: on the global test set after every round, nats per token.
        seconds: simulated, up to and with every round.
        worst: loss of the worst decile of the honest clients on their own tests, at the end.
        rare: mean loss of the rare clients at the end.
        turns: honest client -> how often it was asked.
        faulty: share of the places in cohorts that went to faulty clients.
    """

    loss: np.ndarray
    seconds: np.ndarray
    worst: float
    rare: float
    turns: Mapping[str, int]
    faulty: float

    @property
    def excluded(self) -> float:
        """Share of the honest clients that were never asked."""
        return float(np.mean([turns == 0 for turns in self.turns.values()]))

    def reached(self, target: float) -> float:
        """Return the seconds after which the loss was first at most the target; infinite: never."""
        below = np.flatnonzero(self.loss <= target)
        return float(self.seconds[below[0]]) if len(below) else np.inf


def play(base: Path, cache: Path, seed: int, rounds: int) -> dict[str, Outcome]:
    """Play the federation of a seed under every rule."""
    common = {"rounds": rounds, "devices": DEVICES}
    first = prepared(config(base, cache, seed, FAULTS, **common), cache)
    found = {}
    for name, rule in RULES.items():
        own = config(base, cache, seed, FAULTS, **common, cohort={"size": 4, **rule})
        simulation = Simulation.of(
            reconfigured(first, own), plant=Riding({RIDER: "nothing"})
        ).play_all()
        found[name] = outcome(simulation)
    return found


def outcome(run: Simulation) -> Outcome:
    """Read what a simulation came to."""
    history, setup = run.history, run.setup
    index = {client: i for i, client in enumerate(setup.clients)}
    fast = speeds(setup.config.devices, setup.config.seed, len(index))
    lasted = []
    for n, record in history.rounds.items():
        who = [index[client] for client in record.clients]
        steps = int(str(history.decisions[n].work["steps"]))
        seconds = simulated_seconds(fast, who, steps, traffic(setup))
        lasted.append(round_seconds(setup.config.devices, [float(x) for x in seconds], {}))
    asked = [client for decision in history.decisions.values() for client in decision.clients]
    honest = [client for client in setup.clients if client not in FAULTS]
    last = run.losses[-1].clients
    own = np.array([last[client] for client in honest if client in last])
    return Outcome(
        loss=np.array([x.test for x in run.losses]),
        seconds=np.cumsum(lasted),
        worst=float(np.quantile(own, 0.9)),
        rare=float(np.mean([last[client] for client in RARE if client in last])),
        turns={client: asked.count(client) for client in honest},
        faulty=sum(client in FAULTS for client in asked) / len(asked),
    )


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Compare the rules under some seeds."""
    rounds = effort.rounds if effort.quick else 16
    seeds = effort.seeds if effort.quick else 3 * effort.seeds
    played = [play(base, cache, seed, rounds) for seed in range(seeds)]
    targets = [float(x["uniform"].loss[2 * rounds // 3 - 1]) for x in played]
    final = {name: np.array([x[name].loss[-1] for x in played]) for name in RULES}
    others = {n: lift(x, final["uniform"], "select", n) for n, x in final.items() if n != "uniform"}
    counts = (1, rounds) if effort.quick else (exclude.SEEDS, exclude.ROUNDS)
    excluded = exclude.compared(base, cache, *counts)
    return Part(
        "select",
        "T3 Select",
        [
            f"{len(played)} seeds, {rounds} rounds of 4 of 13 clients: nine ordinary, two with"
            " desks that nobody else has, a label flipper, and a free rider that reports no"
            " change and a high loss. Speeds are log-normal (sigma 0.8), a tenth drops out. Loss"
            " is on honest rows of all desks; the worst decile, Gini and exclusions are over"
            " honest clients. Brackets are 95 % intervals over seeds.",
            "A rule never learns who is faulty; places that go to faulty clients show whom a rule"
            " falls for, exclusions whom it never asks.",
            exclude.says(excluded, rounds if effort.quick else exclude.ROUNDS),
        ],
        (grid(played, targets), lifted(others), exclude.grid(excluded)),
        {
            "rounds": rounds,
            "final": {name: x.tolist() for name, x in final.items()},
            "lift_over_uniform": {name: x.json() for name, x in others.items()},
            "rules": {name: figures(played, targets, name) for name in RULES},
            "excluding": exclude.figures(excluded),
        },
    )


def figures(
    played: Sequence[dict[str, Outcome]], targets: Sequence[float], name: str
) -> dict[str, list[float]]:
    """List what a rule came to under every seed; a target not reached takes for ever."""
    own = [outcomes[name] for outcomes in played]
    return {
        "loss": [float(x.loss[-1]) for x in own],
        "seconds": [x.reached(target) for x, target in zip(own, targets, strict=True)],
        "worst": [x.worst for x in own],
        "rare": [x.rare for x in own],
        "gini": [gini(list(x.turns.values())) for x in own],
        "excluded": [x.excluded for x in own],
        "faulty": [x.faulty for x in own],
    }


def grid(played: Sequence[dict[str, Outcome]], targets: Sequence[float]) -> Grid:
    """Tabulate every rule."""
    rows = []
    for name in RULES:
        found = figures(played, targets, name)
        times = [x for x in found["seconds"] if np.isfinite(x)]
        shown = f"{np.mean(times):.0f} ({len(times)}/{len(played)})" if times else "never"
        spread = [written(interval(found[key], "select", name, key)) for key in ("loss", "worst")]
        rest = [f"{np.mean(found[key]):.2f}" for key in ("rare", "gini", "excluded", "faulty")]
        rows.append([name, spread[0], shown, spread[1], *rest])
    columns = [
        "rule",
        "final loss, nats per token",
        "seconds to target (reached)",
        "worst decile",
        "rare clients",
        "Gini",
        "never asked",
        "faulty places",
    ]
    return Grid("Selection rules", columns, rows)


def lifted(others: Mapping[str, Any]) -> Grid:
    """Tabulate the lift over uniform selection."""
    rows = [
        [name, written(x.interval), f"{x.wins}/{x.ties}/{x.losses}", x.words]
        for name, x in others.items()
    ]
    columns = ["rule", "lift, nats per token", "win/tie/loss", "verdict"]
    return Grid("Final loss against uniform selection, paired by seed", columns, rows)
