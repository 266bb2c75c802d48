"""Track 4, diagnosis: who is at fault in stored runs, and whether explanations state what is true.

Runs with a label flipper, with a free rider and with neither, kept on disk as any run.  A diagnosis
names a client or nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.pilot.explanations import Checked
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scores import f1, wilson, written
from benchmarks.pilot.simulate import Planted
from benchmarks.pilot.worlds import FLIPPER, RARE, RIDER, SENDS, Riding, config
from federation.experiment import begin, finish, set_up
from federation.kindred import OUTLIER, outlyingness, spoilers
from federation.plan import Engine, Reports, RoundPlan
from federation.runs.history import riders
from federation.runs.run import History, Run
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.tree import Tree
from federation.whatif import contributions

FAULTS: Mapping[str, str | None] = {
    "flipper": FLIPPER,
    **{f"sends {what}": RIDER for what in SENDS},
    "nobody": None,
}
"""What is planted -> who is at fault."""
ROUNDS, ASKED = 12, 10
WORK = {"lr": 1.6e-2, "steps": 4, "batch_size": 8}  # enough to learn what a fault can spoil
JUDGED = {"effects": "all rows", "own": "rows like its own"}
KINDS = ("flipper", "rare", "ordinary")
FLIPPED = 2  # times as many runs with a flipper where only leave-one-out is asked
LOOKED = 4  # newest rounds whose contributions are measured


@dataclass(frozen=True)
class Faulty:
    """An engine some of whose reports are not what clients trained."""

    engine: Engine
    plant: Planted

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let clients train, and faults be faults."""
        return self.plant(sent, self.engine.train(sent, plan))


def stored(base: Path, cache: Path, out: Path, seed: int, planted: str, alike: bool = False) -> Run:
    """Write a run with one of :data:`FAULTS` into a directory."""
    fault = FAULTS[planted]
    own = config(
        base,
        cache,
        seed,
        [fault] if fault else [],
        alike,
        rounds=ROUNDS,
        cohort={"size": ASKED},
        work=WORK,
        engine={"chunk": ASKED, "threads": 1, "keep_updates": LOOKED},
    )
    setup = set_up(own, None, cache)
    with RunWriter.create(out, own.model_dump_json(indent=2)) as writer:
        session = begin(setup, writer, Watch())
        if fault == RIDER:
            session.engine = Faulty(session.engine, Riding({RIDER: planted.removeprefix("sends ")}))  # pyright: ignore[reportAttributeAccessIssue]
        finish(setup, session)
    for round in range(ROUNDS - LOOKED, ROUNDS):
        contributions(out, round, cache=cache)
    return Run.open(out)


def outlier(figures: Mapping[str, Sequence[float]], sides: str) -> str | None:
    """Name the client whose mean figure stands out; None if nobody's does.

    Args:
        figures: client -> its figures, a round each.
        sides: "low", "high" or "both": where standing out counts.
    """
    off = outlyingness({name: float(np.mean(x)) for name, x in figures.items()})
    score = {name: {"low": -z, "high": z, "both": abs(z)}[sides] for name, z in off.items()}
    most = max(score, key=score.__getitem__)
    return most if score[most] > OUTLIER else None


def by_round(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Gather what clients have in several rounds."""
    clients = sorted({client for figures in rounds for client in figures})
    return {c: [figures[c] for figures in rounds if c in figures] for c in clients}


def diagnoses(history: History) -> dict[str, str | None]:
    """Name whom each way to diagnose holds to be at fault."""
    rounds = list(history.rounds.values())
    by_loss = outlier(by_round([x.loss for x in rounds]), "high")
    by_norm = outlier(by_round([x.update_norms for x in rounds]), "both")
    left_out = outlier(contributed(history, "effects"), "low")
    own = outlier(contributed(history, "own"), "low")
    idle = next(iter(riders(rounds)), None)
    return {
        "highest training loss": by_loss,
        "outlying update norm": by_norm,
        "left out, all rows": left_out,
        "left out, rows like its own": own,
        "left out, rows like its own, else norm": own or by_norm,
        "idle reports": idle,
        "left out, rows like its own, else idle": own or idle,
    }


def contributed(history: History, judged: str) -> dict[str, list[float]]:
    """Return what clients contributed, on all rows ("effects") or on rows like their "own"."""
    found = [getattr(x, judged) for x in history.contributions]
    return by_round([{client: e.mean for client, e in own.items()} for own in found])


@dataclass
class Ranked:
    """Who is harmful by leaving out, all told and in single rounds.

    Attributes:
        runs: of the last rounds together, whether the flipper is first.
        rounds: of every round in which it took part, whether it is first.
        called: "flipper", "rare" and "ordinary" -> whether one of them was called a spoiler, once
            for every round in which it took part; free riders are not counted.
    """

    runs: list[bool] = field(default_factory=list)
    rounds: list[bool] = field(default_factory=list)
    called: dict[str, list[bool]] = field(default_factory=dict)

    def take(self, history: History, judged: str) -> None:
        """Count a run."""
        means = {c: float(np.mean(x)) for c, x in contributed(history, judged).items()}
        if FLIPPER in means:
            self.runs.append(min(means, key=means.__getitem__) == FLIPPER)
        for record in history.contributions:
            values = {c: e.mean for c, e in getattr(record, judged).items()}
            if FLIPPER in values:
                self.rounds.append(min(values, key=values.__getitem__) == FLIPPER)
            names = spoilers(record) if judged == "own" else far_below(values)
            for client in values.keys() - {RIDER}:
                kind = "rare" if client in RARE else "flipper" if client == FLIPPER else "ordinary"
                self.called.setdefault(kind, []).append(client in names)

    @property
    def told(self) -> dict[str, list[bool]]:
        """Everything by what it is called in a table."""
        called = {f"{kind} called": self.called.get(kind, []) for kind in KINDS}
        return {"runs: flipper first": self.runs, "rounds: flipper first": self.rounds} | called

    def row(self, name: str) -> list[str]:
        """Write it for a table."""
        return [name, *(counted(x) for x in self.told.values())]

    def json(self) -> dict[str, list[int]]:
        """Give it as plain values: how often, of how many."""
        return {name: [sum(x), len(x)] for name, x in self.told.items()}


def counted(hits: Sequence[bool]) -> str:
    """Write how often something was so, with the interval of its share."""
    return f"{sum(hits)}/{len(hits)}, {written(wilson(sum(hits), len(hits)), 2)}"


def far_below(values: Mapping[str, float]) -> list[str]:
    """Name those that are called by figures without an interval: below zero and all others."""
    off = outlyingness(values)
    return [client for client, x in values.items() if x < 0 and off[client] < -OUTLIER]


@dataclass(frozen=True)
class World:
    """What diagnoses came to where clients are skewed, or alike.

    Attributes:
        planted: which fault there was, run by run.
        named: way to diagnose -> whom it named.
        ranked: way to judge -> who is harmful by leaving out.
        idle: kind of client -> whether a report was called idle, and a client a rider.
    """

    planted: list[str]
    named: dict[str, list[str | None]]
    ranked: dict[str, Ranked]
    idle: dict[str, "Idle"]

    @property
    def truth(self) -> list[str | None]:
        """Who was at fault, run by run."""
        return [FAULTS[planted] for planted in self.planted]

    def json(self) -> dict[str, Any]:
        """Give it as plain values."""
        ways = {
            way: f1(own, self.truth) | {"right": hits(own, self.planted)}
            for way, own in self.named.items()
        }
        ranked = {judged: own.json() for judged, own in self.ranked.items()}
        idle = {kind: own.json() for kind, own in self.idle.items()}
        return {"runs": len(self.planted), "ways": ways, "left_out": ranked, "idle": idle}


@dataclass
class Idle:
    """How often clients of a kind were called idle.

    Attributes:
        reports: whether a report was, of all.
        clients: whether a client was called a rider by the end of its run.
    """

    reports: list[bool] = field(default_factory=list)
    clients: list[bool] = field(default_factory=list)

    def json(self) -> dict[str, list[int]]:
        """Give it as plain values: how often, of how many."""
        return {
            "reports": [sum(self.reports), len(self.reports)],
            "clients": [sum(self.clients), len(self.clients)],
        }


def count_idle(idle: dict[str, Idle], history: History, planted: str) -> None:
    """Count whom a run calls idle, by what clients are: honest ones, or what was planted."""
    records = list(history.rounds.values())
    lazy = riders(records)
    for client in sorted({client for record in records for client in record.clients}):
        faulty = client == FAULTS[planted]
        kind = planted if faulty else "rare" if client in RARE else "ordinary"
        own = idle.setdefault(kind, Idle())
        own.reports += [client in record.idle for record in records if client in record.clients]
        own.clients.append(client in lazy)


def world(base: Path, cache: Path, seeds: int, alike: bool, checked: Checked) -> World:
    """Write runs with every fault and diagnose them; check what explanations say of them."""
    all_planted: list[str] = []
    idle: dict[str, Idle] = {}
    named: dict[str, list[str | None]] = {}
    ranked = {judged: Ranked() for judged in JUDGED}
    with TemporaryDirectory(prefix="fedpilot-bench-") as folder:
        for seed in range(seeds * FLIPPED):
            for planted in FAULTS if seed < seeds else ("flipper",):
                out = Path(folder) / f"{planted.replace(' ', '-')}-{seed}"
                history = stored(base, cache, out, seed, planted, alike).history
                count_idle(idle, history, planted)
                for judged, own in ranked.items():
                    own.take(history, judged)
                if seed >= seeds:
                    continue
                all_planted.append(planted)
                for way, client in diagnoses(history).items():
                    named.setdefault(way, []).append(client)
                checked.take(history)
    return World(all_planted, named, ranked, idle)


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Diagnose runs of skewed clients and of clients that are alike."""
    checked = Checked()
    seeds = effort.seeds if effort.quick else 2 * effort.seeds
    worlds = {"skewed": world(base, cache, seeds, False, checked)}
    if not effort.quick:
        worlds["alike"] = world(base, cache, seeds, True, checked)
    return Part(
        "diagnose",
        "T4 Diagnose and explain",
        says(worlds, checked),
        [ranks(name, found) for name, found in worlds.items()]
        + [grid(name, found) for name, found in worlds.items()]
        + [idle_grid(name, found) for name, found in worlds.items()],
        {
            **{name: found.json() for name, found in worlds.items()},
            "claims": checked.claims,
            "numbers": checked.numbers,
            "precision": checked.precision,
            "mutated": checked.mutated,
            "refused": checked.refused,
        },
    )


def hits(named: Sequence[str | None], planted: Sequence[str]) -> dict[str, str]:
    """Say for every fault how often the answer was right."""
    found = {}
    for fault, who in FAULTS.items():
        own = [a == who for a, b in zip(named, planted, strict=True) if b == fault]
        found[fault] = f"{sum(own)}/{len(own)}"
    return found


def says(worlds: Mapping[str, World], checked: Checked) -> list[str]:
    """Write what was done and what it came to."""
    runs = sum(len(found.planted) for found in worlds.values())
    return [
        f"{runs} stored runs of {ROUNDS} rounds, {ASKED} clients asked in each: as many with a"
        " label flipper as without a fault, and with a free rider that sends nothing, noise as"
        " long as an update, or what the model did since it was last asked. Clients hold skewed"
        " mixes of desks, or all the common ones alike; two more hold a rare desk each. A"
        " diagnosis names the client whose mean figure stands out (robust z-score over"
        f" {OUTLIER}), or nobody. Leave-one-out is over the last {LOOKED} rounds.",
        "Leave-one-out judges twice. On all rows, the client having its own weight: an honest"
        " client whose desks are plenty elsewhere looks harmful, and the flipper's harm is diluted."
        " On rows like its own, held by others, the client having as much weight as all others"
        " together. A client is called harmful if its figure is below zero and robust z below"
        f" -{OUTLIER}; on rows like its own its whole 95 % interval is below zero. Brackets are"
        " 95 % score intervals of shares; rounds of one run are not independent. For this table"
        f" alone there are {FLIPPED} times as many runs with a flipper.",
        "A report is called idle if it is nothing, noise or a copy by its direction (see"
        " `federation/idling.py`), a client a rider if most of its reports are, and two at least."
        " The bounds of that were set on runs of such federations, so look at exclusions in T3 as"
        " well, which has other cohorts.",
        f"Explanations: {checked.numbers} numbers in {checked.claims} claims, precision"
        f" {checked.precision:.3f} (asked for: 1.0). Of {checked.mutated} mutated claims"
        f" {checked.refused} were refused.",
    ]


def ranks(name: str, found: World) -> Grid:
    """Tabulate who is harmful by leaving out."""
    rows = [own.row(JUDGED[judged]) for judged, own in found.ranked.items()]
    title = f"Leave-one-out among {name} clients: flipper ranked first, and clients called harmful"
    return Grid(title, ["judged on", *found.ranked["own"].told], rows)


def grid(name: str, found: World) -> Grid:
    """Tabulate every way to diagnose."""
    rows = []
    for way, own in found.named.items():
        x = f1(own, found.truth)
        cells = [f"{x[key]:.2f}" for key in ("f1", "precision", "recall")]
        rows.append([way, *cells, *hits(own, found.planted).values()])
    columns = ["way", "F1", "precision", "recall", *FAULTS]
    title = f"Naming who is at fault among {name} clients; right answers by what was planted"
    return Grid(title, columns, rows)


def idle_grid(name: str, found: World) -> Grid:
    """Tabulate who is called idle."""
    order = [kind for kind in (*FAULTS, "rare", "ordinary") if kind in found.idle]
    rows = [
        [kind, counted(found.idle[kind].reports), counted(found.idle[kind].clients)]
        for kind in order
    ]
    columns = ["client", "reports called idle", "clients called riders"]
    return Grid(f"Idle reports among {name} clients", columns, rows)
