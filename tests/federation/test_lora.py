"""Stacked LoRA: where it sits, what it computes, and where it must not be put."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from federation.address import torch_generator
from federation.errors import ConfigError
from federation.specs import LoRASpec
from federation.training import lora as lora_module
from federation.training.base import Base, prepare
from federation.training.grafts import replace_modules
from federation.training.lora import LoRA, StackedLoRA
from tests.tiny_models import SETTINGS, tiny

KINDS = [kind for kind in SETTINGS if kind != "Mixtral"]
ALL = LoRASpec(rank=3, alpha=6, targets="all-linear")
IDS_CBT = torch.arange(7, 7 + 3 * 2 * 8).view(3, 2, 8)


def base_of(kind: str, dtype: torch.dtype = torch.float64, **settings: object) -> Base:
    return prepare(kind, tiny(kind, dtype, **settings), None)


def adapters(lora: LoRA, clients: int) -> Tensor:
    noise = torch.randn(clients, lora.layout.size, generator=torch_generator("lora", clients))
    return 0.1 * noise.double()


def logits(base: Base, ids: Tensor) -> Tensor:
    return base.model(input_ids=ids, use_cache=False).logits


def merged_logits(kind: str, lora: LoRA, adapter: Tensor, ids: Tensor) -> Tensor:
    """Logits of a model whose weights are W + s B A."""
    model = prepare(kind, tiny(kind), None).model
    views = lora.layout.views(adapter)
    for name in lora.targets:
        a, b = (views[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        weight = model.get_submodule(name).weight
        change = lora.spec.scale * b @ a
        weight.data += (
            change
            if change.shape == weight.shape and isinstance(model.get_submodule(name), nn.Linear)
            else change.T
        )
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("kind", KINDS)
def test_each_client_computes_with_its_own_merged_weights(kind: str) -> None:
    base = base_of(kind)
    lora = LoRA(base, ALL)
    params_C = adapters(lora, 3)
    lora.bind(lora.layout.views(params_C))
    with torch.no_grad():
        got = logits(base, IDS_CBT.flatten(0, 1)).unflatten(0, (3, 2))
        for c in range(3):
            want = merged_logits(kind, lora, params_C[c], IDS_CBT[c])
            torch.testing.assert_close(got[c], want, rtol=0, atol=1e-4)


def test_nothing_bound_is_the_base() -> None:
    base = base_of("Llama")
    ids = IDS_CBT[0]
    before = logits(base, ids)
    lora = LoRA(base, ALL)
    assert torch.equal(logits(base, ids), before)
    lora.bind(lora.layout.views(adapters(lora, 1)))
    assert not torch.equal(logits(base, ids), before)
    lora.bind(None)
    assert torch.equal(logits(base, ids), before)


def test_first_adapter_is_pefts() -> None:
    """B is zero, A is uniform with the bound of kaiming_uniform(a=sqrt(5)); drawn by address."""
    lora = LoRA(base_of("Llama"), LoRASpec(rank=64, targets=("q_proj", "down_proj")))
    flat = lora.initial(0)
    for name, view in lora.layout.views(flat).items():
        if ".lora_B." in name:
            assert not view.any()
        else:
            bound = 1 / math.sqrt(view.shape[-1])
            assert 0.98 * bound < view.abs().max() <= bound
            assert abs(view.mean()) < 0.1 * bound
    assert torch.equal(lora.initial(0), flat)
    assert not torch.equal(lora.initial(1), flat)


def test_names_and_shapes_are_pefts() -> None:
    lora = LoRA(base_of("GPT2"), LoRASpec(rank=3, targets=("attn.c_attn",)))
    first = "base_model.model.transformer.h.0.attn.c_attn"
    assert lora.layout.shapes[f"{first}.lora_A.weight"] == (3, 32)
    assert lora.layout.shapes[f"{first}.lora_B.weight"] == (96, 3)  # a Conv1D's weight is (in, out)
    assert len(lora.layout.shapes) == 4


# --- Targets -----------------------------------------------------------------------------------


def assert_refused(base: Base, targets: Sequence[str], *said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LoRA(base, LoRASpec(targets=tuple(targets)))
    assert all(part in str(caught.value) for part in said), str(caught.value)
    assert str(caught.value).startswith("adapter.targets: ")
    assert "\n" not in str(caught.value)


def test_target_that_matches_nothing_is_refused_with_the_choices() -> None:
    assert_refused(base_of("Llama"), ["q_proj", "query"], "'query'", "q_proj", "down_proj")
    assert_refused(base_of("GPT2"), ["q_proj"], "'q_proj'", "c_attn, c_fc, c_proj")


def test_part_of_a_name_is_no_target() -> None:
    assert_refused(base_of("Llama"), ["proj"], "'proj'")
    assert_refused(base_of("Llama"), ["mlp"], "'mlp'")


def test_output_embedding_is_refused() -> None:
    assert_refused(base_of("Llama"), ["lm_head"], "'lm_head'", "stays frozen")
    assert_refused(base_of("Qwen2"), ["q_proj", "lm_head"], "'lm_head'", "stays frozen")


def test_embedding_and_norm_are_refused() -> None:
    assert_refused(base_of("Llama"), ["embed_tokens"], "'embed_tokens' matches no linear layer")
    assert_refused(base_of("GPT2"), ["wte"], "'wte' matches no linear layer")
    assert_refused(base_of("Llama"), ["norm"], "'norm' matches no linear layer")


@pytest.mark.parametrize("kind", KINDS)
def test_all_linear_leaves_the_output_embedding(kind: str) -> None:
    base = base_of(kind)
    targets = LoRA(base, ALL).targets
    assert len(targets) >= 8
    assert not any(base.model.get_submodule(name) is base.head for name in targets)
    assert isinstance(base.head, nn.Linear)


# --- Models whose layers see rows in another way -----------------------------------------------


class Wrapped(nn.Module):
    """A layer around another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class TimeFirst(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class OnlyLargeRows(Wrapped):
    """Calls its layer for some tokens only, as experts do."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = x.mean(-1) > 0
        y = x.new_zeros(*x.shape[:-1], self.inner.weight.shape[0])
        y[chosen] = self.inner(x[chosen])
        return y


class WeightOnly(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.inner.weight)


class MixesClients(Wrapped):
    """Lets every row see the others, as a batch norm in training does."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(0, keepdim=True))


ODD = {
    TimeFirst: "does not see its rows in the order",
    OnlyLargeRows: "does not see its rows in the order",
    MixesClients: "does not see its rows in the order",
    WeightOnly: "without calling the layer",
}


def odd_base(wrap: type[Wrapped], dtype: torch.dtype) -> Base:
    base = base_of("Llama", dtype)
    target = base.model.get_submodule("model.layers.1.self_attn.v_proj")
    replace_modules(base.model, lambda module: wrap(module) if module is target else None)
    return base


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("wrap", "said"), ODD.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_layer_that_cannot_be_shared_is_refused(
    wrap: type[Wrapped], said: str, dtype: torch.dtype
) -> None:
    name = "model.layers.1.self_attn.v_proj.inner"
    assert_refused(odd_base(wrap, dtype), ["q_proj", "v_proj.inner"], said, name)


def test_mistakes_are_noticed_only_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, a layer that sees time first trains wrongly and says nothing."""
    monkeypatch.setattr(lora_module, "verify_rows", lambda base, lora: None)
    base = odd_base(TimeFirst, torch.float64)
    lora = LoRA(base, LoRASpec(targets=("v_proj.inner",)))
    params_C = adapters(lora, 2)
    lora.bind(lora.layout.views(params_C))
    together = logits(base, IDS_CBT[:2].flatten(0, 1))[:2]
    lora.bind(lora.layout.views(params_C[:1]))
    assert (together - logits(base, IDS_CBT[0])).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SETTINGS)
def test_usual_models_pass_the_check_and_are_left_as_they_were(
    kind: str, dtype: torch.dtype
) -> None:
    base = base_of(kind, dtype)
    before = logits(base, IDS_CBT[0])
    LoRA(base, ALL)
    assert torch.equal(logits(base, IDS_CBT[0]), before)
    layers = [module for module in base.model.modules() if isinstance(module, StackedLoRA)]
    assert layers
    assert all(layer.lora_A is None and not layer._forward_pre_hooks for layer in layers)


def test_state_space_layer_that_is_never_called_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, state_size=4)
    with torch.random.fork_rng():
        bases = [prepare("mamba", MambaForCausalLM(config), None) for _ in range(2)]
    assert_refused(bases[0], ["in_proj", "dt_proj"], "dt_proj", "without calling the layer")
    LoRA(bases[1], LoRASpec(targets=("in_proj",)))
