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
# oneDNN compiles a product in bfloat16 anew for every number of rows that it has not met lately.
# With numbers that are multiples it meets most of them again; more rows cost more than they save.
MULTIPLE = 16
PIECE = 128  # queries at a time: none of them needs scores with keys behind the last of them
WIDTH = 32  # scores of a query are stored in multiples of this: the tail of a softmax is slow


@dataclass(frozen=True)
class Group:
    """Sequences of about the same length, filled up to the longest or a little beyond.

    Attributes:
        count: how many sequences, G.
        length: tokens to which they are filled up, T.
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
        last: the rows with which the last layer goes on: these positions and further ones, so
            that each client has a multiple, ``(L,)``, ascending.
        among: the predicting positions among ``last``, ``(S,)``.
        rows_C: rows of each client, of N.
        last_C: rows of each client, of ``last``.
        groups: the sequences.
        collect: where in all groups, one after the other, each token stands, ``(N,)``.
    """

    ids: Tensor
    position: Tensor
    where: Tensor
    last: Tensor
    among: Tensor
    rows_C: tuple[int, ...]
    last_C: tuple[int, ...]
    groups: tuple[Group, ...]
    collect: Tensor


def multiple_for(dtype: torch.dtype) -> int:
    """Return of what numbers of rows are multiples where a model computes in ``dtype``."""
    return MULTIPLE if dtype == torch.bfloat16 else 1


def pack(batch: "Batch", multiple: int = 1) -> Packing:
    """Keep every sequence up to its last predicting position.

    Args:
        batch: the sequences.
        multiple: of what each client's numbers of rows, and lengths of groups, are multiples.
    """
    C, B, T = batch.ids_CBT.shape
    device = batch.ids_CBT.device
    length_CB = kept(batch, multiple)
    length, rows_C = length_CB.flatten(), length_CB.sum(1)
    start = length.cumsum(0) - length
    sequence = torch.arange(C * B, device=device).repeat_interleave(length)
    place = torch.arange(len(sequence), device=device) - start[sequence]
    place.clamp_(max=T - 1)  # a model need not know positions behind it
    where = start[batch.where // T] + batch.where % T
    goes_on = going_on(where, rows_C, batch.count_C, multiple)
    groups, collect = grouped(length, multiple)
    return Packing(
        ids=batch.ids_CBT.view(C * B, T)[sequence, place][None],
        position=place[None],
        where=where,
        last=goes_on.nonzero().squeeze(1),
        among=goes_on.cumsum(0)[where] - 1,
        rows_C=tuple(rows_C.tolist()),
        last_C=tuple(rounded_up(batch.count_C, multiple).tolist()),
        groups=groups,
        collect=collect,
    )


def rounded_up(count: Tensor, multiple: int) -> Tensor:
    """Return the next multiples."""
    return count + -count % multiple


def kept(batch: "Batch", multiple: int) -> Tensor:
    """Return how many rows each sequence has, ``(C, B)``.

    They end with its last predicting position.  Only the shortest of a client goes on behind it
    until the client's rows are a multiple: in causal attention that changes nothing before it, and
    as nothing is asked of these rows they have no part in any gradient.
    """
    C, B, T = batch.ids_CBT.shape
    length = torch.zeros(C * B, dtype=torch.int64, device=batch.where.device)
    length.scatter_reduce_(0, batch.where // T, batch.where % T + 1, "amax")
    if not len(batch.where):
        length[0] = 1  # models do not read nothing
    length_CB = length.view(C, B)
    shortest = length_CB.where(length_CB > 0, T + 1).argmin(1, keepdim=True)
    missing = -length_CB.sum(1, keepdim=True) % multiple
    return length_CB.scatter_add(1, shortest, missing)


def going_on(where: Tensor, rows_C: Tensor, count_C: Tensor, multiple: int) -> Tensor:
    """Tell which rows a last layer goes on with, ``(N,)``.

    The predicting positions, and of each client's other rows the first, until they are a multiple.

    Args:
        where: predicting positions among N, ``(S,)``.
        rows_C: rows of each client, N together.
        count_C: predicting positions of each client.
        multiple: of what they are to be a multiple.
    """
    others_C = rows_C - count_C
    before_C, missing_C = others_C.cumsum(0) - others_C, -count_C % multiple
    client = torch.arange(len(rows_C), device=where.device).repeat_interleave(rows_C)
    other = torch.ones_like(client).index_fill_(0, where, 0)
    return (other.cumsum(0) <= (before_C + missing_C)[client]).index_fill_(0, where, True)


def grouped(length: Tensor, multiple: int = 1) -> tuple[tuple[Group, ...], Tensor]:
    """Group sequences by length.

    Args:
        length: of every sequence, in the order of their tokens; those of 0 are in no group.
        multiple: of what the groups' lengths are multiples.

    Returns:
        The groups, and where in all of them, one after the other, each token stands.
    """
    start = length.cumsum(0) - length
    order = [i for i in length.argsort(descending=True, stable=True).tolist() if length[i]]
    groups: list[Group] = []
    while order:
        longest = length[order[0]]
        members = [i for i in order if length[i] >= SHORTEST * longest]
        order = order[len(members) :]
        whole = int(rounded_up(longest, multiple))
        lengths, place = length[members, None], torch.arange(whole, device=length.device)
        # Filled up with their own last row: nothing of a client, not even a NaN, meets another's.
        rows = start[members, None] + place.minimum(lengths - 1)
        filled = (place >= lengths).flatten().nonzero().squeeze(1)
        groups.append(Group(len(members), whole, rows.flatten(), filled))
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
    if len(states) == len(how.where):
        return states
    return states.index_select(0, how.among if len(states) == len(how.last) else how.where)


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
