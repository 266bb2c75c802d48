import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.data.clients import Clients, group
from federation.data.splits import Splits, SplitSpec, held_out, not_judged, split
from federation.errors import DataError

shares = st.sampled_from([0.0, 0.1, 0.25, 0.32])


def clients_of(sizes, prefix="client") -> Clients:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return group(owner, tuple(f"{prefix}-{i}" for i in range(len(sizes))))


def rows_of(splits: Splits, name: str):
    return [part.rows(name).tolist() for part in (splits.train, splits.validation, splits.test)]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    validation=shares,
    test=shares,
    global_test=shares,
    unseen=st.sampled_from([0, 1, 0.5]),
    seed=st.integers(0, 2**40),
)
def test_every_row_is_in_exactly_one_place(sizes, validation, test, global_test, unseen, seed):
    clients = clients_of(sizes)
    spec = SplitSpec(validation=validation, test=test, global_test=global_test)
    aside = np.arange(sum(sizes), sum(sizes) + 3)
    found = split(clients, spec, seed=seed, unseen=unseen, test_rows=aside)
    places = [found.train, found.validation, found.test, found.unseen]
    everything = np.concatenate([*(place.order for place in places), found.set_aside])
    assert np.array_equal(np.sort(everything), np.arange(sum(sizes) + 3))
    assert set(found.names) | set(found.unseen.names) == set(clients.names)
    assert found.names == found.validation.names == found.test.names
    assert found.train.sizes.min() >= 1
    for name in found.names:
        assert set(found.train.rows(name)) <= set(clients.rows(name))
    for name in found.unseen.names:
        assert np.array_equal(found.unseen.rows(name), clients.rows(name))


def test_a_client_is_split_the_same_whoever_else_is_there():
    few = clients_of([40, 50, 60])
    many = group(
        np.concatenate([np.repeat([2, 0, 1], [40, 50, 60]), np.repeat([3, 4], 25)]),
        ("client-1", "client-2", "client-0", "late-1", "late-2"),
    )
    one, other = split(few, SplitSpec(), seed=1), split(many, SplitSpec(), seed=1)
    for name in few.names:
        assert rows_of(one, name) == rows_of(other, name)


def test_rows_of_others_in_between_do_not_matter():
    """The draw is over a client's own rows in their order, wherever in the data they lie."""
    near, far = clients_of([30]), group(np.tile([0, -1], 30), ("client-0",))
    one, other = split(near, SplitSpec(), seed=1), split(far, SplitSpec(), seed=1)
    spread = [[2 * row for row in part] for part in rows_of(one, "client-0")]
    assert spread == rows_of(other, "client-0")


def test_seed_and_name_decide():
    clients = clients_of([50, 50])
    one = split(clients, SplitSpec(), seed=1)
    assert rows_of(one, "client-0") != rows_of(split(clients, SplitSpec(), seed=2), "client-0")
    assert rows_of(one, "client-0")[2] != [row - 50 for row in rows_of(one, "client-1")[2]]


def test_exact_shares_are_exact():
    found = split(clients_of([10, 20, 100]), SplitSpec(validation=0.1, test=0.2), seed=0)
    assert found.validation.sizes.tolist() == [1, 2, 10]
    assert found.test.sizes.tolist() == [2, 4, 20]


def test_shares_of_small_clients_are_right_on_average():
    found = split(clients_of([4] * 5000), SplitSpec(validation=0.1, test=0.1), seed=0)
    assert len(found.test.order) == pytest.approx(2000, rel=0.06)
    assert len(found.validation.order) == pytest.approx(2000, rel=0.06)
    assert found.test.sizes.max() == 1


def test_a_single_row_is_trained_on():
    found = split(clients_of([1] * 200), SplitSpec(validation=0.4, test=0.4), seed=0)
    assert len(found.train.order) == 200 and len(found.test.order) == 0


def test_a_client_without_rows_is_named():
    with pytest.raises(DataError, match=r"client 'client-1' has no rows; give it one"):
        split(clients_of([3, 0, 2]), SplitSpec(), seed=0)


def test_global_test_is_the_union_of_tests_unless_there_is_one_of_its_own():
    clients = clients_of([50, 50])
    union = split(clients, SplitSpec(), seed=0)
    assert np.array_equal(union.global_test, np.sort(union.test.order))
    drawn = split(clients, SplitSpec(global_test=0.2), seed=0)
    assert len(drawn.global_test) == 20 and not np.isin(drawn.global_test, drawn.test.order).any()
    given_rows = split(clients, SplitSpec(), seed=0, test_rows=np.array([101, 100]))
    assert given_rows.global_test.tolist() == [100, 101]


def test_test_rows_belong_to_nobody():
    with pytest.raises(DataError, match="row 8 is in the global test set and with a client"):
        split(clients_of([50, 50]), SplitSpec(), seed=0, test_rows=np.array([100, 7]))


def test_whole_clients_are_held_out_by_lot():
    names = tuple(f"c{i}" for i in range(100))
    assert held_out(names, 7, seed=0).sum() == 7
    assert held_out(names, 0.25, seed=0).sum() == 25
    assert not np.array_equal(held_out(names, 7, seed=0), held_out(names, 7, seed=1))
    assert not held_out(names, 7, seed=0)[:7].all()


def test_a_new_client_displaces_one_at_the_edge_at_most():
    names = tuple(f"c{i}" for i in range(100))
    before = {n for n, out in zip(names, held_out(names, 10, seed=0), strict=True) if out}
    more = ("new", *names[::-1])
    after = {n for n, out in zip(more, held_out(more, 10, seed=0), strict=True) if out}
    assert len(before - after) <= 1


@pytest.mark.parametrize(
    ("unseen", "number"), [(0.01, "holds out 0 of 10"), (10, "10 of 10"), (0.99, "10 of 10")]
)
def test_holding_out_none_or_all_is_refused(unseen, number):
    with pytest.raises(DataError, match=number):
        split(clients_of([5] * 10), SplitSpec(), seed=0, unseen=unseen)


def test_shares_leave_something_to_train_on():
    with pytest.raises(ValidationError, match=r"= 1 leaves nothing to train on"):
        SplitSpec(validation=0.5, test=0.5)


def test_clients_without_a_test_row_are_known_where_others_have_some():
    clients = group(np.array([0] * 10 + [1] + [2] * 10), ("a", "lonely", "c"))
    parts = split(clients, SplitSpec(validation=0, test=0.5), seed=1)
    assert parts.untested == ("lonely",)
    assert "'lonely'" in not_judged(parts.untested)
    assert "and 3 more" in not_judged([str(i) for i in range(8)])
    assert split(clients, SplitSpec(validation=0, test=0), seed=1).untested == ()
