"""What is tuned, and where: six federations as seeded generators, and 48 configurations of each.

A configuration is a client learning rate, local steps and a cohort size.  All of them read the same
number of examples a round, so none wins by work alone; that is what an equal budget means here.
Light: nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from agents.study.search import SearchSpec
from agents.study.space import Values
from federation.config import Config

ROUNDS, CLIENTS = 6, 12
ROWS, JUDGED = 2400, 120  # of a data set; most of its validation and of its test split
EXAMPLES = 96  # read in a round by all clients together, whatever the configuration
SEEDS = (0, 1, 2)

LRS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.128)
STEPS = (1, 2, 4)
COHORTS = (3, 6)
CONFIGURATIONS: tuple[Values, ...] = tuple(
    {"lr": lr, "steps": float(steps), "cohort_size": float(size)}
    for lr, steps, size in product(LRS, STEPS, COHORTS)
)
DEFAULT = CONFIGURATIONS.index({"lr": 8e-3, "steps": 2.0, "cohort_size": 3.0})
"""What somebody would begin with; the first evaluation of every policy."""

SEARCH = SearchSpec(
    method="tpe",
    bounds={
        "lr": (min(LRS), max(LRS)),
        "steps": (min(STEPS), max(STEPS)),
        "cohort_size": (min(COHORTS), max(COHORTS)),
    },
    trials=25,
    max_client_steps=10**9,
)


@dataclass(frozen=True)
class Scenario:
    """A federation.

    Attributes:
        name: in tables.
        meaning: in a few words.
        tables: what its configuration has beside what all have.
    """

    name: str
    meaning: str
    tables: Mapping[str, Mapping[str, Any]]


SCENARIOS = (
    Scenario("iid", "every client alike", {"clients": {"by": "iid"}}),
    Scenario(
        "dirichlet-0.5",
        "desks skewed",
        {"clients": {"by": "dirichlet", "alpha": 0.5, "label": "desk"}},
    ),
    Scenario(
        "dirichlet-0.1",
        "desks very skewed",
        {"clients": {"by": "dirichlet", "alpha": 0.1, "label": "desk"}},
    ),
    Scenario(
        "quantity",
        "sizes skewed, Dirichlet 0.4",
        {"clients": {"by": "quantity", "alpha": 0.4}},
    ),
    Scenario(
        "noise",
        "updates clipped and noised",
        {"clients": {"by": "iid"}, "upload": {"clip": 2.0, "noise": 0.08}},
    ),
    Scenario(
        "stragglers",
        "a quarter drops out, slow clients are cut off",
        {
            "clients": {"by": "dirichlet", "alpha": 0.5, "label": "desk"},
            "devices": {"speed_sigma": 0.7, "dropout": 0.25, "deadline_seconds": 4.0},
        },
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def config(
    scenario: Scenario, seed: int, values: Values, base: str, source: str, rounds: int = ROUNDS
) -> Config:
    """Return the configuration of one run.

    Args:
        scenario: the federation.
        seed: of data, partition and run.
        values: learning rate, steps, cohort size.
        base: folder of the base model.
        source: file of the rows.
        rounds: of the run.
    """
    steps, size = int(values["steps"]), int(values["cohort_size"])
    tables = {name: dict(table) for name, table in scenario.tables.items()}
    clients = {"count": CLIENTS, "min_examples": 8} | tables.pop("clients")
    return Config.from_table(
        {
            "seed": seed,
            "rounds": rounds,
            "model": {"base": base, "dtype": "float32", "device": "cpu"},
            "adapter": {"rank": 4, "alpha": 8.0, "targets": "all-linear"},
            "data": {
                "source": source,
                "prompt": "{message}",
                "response": "{answer}",
                "clients": clients,
                "split": {"validation": 0.2, "test": 0.2},
            },
            "work": {
                "lr": values["lr"],
                "steps": steps,
                "batch_size": EXAMPLES // (steps * size),
            },
            "cohort": {"size": size},
            "evaluation": {"max_examples": JUDGED},
            "engine": {"chunk": size, "threads": 1},
            **tables,
        },
        f"scenario {scenario.name}",
    )
