"""What a federation is compared with, on the same model, data and client-steps.

Knows configurations and setups; who plays them is experiment.py.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from federation.algorithms.settings import CENTRALISED, AlgorithmSpec
from federation.cohort.devices import DevicesSpec
from federation.cohort.selection import CohortSpec
from federation.config import Config
from federation.data.dataset import centralise
from federation.training.build import build_algorithm

if TYPE_CHECKING:
    from federation.experiment import Setup


def baseline_config(config: Config, name: str) -> Config:
    """Return the configuration of a baseline with the same client-steps as ``config``.

    ``local``: the same cohorts, batches and work, but nothing is shared.  ``centralised``: one
    model on the rows of all clients, as many steps a round as the cohort makes together, moments
    never reset.
    """
    evaluation = config.evaluation.model_copy(update={"baselines": (), "every": config.rounds})
    plain = {"evaluation": evaluation, "upload": type(config.upload)(), "pilot": {}}
    if name == "local":
        return config.model_copy(update=plain | {"algorithm": AlgorithmSpec(name="local")})
    steps = config.work.steps * config.cohort.size
    return config.model_copy(
        update=plain
        | {
            "algorithm": AlgorithmSpec(name=CENTRALISED),
            "work": config.work.model_copy(update={"steps": steps, "keep_optimizer": True}),
            "cohort": CohortSpec(size=1),
            "devices": DevicesSpec(),
        }
    )


def as_baseline(setup: "Setup", name: str, chunk: int) -> "Setup":
    """Return the setup of a baseline on the same model and data, with the same clients a pass."""
    config = baseline_config(setup.config, name)
    engine = config.engine.model_copy(update={"chunk": chunk, "keep_updates": 0})
    config = config.model_copy(update={"engine": engine})
    return replace(
        setup,
        config=config,
        data=centralise(setup.data) if name == CENTRALISED else setup.data,
        task=replace(setup.task, algorithm=build_algorithm(config)),
        judges_base=False,
    )
