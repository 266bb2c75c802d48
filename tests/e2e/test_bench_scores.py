"""The arithmetic by which those who steer are scored, by hand and by its laws."""

import math

import numpy as np
import pytest

from benchmarks.pilot.scores import (
    area,
    f1,
    gini,
    interval,
    lift,
    regret,
    seed_noise,
    wilson,
)
from federation.address import generator


def test_regret_is_0_for_the_best_and_1_for_the_median():
    losses = np.array([2.0, 1.0, 4.0, np.nan, 3.0, 9.0])  # best 1, median of five 3
    assert regret(np.array([1.0, 3.0, 2.0, 9.0]), losses) == pytest.approx([0, 1, 0.5, 4])


def test_an_area_is_the_mean_over_the_first_evaluations():
    curve = np.array([1.0, 0.5, 0.5, 0.0, 0.0])
    assert area(curve, 3) == pytest.approx(2 / 3) and area(curve, 5) == pytest.approx(0.4)


def test_lift_counts_pairs_and_is_positive_where_the_policy_is_lower():
    found = lift(np.array([1.0, 2.0, 3.0, 4.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 6.0, 2.0, 2.0]))
    assert (found.wins, found.ties, found.losses) == (4, 1, 1)
    assert found.interval.mean == pytest.approx((1 + 0 - 1 + 2 + 1 + 1) / 6)


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([0.9, 1.1, 1.0, 1.2, 0.8, 1.0], "lift"),
        ([-0.9, -1.1, -1.0, -1.2, -0.8, -1.0], "harm"),
        ([-1.0, 1.1, -0.9, 1.0, -1.1, 0.9], "no lift"),
        ([1.0, 1.0, 1.0], "too few pairs"),
    ],
)
def test_a_lift_is_called_what_its_interval_says(gains, words):
    assert lift(-np.array(gains), np.zeros(len(gains))).words == words


def test_the_interval_is_of_the_means_of_all_subsets():
    x = np.array([0.3, -0.1, 0.7, 0.2, 1.5, -0.4, 0.9, 0.0, 0.6, 1.1, -0.7, 0.4])
    subsets = [[n for n in range(12) if mask >> n & 1] for mask in range(1, 2**12)]
    apart = np.array([x[own].mean() - x.mean() for own in subsets]) * math.sqrt(12 / 11)
    low, high = x.mean() + np.quantile(apart, [0.025, 0.975])
    found = interval(x)
    assert found.mean == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)  # 2,000 of them drawn
    assert interval(x) == found  # the draws have an address
    assert math.isnan(interval(x[:5]).low)  # of five, none leaves out 5 %


def test_the_interval_covers_as_it_says_over_unlike_scenarios():
    draw = generator("coverage")
    scale = np.repeat([0.1, 0.3, 1.0, 0.2, 2.0, 0.5], 3)
    values = (draw.exponential(size=(600, 18)) - draw.exponential(size=(600, 18))) * scale
    covered = np.mean([interval(x, i).contains_zero for i, x in enumerate(values)])
    assert 0.93 <= covered <= 0.975  # 0.95 and three standard errors of 600 draws


def test_gini_of_alike_is_0_and_of_one_who_has_all_is_n_minus_1_over_n():
    assert gini([3, 3, 3, 3]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)  # |1-3| / (2 * 2 * mean 2), both ways
    assert gini([0, 0]) == 0


def test_f1_counts_names_and_nobody_is_no_name():
    found = f1(["a", "b", None, None, "c"], ["a", "a", "a", None, None])
    assert found == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    assert f1([None, None], ["a", None]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_wilsons_interval_by_hand():
    found = wilson(8, 10)  # of a textbook: 0.490 to 0.943
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_the_noise_of_a_seed_is_what_levels_do_not_explain():
    assert seed_noise(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])) == pytest.approx(0)
    # Two seeds, two configurations, residuals of +-0.1 and one degree of freedom.
    losses = np.array([[1.0, 1.0, 9.0, 9.0], [1.2, 0.8, 9.0, 9.0]])
    assert seed_noise(losses) == pytest.approx(math.sqrt(2 * 4 * 0.1**2))
