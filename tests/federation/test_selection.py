"""Selection rules against the formulas of their papers, and the laws every rule obeys."""

import json
import math
import time
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from federation.cohort import selection
from federation.cohort.selection import (
    RULES,
    CohortSpec,
    Request,
    exploration_quota,
    exploration_share,
    oort_admitted,
    oort_utility,
    select,
)
from federation.cohort.standing import Standing
from federation.errors import ConfigError

# Upper 0.1 % points of the chi-square distribution, by degrees of freedom.
CHI_SQUARE = {3: 16.27, 5: 20.52}


def spec_of(rule: str, size: int, **settings) -> CohortSpec:
    """Return settings under which every rule can run."""
    return CohortSpec.model_validate({"rule": rule, "size": size, "deadline": 30.0, **settings})


def mixed(population: int, seed: int = 0) -> Standing:
    """Return a population of which two thirds have trained, all unlike each other."""
    rng = np.random.default_rng(seed)
    standing = Standing.fresh(rng.integers(1, 500, population), rng.lognormal(3, 1, population))
    for round in range(8):
        who = np.flatnonzero(rng.random(population) < 0.13)
        standing = standing.after(round, who, who, rng.random(len(who)) * 5)
    return standing


def trained(examples, loss, rounds, seconds) -> Standing:
    """Return a population in which everybody has trained."""
    fresh = Standing.fresh(examples, seconds)
    last = np.array(rounds, dtype=np.int64)
    return replace(fresh, loss_N=np.array(loss, dtype=float), asked_N=last, trained_N=last)


def chi_square(counts, expected) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


class TestEveryRule:
    pytestmark = pytest.mark.parametrize("rule", RULES)

    def test_chooses_the_asked_number_of_distinct_available_clients(self, rule):
        standing = mixed(200).now(np.random.default_rng(1).random(200) < 0.7)
        spec = spec_of(rule, 10, over_select=1.3, deadline=1e9)
        for round in range(20):
            chosen = select(spec, standing, 0, round, exclude={3, 5, 8})
            assert len(chosen) == 13 == len(set(chosen.tolist()))
            assert standing.available_N[chosen].all()
            assert not {3, 5, 8} & set(chosen.tolist())
            assert (np.diff(chosen) > 0).all()

    def test_takes_everybody_when_the_cohort_is_the_pool(self, rule):
        # The reference of Oort indexes past its end here.
        for standing in (
            mixed(12),
            Standing.fresh(np.ones(12)),
            mixed(12).after(9, range(12), range(12), np.ones(12)),
        ):
            assert select(spec_of(rule, 12, deadline=1e9), standing, 0, 9).tolist() == list(
                range(12)
            )

    def test_takes_what_is_there(self, rule):
        standing = mixed(40)
        online = np.isin(np.arange(40), [4, 9, 30])
        spec = spec_of(rule, 10, deadline=1e9)
        assert select(spec, standing.now(online), 0, 9).tolist() == [4, 9, 30]
        assert select(spec, standing.now(online), 0, 9, exclude=[9]).tolist() == [4, 30]
        nobody = select(spec, standing.now(np.zeros(40)), 0, 9)
        assert nobody.tolist() == [] and nobody.dtype == np.int64

    def test_is_a_function_of_its_address(self, rule):
        standing, spec = mixed(300), spec_of(rule, 10)
        again = [select(spec, standing, 7, 9).tolist() for _ in range(2)]
        assert again[0] == again[1]
        # Whose turn it is does not hang on the number of the round.
        same_next_round = again[0] == select(spec, standing, 7, 10).tolist()
        assert same_next_round == (rule == "round_robin")
        assert again[0] != select(spec, standing, 8, 9).tolist()

    def test_reads_without_writing(self, rule):
        standing = mixed(50)
        before = {name: x.copy() for name, x in standing.arrays().items()}
        for x in standing.arrays().values():
            x.flags.writeable = False
        select(spec_of(rule, 10), standing, 0, 9)
        for name, x in standing.arrays().items():
            np.testing.assert_array_equal(x, before[name])

    def test_renaming_clients_renames_the_cohort(self, rule):
        """Permutation equivariance: client i becomes p(i), with its record and its draw."""
        standing, spec, n = mixed(300), spec_of(rule, 20), 300
        rng = np.random.default_rng(2)
        draw, order, old_of = rng.random(n), rng.random(n), rng.permutation(n)
        request = Request(spec, standing, 9, np.arange(n), draw, order)
        renamed = Request(
            spec,
            Standing(**{name: x[old_of] for name, x in standing.arrays().items()}),
            9,
            np.arange(n),
            draw[old_of],
            order[old_of],
        )
        assert set(RULES[rule](request).tolist()) == set(old_of[RULES[rule](renamed)].tolist())

    def test_a_population_of_100_000_is_cheap(self, rule):
        standing, spec = mixed(100_000), spec_of(rule, 100)
        seconds = []
        for round in range(9, 14):
            start = time.perf_counter()
            select(spec, standing, 0, round)
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.05  # 2 to 9 ms on an idle core

    def test_more_clients_than_registered_is_an_error(self, rule):
        with pytest.raises(ConfigError, match=r"^cohort.size is 13 but only 12 .* at most 12$"):
            select(spec_of(rule, 13), mixed(12), 0, 0)

    @pytest.mark.parametrize("wrong", [-1, 12])
    def test_an_index_outside_the_registry_is_refused(self, rule, wrong):
        with pytest.raises(ValueError, match=r"\[0, 12\)"):
            select(spec_of(rule, 3), mixed(12), 0, 0, exclude=[wrong])


@pytest.mark.parametrize("rule", ["uniform", "round_robin", "deadline"])
def test_who_was_not_chosen_makes_no_difference_by_leaving(rule):
    """Not so for power-of-choice and Oort: candidates and percentiles depend on the whole pool."""
    standing, spec = mixed(300), spec_of(rule, 20)
    chosen = select(spec, standing, 0, 9)
    away = np.setdiff1d(np.arange(0, 300, 3), chosen)
    np.testing.assert_array_equal(select(spec, standing, 0, 9, exclude=away.tolist()), chosen)


class TestSpec:
    def test_rules_are_those_of_the_table(self):
        assert set(RULES) == set(get_args(CohortSpec.model_fields["rule"].annotation))

    def test_every_field_says_what_it_is(self):
        assert all(field.description for field in CohortSpec.model_fields.values())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rule": "deadline"}, "needs a deadline"),
            ({"size": 10, "candidates": 9}, "at least 10"),
            ({"size": 10, "over_select": 1.3, "candidates": 12}, "at least 13"),
            ({"exploration": 0.1}, "exploration_floor 0.2 is above"),
            ({"size": 0}, "greater than or equal to 1"),
            ({"over_select": 0.9}, "greater than or equal to 1"),
            ({"alpha": math.nan}, "finite"),
            ({"deadline": 0}, "greater than 0"),
            ({"rule": "best"}, "'uniform'"),
            ({"sise": 3}, "Extra inputs"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValidationError, match=message):
            CohortSpec.model_validate(settings)

    @pytest.mark.parametrize(
        ("size", "factor", "asked"), [(10, 1.0, 10), (10, 1.1, 11), (10, 1.25, 13), (3, 1.01, 4)]
    )
    def test_over_selection_rounds_up(self, size, factor, asked):
        assert CohortSpec.model_validate({"size": size, "over_select": factor}).asked == asked

    def test_candidates_may_not_outnumber_the_population(self):
        with pytest.raises(ConfigError, match=r"cohort.candidates is 13"):
            select(spec_of("power_of_choice", 3, candidates=13), mixed(12), 0, 0)


class TestStanding:
    def test_keeps_what_was_heard_last(self):
        standing = Standing.fresh([10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0])
        after = standing.after(5, [0, 1, 3], [3, 0], [0.5, np.nan], [9.0, 8.0])
        np.testing.assert_array_equal(after.asked_N, [5, 5, -1, 5])
        np.testing.assert_array_equal(after.turns_N, [1, 1, 0, 1])
        np.testing.assert_array_equal(after.trained_N, [5, -1, -1, 5])
        np.testing.assert_array_equal(after.loss_N, [np.nan, np.nan, np.nan, 0.5])
        np.testing.assert_array_equal(after.seconds_N, [8, 2, 3, 9])
        diverged = after.after(6, [3], [3], [np.inf])
        assert (
            diverged.loss_N[3] == 0.5 and diverged.trained_N[3] == 6 and diverged.seconds_N[3] == 9
        )

    def test_is_not_changed_by_what_comes_after(self):
        standing = mixed(20)
        before = {name: x.copy() for name, x in standing.arrays().items()}
        standing.after(9, [1, 2], [1], [3.0], [4.0]).now(np.zeros(20))
        for name, x in standing.arrays().items():
            np.testing.assert_array_equal(x, before[name])

    def test_is_rebuilt_from_what_a_journal_keeps(self):
        """Journal lines are JSON, in which a loss that is no number is null."""
        rng = np.random.default_rng(0)
        live = start = Standing.fresh(rng.integers(1, 9, 30))
        lines = []
        for round in range(12):
            asked = rng.choice(30, 6, replace=False).tolist()
            loss = [None, *rng.random(3)]
            record = {
                "asked": asked,
                "trained": asked[:4],
                "loss": loss,
                "seconds": list(rng.random(4)),
            }
            lines.append(json.dumps({"round": round, **record}, allow_nan=False))
            live = live.after(round, **record)
        again = start
        for line in lines:
            again = again.after(**json.loads(line))
        for name, x in live.arrays().items():
            np.testing.assert_array_equal(again.arrays()[name], x)

    def test_round_trips_through_json_and_arrays(self):
        standing = mixed(30).now(np.arange(30) % 2 == 0)
        text = json.dumps(standing.to_json(), allow_nan=False)
        for copy in (Standing.from_json(json.loads(text)), Standing(**standing.arrays())):
            for name, x in standing.arrays().items():
                np.testing.assert_array_equal(copy.arrays()[name], x)
                assert copy.arrays()[name].dtype == x.dtype

    def test_refuses_arrays_of_unlike_length(self):
        with pytest.raises(ValueError, match="must be"):
            mixed(5).now(np.ones(4))

    def test_refuses_what_is_not_registered(self):
        with pytest.raises(ValueError, match=r"\[0, 5\)"):
            mixed(5).after(9, [-1], [], [])


class TestUniform:
    def test_every_client_alike(self):
        standing, spec = mixed(6), spec_of("uniform", 2)
        counts = np.zeros(6)
        for round in range(3000):
            counts[select(spec, standing, 0, round)] += 1
        # Two of six without replacement: the variance is 4/5 of the multinomial one.
        assert chi_square(counts, np.full(6, 1000.0)) / 0.8 < CHI_SQUARE[5]


class TestRoundRobin:
    def test_is_a_cycle_when_all_are_there(self):
        standing, spec = Standing.fresh(np.ones(10)), spec_of("round_robin", 3)
        asked: list[int] = []
        for round in range(40):
            cohort = select(spec, standing, 0, round)
            standing = standing.after(round, cohort, cohort, np.ones(3))
            asked.extend(cohort.tolist())
        assert np.ptp(np.bincount(asked)) == 0
        assert [sorted(asked[i : i + 30]) for i in (0, 30, 60, 90)] == [
            sorted([*range(10)] * 3)
        ] * 4

    def test_order_is_shuffled_by_the_seed(self):
        standing, spec = Standing.fresh(np.ones(30)), spec_of("round_robin", 5)
        first = {tuple(select(spec, standing, seed, 0).tolist()) for seed in range(10)}
        assert len(first) == 10 and (0, 1, 2, 3, 4) not in first

    def test_who_was_away_comes_first(self):
        standing, spec = Standing.fresh(np.ones(9)), spec_of("round_robin", 3)
        away = np.arange(9) != 4
        for round in range(8):
            cohort = select(spec, standing.now(away), 0, round)
            standing = standing.after(round, cohort, cohort, np.ones(3))
        assert 4 in select(spec, standing.now(np.ones(9)), 0, 8)

    def test_who_never_reports_takes_no_second_turn(self):
        standing, spec = Standing.fresh(np.ones(8)), spec_of("round_robin", 2)
        turns = []
        for round in range(12):
            cohort = select(spec, standing, 0, round)
            reported = [c for c in cohort.tolist() if c != 3]
            standing = standing.after(round, cohort, reported, np.ones(len(reported)))
            turns.extend(cohort.tolist())
        assert turns.count(3) == 3


class TestPowerOfChoice:
    """Cho et al. 2020, arXiv:2010.01243."""

    def test_d_equal_m_samples_by_size(self):
        sizes = np.array([10, 20, 30, 140])
        standing = trained(sizes, [9, 5, 3, 1], [0] * 4, [1] * 4)
        spec = spec_of("power_of_choice", 1, candidates=1)
        counts = np.zeros(4)
        for round in range(4000):
            counts[select(spec, standing, 0, round)] += 1
        assert chi_square(counts, 4000 * sizes / sizes.sum()) < CHI_SQUARE[3]

    def test_candidates_are_drawn_without_replacement_by_size(self):
        """P(pair) = p_i p_j (1/(1-p_i) + 1/(1-p_j)): successive draws."""
        p = np.array([0.1, 0.2, 0.7])
        standing = trained([10, 20, 70], [1, 1, 1], [0] * 3, [1] * 3)
        spec = spec_of("power_of_choice", 2, candidates=2)
        missing = np.zeros(3)
        for round in range(4000):
            missing[np.setdiff1d(np.arange(3), select(spec, standing, 0, round))] += 1
        pairs = [(1, 2), (0, 2), (0, 1)]
        expected = np.array([p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])) for i, j in pairs])
        assert expected.sum() == pytest.approx(1)
        assert chi_square(missing, 4000 * expected) < CHI_SQUARE[3]

    def test_d_equal_population_is_the_top_m(self):
        standing = trained(
            np.arange(1, 51), np.random.default_rng(0).random(50), [0] * 50, [1] * 50
        )
        spec = spec_of("power_of_choice", 7, candidates=50)
        top = np.sort(np.argsort(-standing.loss_N)[:7])
        for round in range(10):
            np.testing.assert_array_equal(select(spec, standing, 0, round), top)

    def test_keeps_the_largest_loss_of_the_candidates(self):
        """With equal sizes, rank r is the largest of d with probability C(r-1, d-1)/C(N, d)."""
        standing = trained([5] * 6, [1, 2, 3, 4, 5, 6], [0] * 6, [1] * 6)
        spec = spec_of("power_of_choice", 1, candidates=3)
        counts = np.zeros(6)
        for round in range(3000):
            counts[select(spec, standing, 0, round)] += 1
        expected = 3000 * np.array([math.comb(r, 2) / math.comb(6, 3) for r in range(6)])
        assert counts[:2].sum() == 0
        assert chi_square(counts[2:], expected[2:]) < CHI_SQUARE[3]

    def test_who_never_trained_comes_before_and_who_has_no_finite_loss_after_all_others(self):
        standing = trained([5] * 5, [1, np.nan, 3, 4, np.nan], [0, -1, 0, 0, 2], [1] * 5)
        for size, cohort in [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3])]:
            spec = spec_of("power_of_choice", size, candidates=5)
            assert select(spec, standing, 0, 3).tolist() == cohort

    def test_ties_fall_by_the_draw_and_not_by_the_place(self):
        standing, spec = Standing.fresh([5] * 6), spec_of("power_of_choice", 1, candidates=6)
        assert {int(select(spec, standing, 0, round)[0]) for round in range(60)} == set(range(6))

    def test_without_examples_only_when_nobody_else_is_left(self):
        standing = trained([0, 5, 0, 5], [9, 1, 9, 1], [0] * 4, [1] * 4)
        spec = spec_of("power_of_choice", 2, candidates=2)
        for round in range(20):
            assert select(spec, standing, 0, round).tolist() == [1, 3]
        assert len(select(spec_of("power_of_choice", 4), standing, 0, 0)) == 4


class TestOort:
    """Lai et al. 2020, arXiv:2010.06081, algorithm 1."""

    def test_slow_clients_are_penalised_exactly(self):
        seconds = [10.0, 30.0, 60.0, 120.0]
        standing = trained([5] * 4, [2.0] * 4, [3] * 4, seconds)
        for alpha in (0.0, 0.5, 2.0):
            spec = spec_of("oort", 2, deadline=30.0, alpha=alpha)
            utility = oort_utility(spec, standing, 9, np.arange(4))
            penalty = [min(1.0, 30.0 / t) ** alpha for t in seconds]
            np.testing.assert_allclose(utility / utility[0], penalty, rtol=1e-12)

    def test_without_a_deadline_or_a_time_nobody_is_penalised(self):
        standing = trained([5] * 3, [2.0] * 3, [3] * 3, [10.0, 1e6, np.nan])
        for spec in (spec_of("oort", 2, deadline=None), spec_of("oort", 2, deadline=1e6)):
            utility = oort_utility(spec, standing, 9, np.arange(3))
            np.testing.assert_array_equal(utility, utility[0])

    def test_utility_is_the_papers_formula(self):
        rng = np.random.default_rng(0)
        standing = trained(
            rng.integers(1, 90, 40), rng.random(40), rng.integers(0, 9, 40), rng.random(40) * 60
        )
        expected = np.empty(40)
        raw = [standing.examples_N[i] * math.sqrt(standing.loss_N[i] ** 2) for i in range(40)]
        clip = np.quantile(raw, 0.95)
        for i in range(40):
            u = min(raw[i], clip) / clip
            u += math.sqrt(0.1 * math.log(10) / (standing.trained_N[i] + 1))
            if standing.seconds_N[i] > 30:
                u *= (30 / standing.seconds_N[i]) ** 2
            expected[i] = u
        np.testing.assert_allclose(
            oort_utility(spec_of("oort", 5), standing, 9, np.arange(40)), expected, rtol=1e-12
        )

    def test_utility_does_not_hang_on_units(self):
        standing = trained([3, 9, 27], [1.0, 2.0, 0.5], [1, 2, 3], [10] * 3)
        bits = replace(standing, loss_N=standing.loss_N / math.log(2))
        spec = spec_of("oort", 2)
        a, b = (oort_utility(spec, s, 9, np.arange(3)) for s in (standing, bits))
        np.testing.assert_allclose(a, b, rtol=1e-12)

    def test_outliers_are_clipped(self):
        loss = np.linspace(1, 2, 101)
        loss[100] = 1e9
        standing = trained([5] * 101, loss, [0] * 101, [1] * 101)
        utility = oort_utility(spec_of("oort", 2), standing, 0, np.arange(101))
        assert utility[100] == utility[99] == utility[95] == 1.0 > utility[94]

    def test_cut_off_admits_95_percent_of_the_last_one(self):
        utility = np.array([10.0, 1.0, 8.0, 7.6, 7.59, 9.0])
        assert oort_admitted(utility, 3).tolist() == [True, False, True, True, False, True]
        assert oort_admitted(utility, 6).all()
        assert oort_admitted(np.zeros(4), 2).all()

    def test_samples_the_admitted_by_utility(self):
        # ln 1 = 0: utilities are |B| x loss over the clip, of which the third misses the cut-off.
        standing = trained([100, 96, 10, 99], [1.0] * 4, [0] * 4, [1] * 4)
        spec = spec_of("oort", 1, exploration=0, exploration_floor=0, deadline=None)
        utility = oort_utility(spec, standing, 0, np.arange(4))
        counts = np.zeros(4)
        for seed in range(3000):
            counts[select(spec, standing, seed, 0)] += 1
        assert counts[2] == 0
        share = utility[[0, 1, 3]] / utility[[0, 1, 3]].sum()
        assert chi_square(counts[[0, 1, 3]], 3000 * share) < CHI_SQUARE[3]

    def test_exploration_decays_to_its_floor(self):
        spec = spec_of("oort", 10)
        share = exploration_share(spec, np.arange(200))
        np.testing.assert_allclose(share[:70], 0.9 * 0.98 ** np.arange(70), rtol=1e-12)
        assert (share[75:] == 0.2).all() and (np.diff(share) <= 0).all()

    def test_quota_follows_the_share_to_within_one_client(self):
        for size in (1, 3, 10):
            spec = spec_of("oort", size)
            quota = np.array([exploration_quota(spec, round) for round in range(200)])
            due = size * np.cumsum(exploration_share(spec, np.arange(200)))
            assert (np.abs(np.cumsum(quota) - due) < 1 + 1e-6).all()
            assert quota.max() <= size and (np.cumsum(quota) <= due + 1e-6).all()

    def test_chosen_cohorts_hold_the_share(self):
        population = 4000
        spec, standing = spec_of("oort", 10), mixed(population)
        for round in (8, 40, 150):
            new = standing.trained_N[select(spec, standing, 0, round)] < 0
            assert new.sum() == exploration_quota(spec, round)

    @pytest.mark.parametrize("size", [1, 5])
    def test_everybody_trains_in_bounded_rounds(self, size):
        population = 60
        spec, standing = (
            spec_of("oort", size),
            Standing.fresh(np.ones(population), np.geomspace(1, 1e4, population)),
        )
        bound = math.ceil(population / (size * spec.exploration_floor)) + 1
        for round in range(bound):
            cohort = select(spec, standing, 0, round)
            standing = standing.after(round, cohort, cohort, np.full(len(cohort), 2.0))
        assert (standing.trained_N >= 0).all()

    def test_explores_by_speed(self):
        seconds = np.array([1.0, 2.0, 4.0, np.nan])  # the median of the three stands for the fourth
        standing, spec = Standing.fresh([5] * 4, seconds), spec_of("oort", 1, exploration=1)
        counts = np.zeros(4)
        for seed in range(3000):
            counts[select(spec, standing, seed, 0)] += 1
        speed = np.array([1, 1 / 2, 1 / 4, 1 / 2])
        assert chi_square(counts, 3000 * speed / speed.sum()) < CHI_SQUARE[3]

    def test_losses_of_zero_and_losses_unknown_are_no_obstacle(self):
        standing = trained([5] * 6, [0, 0, 0, np.nan, 0, 0], [0] * 6, [1] * 6)
        assert len(select(spec_of("oort", 3), standing, 0, 0)) == 3


class TestDeadline:
    """FedCS, Nishio and Yonetani 2018, arXiv:1804.08333."""

    def test_everybody_chosen_fits_and_nobody_left_out_would(self):
        standing, spec = mixed(60), spec_of("deadline", 60, deadline=15.0)
        chosen = select(spec, standing, 0, 0)
        left = np.setdiff1d(np.arange(60), chosen)
        assert 0 < len(chosen) < 60
        assert (standing.seconds_N[chosen] <= 15).all() and (standing.seconds_N[left] > 15).all()

    def test_on_time_to_the_second_is_on_time(self):
        standing = Standing.fresh([1, 1, 1], [15.0, 15.1, 3.0])
        assert select(spec_of("deadline", 3, deadline=15.0), standing, 0, 0).tolist() == [0, 2]

    def test_chance_decides_among_those_that_fit(self):
        standing = Standing.fresh([1] * 6, [1.0, 2.0, 3.0, 4.0, 99.0, 99.0])
        counts = np.zeros(6)
        for round in range(2000):
            counts[select(spec_of("deadline", 1, deadline=15.0), standing, 0, round)] += 1
        assert counts[4:].sum() == 0
        assert chi_square(counts[:4], np.full(4, 500.0)) < CHI_SQUARE[3]

    def test_who_was_never_timed_is_asked(self):
        standing = Standing.fresh([1, 1], [np.nan, 99.0])
        assert select(spec_of("deadline", 2), standing, 0, 0).tolist() == [0]


def test_registering_more_clients_leaves_the_draws_of_the_others():
    """The address of a draw is (seed, round, "select", index)."""
    few, many = mixed(20), mixed(50)
    keep_few = many.now(np.arange(50) < 20)
    spec = spec_of("uniform", 5)
    for round in range(5):
        np.testing.assert_array_equal(select(spec, few, 0, round), select(spec, keep_few, 0, round))


BROKEN = {
    "penalty without its exponent": ("** spec.alpha", "** 1.0"),
    "cut-off at the next client": (
        "count)[len(utility) - count]",
        "count)[len(utility) - count - 1]",
    ),
    "cut-off of 100 %": ("CUT_OFF = 0.95", "CUT_OFF = 1.0"),
    "no clipping": ("np.minimum(utility / limit, 1.0)", "utility / limit"),
    "bonus of the round": ("(standing.trained_N[clients] + 1)", "(round + 1)"),
    "candidates alike": ("standing.examples_N[pool])\n    drawn", "np.ones(len(pool)))\n    drawn"),
    "smallest loss": ("(race[drawn], -loss)", "(race[drawn], loss)"),
    "never seen is last": ("< 0] = np.inf", "< 0] = -np.inf"),
    "deadline inverted": ("> limit)]", "< limit)]"),
    "quota of the floor's floor": ("now - before", "0"),
    "speed inverted": ("1 / np.where(timed", "np.where(timed"),
    "turn by training": ("request.standing.asked_N", "request.standing.trained_N"),
    "ties without turns": ("(turns + request", "(0 * turns + request"),
    "cycle reshuffled": ('generator(seed, "select", "order")', 'generator(seed, round, "order")'),
    "draws by the pool": (
        "request.draw_N[pool], request.spec",
        "request.draw_N[: len(pool)], request.spec",
    ),
    "exclusion forgotten": ("standing))] = False", "standing))] = True"),
    "same draw every round": ('generator(seed, round, "select")', 'generator(seed, "select")'),
}


def test_mutants_apply():
    """The broken copies that these tests were seen to catch still can be made."""
    with open(selection.__file__) as file:
        text = file.read()
    assert [name for name, (old, _) in BROKEN.items() if text.count(old) != 1] == []
