"""Every operation of a fused layer computes what the plain expression does, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck

from federation.address import torch_generator
from federation.training import fused
from federation.training.fused import Normed, Projected, Rotated

ROWS_C = (3, 0, 4)


def draw(*shape: int, purpose: str, grad: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch_generator("fused", purpose, *shape)).double()
    return x.requires_grad_(grad)


def test_norm_beside_its_residual() -> None:
    x, weight = draw(4, 5, purpose="x"), draw(5, purpose="weight", grad=False)
    got, residual = Normed.apply(x, weight, 1e-5)
    torch.testing.assert_close(got, F.rms_norm(x, (5,), weight, 1e-5), rtol=0, atol=1e-12)
    assert torch.equal(residual, x)
    assert gradcheck(lambda x: Normed.apply(x, weight, 1e-5), (x,))
    for used in (0, 1):  # one of the two may be used alone
        assert gradcheck(lambda x, used=used: Normed.apply(x, weight, 1e-5)[used], (x,))


def test_rotation() -> None:
    x = draw(5, 2 * 6, purpose="x")
    cos, sin = (draw(5, 6, purpose=name, grad=False) for name in ("cos", "sin"))
    heads = x.view(5, 2, 6).transpose(0, 1)
    want = heads * cos + torch.cat((-heads[..., 3:], heads[..., :3]), -1) * sin
    torch.testing.assert_close(Rotated.apply(x, cos, sin, 2), want, rtol=0, atol=1e-12)
    assert gradcheck(lambda x: Rotated.apply(x, cos, sin, 2), (x,))


def adapted(out: int, bias: bool, adapters: bool, rank: int = 2) -> nn.Module:
    """A frozen layer of 4 inputs, with three clients' adapters or none."""
    module = nn.Linear(4, out, bias, dtype=torch.float64).requires_grad_(False)
    module.weight.copy_(draw(out, 4, purpose="weight", grad=False))
    module.scale = 1.7  # pyright: ignore[reportAttributeAccessIssue]
    if adapters:
        module.lora_A = draw(3, rank, 4, purpose=f"A{out}")  # pyright: ignore[reportAttributeAccessIssue]
        module.lora_B = draw(3, out, rank, purpose=f"B{out}")  # pyright: ignore[reportAttributeAccessIssue]
    return module


def plain(module: nn.Module, x: Tensor) -> Tensor:
    y = F.linear(x, module.weight, module.bias)
    if not hasattr(module, "lora_A"):
        return y
    parts = zip(x.split(ROWS_C), module.lora_A, module.lora_B, strict=True)
    return y + 1.7 * torch.cat([x_c @ A.mT @ B.mT for x_c, A, B in parts])


@pytest.mark.parametrize("rank", [2, 1])
@pytest.mark.parametrize("needs_x", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_projections_of_the_same_rows(bias: bool, needs_x: bool, rank: int) -> None:
    x = draw(7, 4, purpose="x", grad=needs_x)
    sizes = ((5, True), (3, False), (6, True))
    modules = [adapted(out, bias, adapters, rank) for out, adapters in sizes]
    got, want = fused.project(x, ROWS_C, *modules), [plain(module, x) for module in modules]
    torch.testing.assert_close(list(got), want, rtol=0, atol=1e-12)
    assert [y.requires_grad for y in got] == [True, needs_x, True]  # nothing in vain
    leaves = [y for m in modules if hasattr(m, "lora_A") for y in (m.lora_A, m.lora_B)]
    leaves += [x] if needs_x else []
    weights = [draw(*y.shape, purpose="out", grad=False) for y in want]
    for used in ([0, 1, 2], [2, 0], [1, 2]):
        outs = [sum((ys[i] * weights[i]).sum() for i in used) for ys in (got, want)]
        grads = [
            torch.autograd.grad(out, leaves, retain_graph=True, materialize_grads=True)
            for out in outs
        ]
        torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adapters", [True, False])
def test_projection_onto_a_residual(adapters: bool, bias: bool) -> None:
    module, residual = adapted(5, bias, adapters), draw(7, 5, purpose="residual")
    x = draw(7, 4, purpose="x")
    (got,) = fused.project(x, ROWS_C, module, residual=residual)
    torch.testing.assert_close(got, plain(module, x) + residual, rtol=0, atol=1e-12)
    leaves = [module.lora_A, module.lora_B] if adapters else []
    layer = fused.linear(module)

    def again(x: Tensor, residual: Tensor, *pair: Tensor) -> Tensor:
        pair = pair or (None, None)
        replaced = layer._replace(A_C=pair[0], B_C=pair[1])
        return Projected.apply(x, residual, ROWS_C, [replaced], *pair)[0]

    assert gradcheck(again, (x, residual, *leaves))
