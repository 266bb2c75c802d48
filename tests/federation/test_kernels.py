"""Every fast operation computes what the plain expression does, gradients included."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from federation.address import torch_generator
from federation.training import kernels


def draw(*shape: int, purpose: str = "", grad: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch_generator("kernels", purpose, *shape)).double()
    return x.requires_grad_(grad)


# --- Attention ---------------------------------------------------------------------------------

WINDOW = torch.ones(5, 5, dtype=torch.bool).tril().triu(-1)[None, None]
PADDED = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
PADDED[1, :, :, 0] = False
PADDED[1, :, 0, 0] = True  # a row must see something
MASKS = {"causal": None, "window": WINDOW, "padded on the left": PADDED}


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None = None
) -> Tensor:
    return kernels.causal_attention(torch.nn.Module(), query, key, value, mask, scaling=scaling)[0]


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None = None
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scaling is None else scaling)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() if mask is None else mask
    weights = scores.masked_fill(~allowed, -math.inf).softmax(-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention(mask: Tensor | None, key_heads: int, scaling: float | None) -> None:
    query = draw(2, 4, 5, 3, purpose="query")
    key, value = (draw(2, key_heads, 5, 3, purpose=name) for name in ("key", "value"))
    got, want = (f(query, key, value, mask, scaling) for f in (attention, plain_attention))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    weight = draw(*got.shape, purpose="out", grad=False)
    grads = [torch.autograd.grad((y * weight).sum(), (query, key, value)) for y in (got, want)]
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


def test_attention_sees_no_future() -> None:
    query, key, value = (draw(1, 2, 6, 3, purpose=name, grad=False) for name in "qkv")
    before = attention(query, key, value, None)
    key[:, :, 4:] += 1
    value[:, :, 4:] += 1
    assert torch.equal(attention(query, key, value, None)[:, :4], before[:, :4])


@pytest.mark.parametrize(
    "asked",
    [{"dropout": 0.1}, {"softcap": 30.0}, {"s_aux": torch.zeros(4)}],
    ids=lambda a: str([*a]),
)
def test_attention_refuses_what_it_does_not_offer(asked: dict[str, object]) -> None:
    x = draw(1, 2, 4, 3, grad=False)
    with pytest.raises(ValueError, match="not offered"):
        kernels.causal_attention(torch.nn.Module(), x, x, x, None, **asked)


def test_attention_refuses_a_cache_and_an_additive_mask() -> None:
    x = draw(1, 2, 4, 3, grad=False)
    with pytest.raises(ValueError, match="cache"):
        attention(x[:, :, -1:], x, x, None)
    with pytest.raises(ValueError, match="boolean"):
        attention(x, x, x, torch.zeros(1, 1, 4, 4))


# --- Output projection and loss ----------------------------------------------------------------

TARGET = torch.tensor([0, 6, 3, 3, 1])
CLIENT = torch.tensor([0, 0, 0, 2, 2])
SCALE = torch.tensor([0.3, 0.3, 0.3, 0.5, 0.5], dtype=torch.float64)


def plain_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, client: Tensor, C: int
) -> Tensor:
    nll = F.cross_entropy(F.linear(hidden, weight, bias), TARGET, reduction="none")
    return torch.stack([(nll * SCALE)[client == c].sum() for c in range(C)])


def linear_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, client: Tensor, C: int
) -> Tensor:
    return kernels.LinearNLL.apply(hidden, weight, bias, TARGET, SCALE, client, C)


@pytest.mark.parametrize("piece", [1, 2, 1024])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_nll(piece: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.LinearNLL, "SLICE", piece)
    hidden, weight = draw(5, 4, purpose="hidden"), draw(7, 4, purpose="weight", grad=False)
    bias = draw(7, purpose="bias", grad=False) if biased else None
    got, want = (f(hidden, weight, bias, CLIENT, 3) for f in (linear_nll, plain_nll))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    each_C = draw(3, purpose="out", grad=False)  # clients' losses may be weighted afterwards
    grads = [torch.autograd.grad((loss_C * each_C).sum(), hidden)[0] for loss_C in (got, want)]
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("piece", [2, 1024])
def test_linear_nll_trains_the_output_embedding(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels.LinearNLL, "SLICE", piece)
    hidden, weight = draw(5, 4, purpose="hidden"), draw(7, 4, purpose="weight")
    one = torch.zeros(5, dtype=torch.int64)
    assert gradcheck(lambda h, w: linear_nll(h, w, None, one, 1), (hidden, weight))


def test_linear_nll_refuses_to_share_a_trained_output_embedding() -> None:
    hidden, weight = draw(5, 4, purpose="hidden"), draw(7, 4, purpose="weight")
    with pytest.raises(ValueError, match="several clients"):
        linear_nll(hidden, weight, None, CLIENT, 3).sum().backward()


def test_linear_nll_trains_its_bias() -> None:
    hidden, weight, bias = draw(5, 4), draw(7, 4, grad=False), draw(7)
    one = torch.zeros(5, dtype=torch.int64)
    assert gradcheck(lambda b: linear_nll(hidden.detach(), weight, b, one, 1), (bias,))


def test_linear_nll_without_positions() -> None:
    """A step may supervise nothing; its loss is 0 and so is its gradient."""
    hidden = draw(0, 4)
    none = torch.zeros(0, dtype=torch.int64)
    weight = draw(7, 4, grad=False)
    loss_C = kernels.LinearNLL.apply(hidden, weight, None, none, none.double(), none, 2)
    assert loss_C.tolist() == [0, 0]
    assert torch.autograd.grad(loss_C.sum(), hidden)[0].shape == (0, 4)


# --- Elementwise -------------------------------------------------------------------------------


def test_rms_norm() -> None:
    x, weight = draw(2, 3, 5, purpose="x"), draw(5, purpose="weight")
    got = kernels.RMSNorm.apply(x, weight, 1e-5)
    torch.testing.assert_close(got, F.rms_norm(x, (5,), weight, 1e-5), rtol=0, atol=1e-12)
    assert gradcheck(lambda x, w: kernels.RMSNorm.apply(x, w, 1e-5), (x, weight))
    assert gradcheck(lambda x: kernels.RMSNorm.apply(x, weight.detach(), 1e-5), (x,))


def test_swiglu() -> None:
    gate, up = draw(2, 3, 4, purpose="gate"), draw(2, 3, 4, purpose="up")
    torch.testing.assert_close(kernels.SwiGLU.apply(gate, up), F.silu(gate) * up, rtol=0, atol=0)
    assert gradcheck(kernels.SwiGLU.apply, (gate, up))


def test_wide_embedding() -> None:
    ids, weight = torch.tensor([[3, 0, 3], [1, 3, 0]]), draw(4, 2)
    assert torch.equal(kernels.WideEmbedding.apply(ids, weight), F.embedding(ids, weight))
    assert gradcheck(lambda w: kernels.WideEmbedding.apply(ids, w), (weight,))


def test_wide_embedding_loses_no_small_contribution() -> None:
    """In bfloat16, 1 + 1/512 is 1: adding a thousand of them one by one would add nothing."""
    weight = torch.zeros(1, 1, dtype=torch.bfloat16, requires_grad=True)
    small = torch.full((1, 1024, 1), 1 / 512, dtype=torch.bfloat16)
    small[0, 0] = 1
    kernels.WideEmbedding.apply(torch.zeros(1, 1024, dtype=torch.int64), weight).backward(small)
    assert weight.grad is not None
    assert abs(weight.grad.item() - (1 + 1023 / 512)) < 0.02
