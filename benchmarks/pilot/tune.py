"""Track 1, tuning offline: searches on the table of runs, at equal budgets.

A cell is a (scenario, seed).  A policy sees validation losses only; what it held to be best is
judged on the test split too.  The intervals are over cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scenarios import CONFIGURATIONS, SCENARIOS, SEEDS
from benchmarks.pilot.scores import (
    EVALUATIONS,
    Interval,
    Lift,
    area,
    interval,
    lift,
    regret,
    seed_noise,
    wilson,
    written,
)
from benchmarks.pilot.searchers import (
    CONTROLS,
    WITHOUT_MODEL,
    Episode,
    Searcher,
    Stepwise,
    episode,
    repeated,
    searchers,
)
from benchmarks.pilot.table import Table

MOST = max(EVALUATIONS)
CELLS = [(s, k) for s in range(len(SCENARIOS)) for k in range(len(SEEDS))]


@dataclass(frozen=True, eq=False)
class Scored:
    """What a policy came to.

    Attributes:
        cells: numbers of the cells that it searched.
        curves: normalised validation regret, ``(cells, repeats, evaluations)``.
        test: test regret of the incumbents in nats per token, the same shape.
        overruled: decisions of a model in the place of an optimizer's.
        harmful: those of them that were worse by more than the noise of a seed.
        tokens: spent.
        asked: questions that were put to a model.
        failures: those of them that it did not answer.
        abstained: those of them on which it left the trial to the optimizer.
        repeated: those on which it said what was tried already.
    """

    cells: Sequence[int]
    curves: np.ndarray
    test: np.ndarray
    overruled: int
    harmful: int
    tokens: int
    asked: int
    failures: int
    abstained: int
    repeated: int

    def areas(self, evaluations: int) -> np.ndarray:
        """Return the regret area of every cell, mean over repeats, ``(cells,)``."""
        return self.curves[:, :, :evaluations].mean(axis=(1, 2))

    def left(self, evaluations: int) -> np.ndarray:
        """Return the test regret of every cell after a budget, mean over repeats, ``(cells,)``."""
        return self.test[:, :, evaluations - 1].mean(axis=1)


def searched(name: str, effort: Effort) -> tuple[Sequence[int], int]:
    """Return which cells a policy searches, and how often each.

    One that asks a model searches the first cells of every scenario once: asking is dear.
    """
    if name in effort.asking:
        return [i for i, (_, k) in enumerate(CELLS) if k < effort.cells], 1
    return range(len(CELLS)), effort.repeats


def score(searcher: Searcher, table: Table, cells: Sequence[int], repeats: int) -> Scored:
    """Let a policy search cells some times."""
    curves = np.zeros((len(cells), repeats, MOST))
    test = np.zeros_like(curves)
    overruled = harmful = tokens = asked = failures = abstained = again = 0
    for cell, (s, k) in enumerate(CELLS[i] for i in cells):
        floor = seed_noise(table.validation[s, :, :, -1])
        judged = table.test[s, k, :, -1]
        for repeat in range(repeats):
            start = episode(table.validation[s, k], MOST, s, k, repeat)
            done, best = repeated(searcher, start)
            curves[cell, repeat] = regret(done.final[best], done.curves[:, -1])
            test[cell, repeat] = judged[best] - np.nanmin(judged)
            worse = [harms(done, trial, floor) for trial in done.shadows]
            overruled, harmful = overruled + len(worse), harmful + sum(worse)
            tokens, asked = tokens + done.tokens, asked + done.asked
            failures, abstained = failures + len(done.failures), abstained + done.abstained
            again += done.repeated
    counts = overruled, harmful, tokens, asked, failures, abstained, again
    return Scored(cells, curves, test, *counts)


def harms(done: Episode, trial: int, floor: float) -> bool:
    """Tell whether following a model was worse than its shadow by more than noise."""
    followed, shadow = done.final[done.tried[trial]], done.final[done.shadows[trial]]
    return bool(followed > shadow + floor)


def best_without_model(scored: Mapping[str, Scored]) -> str:
    """Return the policy without a model that has the smallest area.

    It is chosen on the very cells that it is compared on, which flatters it and nobody else.
    """
    return min(WITHOUT_MODEL, key=lambda name: float(scored[name].areas(MOST).mean()))


def lifts(scored: Mapping[str, Scored], over: str, evaluations: int) -> dict[str, Lift]:
    """Compare every policy with one of them that searched all cells, by regret area."""
    other = scored[over].areas(evaluations)
    return {
        name: lift(own.areas(evaluations), other[own.cells], name, over, evaluations)
        for name, own in scored.items()
        if name != over
    }


@dataclass(frozen=True)
class Calibration:
    """How often the null policy seems to differ from random search.

    Attributes:
        contains: repeats whose interval of lift contains no difference.
        repeats: all of them.
    """

    contains: int
    repeats: int

    @property
    def share(self) -> Interval:
        """The share, with its interval."""
        return wilson(self.contains, self.repeats)


def calibrate(table: Table, repeats: int) -> Calibration:
    """Compare null and random search again and again, with fresh draws of both."""
    contains = 0
    for repeat in range(repeats):
        areas = {}
        for name, searcher in (("null", CONTROLS["null"]), ("random", WITHOUT_MODEL["random"])):
            curves = []
            for s, k in CELLS:
                start = episode(table.validation[s, k], MOST, "calibration", name, s, k, repeat)
                done, best = repeated(searcher, start)
                curves.append(area(regret(done.final[best], done.curves[:, -1]), MOST))
            areas[name] = np.array(curves)
        contains += lift(areas["null"], areas["random"], repeat).interval.contains_zero
    return Calibration(contains, repeats)


def own_noise(table: Table, repeats: int) -> float:
    """Return the noise floor of a search: how far TPE's mean area is from its own, 95 % of times.

    Two runs of the same optimizer over all cells, with other draws; the spread of their difference
    is estimated cell by cell.
    """
    halves = []
    for half in ("a", "b"):
        cells = np.zeros((len(CELLS), repeats))
        for cell, (s, k) in enumerate(CELLS):
            for repeat in range(repeats):
                start = episode(table.validation[s, k], MOST, "floor", half, s, k, repeat)
                done, best = repeated(WITHOUT_MODEL["tpe"], start)
                cells[cell, repeat] = area(regret(done.final[best], done.curves[:, -1]), MOST)
        halves.append(cells.mean(axis=1))
    apart = halves[0] - halves[1]
    return float(1.96 * np.sqrt((apart**2).mean() / len(CELLS)))


def run(table: Table, effort: Effort) -> Part:
    """Score every policy offline."""
    scored = {
        name: score(searcher, table, *searched(name, effort))
        for name, searcher in searchers(effort.models).items()
    }
    best = best_without_model(scored)
    against = lifts(scored, best, MOST)
    null = calibrate(table, effort.calibrations)
    floor = own_noise(table, effort.repeats)
    hybrid = lift(scored["hybrid+null"].areas(MOST), scored["tpe"].areas(MOST), "hybrid")
    random, drawn = lifts(scored, "random", MOST), lifts(scored, "null", MOST)
    return Part(
        "tune",
        "T1 Tune offline",
        says(best, null, floor, hybrid) + protocol(effort),
        (areas(scored), left(scored), lifted(scored, against, best), by_scenario(scored)),
        {
            "best_without_model": best,
            "areas": {n: float(x.areas(MOST).mean()) for n, x in scored.items()},
            "test_regret": {n: float(x.left(MOST).mean()) for n, x in scored.items()},
            "lift": {name: x.json() for name, x in against.items()},
            "lift_over_random": {name: x.json() for name, x in random.items()},
            "lift_over_null": {name: x.json() for name, x in drawn.items()},
            "null_contains_zero": null.share.json(),
            "hybrid_null_over_tpe": hybrid.json(),
            "search_noise_floor": floor,
            "harmful": {n: [x.harmful, x.overruled] for n, x in scored.items() if x.overruled},
            "tokens": {n: x.tokens for n, x in scored.items()},
            "asked": {n: x.asked for n, x in scored.items() if x.asked},
            "failures": {n: x.failures for n, x in scored.items() if x.failures},
            "abstained": {n: x.abstained for n, x in scored.items() if x.abstained},
            "repeated": {n: x.repeated for n, x in scored.items() if x.repeated and x.asked},
        },
    )


def says(best: str, null: Calibration, floor: float, hybrid: Lift) -> list[str]:
    """Write what was done and what it came to."""
    apart = abs(hybrid.interval.mean)
    within = "within" if apart <= floor else "NOT within"
    return [
        f"A trial looks up one of {len(CONFIGURATIONS)} configurations (client learning rate, local"
        " steps, cohort size; all read equally many examples) in one of"
        f" {len(CELLS)} cells ({len(SCENARIOS)} scenarios, {len(SEEDS)} seeds). Every policy begins"
        " with the same default and sees validation losses alone. Regret is 0 for the best"
        " configuration of a cell and 1 for its median; an area is the mean regret over the first"
        " evaluations, lower is better. Brackets are 95 % resampling intervals over cells.",
        f"Best policy without a model, by area over {MOST}: **{best}**, chosen on these very cells,"
        " which favours it over any model.",
        f"Control: the interval of the null policy's lift over random search contains 0 in"
        f" {written(null.share)} of {null.repeats} repeats (asked for: at least 0.95).",
        f"Hybrid with the null model against the optimizer alone: area lower by"
        f" {written(hybrid.interval, 4)}; the optimizer differs from itself by up to {floor:.4f}"
        f" (95 %): {within} one noise floor.",
    ]


def protocol(effort: Effort) -> list[str]:
    """Say how often a model is asked, if one is."""
    if not effort.models:
        return []
    cells, _ = searched(next(iter(effort.asking)), effort)
    most = len(cells) * (MOST - 1 + MOST - Stepwise("tpe").warmup)
    return [
        f"A policy that asks a model searches {len(cells)} cells, {effort.cells} of every scenario,"
        f" once, and is compared on them. The model is asked one question a trial, {most} at most"
        f" with the hybrid's; an answer has at most {effort.tokens} tokens and may be mended twice."
        " In the place of one that cannot be used the default is tried again, and the hybrid's"
        " optimizer decides. It decides too where its adviser abstains or names what was tried"
        " already; a model alone cannot abstain, and what it names again is tried again. A server"
        " that enforces no schema, such as `transformers serve`, leaves it to the model to write"
        " JSON."
    ]


def areas(scored: Mapping[str, Scored]) -> Grid:
    """Tabulate regret areas by budget."""
    rows = [
        [name, *(written(interval(own.areas(n), name, n)) for n in EVALUATIONS)]
        for name, own in scored.items()
    ]
    columns = ["policy", *(f"over {n} evaluations" for n in EVALUATIONS)]
    return Grid("Normalised regret area on validation, lower is better", columns, rows)


def left(scored: Mapping[str, Scored]) -> Grid:
    """Tabulate test regret by budget."""
    rows = [
        [name, *(written(interval(own.left(n), name, "test", n)) for n in EVALUATIONS)]
        for name, own in scored.items()
    ]
    columns = ["policy", *(f"after {n}" for n in EVALUATIONS)]
    title = "Held-out test loss of the choice above the best there is, nats per token"
    return Grid(title, columns, rows)


def lifted(scored: Mapping[str, Scored], against: Mapping[str, Lift], best: str) -> Grid:
    """Tabulate lift over the best policy without a model."""
    rows = []
    for name, own in against.items():
        x = scored[name]
        harmful = (
            f"{x.harmful}/{x.overruled} ({x.harmful / x.overruled:.0%})" if x.overruled else "-"
        )
        cells = f"{own.wins}/{own.ties}/{own.losses}"
        left = f"{x.abstained}, {x.repeated}"
        answered = f"{x.asked - x.failures}/{x.asked}, {left}" if x.asked else "-"
        told = [harmful, answered, str(x.tokens or "-")]
        rows.append([name, written(own.interval), cells, own.words, *told])
    columns = ["policy", "lift", "win/tie/loss", "verdict", "harmful overrulings"]
    columns += ["answers of questions, abstained, tried already", "tokens"]
    return Grid(f"Paired lift in regret area over {best}, {MOST} evaluations", columns, rows)


def by_scenario(scored: Mapping[str, Scored]) -> Grid:
    """Tabulate areas by scenario."""
    rows = []
    for name, own in scored.items():
        cells, where = own.areas(MOST), np.array([CELLS[i][0] for i in own.cells])
        means = [cells[where == s].mean() for s in range(len(SCENARIOS))]
        rows.append([name, *(f"{x:.3f}" for x in means)])
    columns = ["policy", *(scenario.name for scenario in SCENARIOS)]
    return Grid(f"Regret area over {MOST} evaluations by scenario", columns, rows)
