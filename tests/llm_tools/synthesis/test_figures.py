"""Figures of a set: known values, and extremes that must be told apart."""

import numpy as np
import pytest

from llm_tools.synthesis import diversity, leakage, likeness
from llm_tools.synthesis.figures import distinct, nearest, overlap, spaced, two_sample
from llm_tools.synthesis.texts import words

THINGS = ["house", "boat", "card", "loan", "tree", "river", "stone", "engine", "letter", "garden"]


def text(i):
    return f"the {THINGS[i % 10]} {i} of {THINGS[i // 10 % 10]} is number {i * 7919 % 1000}"


def test_distinct_counts_different_words():
    assert distinct([["a", "b", "a"], ["a"]], 1) == 0.5
    assert distinct([["a", "b", "a"], ["a"]], 2) == 1.0
    assert distinct([["a"]], 2) == 0.0


def test_overlap_is_one_for_copies_and_zero_for_strangers():
    assert overlap([words("one two three four")] * 3) == 1.0
    assert overlap([words("one two three"), words("four five six")]) == 0.0
    # Half the words, a third of the pairs ... of the first stand in the second.
    half = overlap([["a", "b"], ["a", "c"]])
    assert half == 0.0  # no pair is shared
    assert overlap([["a", "b", "c"], ["a", "b", "d"]]) == 0.0  # no triple is
    assert overlap([["a"], ["a"], ["b"]]) == pytest.approx(2 / 3)


def test_a_varied_set_is_more_diverse_than_a_dull_one():
    dull = diversity([f"the same old words {i}" for i in range(30)])
    varied = diversity([text(i) for i in range(30)])
    assert varied.distinct_2 > dull.distinct_2 and varied.overlap < dull.overlap
    assert varied.spread > dull.spread
    assert diversity(["same"] * 5 + ["same"]).spread == pytest.approx(0, abs=1e-9)


def test_the_spread_is_the_mean_over_pairs():
    a = diversity(["red apple", "blue sky"])
    assert a.spread == pytest.approx(1.0, abs=1e-6)


def test_two_samples_of_one_kind_cannot_be_told_apart_and_two_kinds_can():
    draw = np.random.Generator(np.random.Philox(1))
    a, b = draw.normal(size=(2, 200, 8))
    accuracy, p = two_sample(a, b)
    assert abs(accuracy - 0.5) < 0.1 and p > 0.01
    accuracy, p = two_sample(a, b + 3)
    assert accuracy > 0.95 and p < 1e-6


def test_likeness_needs_texts_and_sees_what_is_alien():
    real = [text(i) for i in range(0, 100, 2)]
    same, alien = [text(i) for i in range(1, 100, 2)], [f"zz{i} qq{i % 7} xx" for i in range(50)]
    assert likeness(real[:19], real) is None and likeness(real, real[:19]) is None
    close, far = likeness(same, real), likeness(alien, real)
    assert close and far
    assert far.two_sample > 0.95 > close.two_sample
    assert far.nearest > close.nearest
    assert likeness(real, real).nearest_least == pytest.approx(0, abs=1e-9)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_text_is_not_its_own_neighbour():
    points = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    assert nearest(points, points, itself=True) == pytest.approx([0, 0, 1])


def test_leakage_finds_passages_copies_and_canaries():
    private = ["the third key of mister anders opens the vault on every second thursday"]
    ours = [f"hello, {private[0]}", private[0].upper(), "nothing at all", "code Zanzibar-7"]
    found = leakage(ours, private, similar=0.7, shingle=3, canaries=["zanzibar 7"])
    assert (found.longest_shared, found.near_copies, found.canary_hits) == (13, 2, 1)
    clean = leakage(ours[2:3], private, similar=0.7, shingle=3, canaries=["zanzibar 7"])
    assert (clean.longest_shared, clean.near_copies, clean.canary_hits) == (0, 0, 0)


def test_places_are_evenly_spaced():
    assert spaced(5, 10) == [0, 1, 2, 3, 4]
    assert spaced(100, 3) == [0, 50, 99] and spaced(0, 3) == []
