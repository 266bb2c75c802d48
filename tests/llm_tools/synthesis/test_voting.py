"""Votes: what one client can do, what the noise is, what it costs."""

import time

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_tools.synthesis import Brief, Election, epsilon, evolve, noise_for, tfidf_svd
from llm_tools.synthesis.embedding import directions
from llm_tools.synthesis.voting import ballot, most_voted, tally
from tests.llm_tools.synthesis.briefs import BRIEF, row

LOANS = Brief("bank-1", "bank", "answers", "loans")
VALUES = st.floats(-1e6, 1e6, width=32)
MANY = arrays(np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=VALUES)
SOME = arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=VALUES)


class Silent(np.random.Generator):
    """Draws zeros: the histogram before noise."""

    def normal(self, *args, **kwargs):
        return np.zeros(args[2])


SILENT = Silent(np.random.Philox(0))


@settings(max_examples=200, deadline=None)
@given(MANY, SOME, st.floats(1e-3, 1e3), st.lists(MANY, max_size=4))
def test_one_client_moves_the_histogram_by_the_bound_at_most(mine, candidates, bound, others):
    candidates = directions(candidates)
    rest = [ballot(directions(x), candidates, bound) for x in others]
    without = sum(rest, np.zeros(len(candidates)))
    mine = ballot(directions(mine), candidates, bound)
    assert np.linalg.norm(mine) <= bound
    assert np.linalg.norm(without + mine - without) <= bound * (1 + 1e-12)
    with_me = tally(np.stack([*rest, mine]), 1.0, SILENT, bound)
    assert np.allclose(with_me - without, mine, atol=1e-12 * bound * 10)


def test_clients_of_every_size_count_the_same():
    candidates = np.eye(3)
    small = ballot(np.eye(3)[:1], candidates)
    large = ballot(np.eye(3)[[0] * 1000], candidates)
    assert np.allclose(small, [1, 0, 0]) and np.allclose(small, large)
    assert np.linalg.norm(ballot(np.eye(3)[[0, 1, 1]], candidates)) == pytest.approx(1)


def test_a_text_of_which_nothing_is_known_does_not_vote():
    assert not ballot(np.zeros((5, 3)), np.eye(3)).any()
    assert np.allclose(ballot(np.array([[0, 0, 0], [0, 1, 0]]), np.eye(3)), [0, 1, 0])


def test_a_ballot_that_is_too_long_is_not_counted():
    for wrong in ([[1.0, 1.0]], [[np.nan, 0.0]], [[np.inf, 0.0]]):
        with pytest.raises(ValueError, match="longer than 1"):
            tally(np.array(wrong), 1.0, SILENT)


@pytest.mark.parametrize(("noise", "bound"), [(0.5, 1.0), (4.0, 1.0), (2.0, 3.0)])
def test_the_noise_is_what_is_accounted(noise, bound):
    draw = np.random.Generator(np.random.Philox(5))
    found = tally(np.zeros((1, 200_000)), noise, draw, bound)
    assert found.std() / bound == pytest.approx(noise, rel=0.01)
    assert abs(found.mean()) < 5 * noise * bound / np.sqrt(200_000)


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (2.0, 3)])
def test_epsilon_is_that_of_the_composed_mechanism(noise, rounds):
    accountant = PLDAccountant()
    for _ in range(rounds):
        accountant.compose(GaussianDpEvent(noise))
    assert epsilon(noise, rounds, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)


def test_the_cost_of_many_rounds_is_known_at_once():
    began = time.process_time()
    found = [epsilon(1.0, rounds, 1e-5) for rounds in range(1, 501)]
    assert found == sorted(found) and found[-1] > found[0]
    assert time.process_time() - began < 10  # a page asks for it after every round


def test_epsilon_agrees_with_known_values():
    assert epsilon(1.0, 1, 1e-5) == pytest.approx(4.3771781, rel=1e-6)
    assert epsilon(4.0, 10, 1e-5) == pytest.approx(3.3414094719, rel=1e-6)


def test_what_was_never_done_has_cost_nothing():
    assert epsilon(1.0, 0, 1e-5) == 0.0 < epsilon(1.0, 1, 1e-5)


@pytest.mark.parametrize(("wanted", "rounds"), [(0.5, 1), (2.0, 4)])
def test_calibration_never_overspends(wanted, rounds):
    noise = noise_for(wanted, rounds, 1e-5)
    assert wanted * 0.99 < epsilon(noise, rounds, 1e-5) <= wanted


def test_the_space_is_learnt_from_invented_text_alone():
    embed = tfidf_svd(["my card is lost", "a loan for a house", "the card was stolen"])
    known, unknown = embed(["lost card", "zebra giraffe"])
    assert np.linalg.norm(known) == pytest.approx(1) and not unknown.any()
    again = tfidf_svd(["my card is lost", "a loan for a house", "the card was stolen"])
    assert (again(["lost card"]) == embed(["lost card"])).all()


def test_votes_find_what_private_text_is_like():
    cards = [row(f"my card number {i} was stolen from my bag") for i in range(3)]
    houses = [row(f"we want {i} loans to buy a house", label="loans") for i in range(3)]
    boats = [row(f"{i} sails of the boat are torn by storm", label="loans") for i in range(3)]
    private = [["the house we buy needs loans"] * 5, ["stolen card bag"] * 5] * 10
    rounds, texts_seen = [], []

    def learn(public):
        texts_seen.extend(public)
        return tfidf_svd(public)

    def noise(round, texts):
        rounds.append((round, len(texts)))
        return np.random.Generator(np.random.Philox(round))

    def vary(brief, kept):
        return [row(f"another {x.context}", label=brief.label) for x in kept]

    election = Election(2, 0.1, learn, noise)
    pools = {BRIEF: cards, LOANS: houses + boats}
    kept = evolve(pools, {BRIEF: 2, LOANS: 1}, private, election, vary)
    assert len(kept[BRIEF]) == 2 and len(kept[LOANS]) == 1
    assert "house" in kept[LOANS][0].context
    assert rounds == [(0, 9), (1, 6)]
    # Private text is embedded, never learnt from.
    assert not any("needs loans" in text or text == "stolen card bag" for text in texts_seen)


def test_no_round_of_votes_keeps_everything_as_it_is():
    pools = {BRIEF: [row("one"), row("two")]}
    assert evolve(pools, {BRIEF: 1}, [["x"]], Election(0, 1.0, tfidf_svd, None), None) == pools  # pyright: ignore[reportArgumentType]


def test_the_most_voted_stay_in_their_order():
    rows = [row(str(i)) for i in range(4)]
    assert most_voted(rows, [1.0, 3.0, -2.0, 3.0], 2) == [rows[1], rows[3]]
    assert most_voted(rows, [0.0] * 4, 9) == rows
