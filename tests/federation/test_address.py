"""Addresses of randomness: no two of them are spelt alike."""

from hypothesis import given
from hypothesis import strategies as st

from federation.address import address

PARTS = st.lists(
    st.integers() | st.text("ab1\x1f\\:", max_size=6) | st.sampled_from(["a\x1fstr:b", "\\x1f"]),
    max_size=3,
)


@given(PARTS, PARTS)
def test_different_addresses_differ(one: list[int | str], other: list[int | str]):
    same = [(type(x), x) for x in one] == [(type(x), x) for x in other]
    assert (address(*one) == address(*other)) == same


def test_a_name_cannot_pose_as_two_parts():
    assert address(0, "a\x1fstr:batches") != address(0, "a", "batches")
    assert address("\\x1f") != address("\x1f")


def test_streams_of_plain_names_stay_where_they_were():
    assert address(0, 3, "client-1", "batches") == 15513430646700907703
