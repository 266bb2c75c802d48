"""Which rows a client trains on at which step, and the tensors made of them.

This module knows row numbers, lengths and addresses.  It does not know text, models or losses.

Shape suffixes: C clients, B batch, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from federation.address import generator
from federation.data.tokens import Tokens
from federation.errors import DataError

ABSENT = -1  # stands where a step has no example
# Lengths are blurred by up to this much before examples are grouped by length; otherwise a client
# that uses all its rows every round would see the very same batches every round.
_BLUR = 0.1


def draw(
    rows: np.ndarray,
    lengths: np.ndarray,
    seed: int,
    round: int,
    client: str,
    steps: int,
    batch_size: int,
) -> np.ndarray:
    """Draw the batches of one client in one round.

    Shuffled epochs over the client's rows follow one another; no example is drawn for the
    (k + 1)-th time before all were drawn k times, and none twice in one step.  Examples of similar
    length share a step, and step s holds similarly long examples for all clients of the round (the
    order of the steps is drawn from an address without a client), so that little is padded when
    clients are stacked.  Draws depend on the address alone, never on who else is drawn.

    Args:
        rows: row numbers of the client's examples, each once, ``(n,)``.
        lengths: tokens of every row of the corpus, indexed by row number.
        seed: run seed.
        round: number of the round.
        client: id of the client.
        steps: optimizer steps.
        batch_size: examples a step; a client with fewer has as many as it holds.

    Returns:
        Row numbers, ``(steps, batch_size)`` int64, -1 where there is no example.

    Raises:
        DataError: if the client has no rows.
    """
    if len(rows) == 0:
        raise DataError(f"client {client!r} has no training examples; leave it out of the cohort")
    batches = np.full((steps, batch_size), ABSENT, dtype=np.int64)
    if steps == 0:
        return batches
    size = min(batch_size, len(rows))
    rng = generator(seed, round, client, "batches")
    drawn = np.concatenate(list(_epochs(np.asarray(rows), lengths, steps * size, size, rng)))
    drawn = drawn.reshape(steps, size)
    shortest_first = np.argsort(lengths[drawn].max(axis=1), kind="stable")
    shared_order = generator(seed, round, "order", steps).permutation(steps)
    batches[shared_order, :size] = drawn[shortest_first]
    return batches


def _epochs(
    rows: np.ndarray, lengths: np.ndarray, total: int, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield shuffled epochs, ``total`` row numbers in all, that cut into batches of ``size``.

    A batch that begins in one epoch is completed from the next by rows it does not hold yet; the
    batches inside an epoch are grouped by length.
    """
    begun = rows[:0]
    while total > 0:
        epoch = rng.permutation(rows)
        held = np.isin(epoch, begun)
        epoch = np.concatenate([epoch[~held], epoch[held]])[:total]
        total -= len(epoch)
        first = (size - len(begun)) % size
        last = len(epoch) - (len(epoch) - first) % size
        begun = epoch[last:]
        epoch[first:last] = _by_length(epoch[first:last], lengths, rng)
        yield epoch


def _by_length(rows: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blurred = lengths[rows] * rng.uniform(1 - _BLUR, 1 + _BLUR, size=len(rows))
    return rows[np.argsort(blurred, kind="stable")]


@dataclass(frozen=True)
class Batch:
    """One step of several clients.  Causal attention and padding on the right need no mask.

    Position t predicts token t + 1; S positions predict a supervised one.

    Attributes:
        ids_CBT: token ids, ``(C, B, T)`` int64, 0 beyond the end of an example.
        where: flat numbers of the predicting positions among C*B*T, ``(S,)`` int64, ascending and
            so sorted by client.
        target: token id each of them has to predict, ``(S,)`` int64.
        client: position on the C axis of each of them, ``(S,)`` int64.
        count_C: supervised tokens of each client, ``(C,)`` int64.
    """

    ids_CBT: Tensor
    where: Tensor
    target: Tensor
    client: Tensor
    count_C: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on a device."""
        if self.ids_CBT.device == device:
            return self
        # From pinned memory a copy need not wait for the work that the GPU still has.
        here = {f.name: getattr(self, f.name).pin_memory() for f in fields(self)}
        return Batch(**{name: x.to(device, non_blocking=True) for name, x in here.items()})


def collate(tokens: Tokens, rows_CB: np.ndarray) -> Batch:
    """Fetch and pad one step of several clients.

    Args:
        tokens: the packed sequences.
        rows_CB: row numbers ``(C, B)``, -1 where there is no example.

    Returns:
        A batch as long as its longest example.

    Raises:
        ValueError: if a row number is none of ``tokens``.
    """
    if rows_CB.size and not (rows_CB.min() >= ABSENT and rows_CB.max() < len(tokens)):
        raise ValueError(f"rows must be -1 or below {len(tokens)}, got {rows_CB.tolist()}")
    clients, size = rows_CB.shape
    rows = rows_CB.reshape(-1, 1)
    start = tokens.offsets[rows]
    length = np.where(rows == ABSENT, 0, tokens.lengths[rows])
    position = np.arange(max(int(length.max(initial=0)), 1))
    inside = position < length
    ids = np.zeros(inside.shape, dtype=np.int64)
    ids[inside] = tokens.ids[(start + position)[inside]]
    predicts = (position + 1 >= tokens.prompt_len[rows]) & (position + 1 < length)
    where = np.flatnonzero(predicts)
    client = where // (size * len(position))
    return Batch(
        ids_CBT=torch.from_numpy(ids.reshape(clients, size, -1)),
        where=torch.from_numpy(where),
        target=torch.from_numpy(ids.reshape(-1)[where + 1]),
        client=torch.from_numpy(client),
        count_C=torch.from_numpy(np.bincount(client, minlength=clients)),
    )
