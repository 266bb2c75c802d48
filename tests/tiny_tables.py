"""A table of runs as the benchmark of those who steer has one, made up in an instant."""

import numpy as np

from benchmarks.pilot.scenarios import CONFIGURATIONS, ROUNDS, SCENARIOS, SEEDS
from benchmarks.pilot.table import Table
from federation.address import generator


def made_up(seed: int = 0, spread: float = 0.03) -> Table:
    """A table whose losses are bowls in the learning rate, at another place in every scenario."""
    draw = generator("made-up table", seed)
    shape = (len(SCENARIOS), len(SEEDS), len(CONFIGURATIONS), ROUNDS)
    place = np.log([values["lr"] for values in CONFIGURATIONS])
    centre = draw.uniform(-5.5, -3.5, size=(len(SCENARIOS), 1, 1, 1))
    late = 0.5 * np.exp(-np.arange(ROUNDS))
    level = draw.normal(0, 0.05, size=(len(SCENARIOS), len(SEEDS), 1, 1))
    base = 0.5 + 0.15 * (place[:, None] - centre) ** 2 + late + level
    both = [base + draw.normal(0, spread, size=shape) for _ in range(2)]
    return Table(both[0], both[1], np.ones(shape), {})
