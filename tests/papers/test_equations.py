"""Every algorithm against its paper's equations, written as loops, in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from federation.algorithms import catalogue
from federation.algorithms.algorithm import Algorithm, run_round, uniform_mean
from federation.errors import ConfigError
from federation.specs import LocalWork
from tests.laws import toy
from tests.laws.toy_world import toy_world
from tests.papers import equations, loops
from tests.papers.equations import EQUATIONS, agrees, assert_close, play, story


@pytest.mark.parametrize("name", EQUATIONS)
def test_paper(name):
    agrees(name)


def test_scaffold_controls():
    equations.scaffold_controls_agree()


@pytest.mark.parametrize(("steps", "momentum", "mu"), [(1, 0.9, 2.0), (7, 0.9, 0.0), (5, 0.0, 3.0)])
def test_fednova_closed_forms(steps, momentum, mu):
    """Wang et al., section 4: the sums that momentum and the proximal term have in closed form."""
    work = LocalWork(lr=0.1, momentum=momentum, optimizer="sgd")
    got = catalogue.accumulation(steps, work, mu)
    if mu == 0:
        wanted = (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    elif momentum == 0:
        wanted = (1 - (1 - 0.1 * mu) ** steps) / (0.1 * mu)
    else:
        wanted = 1.0
    assert math.isclose(got, wanted, rel_tol=1e-12)
    assert catalogue.accumulation(0, work, mu) == 0


def pooled_optimum(told: loops.Story, weights: dict[str, float]) -> np.ndarray:
    H = sum(weights[name] * c.H for name, c in told.clients.items())
    b = sum(weights[name] * c.H @ c.b for name, c in told.clients.items())
    return np.linalg.solve(H, b)


def distance(algorithm: Algorithm, told: loops.Story, optimum: np.ndarray) -> float:
    state, _ = play(algorithm, told, chunk=0)
    return float(np.linalg.norm(state["params"].numpy() - optimum))


def test_scaffold_reaches_the_optimum_where_fedavg_stalls():
    everyone = {f"client-{i}": 10 for i in range(5)}
    told = story([everyone] * 50, lr=0.1)
    optimum = pooled_optimum(told, dict.fromkeys(everyone, 1 / 5))
    uniform = replace(catalogue.fedavg(), combine=uniform_mean)
    stalled = distance(uniform, told, optimum)
    assert distance(catalogue.scaffold(), told, optimum) < 1e-3 * stalled


def test_fednova_does_not_favour_the_busy():
    """Begun at the weighted optimum FedNova stays near it; FedAvg drifts towards the busiest."""
    uneven = {f"client-{i}": 1 + 3 * i for i in range(5)}
    told = story([uneven] * 60, lr=0.005)
    optimum = pooled_optimum(told, loops.shares(told, uneven))
    begun = replace(told, start=optimum)
    drift = distance(catalogue.fedavg(), begun, optimum)
    assert distance(catalogue.fednova(), begun, optimum) < 0.1 * drift


def test_equal_steps_make_fednova_fedavg():
    told = story([dict.fromkeys(cohort, 3) for cohort in equations.ROUNDS])
    state, _ = play(catalogue.fednova(), told)
    assert_close(state["params"], loops.fedavg(told))


def test_fedprox_without_pull_is_fedavg_to_the_bit():
    ours, _ = play(catalogue.fedprox(0.0), story())
    plain, _ = play(catalogue.fedavg(), story())
    assert torch.equal(ours["params"], plain["params"])


def test_first_step_of_fedprox_feels_no_pull():
    told = story([{"client-0": 1, "client-1": 1}])
    pulled, _ = play(catalogue.fedprox(5.0), told)
    assert_close(pulled["params"], loops.fedavg(told))


def test_fedprox_moves_less_the_stronger_it_pulls():
    told = story([{"client-0": 10}])
    moved = []
    for mu in (0.0, 0.5, 2.0, 8.0):
        state, _ = play(catalogue.fedprox(mu), told)
        moved.append(np.linalg.norm(state["params"].numpy() - told.start))
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 1.2 * moved[-1]


@pytest.mark.parametrize(
    "special",
    [catalogue.fedavgm(1.0, 0.0), catalogue.diloco(1.0, 0.0)],
    ids=["fedavgm", "diloco"],
)
def test_servers_without_momentum_are_fedavg(special):
    state, _ = play(special, story())
    assert_close(state["params"], loops.fedavg(story()))


def test_one_full_step_each_is_one_step_on_the_pooled_data():
    told = story([{f"client-{i}": 1 for i in range(5)}])
    state, _ = play(catalogue.fedavg(), told)
    p = loops.shares(told, told.rounds[0])
    pooled = sum(p[name] * client.gradient(told.start) for name, client in told.clients.items())
    assert_close(state["params"], told.start - told.lr * pooled)


def test_local_clients_train_alone_and_the_server_stays():
    told = story()
    state, engine = play(catalogue.local(), told)
    assert_close(state["params"], told.start)
    for name, kept in engine.memory.items():
        w = told.start
        for cohort in told.rounds:
            w = loops.sgd(told, name, w, cohort.get(name, 0), loops.nothing)
        assert_close(state["params"] + kept["own"], w)


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_adamw_is_refused_before_anything_is_sent(name):
    world = toy_world()
    plan = replace(world.plan(0, world.clients), work=LocalWork())
    algorithm = catalogue.build(name, {})
    engine = world.build(algorithm, 0)
    with pytest.raises(ConfigError, match=r'set work\.optimizer = "sgd"'):
        run_round(algorithm, engine, algorithm.init(world.params), plan)
    assert isinstance(engine, toy.ToyEngine)
    assert not engine.memory


def test_scaffold_refuses_momentum_and_fednova_kept_momentum():
    work = LocalWork(optimizer="sgd", momentum=0.9)
    with pytest.raises(ConfigError, match=r"set work.momentum = 0"):
        catalogue.scaffold().check(work)
    catalogue.fednova().check(work)
    with pytest.raises(ConfigError, match="keep_optimizer"):
        catalogue.fednova().check(work.model_copy(update={"keep_optimizer": True}))


@pytest.mark.parametrize("name", catalogue.ALGORITHMS)
def test_every_algorithm_builds_from_its_name_and_describes_its_settings(name):
    schema = catalogue.settings_schema(name)
    defaults = {key: field["default"] for key, field in schema["properties"].items()}
    assert isinstance(catalogue.build(name, defaults), Algorithm)
    assert all("description" in field for field in schema["properties"].values())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fedprx", {}, "unknown algorithm 'fedprx'; did you mean 'fedprox'? known: diloco, "),
        ("fedprox", {"nu": 1.0}, "algorithm 'fedprox': unknown setting 'nu'; known: mu"),
        ("fedavg", {"mu": 1.0}, "unknown setting 'mu'; there are none"),
        ("fedprox", {"mu": math.nan}, "mu must be a finite number from 0 to 1000000"),
        ("fedprox", {"mu": -1.0}, "got -1.0"),
        ("fedadam", {"beta1": 1.0}, "beta1 must be a finite number of at least 0 and below 1"),
        ("fedadam", {"beta1": True}, "got true"),
        ("fedadam", {"bias_correction": "adam"}, "bias_correction must be 'none' or 'flower'"),
    ],
)
def test_wrong_names_and_settings_are_errors_of_one_line(name, settings, message):
    with pytest.raises(ConfigError) as error:
        catalogue.build(name, settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
