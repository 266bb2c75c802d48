"""Sketches keep what counts of updates; planes and cosines are what they are said to be."""

from pathlib import Path

import numpy as np
import pytest

from federation.errors import CorruptError
from federation.runs.run import Run
from tests.ui.web.made_uicompare import CLIENTS, kept, record_clients, updates
from ui.web import behaviour
from ui.web.behaviour import COLUMNS, added, furthest, plane, points, sketch


def test_cosines_and_lengths_are_those_of_the_updates(tmp_path: Path) -> None:
    name, sha256 = kept(tmp_path, 0)
    found = sketch(tmp_path / "state" / name, sha256, 3)
    assert found is not None
    x = updates(0).astype(np.float64)
    mean = x.mean(0)
    lengths = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(found.norm_C, lengths)
    np.testing.assert_allclose(found.cosine_C, x @ mean / lengths / np.linalg.norm(mean))
    assert found.cosine_C[0] > 0.9 > -0.9 > found.cosine_C[2]


def test_a_sketch_keeps_inner_products() -> None:
    draw = np.random.Generator(np.random.Philox(3))
    a, b = draw.standard_normal((2, 20_000))
    x = (np.stack([a, a + b, -a]) + 1.0) / 100
    found = added([x], 3).sketch_C
    exact, kept = x @ x.T, found @ found.T
    assert np.abs(kept - exact).max() < 4 * exact.max() / np.sqrt(behaviour.SKETCH)


def test_updates_in_blocks_are_the_updates() -> None:
    draw = np.random.Generator(np.random.Philox(1))
    x = draw.standard_normal((2, COLUMNS + 7))
    found = added((x[:, :COLUMNS], x[:, COLUMNS:]), 2)
    mean = x.mean(0)
    np.testing.assert_allclose(found.norm_C, np.linalg.norm(x, axis=1))
    expected = x @ mean / np.linalg.norm(x, axis=1) / np.linalg.norm(mean)
    np.testing.assert_allclose(found.cosine_C, expected)


def test_the_plane_keeps_distances_of_points_that_lie_on_one() -> None:
    draw = np.random.Generator(np.random.Philox(2))
    flat = draw.standard_normal((9, 2)) * (3, 1)
    basis = np.linalg.qr(draw.standard_normal((40, 2)))[0]
    at, shares = plane(flat @ basis.T + 5)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] >= shares[1]
    for i in range(9):
        expected = np.linalg.norm(flat - flat[i], axis=1)
        np.testing.assert_allclose(np.linalg.norm(at - at[i], axis=1), expected, atol=1e-9)
    np.testing.assert_allclose(plane(np.ones((4, 3)))[0], 0)


def test_points_of_a_run_tell_the_client_that_works_against_the_others(tmp_path: Path) -> None:
    run = Run.open(record_clients(tmp_path / "one"))
    rounds, more = behaviour.kept(run)
    assert [at.round for at in rounds] == [0, 1, 2]
    assert more == 0
    sketches = {at.round: sketch(at.file, at.sha256, 3) for at in rounds}
    placed, _ = points(rounds, {n: s for n, s in sketches.items() if s}, direction=True)
    assert [(p.round, p.client) for p in placed[:3]] == [(0, c) for c in CLIENTS]
    cosines = {c: [p.cosine for p in placed if p.client == c] for c in CLIENTS}
    assert furthest(cosines, 1) == ["ward-c"]
    first, second, third = (np.array([p.x, p.y]) for p in placed[:3])
    assert np.linalg.norm(first - second) < np.linalg.norm(first - third)


def test_old_rounds_are_left_out_where_there_is_too_much(tmp_path: Path) -> None:
    run = Run.open(record_clients(tmp_path / "one"))
    rounds, more = behaviour.kept(run, most_bytes=1)
    assert [at.round for at in rounds] == [2]
    assert more == 2


def test_what_is_damaged_is_refused_and_what_is_packed_is_none(tmp_path: Path) -> None:
    name, sha256 = kept(tmp_path, 0)
    file = tmp_path / "state" / name
    with pytest.raises(CorruptError, match="3 updates of 2 clients"):
        sketch(file, sha256, 2)
    with pytest.raises(CorruptError, match="hash"):
        sketch(file, "0" * 64, 3)
    name, sha256 = kept(tmp_path, 1, np.int8)
    assert sketch(tmp_path / "state" / name, sha256, 3) is None
