"""Faster parts for a Hugging Face model, each kept only if the model still computes the same.

Knows module shapes (an RMS norm, a gated MLP, an attention interface), not model names: a part that
fits is swapped in, the model's logits on a probe are compared with what they were, and a part that
changes them is taken out again.  What stayed is returned and journalled.
"""

from collections.abc import Callable, Iterator
from inspect import signature
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from federation.training import fused, kernels, packing
from federation.training.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Undo = Callable[[], None]
# What a model raises that a part does not fit; our attention says so with a ValueError.
MISFITS = (ValueError, RuntimeError, TypeError, AttributeError, LookupError)


class FastRMSNorm(nn.Module):
    """An RMS norm that saves one number per row for its backward pass."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        """Share the weight of the norm that is replaced."""
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise over the last axis."""
        return kernels.RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)


class FastGatedMLP(nn.Module):
    """``down(silu(gate(x)) * up(x))``; the three projections keep their names."""

    def __init__(self, mlp: nn.Module) -> None:
        """Share the projections of the MLP that is replaced."""
        super().__init__()
        self.gate_proj = mlp.get_submodule("gate_proj")
        self.up_proj = mlp.get_submodule("up_proj")
        self.down_proj = mlp.get_submodule("down_proj")

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.down_proj(kernels.SwiGLU.apply(self.gate_proj(x), self.up_proj(x)))


class FastEmbedding(nn.Module):
    """An embedding whose gradient is summed in at least float32."""

    def __init__(self, weight: nn.Parameter) -> None:
        """Share the weight of the embedding that is replaced."""
        super().__init__()
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look up rows."""
        return kernels.WideEmbedding.apply(ids, self.weight)


def replace_modules(model: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> Undo | None:
    """Replace every module for which ``new`` returns another; return how to undo it, if any."""
    replaced = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            fresh = new(child)
            if fresh is not None:
                setattr(parent, name, fresh)
                replaced.append((parent, name, child))

    def undo() -> None:
        for parent, name, child in replaced:
            setattr(parent, name, child)

    return undo if replaced else None


def graft_norm(model: nn.Module) -> Undo | None:
    """Swap RMS norms."""

    def new(module: nn.Module) -> nn.Module | None:
        fits = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
        if not fits:
            return None
        return FastRMSNorm(module.get_parameter("weight"), vars(module)["variance_epsilon"])

    return replace_modules(model, new)


def graft_mlp(model: nn.Module) -> Undo | None:
    """Swap gated MLPs with a SiLU."""

    def new(module: nn.Module) -> nn.Module | None:
        parts = {name for name, _ in module.named_children()}
        fits = parts == {"gate_proj", "up_proj", "down_proj", "act_fn"}
        silu = fits and "silu" in type(module.act_fn).__name__.lower()
        return FastGatedMLP(module) if silu else None

    return replace_modules(model, new)


def graft_attention(model: "PreTrainedModel") -> Undo | None:
    """Swap the attention function, where the model looks it up by name."""
    if model.device.type != "cpu" or not model._can_set_attn_implementation():
        return None  # what is faster on a CPU is slower than a GPU's own kernel
    before = str(model.config._attn_implementation)
    kernels.register_attention()
    model.set_attn_implementation(kernels.ATTENTION)
    return lambda: model.set_attn_implementation(before)


def graft_packing(model: "PreTrainedModel") -> Undo | None:
    """Change nothing: say whether the model can read packed rows (:mod:`.packing`)."""
    takes_positions = "position_ids" in signature(model.base_model.forward).parameters
    ours = model.config._attn_implementation == kernels.ATTENTION
    return (lambda: None) if takes_positions and ours else None


def graft_layers(model: "PreTrainedModel") -> Undo | None:
    """Fuse decoder layers of the Llama kind, as far as they read packed rows."""
    layers = getattr(model.base_model, "layers", ())
    if graft_packing(model) is None or not layers or not all(map(fused.fits, layers)):
        return None
    undos = [fused.fuse(layer, last=layer is layers[-1]) for layer in layers]

    def undo() -> None:
        for one in undos:
            one()

    return undo


def probe_batch(model: "PreTrainedModel") -> Batch:
    """Return two sequences of 24 and 17 tokens; the first tokens of the second predict nothing."""
    ids = torch.arange(2 * 24).remainder_(min(997, model.config.vocab_size))
    where = torch.cat((torch.arange(24), torch.arange(28, 24 + 17)))
    count_C = torch.tensor([24, 13])
    client = torch.arange(2).repeat_interleave(count_C)
    return Batch(ids.view(2, 1, 24), where, torch.zeros_like(where), client, count_C)


@torch.no_grad()
def probe(model: "PreTrainedModel") -> Tensor:
    """Return float32 logits at the predicting positions of a fixed batch, ``(S, V)``."""
    batch = probe_batch(model).to(model.device)
    logits = model(input_ids=batch.ids_CBT.flatten(0, 1), use_cache=False).logits
    return logits.flatten(0, 1)[batch.where].float()


@torch.no_grad()
def packed_probe(model: "PreTrainedModel") -> Tensor:
    """Return the same of a model that reads packed rows."""
    how = packing.pack(probe_batch(model), packing.multiple_for(model.dtype))
    return packing.read(model, how, logits=True).float()


class Graft(NamedTuple):
    """A faster part: how it is put in, and what the model is asked afterwards."""

    apply: Callable[["PreTrainedModel"], Undo | None]
    probe: Callable[["PreTrainedModel"], Tensor] = probe


GRAFTS: dict[str, Graft] = {
    "attention": Graft(graft_attention),
    "norm": Graft(graft_norm),
    "mlp": Graft(graft_mlp),
    "packing": Graft(graft_packing, packed_probe),
    "layer": Graft(graft_layers, packed_probe),
}


def graft(model: "PreTrainedModel") -> tuple[str, ...]:
    """Give ``model`` every faster part that keeps its logits; return the names of these parts."""
    return tuple(name for name in GRAFTS if keep_if_same(model, name))


def keep_if_same(model: "PreTrainedModel", name: str) -> bool:
    """Apply one graft and keep it only if the probe's logits stay within rounding."""
    before = probe(model)
    # A wrong part shifts logits by their own size; rounding in bfloat16 stays far below a tenth.
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    tolerance = (1e-4 if exact else 0.1) * before.std().item()
    try:
        undo = GRAFTS[name].apply(model)
    except ValueError:  # transformers refuses the attention interface for this architecture
        return False
    if undo is None:
        return False
    try:
        apart = GRAFTS[name].probe(model) - before
        same = apart.square().mean(-1).sqrt().max().item() <= tolerance  # at every position
    except MISFITS:  # our attention says what it does not offer; a model, what it does not know
        same = False
    if not same:
        undo()
    return same


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) of every nn.Linear and Conv1D."""
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield name, module
