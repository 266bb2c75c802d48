"""Quantities that are declared once: the schedule of the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.specs import ScheduleSpec

KINDS = ("constant", "cosine", "linear", "wsd")


@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.floats(0, 0.999),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_no_round_has_more_than_the_configured_rate(kind, rounds, warmup, decay, floor):
    spec = ScheduleSpec(kind=kind, warmup=warmup, decay=decay, floor=floor)
    for round in range(rounds):
        assert 0 < spec.factor(round, rounds) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_that_warm_up_almost_fills_is_at_the_full_rate(kind: str):
    spec = ScheduleSpec.model_validate({"kind": kind, "warmup": 0.98})
    assert spec.factor(9, 10) == 1.0
