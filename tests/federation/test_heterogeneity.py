import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.spatial.distance import jensenshannon

from federation.data.clients import Column, group
from federation.data.heat_map import FONT, drawable, fonts_for, heat_map
from federation.data.heterogeneity import effective_number, entropy, gini, jensen_shannon, report
from federation.data.partition import ClientsSpec, by_key, dirichlet, partition
from federation.errors import DataError, StorageError

counts = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any)


def small_report():
    """Two clients with disjoint labels, 6 and 2 rows."""
    clients = group(np.repeat([0, 1], [6, 2]), ("big", "small"))
    labels = Column(np.array([0, 0, 0, 1, 1, 1, 2, 2]), ("a", "b", "c"))
    return report(clients, labels, lengths=np.arange(8), kind="category")


def column(values):
    names = tuple(dict.fromkeys(values))
    at = {name: code for code, name in enumerate(names)}
    return Column(np.array([at[value] for value in values]), names)


# --- closed forms --------------------------------------------------------------------------------


def test_divergence_of_equal_is_zero_and_of_disjoint_is_one_bit():
    p, q = np.array([0.3, 0.7, 0.0]), np.array([0.0, 0.0, 1.0])
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, q) == pytest.approx(1.0, abs=1e-12)


def test_two_disjoint_halves_are_0_311_bits_from_their_population():
    """H(3/4, 1/4) - (0 + 1) / 2 = 0.311278 bits."""
    clients = group(np.array([0, 0, 1, 1]), ("x", "y"))
    found = report(clients, Column(np.array([0, 0, 1, 1]), ("a", "b")))
    expected = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5
    assert found.divergence == pytest.approx([expected] * 2, abs=1e-12)


@settings(deadline=None)
@given(counts, counts)
def test_divergence_is_bounded_symmetric_and_scipys(p, q):
    p, q = np.array(p) / sum(p), np.array(q) / sum(q)
    found = jensen_shannon(p, q)
    assert 0 <= found <= 1
    assert found == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert found == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-7)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_mean_divergence_is_below_half_the_mutual_information(sizes):
    """JSD(p, q) <= KL(p || q) / 2 by convexity; the mean KL(p_c || p) is I(client; label)."""
    draw = np.random.Generator(np.random.PCG64(sum(sizes)))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    codes = draw.integers(0, 3, len(owner))
    found = report(group(owner, tuple(map(str, range(len(sizes))))), Column(codes, "abc"))
    information = entropy(found.population) - np.average(entropy(found.shares), weights=found.sizes)
    assert -1e-12 <= found.mean_divergence <= information / 2 + 1e-12


def test_effective_number_counts_even_labels():
    assert effective_number(np.array([0.25] * 4)) == pytest.approx(4)
    assert effective_number(np.array([0.0, 1.0])) == pytest.approx(1)


def test_gini_closed_forms():
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    sizes = np.array([3, 1, 8, 2])
    pairs = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(sizes) == pytest.approx(pairs)


# --- the report ----------------------------------------------------------------------------------


def test_report_counts():
    found = small_report()
    assert found.counts.tolist() == [[3, 3, 0], [0, 0, 2]]
    assert found.tokens is not None and found.tokens.tolist() == [15, 13]
    assert found.effective_labels == pytest.approx([2, 1])
    assert found.population == pytest.approx([3 / 8, 3 / 8, 2 / 8])
    assert found.mean_divergence == pytest.approx(
        (6 * found.divergence[0] + 2 * found.divergence[1]) / 8
    )


def test_order_of_rows_does_not_matter():
    draw = np.random.Generator(np.random.PCG64(0))
    keys, labels, lengths = (
        draw.integers(0, 5, 200),
        draw.integers(0, 4, 200),
        draw.integers(9, 99, 200),
    )
    names, mix = tuple("abcde"), draw.permutation(200)
    one = report(group(keys, names), Column(labels, "wxyz"), lengths=lengths)
    other = report(group(keys[mix], names), Column(labels[mix], "wxyz"), lengths=lengths[mix])
    assert one.json() == other.json()


def test_rows_without_a_label_are_counted_as_such():
    found = report(group(np.zeros(3, dtype=int), ("x",)), Column(np.array([0, -1, -1]), ("a",)))
    assert found.labels == ("a", "(none)") and found.counts.tolist() == [[1, 2]]


def test_a_client_without_rows_is_named():
    with pytest.raises(DataError, match="client 'y' has no rows"):
        report(group(np.zeros(3, dtype=int), ("x", "y")), Column(np.zeros(3, dtype=int), ("a",)))


def test_json_is_json():
    found = json.loads(json.dumps(small_report().json()))
    assert found["clients"][1] == {
        "client": "small",
        "examples": 2,
        "tokens": 13,
        "effective_labels": 1.0,
        "divergence_bits": pytest.approx(small_report().divergence[1]),
        "labels": {"c": 2},
    }
    assert found["labels"] == {"a": 3, "b": 3, "c": 2} and found["size_gini"] == 0.25


def test_table_shows_the_largest_clients():
    console = Console(width=120, record=True, file=StringIO())
    console.print(small_report().table(limit=1))
    text = console.export_text()
    assert (
        "big" in text and "small" not in text and "the 1 largest" in text and "a 50%, b 50%" in text
    )


def test_the_caption_names_the_labels_as_they_are_called():
    console = Console(width=120, record=True, file=StringIO())
    console.print(replace(small_report(), kind="category").table())
    text = console.export_text()
    assert "number of values of category, 2^entropy" in text and "categorys" not in text


# --- the picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "labels"), [(1, 1), (10, 8), (200, 60), (12, 150)])
def test_heat_map_is_drawn_at_any_shape(tmp_path, clients, labels):
    codes = np.arange(3000) % labels
    found = report(
        dirichlet(codes, clients, 0.5, seed=0),
        Column(codes, tuple(f"label_{i}" for i in range(labels))),
    )
    heat_map(found, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError):
        heat_map(small_report(), tmp_path / "absent" / "map.png")


# --- real data -----------------------------------------------------------------------------------


def test_dolly_in_the_clients_of_fedit(shared):
    file = shared("data/dolly/dolly15k_fedit10.jsonl")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    keys, labels = column([str(r["client"]) for r in rows]), column([r["category"] for r in rows])
    spec = ClientsSpec(by="key", key="client", label="category", test_key="-1")
    found = report(partition(spec, len(rows), seed=0, keys=keys), labels, kind="category")
    assert found.names == tuple("0123456789") and found.sizes.sum() == 14_931
    assert ((found.counts > 0).sum(axis=1) <= 3).all()
    by_category = report(by_key(labels), labels)
    assert by_category.mean_divergence > found.mean_divergence > 0.4


def test_signs_that_no_font_has_are_written_as_numbers():
    from matplotlib import rc_context

    assert fonts_for("abc") == [FONT]
    with rc_context({"font.family": fonts_for("a\U000e0fff\x00")}):
        assert drawable("a\U000e0fff\x00b") == "a\\U000e0fff\\x00b"
        assert drawable("Zürich Ж") == "Zürich Ж"
