"""Rows like a client's own: by hand, and against what plain leave-one-out gets wrong."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from federation.data.clients import Clients
from federation.kindred import kindred, outlyingness, spoilers, told_apart, weighed, weights
from federation.runs.records import ContributionsRecord, Effect


def test_rows_are_weighed_until_topics_are_mixed_as_the_clients_are():
    at = np.array([0, 0, 0, 1, 1, 2])
    own = np.array([False, False, True, False, False, False])
    found = weights(np.array([0.5, 0.5, 0.0]), at, own)
    assert found is not None
    assert found.tolist() == [0.25, 0.25, 0.0, 0.25, 0.25, 0.0]
    assert found.sum() == pytest.approx(1.0)


def test_nobody_vouches_for_a_client_whose_like_it_holds_alone():
    at, alone = np.array([0, 1, 1, 1]), np.array([0.1, 0.9])
    assert weights(alone, at, np.array([False, True, True, True])) is None
    assert weights(alone, at, np.array([False, False, False, True])) is not None
    assert weights(alone, np.array([0, 0]), np.array([False, False])) is None, "no row is like it"


def test_texts_are_told_into_as_many_topics_as_they_can_be():
    many = [f"{word} {word}s please" for word in ("pipe", "book", "tree", "bin") for _ in range(5)]
    assert len(set(told_apart(many, 0).tolist())) == 3, "12 and 6 topics are too many for four"
    assert told_apart(["the same"] * 4, 0).tolist() == [0] * 4


def test_a_client_is_not_judged_on_rows_that_it_holds_itself():
    """Rows 0 to 3 are trained on, two a client; 4 to 9 are judged, and held by whom is said."""
    pipes, books = ["fix the pipe"], ["lend a book"]
    texts = 2 * pipes + 2 * books + 3 * pipes + 3 * books
    trained = {"a": np.array([0, 1]), "b": np.array([2, 3])}
    nobody = Clients(("a", "b"), np.zeros(0, np.int64), np.zeros(3, np.int64))
    held = Clients(("a", "b"), np.array([4, 7]), np.array([0, 1, 2]))
    data = SimpleNamespace(
        train_rows=trained.__getitem__,
        corpus=SimpleNamespace(examples=[SimpleNamespace(prompt=x, response="") for x in texts]),
        judged=SimpleNamespace(test=nobody),
    )
    setup: Any = SimpleNamespace(data=data, config=SimpleNamespace(seed=0))
    rows = np.arange(4, 10)
    without = kindred(setup, ("a", "b"), rows)
    found = kindred(setup, ("a", "b"), rows, held)
    assert (without["a"] > 0).tolist() == [True] * 3 + [False] * 3
    assert (found["a"] > 0).tolist() == [False, True, True] + [False] * 3
    assert (found["b"] > 0).tolist() == [False] * 4 + [True, True]


def test_an_effect_is_that_of_the_weighed_rows_with_their_interval():
    """Four rows of one token, weighed alike: mean 2.5, and Student's t of three degrees."""
    nats, tokens = np.array([[1.0, 2.0, 3.0, 4.0, 99.0]]), np.ones(5)
    found = weighed(nats, tokens, np.array([0.5, 0.5, 0.5, 0.5, 0.0]))
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))
    doubled = weighed(2 * nats, 2 * tokens, np.array([7.0, 7.0, 7.0, 7.0, 0.0]))
    assert (doubled.mean, doubled.high) == pytest.approx((found.mean, found.high)), "per token"
    assert weighed(nats, tokens, np.array([0.0, 1.0, 0.0, 0.0, 0.0])).low is None, "one row"
    assert weighed(nats * math.inf, tokens, np.ones(5)).high is None


def test_repeats_are_averaged_row_by_row():
    nats = np.array([[1.0, 3.0], [3.0, 1.0]])
    found = weighed(nats, np.ones(2), np.ones(2))
    assert found.values == (2.0, 2.0) and found.low == found.high == 2.0


def told(**means: float) -> ContributionsRecord:
    own = {c: Effect(mean=x, low=x - 0.01, high=x + 0.01, values=(x,)) for c, x in means.items()}
    return ContributionsRecord(
        round=0, was=(1.0,), effects={}, own=own, updates="kept", reproduced=True
    )


def test_a_spoiler_is_below_zero_and_far_below_the_others():
    assert spoilers(told(a=0.1, b=0.11, c=0.12, d=-0.5)) == ("d",)
    assert spoilers(told(a=0.5, b=0.51, c=0.52, d=0.1)) == (), "it helps, if less than others"
    assert spoilers(told(a=-0.1, b=-0.11, c=-0.12, d=-0.09)) == (), "nobody stands out"
    assert spoilers(told(a=0.1, b=0.11, c=0.12, d=-0.005)) == (), "the interval reaches zero"
    assert spoilers(told()) == ()


def test_a_lone_figure_lies_nowhere_off():
    assert outlyingness({"a": 3.0}) == {"a": 0.0}
