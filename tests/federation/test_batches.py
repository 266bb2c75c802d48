"""Draws by address and the tensors made of them, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.address import generator
from federation.data.tokens import Tokens
from federation.errors import DataError
from federation.training.batches import ABSENT, collate, draw


@st.composite
def draws(draw_value):
    n = draw_value(st.integers(1, 40))
    corpus = generator("corpus", draw_value(st.integers(0, 99)))
    rows = corpus.permutation(60)[:n]
    lengths = corpus.integers(1, 200, size=60)
    return rows, lengths, draw_value(st.integers(0, 12)), draw_value(st.integers(1, 12))


@settings(deadline=None)
@given(draws())
def test_no_row_twice_in_a_step_and_none_again_before_all_others(case):
    rows, lengths, steps, batch_size = case
    batches = draw(rows, lengths, 0, 1, "a", steps, batch_size)
    size = min(batch_size, len(rows))
    assert batches.shape == (steps, batch_size) and batches.dtype == np.int64
    assert (batches[:, :size] != ABSENT).all() and (batches[:, size:] == ABSENT).all()
    assert all(len(set(step[:size])) == size for step in batches)
    counts = np.array([(batches == row).sum() for row in rows])
    assert counts.sum() == steps * size
    assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(draws())
def test_a_draw_depends_on_its_address_alone(case):
    rows, lengths, steps, batch_size = case
    before = draw(rows, lengths, 0, 1, "a", steps, batch_size)
    np.random.default_rng(0).random()
    draw(rows, lengths, 0, 1, "b", steps, batch_size)
    assert np.array_equal(draw(rows, lengths, 0, 1, "a", steps, batch_size), before)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 2}, {"client": "b"}])
def test_every_part_of_the_address_matters(change):
    at = {"seed": 0, "round": 1, "client": "a", "steps": 5, "batch_size": 4} | change
    rows, lengths = np.arange(100), np.arange(100) + 1
    assert not np.array_equal(draw(rows, lengths, **at), draw(rows, lengths, 0, 1, "a", 5, 4))


def test_every_row_is_as_likely_as_any_other():
    rows, lengths = np.arange(10), np.arange(10) * 20 + 1
    counts = np.zeros(10)
    for round in range(2000):
        np.add.at(counts, draw(rows, lengths, 0, round, "a", 3, 4).ravel(), 1)
    # 12 rows a round: each once, two of ten a second time.  Standard deviation 0.4 a round.
    assert np.abs(counts / 2000 - 1.2).max() < 5 * 0.4 / 2000**0.5


def test_full_passes_still_give_new_batches_every_round():
    rows, lengths = np.arange(32), np.arange(32) + 100
    seen = {
        frozenset(map(frozenset, draw(rows, lengths, 0, round, "a", 8, 4).tolist()))
        for round in range(5)
    }
    assert len(seen) == 5


def test_steps_hold_similar_lengths_for_all_clients():
    lengths = generator("lengths").lognormal(4, 1, size=4000).astype(np.int64) + 1
    drawn = np.stack(
        [
            draw(np.arange(500) + 500 * c, lengths, 0, 0, str(c), steps=20, batch_size=4)
            for c in range(8)
        ]
    )
    used = lengths[drawn].sum()
    grouped = lengths[drawn].max(axis=(0, 2)).sum() * 32 / used
    shuffled = generator("shuffle").permutation(drawn.ravel()).reshape(drawn.shape)
    at_random = lengths[shuffled].max(axis=(0, 2)).sum() * 32 / used
    assert grouped < 1.6
    assert grouped < at_random / 2


def test_the_order_of_the_steps_is_not_by_length():
    rows, lengths = np.arange(80), np.arange(80) + 1
    longest = lengths[draw(rows, lengths, 0, 0, "a", 20, 4)].max(axis=1)
    assert abs(np.corrcoef(longest, np.arange(20))[0, 1]) < 0.8


def test_a_client_without_rows_is_named():
    with pytest.raises(DataError, match="client 'empty' has no training examples"):
        draw(np.array([], dtype=np.int64), np.ones(3), 0, 0, "empty", 1, 1)


def tokens_of(sequences: list[list[int]], prompt_len: list[int]) -> Tokens:
    flat = [token for sequence in sequences for token in sequence]
    return Tokens(
        ids=np.array(flat, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, sequences)]),
        prompt_len=np.array(prompt_len, dtype=np.int32),
        response_bytes=np.ones(len(sequences), dtype=np.int32),
    )


@st.composite
def batches(draw_value):
    sequences = draw_value(
        st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=7), min_size=1, max_size=6)
    )
    prompt_len = [draw_value(st.integers(1, len(sequence) - 1)) for sequence in sequences]
    shape = draw_value(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    row = st.integers(ABSENT, len(sequences) - 1)
    rows = draw_value(st.lists(row, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return sequences, prompt_len, np.array(rows).reshape(shape)


@settings(deadline=None)
@given(batches())
def test_collate_equals_plain_loops(case):
    sequences, prompt_len, rows_CB = case
    batch = collate(tokens_of(sequences, prompt_len), rows_CB)
    C, B, T = batch.ids_CBT.shape
    assert rows_CB.shape == (C, B)
    assert max([1, *(len(sequences[r]) for r in rows_CB.ravel() if r != ABSENT)]) == T
    where, target, client = [], [], []
    for c in range(C):
        for b in range(B):
            sequence = sequences[rows_CB[c, b]] if rows_CB[c, b] != ABSENT else []
            padded = sequence + [0] * (T - len(sequence))
            assert batch.ids_CBT[c, b].tolist() == padded
            first = prompt_len[rows_CB[c, b]] if sequence else 0
            for t in range(first, len(sequence)):
                where.append((c * B + b) * T + t - 1)
                target.append(sequence[t])
                client.append(c)
    assert batch.where.tolist() == where
    assert batch.target.tolist() == target
    assert batch.client.tolist() == client
    assert batch.count_C.tolist() == [client.count(c) for c in range(C)]
    dtypes = {batch.ids_CBT.dtype, batch.where.dtype, batch.target.dtype, batch.client.dtype}
    assert dtypes == {torch.int64}


@settings(deadline=None)
@given(batches())
def test_supervision_of_a_client_does_not_depend_on_its_company(case):
    sequences, prompt_len, rows_CB = case
    tokens = tokens_of(sequences, prompt_len)
    together = collate(tokens, rows_CB)
    for c in range(len(rows_CB)):
        alone = collate(tokens, rows_CB[c : c + 1])
        assert alone.target.tolist() == together.target[together.client == c].tolist()
        assert alone.count_C[0] == together.count_C[c]


def test_a_row_number_out_of_range_is_refused():
    tokens = tokens_of([[1, 2]], [1])
    for row in (-2, 1):
        with pytest.raises(ValueError, match="rows must be -1 or below 1"):
            collate(tokens, np.array([[row]]))
