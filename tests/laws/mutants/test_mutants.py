"""Every mutant is caught by the check that stands beside it, which the intact code passes."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

import pytest

from federation.algorithms import catalogue, servers
from federation.algorithms.algorithm import any_work
from federation.errors import QuorumError
from tests.federation import test_transforms
from tests.laws import laws
from tests.laws.mutants import broken
from tests.laws.toy_world import CASES, toy_world
from tests.papers import loops, test_equations, test_flower_parity, test_robust
from tests.papers.equations import agrees, scaffold_controls_agree


class Mutant(NamedTuple):
    """What is replaced, by what, and the check that must notice."""

    target: str
    replacement: object
    caught_by: Callable[[], None]


def law(law: laws.Law, case: str, noise: float = 0.1) -> Callable[[], None]:
    """Put an algorithm to a law; it is built when the check runs, so that mutants reach it."""
    return lambda: law(toy_world(noise), CASES[case].make(), 0)


def parity(name: str) -> Callable[[], None]:
    return partial(test_flower_parity.test_parity, name)


ENGINE, ALGORITHM, ALGORITHMS = (
    "tests.laws.toy",
    "federation.algorithms.algorithm",
    "federation.algorithms.catalogue",
)
SERVERS, WRAPPERS, PACKING = (
    "federation.algorithms.servers",
    "federation.algorithms.transforms",
    "federation.algorithms.packing",
)

ROBUST = "federation.algorithms.robust"


def median_agrees() -> None:
    """Build the median when the check runs, so that mutants reach it."""
    test_robust.agrees(catalogue.median(), loops.median)


MUTANTS: dict[str, Mutant] = {
    "loss averaged over clients": Mutant(
        f"{ENGINE}.total",
        broken.mean_over_clients,
        law(laws.union_is_concatenation, "fedavg"),
    ),
    "randomness by place in the stack": Mutant(
        f"{ENGINE}.noise_address",
        broken.address_of_a_place,
        law(laws.order_is_irrelevant, "fedavg"),
    ),
    "memory by place in the stack": Mutant(
        f"{ENGINE}.memory_key",
        broken.memory_of_a_place,
        law(laws.order_is_irrelevant, "scaffold"),
    ),
    "finished clients train on": Mutant(
        f"{ENGINE}.still_active",
        broken.never_finished,
        law(laws.grouping_is_irrelevant, "fedavg"),
    ),
    "weights not normalised": Mutant(
        f"{ALGORITHM}.weighted_mean",
        broken.unnormalised,
        law(laws.one_client_is_plain_training, "fedavg"),
    ),
    "weights ignored": Mutant(
        f"{ALGORITHM}.weighted_mean",
        broken.equal_weights,
        law(laws.clones_count_once, "fedavg", noise=0.0),
    ),
    "mean over every axis": Mutant(
        f"{ALGORITHM}.weighted_mean", broken.mean_over_every_axis, partial(agrees, "fedavg")
    ),
    "state changed in place": Mutant(
        f"{ALGORITHM}.add_delta",
        broken.added_in_place,
        law(laws.arguments_stay_as_they_are, "fedavg"),
    ),
    "fedprox pulls to the origin": Mutant(
        f"{ALGORITHMS}.fedprox", broken.pulled_to_the_origin, partial(agrees, "fedprox")
    ),
    "fedavgm averages its momentum": Mutant(
        f"{ALGORITHMS}.fedavgm", broken.averaging_momentum, parity("fedavgm")
    ),
    "diloco without looking ahead": Mutant(
        f"{ALGORITHMS}.diloco", servers.fedavgm, partial(agrees, "diloco")
    ),
    "fedadam squares the momentum": Mutant(
        f"{SERVERS}.adaptive", broken.squaring_the_momentum, partial(agrees, "fedadam")
    ),
    "fedadam starts v at zero": Mutant(
        f"{SERVERS}.adaptive", broken.starting_from_zero, partial(agrees, "fedadam")
    ),
    "fedadam corrects the wrong round": Mutant(
        f"{ALGORITHMS}.fedadam", broken.bias_exponent_off_by_one, parity("fedadam")
    ),
    "fedyogi turns the sign": Mutant(
        f"{SERVERS}.yogi_v", broken.yogi_with_the_sign_turned, partial(agrees, "fedyogi")
    ),
    "fedadagrad forgets": Mutant(
        f"{SERVERS}.adagrad_v", broken.adagrad_that_forgets, partial(agrees, "fedadagrad")
    ),
    "scaffold divides by the cohort": Mutant(
        f"{ALGORITHMS}.scaffold", broken.scaffold_over_the_cohort, scaffold_controls_agree
    ),
    "scaffold counts nominal steps": Mutant(
        f"{ALGORITHMS}.scaffold", broken.scaffold_with_nominal_steps, partial(agrees, "scaffold")
    ),
    "scaffold divides by no steps": Mutant(
        f"{ALGORITHMS}.scaffold",
        broken.scaffold_without_steps,
        law(laws.null_round_changes_nothing, "scaffold"),
    ),
    "scaffold corrects the wrong way": Mutant(
        f"{ALGORITHMS}.scaffold", broken.scaffold_turned_round, partial(agrees, "scaffold")
    ),
    "scaffold shares controls": Mutant(
        f"{ALGORITHMS}.scaffold",
        broken.scaffold_with_shared_controls,
        law(laws.clients_own_their_memory, "scaffold"),
    ),
    "scaffold accepts adamw": Mutant(
        f"{ALGORITHMS}.sgd_only",
        any_work,
        partial(test_equations.test_adamw_is_refused_before_anything_is_sent, "scaffold"),
    ),
    "fednova does not normalise": Mutant(
        f"{ALGORITHMS}.accumulation", broken.no_normalisation, partial(agrees, "fednova")
    ),
    "fednova ignores momentum": Mutant(
        f"{ALGORITHMS}.accumulation", broken.steps_alone, partial(agrees, "fednova, momentum")
    ),
    "fednova ignores the pull": Mutant(
        f"{ALGORITHMS}.accumulation", broken.steps_alone, partial(agrees, "fednova, prox")
    ),
    "local clients forget": Mutant(
        f"{ALGORITHMS}.local",
        broken.local_that_forgets,
        test_equations.test_local_clients_train_alone_and_the_server_stays,
    ),
    "median of an even number is the lower": Mutant(
        f"{ROBUST}.coordinatewise", broken.lower_median, median_agrees
    ),
    "krum counts every neighbour": Mutant(
        f"{ROBUST}.krum_order",
        broken.krum_of_all_neighbours,
        test_robust.test_krum_counts_only_the_closest,
    ),
    "krum prefers the first on a tie": Mutant(
        f"{ROBUST}.krum_order",
        broken.krum_of_the_first_on_a_tie,
        test_robust.test_two_nearest_neighbours_tie_and_no_order_decides,
    ),
    "clip over the whole stack": Mutant(
        f"{WRAPPERS}.row_norms",
        broken.norm_of_the_stack,
        law(laws.union_is_concatenation, "clip"),
    ),
    "clip lengthens and divides by zero": Mutant(
        f"{WRAPPERS}.clip",
        broken.scaled_to_the_norm,
        test_transforms.test_clip_keeps_zero_zero_and_what_is_not_finite_not_finite,
    ),
    "top-k without a residual": Mutant(
        f"{WRAPPERS}.residual", broken.nothing_waits, test_transforms.nothing_is_lost
    ),
    "top-k sends the smallest": Mutant(
        f"{WRAPPERS}.sparsify",
        broken.smallest_values,
        test_transforms.test_top_k_sends_the_largest,
    ),
    "rounding to the nearest": Mutant(
        f"{WRAPPERS}.dither", broken.nearest, partial(test_transforms.rounding_is_unbiased, 4)
    ),
    "rounding by place in the stack": Mutant(
        f"{WRAPPERS}.dither",
        broken.dither_of_a_place,
        law(laws.order_is_irrelevant, "int8", noise=0.0),
    ),
    "rounding alike in every round": Mutant(
        f"{WRAPPERS}.dither",
        broken.dither_of_the_first_round,
        test_transforms.test_other_clients_rounds_and_seeds_round_otherwise,
    ),
    "nibbles swapped": Mutant(
        f"{PACKING}._pair",
        broken.nibbles_swapped,
        partial(test_transforms.stays_within_a_step, 4, 8),
    ),
    "scale below the largest value": Mutant(
        f"{PACKING}._not_below",
        broken.scale_rounded_to_nearest,
        partial(
            test_transforms.test_codes_keep_their_range_at_the_ends_of_the_random_numbers, 4, 0.0
        ),
    ),
    "the same noise in every round": Mutant(
        f"{WRAPPERS}.gaussian", broken.noise_of_the_first_round, test_transforms.noise_has_its_size
    ),
    "half the noise": Mutant(
        f"{WRAPPERS}.gaussian", broken.half_the_noise, test_transforms.noise_has_its_size
    ),
    "noise over whoever reported": Mutant(
        f"{WRAPPERS}.add_noise", broken.noise_over_whoever_came, test_transforms.fixed_denominator
    ),
    "a server that trusts clients to clip": Mutant(
        f"{WRAPPERS}.add_noise", broken.noise_on_trust, test_transforms.bounds_every_client
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name):
    mutant = MUTANTS[name]
    mutant.caught_by()
    with (
        patch(mutant.target, mutant.replacement),
        # A mutant that drives the server's state to infinity is caught by the round itself.
        pytest.raises((AssertionError, pytest.fail.Exception, QuorumError)),
    ):
        mutant.caught_by()
