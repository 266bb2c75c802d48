"""Track 3, continued: what it gains to exclude clients, by what is known while a run goes on.

Uniform selection among honest clients, two label flippers and free riders of three kinds.  A way to
exclude looks at what there is after a round and names whom not to ask again.  Reports are judged on
validation rows: the test split judges the ways, and none of them sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.pilot.parts import Grid
from benchmarks.pilot.scores import Lift, interval, lift, wilson, written
from benchmarks.pilot.simulate import Simulation, prepared
from benchmarks.pilot.worlds import FLIPPER, ORDINARY, RARE, RIDER, SENDS, Riding, config
from federation.algorithms.algorithm import advance
from federation.changes import Change
from federation.evaluation.evaluate import score
from federation.evaluation.scores import NATS, TOKENS
from federation.experiment import Setup
from federation.kindred import OUTLIER, kindred, outlyingness, weighed
from federation.plan import Reports, RoundPlan
from federation.runs.history import riders
from federation.runs.records import Effect
from federation.tree import Tree
from federation.whatif import louder

FLIPPERS = (FLIPPER, f"{FLIPPER}-2")
RIDERS = {f"{RIDER}-{what}": what for what in SENDS}
FAULTS = (*FLIPPERS, *RIDERS)
KINDS = {"flippers": FLIPPERS, "riders": tuple(RIDERS), "rare": RARE, "ordinary": ORDINARY}
ROUNDS, ASKED, SEEDS = 20, 5, 8
AGAIN = 2  # rounds in which a client must have been judged
FEWEST = 5  # clients of which one can be told from the rest


@dataclass
class Evidence:
    """What is known of clients while a run goes on.

    Attributes:
        run: the run, whose records are those of a journal.
        setup: what is run.
        like_N: client -> weights of validation rows like its own; some have none.
        effects: client -> what leaving it out did to them, round by round.
        last: what the clients of the newest round reported.
    """

    run: Simulation
    setup: Setup
    like_N: Mapping[str, np.ndarray]
    effects: dict[str, list[Effect]] = field(default_factory=dict)
    last: Reports | None = None

    def judge(self, before: Tree, plan: RoundPlan) -> None:
        """Judge the reports of the newest round on validation rows."""
        reports = self.last
        if reports is None or len(reports.clients) < 2:
            return
        changes = [Change(drop=(client,)) for client in reports.clients]
        changes += louder(reports, reports.clients)
        algorithm, rows = self.setup.algorithm, self.run.judge.rows[self.run.judge.validation]
        states = [advance(algorithm, before, x.reports(reports), plan) for x in changes]
        params_C = torch.stack([state["params"] for state in states])
        columns = score(self.run.judge.evaluation, params_C, [rows] * len(params_C))
        half = len(reports.clients)
        for i, client in enumerate(reports.clients):
            if client in self.like_N:
                added_N = columns[i][NATS] - columns[i + half][NATS]
                found = weighed(added_N[None], columns[i][TOKENS], self.like_N[client])
                self.effects.setdefault(client, []).append(found)

    def spoilers(self) -> list[str]:
        """Name those that spoil rows like their own, worst first."""
        means = {name: fmean(x.mean for x in own) for name, own in self.effects.items()}
        if len(means) < FEWEST:
            return []
        off = outlyingness(means)
        found = [
            name
            for name, own in self.effects.items()
            if len(own) >= AGAIN
            and off[name] < -OUTLIER
            and fmean(0.0 if x.high is None else x.high for x in own) < 0
        ]
        return sorted(found, key=means.__getitem__)

    def riders(self) -> list[str]:
        """Name those that do no work."""
        return list(riders(self.run.history.rounds.values()))


Way = Callable[[Evidence], Sequence[str]]
WAYS: Mapping[str, Way] = {
    "nobody": lambda known: (),
    "idle reports": Evidence.riders,
    "judged on validation": Evidence.spoilers,
    "both": lambda known: [*known.riders(), *known.spoilers()],
    "who is faulty (not known)": lambda known: FAULTS,
}


@dataclass(frozen=True)
class Outcome:
    """What came of a way to exclude.

    Attributes:
        loss: on the global test set at the end, nats per token.
        rare: mean loss of the rare clients at the end.
        excluded: whom it excluded -> after which round.
    """

    loss: float
    rare: float
    excluded: dict[str, int]


def play(setup: Setup, way: Way, like_N: Mapping[str, np.ndarray]) -> Outcome:
    """Play a federation, and exclude whom a way names."""
    riding, known = Riding(RIDERS), None

    def plant(sent: Tree, reports: Reports) -> Reports:
        assert known is not None
        known.last = riding(sent, reports)
        return known.last

    run = Simulation.of(setup, plant=plant)
    known = Evidence(run, setup, like_N)
    index = {client: i for i, client in enumerate(setup.clients)}
    excluded: dict[str, int] = {}
    while (round := len(run.history.rounds)) < setup.config.rounds:
        excluded |= {client: round for client in way(known) if client not in excluded}
        run.planner._excluded = frozenset(index[client] for client in excluded)  # pyright: ignore[reportAttributeAccessIssue]
        before, decision = run.state, run.planner.decide(round)
        if not run.play():
            break
        if way in (WAYS["judged on validation"], WAYS["both"]):
            known.judge(before, run.planner.plan(decision)[0])
    last = run.losses[-1]
    rare = fmean(last.clients[client] for client in RARE if client in last.clients)
    return Outcome(last.test, rare, excluded)


def compared(base: Path, cache: Path, seeds: int, rounds: int) -> dict[str, list[Outcome]]:
    """Play the federations of some seeds in every way."""
    found: dict[str, list[Outcome]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        own = config(base, cache, seed, FAULTS, rounds=rounds, cohort={"size": ASKED})
        setup = prepared(own, cache)
        judge = Simulation.of(setup).judge
        rows = judge.rows[judge.validation]
        like_N = kindred(setup, setup.clients, rows, setup.data.judged.validation)
        for name, way in WAYS.items():
            found[name].append(play(setup, way, like_N))
    return found


def caught(outcomes: Sequence[Outcome], kind: str) -> tuple[int, int]:
    """Count excluded clients of a kind, and all of them."""
    there = KINDS[kind]
    return sum(c in x.excluded for x in outcomes for c in there), len(there) * len(outcomes)


def grid(found: Mapping[str, Sequence[Outcome]]) -> Grid:
    """Tabulate every way."""
    rows = []
    for name, own in found.items():
        losses = [x.loss for x in own]
        gain = lift_of(found, name) if name != "nobody" else None
        counts = [caught(own, kind) for kind in KINDS]
        rows.append(
            [
                name,
                written(interval(losses, "exclude", name)),
                f"{written(gain.interval)}, {gain.words}" if gain else "-",
                written(interval([x.rare for x in own], "exclude", name, "rare"), 2),
                *(f"{n}/{of}, {written(wilson(n, of), 2)}" for n, of in counts),
            ]
        )
    columns = ["excluded by", "final loss, nats per token", "lift", "rare clients"]
    columns += [f"{kind} excluded" for kind in KINDS]
    return Grid("Excluding clients, by what is known while the run goes on", columns, rows)


def figures(found: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Give everything as plain values."""
    return {
        name: {
            "loss": [x.loss for x in own],
            "rare": [x.rare for x in own],
            "excluded": [x.excluded for x in own],
            "caught": {kind: list(caught(own, kind)) for kind in KINDS},
        }
        for name, own in found.items()
    }


def says(found: Mapping[str, Sequence[Outcome]], rounds: int) -> str:
    """Write what was done, and what it came to."""
    seeds = len(found["nobody"])
    idle, judged = (found[name] for name in ("idle reports", "judged on validation"))
    gains = [lift_of(found, name).words for name in ("idle reports", "judged on validation")]
    wrong = [sum(caught(own, kind)[0] for kind in ("rare", "ordinary")) for own in (idle, judged)]
    return (
        f"Excluding: {seeds} seeds, {rounds} rounds of {ASKED} of {len(FAULTS) + 11} clients, five"
        " of them faulty: two label flippers, and free riders that send nothing, noise as long as"
        " an update, or what the model did since they were last asked. Who is excluded is not"
        " asked again; the others are drawn uniformly. 'Judged on validation' leaves each report"
        " out and makes it louder, as in T4, on validation rows like the client's own that others"
        f" hold, and excludes whoever was judged {AGAIN} times, lies below zero with its mean"
        f" interval, and far below the rest (robust z under -{OUTLIER}). It comes to {gains[1]} in"
        f" loss and excludes {wrong[1]} honest clients; idle reports come to {gains[0]} and exclude"
        f" {wrong[0]}. The pilot excludes by idle reports, and not by these judgements."
    )


def lift_of(found: Mapping[str, Sequence[Outcome]], name: str) -> Lift:
    """Compare a way with excluding nobody, seed by seed, by the final loss."""
    losses, nobody = ([x.loss for x in found[way]] for way in (name, "nobody"))
    return lift(np.array(losses), np.array(nobody), "exclude", name)
