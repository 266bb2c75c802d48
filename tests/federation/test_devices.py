"""Simulated devices: distributions by seed, addresses, and the arithmetic of seconds."""

import math
import time

import numpy as np
import pytest
from pydantic import ValidationError

from federation.cohort import devices
from federation.cohort.devices import (
    DevicesSpec,
    Speeds,
    availability_rates,
    available,
    cut_stragglers,
    dropped,
    round_seconds,
    simulated_seconds,
    speeds,
)


def spec_of(**settings) -> DevicesSpec:
    return DevicesSpec.model_validate(settings)


MIXED = spec_of(
    speed_sigma=1.0,
    bandwidth_sigma=0.5,
    availability=0.7,
    availability_spread=1.0,
    dropout=0.3,
)
THREE = Speeds(np.array([1.0, 2.0, 4.0]), np.array([100.0, 50.0, 10.0]))


class TestSpec:
    def test_default_devices_are_equal_and_without_fault(self):
        spec = spec_of()
        fast = speeds(spec, 0, 9)
        np.testing.assert_array_equal(fast.seconds_per_step_N, 1.0)
        np.testing.assert_array_equal(fast.bandwidth_N, 1e6)
        assert available(spec, 0, 0, 9).all()
        assert dropped(spec, 0, 0, range(9)) == {}
        assert cut_stragglers(spec, fast, [1, 2], 5, 1e9)[1] == {}

    def test_every_field_says_what_it_is(self):
        assert all(field.description for field in DevicesSpec.model_fields.values())

    @pytest.mark.parametrize(
        "settings",
        [
            {"seconds_per_step": 0},
            {"bandwidth": 0},
            {"speed_sigma": -1},
            {"availability": 0},
            {"dropout": 1.1},
            {"dropout": math.nan},
            {"deadline_seconds": 0},
            {"late": "wait"},
            {"speed": 1},
        ],
    )
    def test_refuses(self, settings):
        with pytest.raises(ValidationError):
            spec_of(**settings)


class TestAddresses:
    """What happens to client i depends on (seed, round, i) and on nothing else."""

    def test_more_clients_change_nothing_for_the_first(self):
        few, many = speeds(MIXED, 3, 20), speeds(MIXED, 3, 5000)
        np.testing.assert_array_equal(few.seconds_per_step_N, many.seconds_per_step_N[:20])
        np.testing.assert_array_equal(few.bandwidth_N, many.bandwidth_N[:20])
        np.testing.assert_array_equal(available(MIXED, 3, 7, 20), available(MIXED, 3, 7, 5000)[:20])

    def test_drop_outs_do_not_depend_on_the_cohort_or_its_order(self):
        together = dropped(MIXED, 3, 7, range(40))
        apart = dropped(MIXED, 3, 7, range(20)) | dropped(
            MIXED, 3, 7, np.arange(39, 19, -1).tolist()
        )
        assert together == apart and 0 < len(together) < 40

    def test_rounds_and_seeds_differ(self):
        assert (available(MIXED, 3, 7, 99) != available(MIXED, 3, 8, 99)).any()
        assert (available(MIXED, 3, 7, 99) != available(MIXED, 4, 7, 99)).any()
        assert dropped(MIXED, 3, 7, range(99)) != dropped(MIXED, 3, 8, range(99))
        assert dropped(MIXED, 3, 7, range(99)) != dropped(MIXED, 4, 7, range(99))
        assert (speeds(MIXED, 3, 9).bandwidth_N != speeds(MIXED, 4, 9).bandwidth_N).all()

    def test_speed_and_bandwidth_are_independent(self):
        drawn = speeds(MIXED, 0, 20_000)
        logs = np.log([drawn.seconds_per_step_N, drawn.bandwidth_N])
        assert abs(np.corrcoef(logs)[0, 1]) < 0.03

    def test_a_population_of_100_000_is_cheap(self):
        start = time.perf_counter()
        speeds(MIXED, 0, 100_000)
        available(MIXED, 0, 1, 100_000)
        dropped(MIXED, 0, 1, range(100))
        assert time.perf_counter() - start < 0.1  # 10 ms on an idle core


class TestDistributions:
    def test_speeds_are_log_normal_around_the_median(self):
        spec = spec_of(seconds_per_step=2.0, speed_sigma=0.8, bandwidth=5e4, bandwidth_sigma=0.3)
        drawn = speeds(spec, 0, 50_000)
        for values, median, sigma in [
            (drawn.seconds_per_step_N, 2.0, 0.8),
            (drawn.bandwidth_N, 5e4, 0.3),
        ]:
            z = np.log(values / median) / sigma
            assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
            assert abs((np.abs(z) < 1.959964).mean() - 0.95) < 0.005

    @pytest.mark.parametrize(
        ("mean", "spread", "low", "high"), [(0.7, 1, 0.4, 1), (0.3, 0.5, 0.15, 0.45)]
    )
    def test_rates_are_uniform_around_the_mean_and_stay_shares(self, mean, spread, low, high):
        rates = availability_rates(
            spec_of(availability=mean, availability_spread=spread), 0, 50_000
        )
        assert abs(rates.mean() - mean) < 0.005
        assert low <= rates.min() < low + 0.001 and high - 0.001 < rates.max() <= high

    def test_each_client_is_online_at_its_rate(self):
        rounds, n = 2000, 30
        online = np.mean([available(MIXED, 0, round, n) for round in range(rounds)], axis=0)
        rates = availability_rates(MIXED, 0, n)
        assert np.ptp(rates) > 0.4
        z = (online - rates) / np.sqrt(rates * (1 - rates) / rounds)
        assert (np.abs(z) < 4).all()

    def test_drop_outs_come_at_their_probability(self):
        failed = sum(len(dropped(MIXED, 0, round, range(20))) for round in range(200))
        assert abs(failed / 4000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
        assert dropped(spec_of(dropout=1), 0, 0, [4, 2]) == {4: "dropout", 2: "dropout"}


class TestSeconds:
    def test_steps_and_bytes(self):
        np.testing.assert_allclose(
            simulated_seconds(THREE, [2, 0], [3, 5], [20, 1000]), [3 * 4 + 2, 5 * 1 + 10], rtol=0
        )
        np.testing.assert_allclose(simulated_seconds(THREE, range(3), 1, 0), [1, 2, 4], rtol=0)

    def test_late_clients_do_the_steps_they_can(self):
        spec = spec_of(deadline_seconds=21.0)
        # Transfers take 1, 2 and 10 seconds; steps 1, 2 and 4.
        steps, missing = cut_stragglers(spec, THREE, [2, 0, 1], 10, 100)
        assert steps.tolist() == [2, 10, 9] and missing == {}
        assert (simulated_seconds(THREE, [2, 0, 1], steps, 100) <= 21).all()
        assert (simulated_seconds(THREE, [2, 1], steps[[0, 2]] + 1, 100) > 21).all()

    def test_late_clients_are_dropped_where_that_is_chosen(self):
        spec = spec_of(deadline_seconds=21.0, late="drop")
        steps, missing = cut_stragglers(spec, THREE, [2, 0, 1], 10, 100)
        assert steps.tolist() == [0, 10, 0] and missing == {2: "deadline", 1: "deadline"}

    def test_on_time_to_the_second_is_on_time(self):
        steps, missing = cut_stragglers(
            spec_of(deadline_seconds=11.0, late="drop"), THREE, [0], 10, 100
        )
        assert steps.tolist() == [10] and missing == {}

    def test_no_time_for_a_single_step_is_no_report(self):
        steps, missing = cut_stragglers(
            spec_of(deadline_seconds=5.0), THREE, [0, 1, 2], [9, 9, 0], 100
        )
        assert steps.tolist() == [4, 1, 0] and missing == {2: "deadline"}

    def test_a_tiny_step_time_does_not_overflow(self):
        tiny = Speeds(np.array([1e-300]), np.array([1e6]))
        steps, _ = cut_stragglers(spec_of(deadline_seconds=1e9), tiny, [0], 10, 0)
        assert steps.tolist() == [10]

    def test_random_cohorts_make_the_deadline(self):
        spec = MIXED.model_copy(update={"deadline_seconds": 12.0, "bandwidth": 1e6})
        drawn = speeds(spec, 0, 500)
        steps, missing = cut_stragglers(spec, drawn, range(500), 10, 2e6)
        reporters = [c for c in range(500) if c not in missing]
        seconds = simulated_seconds(drawn, reporters, steps[reporters], 2e6)
        assert (seconds <= 12.0 * (1 + 1e-12)).all() and missing
        assert (steps[reporters] > 0).all() and (steps[list(missing)] == 0).all()

    def test_the_round_lasts_as_long_as_its_slowest_or_the_deadline(self):
        patient, strict = spec_of(), spec_of(deadline_seconds=30.0)
        assert round_seconds(patient, [3.0, 9.0, 4.0], {}) == 9.0
        assert round_seconds(patient, [3.0], {7: "dropout"}) == 3.0
        assert round_seconds(strict, [3.0, 9.0], {}) == 9.0
        assert round_seconds(strict, [3.0, 9.0], {7: "dropout"}) == 30.0
        assert round_seconds(patient, [], {}) == 0.0


BROKEN = {
    "mean and not median": (
        "* np.exp(spec.speed_sigma *",
        "* np.exp(spec.speed_sigma ** 2 / 2 + spec.speed_sigma *",
    ),
    "same chance for both speeds": ('"bandwidth", population', '"speed", population'),
    "rates leave the unit interval": ("min(spec.availability, 1 - spec.availability)", "1.0"),
    "online forever or never": (
        'generator(seed, round, "devices", "available")',
        'generator(seed, "devices", "available")',
    ),
    "a fate for the whole cohort": (', "dropout", int(client))', ', "dropout")'),
    "no transfer": ("np.asarray(transferred) /", "0 * np.asarray(transferred) /"),
    "one step more": ("np.floor(", "np.ceil("),
    "partial although drop": ('fitting if spec.late == "partial" else 0', "fitting"),
    "late when on time": (
        "transferred) > spec.deadline_seconds",
        "transferred) >= spec.deadline_seconds",
    ),
    "waits for nobody": ("if missing and spec.deadline_seconds", "if spec.deadline_seconds"),
}


def test_mutants_apply():
    """The broken copies that these tests were seen to catch still can be made."""
    with open(devices.__file__) as file:
        text = file.read()
    assert [name for name, (old, _) in BROKEN.items() if text.count(old) != 1] == []
