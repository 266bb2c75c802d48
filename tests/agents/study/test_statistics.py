"""The arithmetic of verdicts: against closed forms, and against simulated studies."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from agents.study.statistics import (
    FEWEST,
    bounds_on_t,
    decided,
    interval,
    judge,
    noise_floor,
)
from federation.address import generator

STUDIES = 800
SLACK = 3 * math.sqrt(0.05 * 0.95 / STUDIES)  # three standard errors of a simulated 5 %


# --- Closed forms ------------------------------------------------------------------------------


def test_the_floor_is_a_prediction_bound_in_closed_form():
    runs = [2.1, 2.4, 1.8, 2.0]
    squares = [(a - b) ** 2 for a, b in combinations(runs, 2)]
    typical = math.sqrt(sum(squares) / len(squares))
    assert noise_floor(runs, 4, 0.05) == pytest.approx(t.ppf(0.975, 3) * typical / 2)


def test_the_floor_is_exceeded_by_nothing_but_noise_in_one_study_of_twenty():
    draw = generator("floor")
    exceeded = [
        abs(np.mean(draw.normal(3, 2, size=5) - draw.normal(3, 2, size=5)))
        > noise_floor(list(draw.normal(3, 2, size=4)), 5, 0.05)
        for _ in range(4000)
    ]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 4000))


@pytest.mark.parametrize("planned", [3, 5, 8, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_first_bound_is_student_s_quantile_at_what_is_spent_by_then(alpha, planned):
    spent = alpha * FEWEST / planned
    first = bounds_on_t(alpha, planned)[FEWEST]
    # The quantile moves by 1/2 of the relative error of the share of draws beyond it, at 2 df.
    assert first == pytest.approx(t.ppf(1 - spent / 2, 2), rel=1.5 / math.sqrt(spent * 200_000))


def test_bounds_fall_with_pairs_and_stay_above_student_s_own():
    bounds = bounds_on_t(0.05, 10)
    assert list(bounds) == list(range(3, 11))
    assert sorted(bounds.values(), reverse=True) == list(bounds.values())
    assert all(bound > t.ppf(0.975, n - 1) for n, bound in bounds.items())


def test_three_pairs_planned_and_taken_are_student_s_interval():
    x = [0.2, 0.5, 0.9]
    own = t.interval(0.95, 2, loc=np.mean(x), scale=np.std(x, ddof=1) / math.sqrt(3))
    assert interval(x, 0.05, 3) == pytest.approx(own, rel=0.02)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_many_arms_are_tested_by_holm(data):
    """At three of three planned pairs the bounds are Student's, so p-values are at hand."""
    count = data.draw(st.integers(1, 5))
    shifts = data.draw(st.lists(st.floats(-40, 40), min_size=count, max_size=count))
    draw = generator("holm", data.draw(st.integers(0, 10**6)))
    arms = {f"a{i}": list(draw.normal(shift, 1, size=3)) for i, shift in enumerate(shifts)}
    p = {name: float(ttest_1samp(x, 0).pvalue) for name, x in arms.items()}
    rejected = set()
    for k, name in enumerate(sorted(p, key=p.__getitem__)):
        level = 0.05 / (count - k)
        if abs(p[name] - level) < 0.05 * level:
            return  # within the error of simulated bounds
        if p[name] > level:
            break
        rejected.add(name)
    found = judge(arms, floor=0.0, alpha=0.05, planned=3)
    assert {n for n, judged in found.items() if judged.verdict != "inconclusive"} == rejected
    for name, judged in found.items():
        assert judged.low is not None and judged.high is not None
        assert (judged.low <= 0 <= judged.high) == (name not in rejected)


# --- What a verdict needs ----------------------------------------------------------------------


def one(x, floor=0.0, planned=5):
    return judge({"arm": x}, floor=floor, alpha=0.05, planned=planned)["arm"]


def test_a_verdict_has_the_sign_of_the_improvement():
    x = [1.0, 1.1, 0.9, 1.05]
    assert one(x).verdict == "better"
    assert one([-v for v in x]).verdict == "worse"


def test_what_is_proved_but_smaller_than_the_floor_is_no_verdict():
    x = [1.0, 1.1, 0.9, 1.05]
    judged = one(x, floor=1.2)
    assert judged.verdict == "inconclusive"
    assert "smaller than the noise floor" in judged.why
    assert judged.low is not None and judged.low > 0


def test_an_interval_within_the_floor_needs_no_more_pairs():
    judged = one([0.01, -0.02, 0.015], floor=1.0)
    assert judged.why == "within the noise floor"
    assert decided(judged, 1.0)
    assert not decided(one([0.01, -2.0, 1.5], floor=1.0), 1.0)


def test_too_few_pairs_prove_nothing():
    judged = one([5.0, 5.0])
    assert (judged.verdict, judged.mean, judged.pairs) == ("inconclusive", None, 2)
    assert not decided(judged, 0.1)


def test_a_diverged_run_leaves_no_interval():
    judged = one([1.0, math.nan, 1.0, -math.inf])
    assert (judged.verdict, judged.lost, judged.low) == ("inconclusive", 2, None)
    assert "2 of 4 pairs" in judged.why
    assert decided(judged, 0.1)


def test_an_arm_that_is_the_control_is_inconclusive():
    judged = one([0.0, 0.0, 0.0], floor=0.1)
    assert (judged.verdict, judged.low, judged.high) == ("inconclusive", 0.0, 0.0)
    assert one([0.2, 0.2, 0.2], floor=0.1).verdict == "better"  # without any spread


def test_arms_without_pairs_count_for_holm():
    x = [1.0, 1.4, 0.6, 1.2]
    assert one(x).verdict == "better"
    crowd = {"arm": x} | {f"none-{i}": [] for i in range(7)}
    assert judge(crowd, floor=0.0, alpha=0.05, planned=5)["arm"].verdict == "inconclusive"


# --- Simulated studies -------------------------------------------------------------------------


def study(draw, effects, planned=6, floored=True):
    """A study in numbers: a seed moves both splits, its pairs are stopped on validation."""
    arms = range(len(effects))
    shared = draw.normal(0, 0.7, size=(planned, len(effects)))  # what training does to both splits
    splits = [shared + draw.normal(0, 0.5, size=shared.shape) + np.array(effects) for _ in range(2)]
    spread = math.sqrt((0.7**2 + 0.5**2) / 2)  # of a run: a pair's variance is that of two
    floor = noise_floor(list(draw.normal(0, spread, size=6)), planned, 0.05) if floored else 0.0
    going, taken = set(arms), dict.fromkeys(arms, 0)
    for n in range(1, planned + 1):
        taken |= dict.fromkeys(going, n)
        validation = {str(i): list(splits[0][: taken[i], i]) for i in arms}
        seen = judge(validation, floor=floor, alpha=0.05, planned=planned)
        going = {i for i in going if not (n >= FEWEST and decided(seen[str(i)], floor))}
        if not going:
            break
    test = {str(i): list(splits[1][: taken[i], i]) for i in arms}
    return judge(test, floor=floor, alpha=0.05, planned=planned)


@pytest.mark.parametrize("floored", [True, False])
def test_of_a_a_studies_at_most_one_in_twenty_finds_something(floored):
    draw = generator("a/a", int(floored))
    found = [study(draw, [0.0, 0.0], floored=floored) for _ in range(STUDIES)]
    better = np.mean([any(x.verdict == "better" for x in arms.values()) for arms in found])
    wrong = np.mean([any(x.verdict != "inconclusive" for x in arms.values()) for arms in found])
    assert better <= 0.05
    assert wrong <= 0.05 + SLACK


def test_whoever_stops_when_it_looks_best_is_still_wrong_in_one_study_of_twenty():
    draw, planned, wrong = generator("cherry"), 8, 0
    for _ in range(4 * STUDIES):
        x = list(draw.normal(0, 1, size=planned))
        looks = (one(x[:n], planned=planned) for n in range(FEWEST, planned + 1))
        wrong += any(judged.verdict != "inconclusive" for judged in looks)
    assert wrong / (4 * STUDIES) == pytest.approx(0.05, abs=SLACK / 2 + 0.0015)


def test_a_planted_effect_is_found():
    draw = generator("power")
    found = [study(draw, [2.5, 0.0], planned=8) for _ in range(300)]
    assert np.mean([arms["0"].verdict == "better" for arms in found]) >= 0.8
    assert np.mean([arms["0"].verdict == "worse" for arms in found]) == 0
    assert np.mean([arms["1"].verdict != "inconclusive" for arms in found]) <= 0.05


@pytest.mark.parametrize("effect", [0.0, 1.0, -2.5])
def test_intervals_cover_whenever_a_study_stopped(effect):
    draw = generator("cover", str(effect))
    found = [study(draw, [effect, 0.3])["0"] for _ in range(STUDIES)]
    covered = [x.low <= effect <= x.high for x in found if x.low is not None and x.high is not None]
    assert len(covered) == STUDIES
    assert np.mean(covered) >= 0.95 - SLACK
