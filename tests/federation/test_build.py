"""From a configuration to an algorithm: what cannot be done is refused before any training."""

import inspect

import pytest
import torch

from federation.algorithms.algorithm import run_round
from federation.algorithms.catalogue import ALGORITHMS, build
from federation.algorithms.settings import SETTINGS, settings_model
from federation.config import Config
from federation.errors import ConfigError, QuorumError
from federation.plan import Reports, RoundPlan
from federation.specs import LocalWork
from federation.training.build import build_algorithm, rehearsed
from federation.tree import Tree, nbytes

P = 300


def config(algorithm: str, **upload: float) -> Config:
    work = {"optimizer": "sgd"}
    return Config.from_table({"algorithm": {"name": algorithm}, "work": work, "upload": upload})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_takes_what_can_be_set_and_has_its_defaults(name: str):
    taken = inspect.signature(ALGORITHMS[name]).parameters
    declared = settings_model(SETTINGS[name]).model_fields
    assert {x: taken[x].default for x in taken} == {x: declared[x].default for x in declared}


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_noise_refuses_what_it_cannot_protect_at_the_door(name: str):
    with pytest.raises(ConfigError, match="add_noise"):
        build_algorithm(config(name, clip=1.0, noise=1.0))


@pytest.mark.parametrize(
    ("name", "upload", "size"),
    [
        ("fedavg", {}, 4 * P),
        ("scaffold", {}, 8 * P),
        ("local", {}, 0),
        ("fedavg", {"bits": 8}, P + 4 * 2),
        ("fednova", {"top_k": 0.1}, 4 + 30 * 8 + 4),
    ],
)
def test_a_rehearsed_report_is_as_large_as_a_real_one(
    name: str, upload: dict[str, float], size: int
):
    algorithm = build_algorithm(config(name, **upload))
    assert nbytes(rehearsed(algorithm, torch.zeros(P), LocalWork())) == size


class Shouting:
    """An engine whose clients report one number over and over."""

    def __init__(self, value: float) -> None:
        self.value = value

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        ones = torch.ones(len(plan.clients), dtype=torch.float64)
        delta_C = torch.full((len(plan.clients), P), self.value)
        return Reports(plan.clients, {"delta": delta_C}, ones, ones, ones.long(), ones)


@pytest.mark.parametrize("value", [1e25, 3e38])
@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedavgm"])
def test_a_server_never_holds_what_is_not_finite(name: str, value: float):
    algorithm = build(name, {"server_lr": 100.0})
    state = algorithm.init(torch.zeros(P))
    plan = RoundPlan(0, 2, ("a", "b"), LocalWork())
    try:
        state, _ = run_round(algorithm, Shouting(value), state, plan)
    except QuorumError as error:
        assert "server_lr" in str(error)
    assert all(torch.isfinite(x).all() for x in state.values())
