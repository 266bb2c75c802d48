"""The few operations that decide how fast a pass over many clients is.

Knows tensors and autograd; knows nothing of clients' data, algorithms or models' names.
Everything here computes what the plain expression beside it computes; tests hold the two
together.

Shape suffixes: B batch rows, H heads, T tokens, D width, N selected positions, V vocabulary, C
clients.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable  # untyped: hence the ignores below

from federation.training import packing

ATTENTION = "fedpilot"  # name under which the attention below is registered with transformers


def causal_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **unsupported: Any,
) -> tuple[Tensor, None]:
    """Attention as two batched matrix products; the backward pass is again matrix products.

    On CPU the backward kernel of ``scaled_dot_product_attention`` is several times slower than
    this at the lengths of fine-tuning data.  Query heads that share a key head are folded into
    rows, so keys and values are never repeated.

    Args:
        module: the attention layer, unused (transformers' calling convention).
        query: ``(B, H, T, d)``.
        key: ``(B, H / g, T, d)``, g query heads sharing each key head.
        value: ``(B, H / g, T, d)``.
        attention_mask: None for plain causal attention, else boolean, broadcastable to
            ``(B, 1, T, T)``, true where attention is allowed.
        dropout: must be 0 (it would have to be drawn by address).
        scaling: factor on the scores; 1/sqrt(d) if omitted.

    Returns:
        ``(B, T, H, d)`` and None.

    Raises:
        ValueError: for dropout, a non-boolean mask, a cache, or a variant (soft caps, sinks,
            biases).
    """
    asked = sorted(
        k for k in ("softcap", "s_aux", "position_bias") if unsupported.get(k) is not None
    )
    if dropout or asked or key.shape[2] != query.shape[2]:
        raise ValueError(f"not offered by this attention: {asked or 'dropout or a cache'}")
    B, H, T, d = query.shape
    K = key.shape[1]
    scaling = 1 / math.sqrt(d) if scaling is None else scaling
    if (how := packing.current()) is not None:
        one = packing.PackedAttention.apply(query[0], key[0], value[0], scaling, how)
        return one[None], None
    folded = (B * K, (H // K) * T, d)
    # The mask is what the product is added to, so masking and scaling cost no pass of their own.
    scores = torch.baddbmm(
        additive_mask(attention_mask, query, K),
        query.reshape(folded),
        key.reshape(B * K, T, d).mT,
        alpha=scaling,
    )
    mixed = torch.bmm(torch.softmax(scores, dim=-1), value.reshape(B * K, T, d))
    return mixed.view(B, H, T, d).transpose(1, 2).contiguous(), None


def additive_mask(allowed: Tensor | None, query: Tensor, key_heads: int) -> Tensor:
    """Return 0 where attention is allowed and -inf elsewhere, ``(B K, (H / K) T, T)``.

    Args:
        allowed: None for plain causal attention, else boolean, broadcastable to ``(B, 1, T, T)``.
        query: ``(B, H, T, d)``.
        key_heads: K.

    Raises:
        ValueError: for a mask that is not boolean.
    """
    B, H, T, _ = query.shape
    if allowed is None:
        mask = forbidden(T, query.dtype, query.device)
        return mask.repeat(H // key_heads, 1).expand(B * key_heads, -1, -1)
    if allowed.dtype != torch.bool:
        raise ValueError(f"the mask must be boolean, got {allowed.dtype}")
    mask = torch.zeros(allowed.shape, dtype=query.dtype, device=query.device)
    mask = mask.masked_fill(~allowed, -math.inf).expand(B, 1, T, T)
    return mask.repeat(1, key_heads, H // key_heads, 1).view(B * key_heads, -1, T)


def forbidden(T: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the additive causal mask ``(T, T)``: 0 on and below the diagonal, -inf above."""
    return torch.full((T, T), -math.inf, dtype=dtype, device=device).triu(1)


def register_attention() -> None:
    """Make the attention above known to transformers under the name ``ATTENTION``."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, causal_attention)
    AttentionMaskInterface.register(ATTENTION, attention_mask)


def attention_mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Tensor | None:
    """Return the mask that the attention above needs, None for plain causal attention.

    Raises:
        ValueError: if rows are packed and attend to their neighbourhood only.
    """
    from transformers.masking_utils import sdpa_mask

    if packing.current() is None:
        return sdpa_mask(*args, local_size=local_size, **kwargs)
    if local_size is not None:
        raise ValueError("packed rows attend to all before them")
    return None


class LinearNLL(torch.autograd.Function):
    """Output projection and negative log-likelihood in one, a slice of positions at a time.

    The gradient with respect to the logits is known as soon as the logits are, so the forward
    pass also computes the gradients and the ``(N, V)`` logits never exist as a whole.
    """

    SLICE = 256  # positions at a time: on a CPU, a slice of logits should stay in cache
    WIDE_SLICE = 32_768  # on a GPU it should keep the GPU busy

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        scale: Tensor,
        client: Tensor,
        clients: int,
    ) -> Tensor:
        """Return ``loss_C``: for each client the sum of ``scale * nll`` over its positions.

        Args:
            ctx: autograd's.
            hidden: ``(N, D)`` hidden states at the supervised positions.
            weight: ``(V, D)`` output embedding.
            bias: ``(V,)`` or None.
            target: ``(N,)`` int64 token ids.
            scale: ``(N,)`` float weight of each position.
            client: ``(N,)`` int64 which client each position belongs to.
            clients: C.
        """
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(x, dtype=dtype) if x is not None and needed else None
            for x, dtype, needed in zip(
                (hidden, weight, bias),
                (hidden.dtype, wide, wide),
                ctx.needs_input_grad[:3],
                strict=True,
            )
        )
        nll = hidden.new_empty(len(target), dtype=torch.promote_types(hidden.dtype, torch.float32))
        size = slice_size(hidden.device)
        for start in range(0, len(target), size):
            at = slice(start, start + size)
            logits = F.linear(hidden[at], weight, bias).to(nll.dtype)
            nll[at], logits_grad = nll_and_gradient(logits, target[at], scale[at])
            logits_grad = logits_grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(logits_grad, weight, out=grad_hidden[at])
            if grad_weight is not None:
                grad_weight += logits_grad.mT @ hidden[at]
            if grad_bias is not None:
                grad_bias += logits_grad.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias, client)
        return nll.new_zeros(clients).index_add(0, client, nll * scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scale the gradients found in the forward pass."""
        (grad_C,) = grad_outputs
        grad_hidden, grad_weight, grad_bias, client = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_C.to(grad_hidden.dtype)[client, None]
        if len(grad_C) != 1 and not (grad_weight is None and grad_bias is None):
            raise ValueError("a shared output embedding cannot be trained for several clients")
        grad_weight, grad_bias = (
            None if x is None else x * grad_C for x in (grad_weight, grad_bias)
        )
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def nll_and_gradient(logits: Tensor, target: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return nll ``(N,)`` and the gradient of ``(scale * nll).sum()`` with respect to the logits.

    One softmax serves both: the log of the normaliser is the largest logit minus the log of its
    probability, which stays exact where the target's own probability underflows.
    """
    at = logits.gather(1, target[:, None]).squeeze(1)
    probability = torch.softmax(logits, -1)
    nll = logits.amax(-1) - probability.amax(-1).log() - at
    gradient = probability.mul_(scale[:, None])
    gradient[torch.arange(len(target), device=target.device), target] -= scale
    return nll, gradient


def slice_size(device: torch.device) -> int:
    """Return for how many positions logits exist at a time."""
    return LinearNLL.SLICE if device.type == "cpu" else LinearNLL.WIDE_SLICE


class RMSNorm(torch.autograd.Function):
    """``weight * x / rms(x)`` over the last axis, saving one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Normalise ``x`` ``(..., D)``; statistics are taken in at least float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Differentiate with respect to the input and, where asked, the weight."""
        (grad,) = grad_outputs
        x, weight, inverse = ctx.saved_tensors
        wide = inverse.dtype
        unit = x.to(wide) * inverse
        inner = grad.to(wide) * weight
        grad_x = None
        if ctx.needs_input_grad[0]:
            along = (inner * unit).mean(-1, keepdim=True)
            grad_x = ((inner - unit * along) * inverse).to(x.dtype)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad.to(wide) * unit).flatten(0, -2).sum(0).to(weight.dtype)
        return grad_x, grad_weight, None


class SwiGLU(torch.autograd.Function):
    """``silu(gate) * up``, saving only its two inputs."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Multiply ``up`` by the gate, elementwise."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Differentiate with respect to both inputs."""
        (grad,) = grad_outputs
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), grad_up


class WideEmbedding(torch.autograd.Function):
    """Embedding look-up whose gradient is accumulated in at least float32.

    In bfloat16 the many small contributions of a frequent token would be lost one by one.
    """

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        """Return rows ``ids`` of ``weight``."""
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sum the gradients of each row."""
        (grad,) = grad_outputs
        (ids,) = ctx.saved_tensors
        wide = torch.promote_types(ctx.dtype, torch.float32)
        total = torch.zeros(ctx.shape, dtype=wide, device=grad.device)
        total.index_add_(0, ids.flatten(), grad.flatten(0, -2).to(wide))
        return None, total.to(ctx.dtype)
