"""Robust combines against their papers' equations, and against clients that lie."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from federation.algorithms import catalogue
from federation.algorithms.algorithm import Algorithm, advance
from federation.config import Config
from federation.errors import ConfigError, QuorumError
from federation.plan import Reports, RoundPlan
from federation.specs import LocalWork
from federation.training.build import build_algorithm
from tests.papers import loops
from tests.papers.equations import assert_close, play, story

FIVE = {f"client-{i}": 1 + i for i in range(5)}
STORY = story([FIVE, dict(list(FIVE.items())[:4]), FIVE])  # an odd and an even number of clients

EQUATIONS = {
    "median": (catalogue.median(), loops.median),
    "krum": (catalogue.krum(0), lambda v: loops.multi_krum(v, 0, 1)),
    "multikrum": (catalogue.multikrum(0, 3), lambda v: loops.multi_krum(v, 0, 3)),
    "multikrum(all)": (catalogue.multikrum(0), lambda v: sum(v) / len(v)),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_paper(name):
    agrees(*EQUATIONS[name])


def agrees(ours: Algorithm, paper: Callable[[list[loops.Vector]], loops.Vector]) -> None:
    state, _ = play(ours, STORY)
    assert_close(state["params"], loops.robust(STORY, paper))


def test_trimmed_mean_where_the_share_is_of_whole_clients():
    told = story([FIVE, FIVE])
    for trim in (0.2, 0.4):
        state, _ = play(catalogue.trimmedmean(trim), told)
        assert_close(
            state["params"], loops.robust(told, lambda v, t=trim: loops.trimmed_mean(v, t))
        )


def test_krum_counts_only_the_closest():
    """Seven clients, two of them wrong: three neighbours count, not all six."""
    vectors = list(np.random.Generator(np.random.Philox(5)).standard_normal((7, 4)))
    vectors[5], vectors[6] = vectors[5] * 30, vectors[6] * 30
    got = combined(catalogue.krum(2), torch.from_numpy(np.stack(vectors)))
    assert_close(got, loops.multi_krum(vectors, 2, 1))
    everyone = loops.multi_krum(vectors, -1, 1)
    assert not np.allclose(got, everyone), "the example must tell the two apart"


def combined(algorithm: Algorithm, delta_C: torch.Tensor) -> torch.Tensor:
    return algorithm.combine({"delta": delta_C}, torch.ones(len(delta_C)))["delta"]


@pytest.mark.parametrize(
    "algorithm",
    [
        catalogue.median(),
        catalogue.trimmedmean(0.25),
        catalogue.krum(2),
        catalogue.multikrum(2),
    ],
    ids=["median", "trimmedmean", "krum", "multikrum"],
)
@pytest.mark.parametrize("lie", [1e6, -1e6])
def test_two_liars_of_eight_move_nothing_beyond_the_honest(algorithm, lie):
    honest_C = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lies_C = torch.full((2, 5), lie, dtype=torch.float64)
    got = combined(algorithm, torch.cat([honest_C, lies_C]))
    assert (got >= honest_C.amin(0)).all() and (got <= honest_C.amax(0)).all()
    assert combined(catalogue.fedavg(), torch.cat([honest_C, lies_C])).abs().max() > 1e5


@pytest.mark.parametrize(("clients", "trim", "wanted"), [(3, 0.1, 2.0), (2, 0.4, 6.5), (1, 0.4, 1)])
def test_at_least_the_share_is_left_out_and_something_stays(clients, trim, wanted):
    values_C = torch.tensor([[1.0], [12.0], [2.0]], dtype=torch.float64)[:clients]
    assert combined(catalogue.trimmedmean(trim), values_C).item() == wanted


def test_a_share_of_whole_clients_is_not_rounded_up():
    values_C = torch.arange(100.0, dtype=torch.float64)[:, None] ** 2
    got = combined(catalogue.trimmedmean(0.07), values_C)
    assert_close(got, values_C[7:93].mean(dim=0).numpy())


def test_two_nearest_neighbours_tie_and_no_order_decides():
    delta_C = torch.tensor([[1.0, 2.0], [1.5, 2.0], [9.0, 9.0]], dtype=torch.float64)
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        assert torch.equal(combined(catalogue.krum(0), delta_C[order]), delta_C[0])


def test_too_few_reports_are_refused_in_one_line():
    clients = ("a", "b", "c", "d")
    delta_C, ones = torch.zeros(4, 2), torch.ones(4)
    reports = Reports(clients, {"delta": delta_C}, ones, ones, ones, ones)
    plan = RoundPlan(2, 9, clients, LocalWork())
    with pytest.raises(QuorumError, match="round 3: the algorithm needs 5 reports, 4 can be used"):
        advance(catalogue.krum(1), {"params": torch.zeros(2)}, reports, plan)


def configured(name: str, size: int = 5, **more: object) -> Config:
    return Config.from_table({"algorithm": {"name": name}, "cohort": {"size": size}, **more}, "x")


def test_a_run_is_refused_whose_cohorts_are_too_small():
    build_algorithm(configured("krum", 5))
    with pytest.raises(ConfigError, match=r"'krum' needs 5 reports a round.*cohort\.size is 4"):
        build_algorithm(configured("krum", 4))


@pytest.mark.parametrize("name", ["median", "trimmedmean", "krum", "multikrum"])
def test_noise_on_a_sum_does_not_replace_a_robust_combine(name):
    with pytest.raises(ConfigError, match="combines them otherwise"):
        build_algorithm(configured(name, upload={"clip": 1.0, "noise": 1.0}))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("trimmedmean", {"trim": 0.5}), ("krum", {"byzantine": -1}), ("median", {"trim": 0.1})],
)
def test_settings_out_of_bounds_are_refused(name, settings):
    with pytest.raises(ConfigError, match=f"algorithm '{name}'"):
        catalogue.build(name, settings)
