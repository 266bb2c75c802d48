"""Sequences of unequal length behind one another, without padding.

Where lengths differ, padding is half of the work: a batch is as long as its longest sequence.  Here
only positions are computed that the loss depends on.  Attention alone has to know where one
sequence ends and the next begins, and adapters where one client does.

Shape suffixes: C clients, B batch rows, T tokens of a padded row, N tokens of all sequences, S
predicting positions, G sequences of a group, H heads, K key heads, d width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable  # untyped: hence the ignores below

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from federation.training.batches import Batch

SHORTEST = 0.75  # sequence in a group, as a share of the longest
PIECE = 128  # queries at a time: none of them needs scores with keys behind the last of them
WIDTH = 32  # scores of a query are stored in multiples of this: the tail of a softmax is slow


@dataclass(frozen=True)
class Group:
    """Sequences of about the same length, filled up to the longest.

    Attributes:
        count: how many sequences, G.
        length: tokens of the longest, T.
        rows: which of the N tokens stands where, ``(G T,)``.
        filled: places in ``rows`` behind the end of a sequence.
    """

    count: int
    length: int
    rows: Tensor
    filled: Tensor

    def of(self, x: Tensor, key_heads: int) -> Tensor:
        """Return the rows ``(H, N, d)`` of these sequences, ``(K, G, H / K, T, d)``."""
        return self.shaped(x.index_select(1, self.rows), key_heads)

    def gradient_of(self, x: Tensor, key_heads: int) -> Tensor:
        """Return the same of a gradient, which is zero behind the end of a sequence."""
        return self.shaped(x.index_select(1, self.rows).index_fill_(1, self.filled, 0), key_heads)

    def shaped(self, x: Tensor, key_heads: int) -> Tensor:
        """View ``(H, G T, d)`` as ``(K, G, H / K, T, d)``."""
        return x.view(key_heads, -1, self.count, self.length, x.shape[-1]).transpose(1, 2)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield (first, end) of queries that are taken together."""
        for first in range(0, self.length, PIECE):
            yield first, min(first + PIECE, self.length)


@dataclass(frozen=True)
class Packing:
    """A batch whose sequences lie behind one another.

    Attributes:
        ids: token ids, ``(1, N)``, client after client.
        position: place of each in its sequence, ``(1, N)``.
        where: the predicting positions among N, ``(S,)``.
        rows_C: tokens of each client.
        predicting_C: predicting positions of each client.
        groups: the sequences.
        collect: where in all groups, one after the other, each token stands, ``(N,)``.
    """

    ids: Tensor
    position: Tensor
    where: Tensor
    rows_C: tuple[int, ...]
    predicting_C: tuple[int, ...]
    groups: tuple[Group, ...]
    collect: Tensor


def pack(batch: "Batch") -> Packing:
    """Keep every sequence up to its last predicting position."""
    C, B, T = batch.ids_CBT.shape
    device = batch.ids_CBT.device
    length = torch.zeros(C * B, dtype=torch.int64, device=device)
    length.scatter_reduce_(0, batch.where // T, batch.where % T + 1, "amax")
    if not len(batch.where):
        length[0] = 1  # models do not read nothing
    place = torch.arange(T, device=device).expand(C * B, T)
    inside = place < length[:, None]
    groups, collect = grouped(length)
    return Packing(
        ids=batch.ids_CBT.view(C * B, T)[inside][None],
        position=place[inside][None],
        where=inside.flatten().cumsum(0)[batch.where] - 1,
        rows_C=tuple(length.view(C, B).sum(1).tolist()),
        predicting_C=tuple(batch.count_C.tolist()),
        groups=groups,
        collect=collect,
    )


def grouped(length: Tensor) -> tuple[tuple[Group, ...], Tensor]:
    """Group sequences by length.

    Args:
        length: of every sequence, in the order of their tokens; those of 0 are in no group.

    Returns:
        The groups, and where in all of them, one after the other, each token stands.
    """
    start = length.cumsum(0) - length
    order = [i for i in length.argsort(descending=True, stable=True).tolist() if length[i]]
    groups: list[Group] = []
    while order:
        longest = int(length[order[0]])
        members = [i for i in order if length[i] >= SHORTEST * longest]
        order = order[len(members) :]
        lengths, place = length[members, None], torch.arange(longest, device=length.device)
        # Filled up with their own last row: nothing of a client, not even a NaN, meets another's.
        rows = start[members, None] + place.minimum(lengths - 1)
        filled = (place >= lengths).flatten().nonzero().squeeze(1)
        groups.append(Group(len(members), longest, rows.flatten(), filled))
    token = torch.cat([group.rows.index_fill(0, group.filled, -1) for group in groups])
    return tuple(groups), token.argsort(stable=True)[int((token < 0).sum()) :]


_CURRENT: ContextVar[Packing | None] = ContextVar("packing", default=None)


def current() -> Packing | None:
    """Return how the rows that a model reads are packed; None if they are padded."""
    return _CURRENT.get()


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Let a model that reads ``packing.ids`` meanwhile know how they are packed."""
    token = _CURRENT.set(packing)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def read(model: "PreTrainedModel", how: Packing, logits: bool) -> Tensor:
    """Return a model's last hidden states, or else its logits, at predicting positions, (S, ...).

    A model may leave out all other positions by itself (:mod:`federation.training.fused`).
    """
    body = model if logits else model.base_model
    with packed(how):
        out = body(input_ids=how.ids, position_ids=how.position, use_cache=False)
    states = (out.logits if logits else out.last_hidden_state).squeeze(0)
    return states if len(states) == len(how.where) else states.index_select(0, how.where)


class PackedAttention(torch.autograd.Function):
    """Causal attention inside every sequence, in batched matrix products.

    Sequences of about the same length share a product, the shorter ones filled up: what stands
    behind the end of a causal sequence changes nothing before it.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, how: Packing
    ) -> Tensor:
        """Attend.

        Args:
            ctx: autograd's.
            query: ``(H, N, d)``.
            key: ``(K, N, d)``, H / K query heads sharing each key head.
            value: ``(K, N, d)``.
            scaling: factor on the scores.
            how: where sequences begin and end.

        Returns:
            ``(N, H, d)``.
        """
        (H, _, d), K = query.shape, len(key)
        longest = max(group.length for group in how.groups)
        forbidden = query.new_full((longest, padded(longest)), -torch.inf).triu_(1)
        saved: list[Tensor] = []
        outs: list[Tensor] = []
        for group in how.groups:
            queries, keys, values = (group.of(x, K) for x in (query, key, value))
            keys, values = keys.flatten(0, 2), values.flatten(0, 2)
            out = query.new_empty(group.count, group.length, H, d)
            saved += queries, keys, values
            for first, end in group.pieces():
                mask = forbidden[first:end, : padded(end)].repeat(H // K, 1)
                scores = mask.expand(len(keys), -1, -1).contiguous()
                folded = queries[..., first:end, :].reshape(len(keys), -1, d)
                scores[..., :end].baddbmm_(folded, keys[:, :end].mT, alpha=scaling)
                probability = torch.softmax(scores, -1)
                mixed = torch.bmm(probability[..., :end], values[:, :end])
                mixed = mixed.view(K, group.count, H // K, end - first, d)
                out[:, first:end] = mixed.permute(1, 3, 0, 2, 4).flatten(2, 3)
                saved.append(probability)
            outs.append(out.flatten(0, 1))
        ctx.save_for_backward(*saved)
        ctx.scaling, ctx.how, ctx.shape = scaling, how, (H, K, d)
        return torch.cat(outs).index_select(0, how.collect)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Differentiate; what needs no gradient costs little."""
        H, K, d = ctx.shape
        how, saved = ctx.how, iter(ctx.saved_tensors)
        grad = grad_outputs[0].transpose(0, 1)
        found = [
            group_gradients(
                group, group.gradient_of(grad, K), saved, ctx.scaling, ctx.needs_input_grad
            )
            for group in how.groups
        ]
        heads = (H, K, K)
        whole = [
            torch.cat([x.reshape(n, -1, d) for x in xs], 1).index_select(1, how.collect)
            if needed
            else None
            for xs, n, needed in zip(
                zip(*found, strict=True), heads, ctx.needs_input_grad, strict=False
            )
        ]
        return *whole, None, None


def group_gradients(
    group: Group, grad: Tensor, saved: Iterator[Tensor], scaling: float, needed: tuple[bool, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a group's queries, keys and values, heads first.

    Args:
        group: the group.
        grad: gradient of its outputs, ``(K, G, H / K, T, d)``.
        saved: what the forward pass saved of it comes next.
        scaling: factor on the scores.
        needed: which of the three are needed; the others are not computed.
    """
    queries, keys, values = next(saved), next(saved), next(saved)
    grad_queries = torch.empty_like(queries)
    grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
    for first, end in group.pieces():
        probability = next(saved)
        mixed, folded = (
            x[..., first:end, :].reshape(len(keys), -1, keys.shape[-1]) for x in (grad, queries)
        )
        if needed[2]:
            grad_values[:, :end].baddbmm_(probability[..., :end].mT, mixed)
        if not (needed[0] or needed[1]):
            continue
        scores = torch.zeros_like(probability)
        torch.bmm(mixed, values[:, :end].mT, out=scores[..., :end])
        softmax_backward = torch.ops.aten._softmax_backward_data
        scores = softmax_backward(scores, probability, -1, probability.dtype)[..., :end]
        if needed[0]:
            part = grad_queries[..., first:end, :]
            torch.mul(torch.bmm(scores, keys[:, :end]).view(part.shape), scaling, out=part)
        if needed[1]:
            grad_keys[:, :end].baddbmm_(scores.mT, folded, alpha=scaling)
    return grad_queries.transpose(1, 2), grad_keys, grad_values


def padded(length: int) -> int:
    """Return how many scores are stored for so many keys."""
    return -(-length // WIDTH) * WIDTH
