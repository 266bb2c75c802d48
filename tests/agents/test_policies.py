"""What each policy proposes, and that all of them keep to what they are given."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.guard import rule_on
from agents.policies.optimizer import CMAES, TPE, tried
from agents.policies.rules import Fixed, Null, Plateau
from agents.spec import POLICIES, build_policy
from federation.errors import ConfigError
from tests.agents.histories import history, seen, validated

FALLING = [3.0, 2.7, 2.4, 2.1]


def proposed(policy, found, **changes):
    return policy.decide(seen(found, **changes)).proposal


def test_fixed_changes_nothing():
    assert proposed(Fixed(), history(FALLING)).abstains


def test_the_plateau_rule_waits_while_the_loss_falls():
    assert proposed(Plateau(), history(FALLING)).abstains
    assert proposed(Plateau(), history([])).abstains


def test_the_plateau_rule_halves_the_rate_after_three_rounds_without_a_gain():
    flat = [3.0, 2.0, 2.0, 1.999]
    assert proposed(Plateau(), history(flat)).abstains
    lower = proposed(Plateau(), history([*flat, 1.998]))
    assert lower.values == {"lr": 0.005}
    assert lower.evidence == ("loss@4",)


def test_the_plateau_rule_gives_a_new_rate_its_own_time():
    losses = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert proposed(Plateau(), history(losses, lrs=[0.02] * 4 + [0.01] * 2)).abstains
    assert not proposed(Plateau(), history(losses, lrs=[0.02] * 2 + [0.01] * 4)).abstains


def test_the_plateau_rule_goes_as_low_as_it_may_when_the_loss_explodes():
    assert proposed(Plateau(), history([3.0, 2.0, 2.6])).values == {"lr": 0.005}
    assert proposed(Plateau(), history([3.0, 2.0, math.nan])).values == {"lr": 0.005}


def test_the_plateau_rule_prefers_validation_to_training():
    found = history([3.0, 2.5, 2.0, 1.5, 1.0])
    for round, nll in enumerate([3.0, 2.9, 2.9, 2.9, 2.9]):
        validated(found, round, nll)
    lower = proposed(Plateau(), found)
    assert lower.values == {"lr": 0.005}
    assert lower.evidence[0] == "validation_loss@4"


def test_the_control_draws_by_address_within_the_bounds():
    draws = [proposed(Null(), history(FALLING), seed=seed).values["lr"] for seed in range(400)]
    assert draws[0] == proposed(Null(), history(FALLING), seed=0).values["lr"]
    assert min(draws) >= 0.005
    assert max(draws) <= 0.02
    # uniform by ratio: half of them below the middle, by the geometric mean
    assert abs(np.mean(np.array(draws) < 0.01) - 0.5) < 0.1


def test_the_control_does_not_look():
    assert proposed(Null(), history(FALLING)) == proposed(Null(), history([9.0, 9.0, 9.0, 9.0]))


def test_what_was_tried_is_place_and_relative_change_of_the_loss():
    found = tried(seen(history([4.0, 3.0, 3.0], lrs=[1e-4, 1e-2, 1.0])))
    assert [places["lr"] for places, _ in found] == pytest.approx([0.5, 1.0])
    assert [cost for _, cost in found] == pytest.approx([-0.25, 0.0])


@pytest.mark.parametrize("policy", [TPE(), CMAES()])
def test_a_search_is_a_function_of_what_was_seen(policy):
    found = history(FALLING, lrs=[0.01, 0.02, 0.01, 0.02])
    assert proposed(policy, found) == proposed(policy, found)
    assert proposed(policy, found) != proposed(policy, found, seed=4)


@pytest.mark.parametrize("policy", [TPE(), CMAES()])
def test_a_search_finds_the_better_half(policy):
    """Where a high rate is rewarded, most of what is asked for lies above the middle."""
    rates = np.exp(np.linspace(np.log(1e-4), np.log(1.0), 25))[
        np.random.default_rng(0).permutation(25)
    ]
    losses = [1.0]
    for rate in rates[1:]:
        losses.append(losses[-1] * (1 - 0.05 * (np.log(rate) - np.log(1e-4))))
    observation = seen(history(losses, lrs=[float(rate) for rate in rates]))
    wide = observation.bounds["lr"].model_copy(update={"low": 1e-4, "high": 1.0})
    above = 0
    for seed in range(20):
        shown = observation.model_copy(
            update={"bounds": observation.bounds | {"lr": wide}, "seed": seed}
        )
        above += policy.decide(shown).proposal.values["lr"] > 0.01
    assert above >= 15


@pytest.mark.parametrize("name", sorted(set(POLICIES)))
@settings(max_examples=25, deadline=None)
@given(
    losses=st.lists(
        st.floats(0.01, 20) | st.just(math.nan) | st.just(math.inf), min_size=0, max_size=12
    ),
    lr=st.floats(1e-4, 1.0),
    seed=st.integers(0, 2**40),
)
def test_no_policy_ever_asks_for_what_is_not_allowed(name, losses, lr, seed):
    observation = seen(history(losses, lrs=[lr] * len(losses)), seed=seed)
    answer = build_policy(name, 2).decide(observation)
    found = rule_on(answer, observation)
    assert found.verdict != "rejected", found.violations


def test_an_unknown_policy_and_one_that_cannot_search_are_named():
    with pytest.raises(ConfigError, match="'gut feeling' is unknown; there are fixed, heuristic"):
        build_policy("gut feeling", 1)
    with pytest.raises(ConfigError, match="needs two open knobs"):
        build_policy("optimizer:cmaes", 1)
