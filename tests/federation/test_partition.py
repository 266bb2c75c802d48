import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chi2_contingency

from federation.data.clients import Clients, Column, client_id
from federation.data.heterogeneity import effective_number
from federation.data.partition import (
    ClientsSpec,
    by_key,
    dirichlet,
    iid,
    partition,
    quantity,
    set_aside,
    shards,
)
from federation.data.topics import cluster, topics
from federation.errors import DataError

LABELS = np.repeat(np.arange(8), 500)


def column(values):
    names = list(dict.fromkeys(values))
    return Column(np.array([names.index(v) for v in values], dtype=np.int32), tuple(names))


def table(clients: Clients, codes, width=8):
    cells = np.bincount(
        clients.owners * width + codes[clients.order], minlength=len(clients) * width
    )
    return cells.reshape(len(clients), width)


def as_sets(clients: Clients):
    return {name: frozenset(clients.rows(name).tolist()) for name in clients.names}


# --- every row exactly once ----------------------------------------------------------------------


def exactly_once(clients: Clients, n: int):
    assert np.array_equal(np.sort(clients.order), np.arange(n))
    assert clients.bounds[0] == 0 and clients.bounds[-1] == n
    assert len(set(clients.names)) == len(set(clients.ids)) == len(clients)
    for i in range(len(clients)):
        assert (np.diff(clients.rows(i)) > 0).all()  # ascending, hence without repetition


@settings(deadline=None)
@given(
    codes=st.lists(st.integers(0, 4), min_size=12, max_size=80),
    count=st.integers(1, 6),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 1e6]),
    seed=st.integers(0, 2**63),
)
def test_every_row_is_with_exactly_one_client(codes, count, alpha, seed):
    labels, n = np.array(codes), len(codes)
    for clients in (
        iid(n, count, seed=seed),
        dirichlet(labels, count, alpha, seed=seed),
        quantity(n, count, alpha, seed=seed, min_examples=2),
        shards(labels, count, 2, seed=seed),
        by_key(column([f"k{c}" for c in codes])),
    ):
        exactly_once(clients, n)
        assert clients.sizes.min() >= 1


@settings(deadline=None)
@given(codes=st.lists(st.integers(-1, 5), min_size=1, max_size=50))
def test_only_is_rows_client_by_client(codes):
    clients = by_key(Column(np.array([*codes, 0]), tuple("abcdef")))
    backwards = clients.only(range(len(clients))[::-2])
    assert backwards.names == clients.names[::-2]
    for name in backwards.names:
        assert np.array_equal(backwards.rows(name), clients.rows(name))


# --- the seed and the order of rows --------------------------------------------------------------


def test_the_seed_decides_and_nothing_else():
    def makers(seed):
        return [
            iid(4000, 7, seed=seed),
            dirichlet(LABELS, 7, 0.3, seed=seed),
            quantity(4000, 7, 0.5, seed=seed),
            shards(LABELS, 7, seed=seed),
        ]

    for first, again, other in zip(makers(1), makers(1), makers(2), strict=True):
        assert np.array_equal(first.order, again.order)
        assert np.array_equal(first.bounds, again.bounds)
        assert as_sets(first) != as_sets(other)


@pytest.mark.parametrize(
    "make", [lambda x: dirichlet(x, 9, 0.2, seed=3), lambda x: shards(x, 9, seed=3)]
)
def test_order_of_rows_does_not_change_who_gets_how_much_of_what(make):
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(LABELS)
    assert np.array_equal(table(make(LABELS), LABELS), table(make(shuffled), shuffled))


def test_order_of_rows_does_not_change_natural_clients():
    values = [f"client {i % 12}" for i in range(100)]
    mix = np.random.Generator(np.random.PCG64(0)).permutation(100)
    before, after = by_key(column(values)), by_key(column([values[i] for i in mix]))
    assert before.names == after.names
    assert before.names[:3] == ("client 0", "client 1", "client 2")  # not 0, 1, 10
    for name in before.names:
        assert set(mix[after.rows(name)]) == set(before.rows(name))


def test_numbering_of_labels_does_not_matter():
    values = [f"label {i % 5}" for i in range(200)]
    spec = ClientsSpec(by="dirichlet", label="x", alpha=0.1, count=4)
    one, other = column(values), column(values[3:] + values[:3])
    recoded = Column(np.roll(other.codes, 3), other.names)
    assert [recoded.names[c] for c in recoded.codes] == values
    assert np.array_equal(
        partition(spec, 200, seed=0, labels=one).order,
        partition(spec, 200, seed=0, labels=recoded).order,
    )


# --- what the papers say -------------------------------------------------------------------------


def test_dirichlet_of_large_alpha_is_iid():
    found = table(dirichlet(LABELS, 20, 1e6, seed=0), LABELS)
    assert chi2_contingency(found).pvalue > 0.01
    uneven = table(dirichlet(LABELS, 20, 3.0, seed=0), LABELS)
    assert chi2_contingency(uneven).pvalue < 1e-6


def test_dirichlet_of_small_alpha_gives_few_labels():
    def effective(alpha):
        found = table(dirichlet(LABELS, 40, alpha, seed=0), LABELS)
        return effective_number(found / found.sum(axis=1, keepdims=True)).mean()

    few, some, many = effective(0.01), effective(3.0), effective(1000.0)
    assert few < 2.3 < 3.5 < some < 6 < 7.5 < many


def test_dirichlet_mix_has_the_spread_of_dir_alpha_p():
    """Var q_l = p (1 - p) / (alpha + 1), as long as no label runs out and sizes are large."""
    labels = np.repeat(np.arange(2), 100_000)
    shares = table(dirichlet(labels, 400, 5.0, seed=0), labels, 2)[:, 0] / 500
    assert shares.mean() == pytest.approx(0.5, abs=1e-9)
    assert shares.var() == pytest.approx(0.25 / 6, rel=0.2)


def test_dirichlet_sizes_differ_by_one_at_most():
    assert np.ptp(dirichlet(LABELS[:-3], 17, 0.05, seed=0).sizes) == 1


def test_quantity_skews_sizes_and_not_content():
    clients = quantity(4000, 10, 0.5, seed=0, min_examples=30)
    assert clients.sizes.min() >= 30 and clients.sizes.std() > 150
    assert chi2_contingency(table(clients, LABELS)).pvalue > 0.01


def test_quantity_has_the_spread_of_its_dirichlet():
    """Shares of Dir_N(a) have variance (N - 1) / (N^2 (N a + 1))."""
    n, count, alpha = 1_000_000, 2000, 0.5
    shares = quantity(n, count, alpha, seed=0).sizes / n
    expected = (count - 1) / (count**2 * (count * alpha + 1))
    assert shares.var() == pytest.approx(expected, rel=0.15)


def test_shards_give_each_client_few_labels():
    clients = shards(LABELS, 40, 2, seed=0)
    held = (table(clients, LABELS) > 0).sum(axis=1)
    assert held.max() == 2 and (clients.sizes == 100).all()
    assert len({tuple(row) for row in table(clients, LABELS)}) > 5  # dealt, not in a row


def test_topics_find_what_texts_are_about():
    words = [["dough", "oven", "flour", "yeast"], ["engine", "wheel", "brake", "motor"]]
    draw = np.random.Generator(np.random.PCG64(0))
    truth = draw.integers(0, 2, 120)
    texts = [" ".join(draw.choice(words[t], 3)) for t in truth]
    found = topics(texts, 120, 2, seed=0)
    assert max((found.codes == truth).mean(), (found.codes != truth).mean()) == 1.0
    assert np.array_equal(found.codes, topics(texts, 120, 2, seed=0).codes)
    assert np.bincount(found.codes).argmax() == 0
    term = found.names[0].split("-")[2]
    assert sum(term in word for word in words) == 1
    assert all(client_id(name) == name for name in found.names)
    spec = ClientsSpec(by="topic", count=2)
    clients = partition(spec, 120, seed=0, texts=texts)
    exactly_once(clients, 120)
    assert clients.names == found.names


def test_topics_learn_from_a_sample_and_assign_the_rest(monkeypatch):
    monkeypatch.setattr("federation.data.topics.FIT_ROWS", 40)
    monkeypatch.setattr("federation.data.topics.BLOCK", 7)
    texts = ["bread and flour", "wheels and motors"] * 50
    codes = topics(texts, 100, 2, seed=0).codes
    assert len(set(codes[::2])) == len(set(codes[1::2])) == 1 and codes[0] != codes[1]


def test_topics_of_ambiguous_texts_are_decided_by_the_seed():
    draw = np.random.Generator(np.random.PCG64(0))
    texts = [" ".join(f"word{w}" for w in draw.integers(0, 40, 6)) for _ in range(150)]
    codes = [topics(texts, 150, 6, seed=seed).codes for seed in (1, 1, 2)]
    assert np.array_equal(codes[0], codes[1]) and not np.array_equal(codes[0], codes[2])


def test_vectors_cluster_by_direction():
    vectors = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 1.0], [0.1, 5.0], [3.0, 0.0]])
    assert cluster(vectors, 2, seed=0).codes.tolist() == [0, 0, 1, 1, 0]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open_qa", "c000", "topic-03-bank-card", "a.b", "7"])
def test_safe_names_stay(name):
    assert client_id(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../../etc",
        "a\0b",
        "CON",
        "con",
        "nul.txt",
        "é",
        "x" * 300,
        "-1",
        "a.",
        " a",
    ],
)
def test_unsafe_names_become_safe(name):
    assert client_id(name) != name
    assert client_id(client_id(name)) != client_id(name)  # a hash cannot be taken by a natural name


@settings(deadline=None)
@given(st.lists(st.text(max_size=80), unique=True, max_size=30))
def test_ids_are_distinct_whatever_the_file_system_thinks_of_case(names):
    ids = [client_id(name).casefold() for name in names]
    assert len(set(ids)) == len(names)
    assert all(len(i) <= 64 and i.isascii() and "/" not in i and i[0] not in ".-" for i in ids)


# --- what cannot be done -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"by": "key"}, 'by = "key" needs key'),
        ({"by": "dirichlet", "label": "x"}, 'by = "dirichlet" needs alpha'),
        ({"by": "dirichlet", "alpha": 1.0}, 'by = "dirichlet" needs label'),
        ({"by": "shards"}, 'by = "shards" needs label'),
        ({"by": "quantity"}, 'by = "quantity" needs alpha'),
        ({"by": "iid", "alpha": 1.0}, 'by = "iid" does not use alpha; remove it'),
        ({"by": "key", "key": "x", "count": 3}, 'by = "key" does not use count; remove it'),
        (
            {"by": "iid", "unseen": 1.5},
            "unseen = 1.5 is neither a fraction nor a number of clients",
        ),
        ({"by": "iid", "alpha": float("nan")}, "finite"),
        ({"by": "iid", "cuont": 3}, "Extra inputs"),
    ],
)
def test_tables_that_make_no_sense(table, message):
    with pytest.raises(ValidationError, match=message) as caught:
        ClientsSpec.model_validate(table)
    assert caught.value.error_count() == 1


def test_a_resolved_table_can_be_read_again():
    spec = ClientsSpec(by="key", key="client", test_key="-1", label="category")
    assert ClientsSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iid(5, 6, seed=0), "5 rows cannot give 6 clients 1 row each; lower count"),
        (lambda: dirichlet(LABELS, 10, 1, seed=0, min_examples=401), "10 clients 401 rows each"),
        (lambda: dirichlet(np.arange(8000), 8000, 1, seed=0), "8000 different labels"),
        (
            lambda: quantity(10, 3, 1, seed=0, min_examples=4),
            "10 rows cannot give 3 clients 4 rows",
        ),
        (lambda: shards(LABELS[:9], 5, seed=0), "9 rows cannot fill 5 clients of 2 shards"),
        (
            lambda: by_key(column("aab"), min_examples=3),
            r"no client has 3 rows \(the largest has 2\)",
        ),
        (lambda: topics(["x y", "x y"], 2, 3, seed=0), "2 rows cannot make 3 topics"),
        (lambda: topics(["cat dog", "dog owl"] * 2, 4, 3, seed=0), "only 2 different texts for 3"),
        (lambda: topics(["the", "of"], 2, 2, seed=0), "no words to tell topics by"),
    ],
)
def test_too_little_data_is_said_in_one_line(make, message):
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_row_without_its_key_is_named():
    keys = Column(np.array([0, 0, -1, 1, -1]), ("a", "b"))
    with pytest.raises(DataError, match=r"row 3 has no key 'ward' \(2 of 5 rows lack it\)"):
        partition(ClientsSpec(by="key", key="ward"), 5, seed=0, keys=keys)


def test_a_topic_below_min_examples_is_named():
    texts = ["bread flour"] * 9 + ["wheel motor"]
    with pytest.raises(DataError, match=r"topic-01-.* has 1 row, fewer than min_examples = 2"):
        partition(ClientsSpec(by="topic", count=2, min_examples=2), 10, seed=0, texts=texts)


def test_test_key_sets_rows_aside():
    keys = column(["0", "-1", "1", "0", "-1"])
    spec = ClientsSpec(by="key", key="client", test_key="-1")
    assert set_aside(spec, keys).tolist() == [1, 4]
    assert as_sets(partition(spec, 5, seed=0, keys=keys)) == {"0": {0, 3}, "1": {2}}
    with pytest.raises(DataError, match=r"no row has client = 'x' \(test_key\); there are "):
        set_aside(spec.model_copy(update={"test_key": "x"}), keys)


def test_small_and_surplus_clients_are_left_out():
    keys = column("aaabbbbccd")
    assert by_key(keys, min_examples=2).names == ("a", "b", "c")
    assert by_key(keys, max_clients=2).names == ("a", "b")


def test_ten_thousand_clients_in_a_moment():
    labels = np.arange(200_000) % 20
    start = time.process_time()
    exactly_once(dirichlet(labels, 10_000, 0.1, seed=0), 200_000)
    exactly_once(by_key(Column(np.arange(200_000) % 10_000, _numbers(10_000))), 200_000)
    assert time.process_time() - start < 5


def _numbers(n):
    return tuple(f"client {i}" for i in range(n))


def test_names_that_count_alike_have_one_order_too():
    names = ("client 001", "client 01", "client 1")
    for order in (names, names[::-1]):
        assert Column(np.arange(3), order).by_name().names == names
