"""A proposal is applied as it stands or refused with reasons."""

import math

import pytest

from agents.guard import rule_on
from agents.proposals import Answer, Proposal
from tests.agents.histories import history, seen


def ruling(left: float | None = None, **fields):
    answer = Answer(proposal=Proposal.model_construct(**(Proposal().model_dump() | fields)))
    budget = {} if left is None else {"client_steps": left}
    return rule_on(answer, seen(history([3.0, 2.5]), budget=budget))


def test_what_is_within_bounds_is_applied_as_it_stands():
    found = ruling(values={"lr": 0.02, "steps": 8.0}, evidence=("loss@1",))
    assert (found.verdict, found.values) == ("accepted", {"lr": 0.02, "steps": 8.0})


def test_abstaining_changes_nothing():
    assert ruling(values={}).verdict == "abstained"
    assert ruling(values={}).values == {}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"values": {"lr": 0.0201}}, "lr 0.0201 is outside 0.005 to 0.02"),
        ({"values": {"lr": 1e3}}, "outside"),
        ({"values": {"lr": math.nan}}, "lr nan is no number"),
        ({"values": {"lr": math.inf}}, "no number"),
        ({"values": {"steps": 2.5}}, "steps 2.5 is not whole"),
        ({"values": {"noise": 0.1}}, "noise may not be changed"),
        ({"values": {"clip": 9.0}}, "clip may not be changed"),
        ({"values": {"lr": 0.01}, "evidence": ("loss@7",)}, "'loss@7' is no fact"),
        ({"values": {"lr": 0.01}, "expected": (3.0, 2.0)}, "no interval"),
    ],
)
def test_what_is_not_allowed_is_refused_with_a_reason_and_never_bent(fields, words):
    found = ruling(**fields)
    assert found.verdict == "rejected"
    assert found.values == {}
    assert words in "; ".join(found.violations)


def test_a_policy_that_failed_is_refused_with_its_own_words():
    found = rule_on(Answer(proposal=None, failure="no answer"), seen(history([3.0])))
    assert (found.verdict, found.violations) == ("rejected", ("no answer",))


def test_nobody_plans_past_the_budget():
    # five rounds are left: 8 steps x 3 clients x 5
    assert ruling(left=120, values={"steps": 8.0}).verdict == "accepted"
    assert (
        "120 client-steps would be needed and 119 are left"
        in ruling(left=119, values={"steps": 8.0}).violations
    )
