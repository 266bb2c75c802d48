"""The same replies through Flower's strategies and through ours end in the same parameters.

Flower averages models, we average deltas.  Flower starts v at 0 where the paper starts it at tau
squared, and its FedAdam corrects the bias with exponent ``server_round + 1``: both are named
settings.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from federation.address import generator
from federation.algorithms import catalogue
from federation.algorithms.algorithm import Algorithm
from federation.plan import RoundPlan
from federation.specs import LocalWork

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

flwr_app = pytest.importorskip("flwr.app", reason="needs flwr: install the extra 'flower'")
strategies = pytest.importorskip("flwr.serverapp.strategy", reason="needs flwr")

P, CLIENTS, ROUNDS = 7, 4, 5


@dataclass(frozen=True)
class Pair:
    """One of our algorithms and Flower's strategy with the same settings."""

    ours: Callable[[], Algorithm]
    flower: Callable[[], object]


PAIRS = {
    "fedavg": Pair(lambda: catalogue.fedavg(), lambda: strategies.FedAvg()),
    "fedavgm": Pair(
        lambda: catalogue.fedavgm(0.6, 0.8),
        lambda: strategies.FedAvgM(server_learning_rate=0.6, server_momentum=0.8),
    ),
    "fedadagrad": Pair(
        lambda: catalogue.fedadagrad(0.2, 0.3, 0.01, v0=0.0),
        lambda: strategies.FedAdagrad(eta=0.2, eta_l=0.1, tau=0.01),
    ),
    "fedyogi": Pair(
        lambda: catalogue.fedyogi(0.2, 0.8, 0.95, 0.01, v0=0.0),
        lambda: strategies.FedYogi(eta=0.2, beta_1=0.8, beta_2=0.95, tau=0.01),
    ),
    "fedadam": Pair(
        lambda: catalogue.fedadam(0.2, 0.8, 0.95, 0.01, v0=0.0, bias_correction="flower"),
        lambda: strategies.FedAdam(eta=0.2, beta_1=0.8, beta_2=0.95, tau=0.01),
    ),
}


@dataclass(frozen=True)
class Reply:
    """As much of a Flower message as a strategy reads; a real one needs a running server."""

    content: object

    def has_error(self) -> bool:
        return False


def reply(params: np.ndarray, examples: int) -> Reply:
    """Wrap one client's model as Flower's clients do."""
    return Reply(
        flwr_app.RecordDict(
            {
                "arrays": flwr_app.ArrayRecord({"w": flwr_app.Array(params)}),
                "metrics": flwr_app.MetricRecord({"num-examples": examples}),
            }
        )
    )


def replies_of(round: int) -> tuple[np.ndarray, list[int]]:
    """Draw what the clients of a round have learned: deltas ``(C, P)`` and example counts."""
    rng = generator("flower parity", round)
    return rng.standard_normal((CLIENTS, P)), [int(n) for n in rng.integers(1, 50, CLIENTS)]


def ours_after(algorithm: Algorithm, start: np.ndarray) -> np.ndarray:
    state = algorithm.init(torch.from_numpy(start))
    names = tuple(f"client-{c}" for c in range(CLIENTS))
    for round in range(ROUNDS):
        delta_C, examples = replies_of(round)
        plan = RoundPlan(round, CLIENTS, names, LocalWork())
        weight_C = torch.tensor(examples, dtype=torch.float64)
        combined = algorithm.combine({"delta": torch.from_numpy(delta_C)}, weight_C)
        state = algorithm.step(state, combined, plan)
    return state["params"].numpy()


def flower_after(strategy: object, start: np.ndarray) -> np.ndarray:
    params = start
    for round in range(ROUNDS):
        delta_C, examples = replies_of(round)
        arrays = flwr_app.ArrayRecord({"w": flwr_app.Array(params)})
        strategy.configure_train(round + 1, arrays, flwr_app.ConfigRecord(), grid=None)
        replies = [reply(params + d, n) for d, n in zip(delta_C, examples, strict=True)]
        averaged, _ = strategy.aggregate_train(round + 1, replies)
        params = averaged["w"].numpy()
    return params


def difference(pair: Pair) -> float:
    start = generator("flower parity", "start").standard_normal(P)
    strategy = pair.flower()
    strategy.fraction_train = 0.0  # it shall note the parameters and send nothing
    if isinstance(strategy, strategies.FedAdagrad):
        strategy.beta_1 = 0.3  # its constructor does not offer it
    apart = ours_after(pair.ours(), start) - flower_after(strategy, start)
    return float(np.abs(apart).max())


@pytest.mark.parametrize("name", PAIRS)
def test_parity(name):
    assert difference(PAIRS[name]) < 1e-10


@pytest.mark.parametrize(
    "paper", [catalogue.fedadam(0.2, 0.8, 0.95, 0.01), catalogue.fedadam(0.2, 0.8, 0.95, 0.01, 0)]
)
def test_the_paper_s_fedadam_is_another(paper):
    """The comparison can tell the variants apart."""
    assert difference(Pair(lambda: paper, PAIRS["fedadam"].flower)) > 1e-3
