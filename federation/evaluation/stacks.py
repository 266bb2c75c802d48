"""Many models, each on its own rows: who shares a forward pass, and what is bound meanwhile.

Knows rows of parameters, row numbers and their cost in tokens.  It does not know what is computed
in a pass.  No pass holds a place without an example: the models of a pass take equally many
examples, and a model that has run out leaves the stack.

Shape suffixes: C models (clients), P flat parameters, B examples of each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from federation.training import kernels
from federation.training.base import Base
from federation.training.engine import passes_at_once
from federation.training.local import Task
from federation.training.workers import side_by_side

Work = Callable[[np.ndarray], np.ndarray]  # row numbers (C, B) -> a value for each, (C, B)


@dataclass(frozen=True)
class Limits:
    """How much goes into one pass; never changes what is computed.

    Attributes:
        models: most models.
        tokens: most tokens, padding included; a single example may have more.
    """

    models: int = 8
    tokens: int = 4_096


DEFAULT_LIMITS = Limits()


@contextmanager
def forward_attention(base: Base) -> Iterator[None]:
    """Let a model that is only read attend by torch's own kernel; put its attention back after.

    The attention of training is made for the backward pass: it takes no cache, and forward alone
    it is up to three times slower at 512 tokens.
    """
    trained = base.model.config._attn_implementation == kernels.ATTENTION
    try:
        if trained:
            base.model.set_attn_implementation("sdpa")
        yield
    finally:
        if trained:
            base.model.set_attn_implementation(kernels.ATTENTION)


@contextmanager
def bound(task: Task, params_C: Tensor | None) -> Iterator[None]:
    """Let the base read with C models' parameters, without gradient; be the base again after.

    Args:
        task: the base and what is trained on it.
        params_C: ``(C, P)``, or None for the base model itself.
    """
    try:
        if params_C is not None:
            there_C = params_C.to(task.base.device, task.base.dtype)
            task.trainable.bind(task.trainable.layout.views(there_C))
        with torch.no_grad(), forward_attention(task.base):
            yield
    finally:
        task.trainable.bind(None)


def in_passes(
    rows_C: Sequence[np.ndarray], cost: np.ndarray, tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, pass by pass, places ``(C, B)`` in ``rows_C`` and the rows there.

    Examples go longest first, so that what shares a pass is about equally long and the first pass
    needs the most memory.

    Args:
        rows_C: row numbers of each model, those with most rows first.
        cost: tokens of every row, indexed by row number.
        tokens: most tokens of a pass.
    """
    order_C = [np.argsort(-cost[rows], kind="stable") for rows in rows_C]
    start = 0
    while active := [c for c, order in enumerate(order_C) if start < len(order)]:
        longest = max(int(cost[rows_C[c][order_C[c][start]]]) for c in active)
        least_left = min(len(order_C[c]) for c in active) - start
        size = min(max(1, tokens // (longest * len(active))), least_left)
        places_CB = np.stack([order_C[c][start : start + size] for c in active])
        rows_CB = np.stack([rows_C[c][places] for c, places in zip(active, places_CB, strict=True)])
        yield places_CB, rows_CB
        start += size


def with_each(
    task: Task,
    params_C: Tensor | None,
    rows_C: Sequence[np.ndarray],
    cost: np.ndarray,
    work: Work,
    limits: Limits,
    alone: bool = False,
) -> list[np.ndarray]:
    """Let every model work on its own rows, several models a pass, several passes at a time.

    Row c of the answer depends on row c of the parameters and its rows alone, up to rounding.

    Args:
        task: the base and what is trained on it.
        params_C: ``(C, P)``, or None for the base model, which then is the only one.
        rows_C: row numbers of each model; a model may have none.
        cost: tokens of every row, indexed by row number.
        work: what is computed while the models of a pass are bound.
        limits: how much goes into one pass, or into those at a time together.
        alone: whether one pass has to end before the next: where work changes the model meanwhile.

    Returns:
        For each model, one value per row, in the order of its rows.

    Raises:
        ValueError: if there are not as many lists of rows as models.
    """
    models = 1 if params_C is None else len(params_C)
    if len(rows_C) != models:
        raise ValueError(f"{models} models, but {len(rows_C)} lists of rows")
    results: list[np.ndarray] = [np.empty(0)] * models
    most_rows_first = sorted(range(models), key=lambda c: -len(rows_C[c]))
    stack = min(limits.models, task.trainable.rows_per_pass or limits.models)
    with forward_attention(task.base):  # for all threads, before the first and after the last
        for start in range(0, models, stack):
            members = most_rows_first[start : start + stack]
            some_C = None if params_C is None else params_C[members]
            some_rows_C = [rows_C[c] for c in members]
            count = 1 if alone else passes_at_once(task, len(some_rows_C[0]))
            values_C = _stack(task, some_C, some_rows_C, cost, work, limits.tokens, count)
            for c, values in zip(members, values_C, strict=True):
                results[c] = values
    return results


def _stack(
    task: Task,
    params_C: Tensor | None,
    rows_C: Sequence[np.ndarray],
    cost: np.ndarray,
    work: Work,
    tokens: int,
    count: int,
) -> list[np.ndarray]:
    """Do the same for one stack of models, those with most rows first, ``count`` passes at once."""

    def bound_work(rows_CB: np.ndarray) -> np.ndarray:
        with bound(task, None if params_C is None else params_C[: len(rows_CB)]):
            return work(rows_CB)

    if count > 1:  # no more in memory than one pass would have, and none much later than the rest
        tokens = min(tokens, int(sum(cost[rows].sum() for rows in rows_C))) // count
    passes = list(in_passes(rows_C, cost, tokens))
    calls = (partial(bound_work, rows_CB) for _, rows_CB in passes)
    parts_C: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in rows_C]
    for (places_CB, _), values_CB in zip(passes, side_by_side(calls, count), strict=True):
        for c, part in enumerate(zip(places_CB, values_CB, strict=True)):
            parts_C[c].append(part)
    return [_in_order(parts) for parts in parts_C]


def _in_order(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Join the values of several passes in the order of their places."""
    if not parts:
        return np.empty(0)
    places, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return values[np.argsort(places)]
