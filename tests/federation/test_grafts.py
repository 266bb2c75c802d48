"""Faster parts stay only where a model computes the same with them, forwards and backwards."""

import pytest
import torch
from torch import Tensor, nn

from federation.training import fused, grafts, kernels, packing
from federation.training.base import prepare
from federation.training.grafts import graft
from tests.tiny_models import SETTINGS, tiny

EXPECTED = {
    "Llama": ("attention", "norm", "mlp", "packing", "layer"),
    "Mistral": ("attention", "norm", "mlp"),  # with a window, so it cannot be packed
    "Qwen2": ("attention", "norm", "mlp", "packing", "layer"),
    "Qwen3": ("attention", "norm", "mlp", "packing"),  # has norms inside its attention
    "Gemma": ("attention", "packing"),  # its norm multiplies by 1 + weight, its MLP has a GELU
    "Gemma2": (),  # its attention caps scores
    "Phi3": ("attention", "norm", "packing"),  # gate and up are one projection
    "GPT2": ("attention", "packing"),
    "OPT": ("attention", "packing"),
    "GPTNeoX": ("attention", "packing"),
    "Falcon": (),  # has an attention of its own
    "Bloom": (),
}
IDS = torch.arange(5, 5 + 2 * 20).view(2, 20)


def loss_and_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(input_ids=IDS, use_cache=False).logits
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()))
    return logits.detach(), dict(zip(named, grads, strict=True))


@pytest.mark.parametrize("kind", EXPECTED)
def test_grafted_model_computes_the_same(kind: str) -> None:
    plain, grafted = tiny(kind), tiny(kind)
    assert graft(grafted) == EXPECTED[kind]
    want, want_grads = loss_and_gradients(plain)
    got, got_grads = loss_and_gradients(grafted)
    # transformers computes norms (and some softmaxes) in float32, whatever the model's dtype
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert got_grads.keys() == want_grads.keys()
    for name, grad in want_grads.items():
        torch.testing.assert_close(got_grads[name], grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["Llama", "Gemma"])
def test_grafted_bfloat16_model_stays_close(kind: str) -> None:
    want = tiny(kind)(input_ids=IDS, use_cache=False).logits
    model = tiny(kind, torch.bfloat16)
    plain = (model(input_ids=IDS, use_cache=False).logits - want).abs().max()
    assert graft(model) == EXPECTED[kind]
    assert (model(input_ids=IDS, use_cache=False).logits - want).abs().max() < 1.5 * plain


class OnePlusRMSNorm(nn.Module):
    """Looks like any RMS norm, but multiplies by 1 + weight."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], 1 + self.weight, self.variance_epsilon)


def test_part_that_changes_logits_is_taken_out_again() -> None:
    model = tiny("Llama")
    grafts.replace_modules(
        model, lambda m: OnePlusRMSNorm(m) if type(m).__name__ == "LlamaRMSNorm" else None
    )
    before = model(input_ids=IDS, use_cache=False).logits
    assert graft(model) == ("attention", "mlp", "packing")
    assert isinstance(model.model.norm, OnePlusRMSNorm)
    torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=0, atol=1e-5)


def test_broken_attention_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def sees_the_future(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask, **_):
        return nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(
            1, 2
        ), None

    monkeypatch.setattr(kernels, "causal_attention", sees_the_future)
    model = tiny("Llama")
    assert graft(model) == ("norm", "mlp")
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.undo()
    kernels.register_attention()


def test_slow_model_is_left_alone() -> None:
    model = tiny("Llama")
    parts = [type(module) for module in model.modules()]
    assert prepare("tiny", model, None, fast=False).grafts == ()
    assert [type(module) for module in model.modules()] == parts


@pytest.mark.parametrize("kind", SETTINGS)
def test_names_of_parameters_stay(kind: str) -> None:
    model = tiny(kind, torch.float32)
    names = [name for name, _ in model.named_parameters()]
    graft(model)
    assert [name for name, _ in model.named_parameters()] == names


def test_packing_is_for_models_that_tell_sequences_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that run into one another change logits, and then neither part is kept."""

    def one_sequence(length: Tensor, multiple: int) -> tuple[tuple[packing.Group, ...], Tensor]:
        return packed_groups(length.sum()[None], multiple)

    packed_groups = packing.grouped
    monkeypatch.setattr(packing, "grouped", one_sequence)
    assert graft(tiny("Llama")) == ("attention", "norm", "mlp")


def test_layer_that_changes_logits_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unrotated(x: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
        return x.contiguous()

    monkeypatch.setattr(fused, "rotate", unrotated)
    model = tiny("Llama")
    assert graft(model) == ("attention", "norm", "mlp", "packing")
    assert not any("forward" in vars(module) for module in model.modules())


def test_window_longer_than_the_probe_is_not_packed() -> None:
    """The probe could not notice: its sequences fit into the window."""
    assert graft(tiny("Mistral", sliding_window=40)) == ("attention", "norm", "mlp")
