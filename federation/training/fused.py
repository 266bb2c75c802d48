"""A decoder layer of the Llama kind on packed rows, in a few operations of its own.

In bfloat16 on a processor every elementwise operation is a pass over memory with conversions, and
together they cost as much as the matrix products.  Here are fewer of them: residuals are added
inside matrix products and inside the backward pass of norms, gradients of what several layers read
are summed where they are made, and the last layer goes on with predicting positions alone.

Shape suffixes: C clients, N rows, D width, R rank, S predicting positions, H heads, d width of a
head.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable  # untyped: hence the ignores below

from federation.training import kernels, packing
from federation.training.packing import PackedAttention, Packing


class Normed(torch.autograd.Function):
    """An RMS norm beside the residual it branches from: ``x -> (weight * x / rms(x), x)``.

    The two gradients of ``x`` are added before they are rounded.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Normalise ``x`` ``(N, D)`` in at least float32; the weight is frozen."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        ctx.set_materialize_grads(False)
        return wide.mul_(inverse).mul_(weight).to(x.dtype), x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Differentiate with respect to ``x``."""
        grad, grad_residual = grad_outputs
        if grad is None:
            return grad_residual, None, None
        x, weight, inverse = ctx.saved_tensors
        inner = grad.to(inverse.dtype, copy=True).mul_(weight)
        wide = x.to(inverse.dtype)
        along = (inner * wide).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(-x.shape[-1])
        inner.mul_(inverse).addcmul_(wide, along)
        if grad_residual is not None:
            inner.add_(grad_residual)
        return inner.to(x.dtype), None, None


class Rotated(torch.autograd.Function):
    """Rotary position embedding, saving nothing but the angles.

    Su et al. 2021, arXiv:2104.09864, with the two halves of a head as coordinates.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
        """Rotate rows ``(N, H d)`` by angles whose cos and sin are ``(N, d)``: ``(H, N, d)``."""
        half = cos.shape[-1] // 2
        signed = torch.cat((-sin[:, :half], sin[:, half:]), -1)
        ctx.save_for_backward(cos, signed)
        return rotate(x.view(len(x), heads, -1).transpose(0, 1), cos, signed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Rotate back."""
        cos, signed = ctx.saved_tensors
        back = signed.roll(cos.shape[-1] // 2, -1)
        grad = rotate(grad_outputs[0].transpose(0, 1), cos[:, None], back[:, None])
        return grad.flatten(1), None, None, None


def rotate(x: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
    """Return ``x * cos + y * signed``, contiguous; y is x with its halves swapped."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return torch.mul(x, cos, out=out).addcmul_(x.roll(x.shape[-1] // 2, -1), signed)


class Linear(NamedTuple):
    """A frozen linear layer, with adapters or without.

    Attributes:
        weight: ``(out, D)``.
        bias: ``(out,)`` or None.
        scale: factor on the adapters' part.
        A_C: ``(C, R, D)`` or None.
        B_C: ``(C, out, R)`` or None.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    A_C: Tensor | None
    B_C: Tensor | None


def linear(module: Any) -> Linear:
    """Read an nn.Linear or a layer with adapters on one."""
    A_C, B_C = (getattr(module, name, None) for name in ("lora_A", "lora_B"))
    return Linear(module.weight, module.bias, getattr(module, "scale", 1.0), A_C, B_C)


class Projected(torch.autograd.Function):
    """Several frozen linear layers on the same rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        rows_C: Sequence[int],
        layers: Sequence[Linear],
        *adapters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Return ``W x + b + s B_c A_c x`` of each layer.

        Args:
            ctx: autograd's.
            x: ``(N, D)``, client after client.
            residual: ``(N, out)``, is added to the output of the only layer; or None.
            rows_C: rows of each client.
            layers: the layers.
            adapters: A and B of each of them, once more: of these autograd knows.
        """
        outs: list[Tensor] = []
        lows: list[Tensor | None] = []
        for weight, bias, scale, A_C, B_C in layers:
            if residual is None:
                out = nn.functional.linear(x, weight, bias)
            else:
                out = torch.addmm(residual, x, weight.mT)
                out = out if bias is None else out.add_(bias)
            low = None
            if A_C is not None and B_C is not None:
                low = x.new_empty(len(x), A_C.shape[1])
                split = (rows.split(rows_C) for rows in (x, low, out))
                for x_c, low_c, out_c, A, B in zip(*split, A_C, B_C, strict=True):
                    torch.mm(x_c, A.mT, out=low_c)
                    out_c.addmm_(low_c, B.mT, alpha=scale)
            outs.append(out)
            lows.append(low)
        ctx.save_for_backward(x, *lows, *adapters)
        ctx.rows_C, ctx.layers = rows_C, [layer._replace(A_C=None, B_C=None) for layer in layers]
        ctx.set_materialize_grads(False)
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            fixed = [out for out, low in zip(outs, lows, strict=True) if low is None]
            ctx.mark_non_differentiable(*fixed)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Differentiate with respect to the rows, the residual and the adapters."""
        count = len(ctx.layers)
        x, *saved = ctx.saved_tensors
        lows, adapters = saved[:count], saved[count:]
        grad_x: Tensor | None = None
        grads: list[Tensor | None] = [None] * len(adapters)
        for i, (layer, low, grad) in enumerate(zip(ctx.layers, lows, grad_outputs, strict=True)):
            if grad is None:
                continue
            if ctx.needs_input_grad[0]:
                if grad_x is None:
                    grad_x = grad @ layer.weight
                else:
                    grad_x.addmm_(grad, layer.weight)
            if low is not None:
                A_C, B_C = adapters[2 * i : 2 * i + 2]
                grads[2 * i : 2 * i + 2] = adapter_gradients(
                    grad, x, low, A_C, B_C, layer.scale, ctx.rows_C, grad_x
                )
        grad_residual = grad_outputs[0] if ctx.needs_input_grad[1] else None
        return grad_x, grad_residual, None, None, *grads


def adapter_gradients(
    grad: Tensor,
    x: Tensor,
    low: Tensor,
    A_C: Tensor,
    B_C: Tensor,
    scale: float,
    rows_C: Sequence[int],
    grad_x: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of A and B; add the adapters' part of the rows' to ``grad_x``.

    B is transposed throughout: products with a matrix of few columns are slower than of few rows.

    Args:
        grad: of the layer's output, ``(N, out)``.
        x: the layer's input, ``(N, D)``.
        low: ``A_c x``, ``(N, R)``.
        A_C: ``(C, R, D)``.
        B_C: ``(C, out, R)``.
        scale: factor on the adapters' part.
        rows_C: rows of each client.
        grad_x: ``(N, D)``, or None if it is not needed.
    """
    across_C = B_C.mT.clone(memory_format=torch.contiguous_format).mul_(scale)
    grad_A_C, grad_across_C = torch.empty_like(A_C), torch.empty_like(across_C)
    rows = zip(*(part.split(rows_C) for part in (grad, x, low)), strict=True)
    rows_x = [None] * len(A_C) if grad_x is None else grad_x.split(rows_C)
    for c, ((grad_c, x_c, low_c), grad_x_c) in enumerate(zip(rows, rows_x, strict=True)):
        grad_low_c = grad_c @ across_C[c].mT
        torch.mm(grad_low_c.mT, x_c, out=grad_A_C[c])
        torch.mm(low_c.mT, grad_c, out=grad_across_C[c])
        if grad_x_c is not None:
            grad_x_c.addmm_(grad_low_c, A_C[c])
    return grad_A_C, grad_across_C.mul_(scale).mT


def project(
    x: Tensor, rows_C: Sequence[int], *modules: nn.Module, residual: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Apply linear layers to the same rows.  See :class:`Projected`."""
    layers = [linear(module) for module in modules]
    adapters = [tensor for layer in layers for tensor in (layer.A_C, layer.B_C)]
    return Projected.apply(x, residual, rows_C, layers, *adapters)


def norm(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a norm; return the residual, too.  See :class:`Normed`."""
    return Normed.apply(x, module.weight, module.variance_epsilon)


def run_layer(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, how: Packing, last: bool) -> Tensor:
    """Run a decoder layer on packed rows.

    Args:
        layer: two norms, ``self_attn`` with four projections, ``mlp`` with three.
        x: its input, ``(N, D)``.
        cos: of the rotary angles, ``(N, d)``.
        sin: of the rotary angles, ``(N, d)``.
        how: how the rows are packed.
        last: whether only predicting positions are needed of its output.

    Returns:
        ``(N, D)``, or ``(S, D)`` of the last layer.
    """
    attention, mlp, rows_C = layer.self_attn, layer.mlp, how.rows_C
    normed, x = norm(layer.input_layernorm, x)
    query, key, value = project(
        normed, rows_C, attention.q_proj, attention.k_proj, attention.v_proj
    )
    heads, key_heads = (y.shape[-1] // attention.head_dim for y in (query, key))
    mixed = PackedAttention.apply(
        Rotated.apply(query, cos, sin, heads),
        Rotated.apply(key, cos, sin, key_heads),
        value.view(len(value), key_heads, -1).transpose(0, 1),
        attention.scaling,
        how,
    ).flatten(1)
    if last:
        mixed, x = (rows.index_select(0, how.last) for rows in (mixed, x))
        rows_C = how.last_C
    (x,) = project(mixed, rows_C, attention.o_proj, residual=x)
    normed, x = norm(layer.post_attention_layernorm, x)
    gate, up = project(normed, rows_C, mlp.gate_proj, mlp.up_proj)
    (x,) = project(kernels.SwiGLU.apply(gate, up), rows_C, mlp.down_proj, residual=x)
    return x


def fits(layer: Any) -> bool:
    """Tell whether a decoder layer is of the Llama kind, with its norms and MLP made faster."""
    if {name for name, _ in layer.named_children()} != {
        "self_attn",
        "mlp",
        "input_layernorm",
        "post_attention_layernorm",
    }:
        return False
    projections = {name for name, _ in layer.self_attn.named_children()}
    return (
        projections == {"q_proj", "k_proj", "v_proj", "o_proj"}
        and type(layer.input_layernorm).__name__ == "FastRMSNorm"
        and type(layer.mlp).__name__ == "FastGatedMLP"
    )


def fuse(layer: Any, last: bool) -> Callable[[], None]:
    """Let a layer run by :func:`run_layer` where its rows are packed; return how to undo it.

    Its modules stay what and where they are.
    """
    plain = layer.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        how = packing.current()
        trained = torch.is_grad_enabled() and layer.input_layernorm.weight.requires_grad
        if how is None or trained:  # frozen weights have no gradients here
            return plain(hidden_states, *args, **kwargs)
        cos, sin = kwargs["position_embeddings"]
        return run_layer(layer, hidden_states[0], cos[0], sin[0], how, last)[None]

    layer.forward = forward
    return lambda: delattr(layer, "forward")
