"""Track 5, experiments: how often a study is wrong about nothing, and right about something.

A study of the table compares two configurations on one pair of runs from every scenario, by the
arithmetic of agents.study: a floor, looks on validation from the third pair on, a verdict on test.
In an A/A study both sides are the same configuration under different seeds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.study.statistics import FEWEST, Result, decided, judge, noise_floor
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scenarios import CONFIGURATIONS, SCENARIOS, SEEDS
from benchmarks.pilot.scores import Interval, wilson, written
from benchmarks.pilot.table import Table
from federation.address import generator

ALPHA = 0.05
PLANNED = len(SCENARIOS)
EFFECTS = ((0.01, 0.05), (0.05, 0.15), (0.15, 10.0))
"""True differences in nats per token, mean over all scenarios and seeds: from, to."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Improvements of an arm over a control, pair by pair.

    Attributes:
        validation: ``(pairs,)``, nats per token.
        test: the same on test.
        control: validation losses of the control under all seeds of one scenario.
    """

    validation: np.ndarray
    test: np.ndarray
    control: np.ndarray


def study(pairs: Pairs) -> tuple[Result, int]:
    """Conduct a study; return its verdict and how many pairs it took."""
    floor = noise_floor([float(x) for x in pairs.control], PLANNED, ALPHA)
    taken = PLANNED
    for n in range(FEWEST, PLANNED):
        if decided(verdict(pairs.validation[:n], floor), floor):
            taken = n
            break
    return verdict(pairs.test[:taken], floor).verdict, taken


def verdict(improvements: np.ndarray, floor: float) -> Any:
    """Judge one arm."""
    arms = {"arm": [float(x) for x in improvements]}
    return judge(arms, floor=floor, alpha=ALPHA, planned=PLANNED)["arm"]


def alike(table: Table, draw: np.random.Generator) -> Pairs:
    """Draw an A/A study: one configuration, two seeds of every scenario, in drawn order."""
    c = int(draw.integers(len(CONFIGURATIONS)))
    seeds = np.array([draw.permutation(len(SEEDS))[:2] for _ in SCENARIOS])
    order = draw.permutation(len(SCENARIOS))
    return paired(table, (c, c), seeds[:, 0], seeds[:, 1], order)


def unlike(table: Table, arm: int, control: int, draw: np.random.Generator) -> Pairs:
    """Draw a study of two configurations, paired by seed."""
    seeds = draw.integers(len(SEEDS), size=len(SCENARIOS))
    return paired(table, (arm, control), seeds, seeds, draw.permutation(len(SCENARIOS)))


def paired(
    table: Table, pair: tuple[int, int], of_arm: np.ndarray, of_control: np.ndarray, order: Any
) -> Pairs:
    """Look pairs up; the floor is measured in the first scenario."""
    arm, control = pair
    s = order

    def improvement(losses: np.ndarray) -> np.ndarray:
        return losses[s, of_control[s], control, -1] - losses[s, of_arm[s], arm, -1]

    own = table.validation[s[0], :, control, -1]
    return Pairs(improvement(table.validation), improvement(table.test), own)


def true_effects(table: Table) -> np.ndarray:
    """Return by how much each configuration is better than each other, ``(arm, control)``."""
    means = table.test[..., -1].mean(axis=(0, 1))
    return means[None, :] - means[:, None]


def run(table: Table, effort: Effort) -> Part:
    """Conduct many studies of both kinds."""
    draw = generator("pilot bench", "studies")
    false = Counter(study(alike(table, draw))[0] for _ in range(effort.pairs))
    wrong = {x: wilson(false[x], effort.pairs) for x in ("better", "worse")}
    effects = true_effects(table)
    powers = []
    for low, high in EFFECTS:
        where = np.argwhere((effects >= low) & (effects < high))
        if len(where):
            powers.append((low, high, power(table, where, effort.pairs // 4, draw)))
    return Part(
        "experiment",
        "T5 Experiment",
        says(effort.pairs, wrong),
        (grid(powers),),
        {
            "studies": effort.pairs,
            "false_better": wrong["better"].json(),
            "false_worse": wrong["worse"].json(),
            "power": [{"from": a, "to": b, **found} for a, b, found in powers],
        },
    )


def power(
    table: Table, where: np.ndarray, studies: int, draw: np.random.Generator
) -> dict[str, Any]:
    """Conduct studies of arms that are better, and count what is said."""
    found: Counter[str] = Counter()
    taken = []
    for _ in range(studies):
        arm, control = where[int(draw.integers(len(where)))]
        result, pairs = study(unlike(table, int(arm), int(control), draw))
        found[result] += 1
        taken.append(pairs)
    shares = {x: wilson(found[x], studies).json() for x in ("better", "worse", "inconclusive")}
    return shares | {"studies": studies, "pairs": float(np.mean(taken)), "arms": len(where)}


def says(studies: int, wrong: dict[str, Interval]) -> list[str]:
    """Write what was done and what it came to."""
    return [
        f"{studies} A/A studies of up to {PLANNED} pairs, one from every scenario, at alpha"
        f" {ALPHA}: a false 'better' in {written(wrong['better'])} of them (asked for: at most"
        f" 0.05), a false 'worse' in {written(wrong['worse'])}.",
        "Power: how often an arm that is truly better, in the mean over all cells of the table, is"
        " found so. A pair is one scenario, so arms whose effect changes with the scenario are"
        " among them; the largest differences are from controls that almost diverge, which differ"
        " most from themselves.",
    ]


def grid(powers: Sequence[tuple[float, float, dict[str, Any]]]) -> Grid:
    """Tabulate power by size of the effect."""
    rows = []
    for low, high, found in powers:
        size = f"{low:g} to {high:g}" if high < 1 else f"over {low:g}"
        said = [written(found[x]) for x in ("better", "inconclusive", "worse")]
        rows.append([size, *said, f"{found['pairs']:.1f}", str(found["studies"])])
    columns = ["true effect, nats per token", "better", "inconclusive", "worse", "pairs", "studies"]
    return Grid("Verdicts on arms that are better", columns, rows)
