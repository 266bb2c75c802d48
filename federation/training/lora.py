"""LoRA for many clients at once over one frozen base.

Hu et al. 2021, arXiv:2106.09685: ``y = W x + s B A x`` with ``s = alpha / r`` (or
``alpha / sqrt(r)``, Kalajdzievski 2023, arXiv:2312.03732).  Here A and B carry a clients axis, and
a batch holds the rows of all clients one after the other.  Names of tensors and files are exactly
PEFT's.

Shape suffixes: C clients, B batch rows, T tokens, R rank, P flat parameters.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from federation.address import torch_generator
from federation.errors import ConfigError
from federation.specs import LoRASpec
from federation.training import packing
from federation.training.base import Base
from federation.training.grafts import linears
from federation.training.packing import Packing
from federation.tree import Layout, Params

ALL_LINEAR = "all-linear"


class Bound(threading.local):
    """The adapters of a layer, for each thread its own: threads share the frozen weights alone."""

    A_C: Tensor | None = None
    B_C: Tensor | None = None


class StackedLoRA(nn.Module):
    """A frozen linear layer and C clients' adapters on it.

    While nothing is bound it is the frozen layer.  ``lora_A`` is ``(C, R, in)``, ``lora_B`` is
    ``(C, out, R)``; the input's rows are those of client 0, then client 1, and so on, equally many
    each.
    """

    def __init__(self, base: nn.Module, scale: float) -> None:
        """Wrap a layer (nn.Linear or Conv1D)."""
        super().__init__()
        self.base = base
        self.scale = scale
        self.bound = Bound()

    @property
    def lora_A(self) -> Tensor | None:
        """A of every client, if adapters are bound."""
        return self.bound.A_C

    @property
    def lora_B(self) -> Tensor | None:
        """B of every client, if adapters are bound."""
        return self.bound.B_C

    @property
    def weight(self) -> Tensor:
        """The frozen weight (some models look at its dtype)."""
        return self.base.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias (some models use it on its own)."""
        return getattr(self.base, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + s B_c A_c x`` for the rows of every client c."""
        y = self.base(x)
        if self.lora_A is None or self.lora_B is None:
            return y
        if (how := packing.current()) is not None:
            return self.packed(x, y, how)
        C = len(self.lora_A)
        low = torch.bmm(x.reshape(C, -1, x.shape[-1]), self.lora_A.mT)
        stacked = torch.baddbmm(y.view(C, -1, y.shape[-1]), low, self.lora_B.mT, alpha=self.scale)
        return stacked.view(y.shape)

    def packed(self, x: Tensor, y: Tensor, how: Packing) -> Tensor:
        """Add the adapters' part to ``y`` where clients have unequally many rows."""
        assert self.lora_A is not None and self.lora_B is not None
        xs, ys = (rows.flatten(0, -2).split(how.rows_C) for rows in (x, y))
        parts = [
            torch.addmm(y_c, x_c @ A.mT, B.mT, alpha=self.scale)
            for x_c, y_c, A, B in zip(xs, ys, self.lora_A, self.lora_B, strict=True)
        ]
        return torch.cat(parts).view(y.shape)


def choose_targets(base: Base, targets: Literal["all-linear"] | Sequence[str]) -> list[str]:
    """Return full names of the modules that ``targets`` names, in the model's order.

    A target names a module as PEFT has it: its full name or the end of it after a dot.

    Raises:
        ConfigError: if a target matches nothing or names the output embedding.
    """
    head = base.head
    found = [name for name, module in linears(base.model) if module is not head]
    if targets == ALL_LINEAR:
        return found
    for target in targets:
        if any(module is head and ends(name, target) for name, module in linears(base.model)):
            raise ConfigError(
                f"adapter.targets: {target!r} is the output embedding, it stays frozen"
            )
        if not any(ends(name, target) for name in found):
            choices = sorted({name.rsplit(".", 1)[-1] for name in found})
            raise ConfigError(
                f"adapter.targets: {target!r} matches no linear layer of {base.name!r}; "
                f"it has {', '.join(choices)}"
            )
    return [name for name in found if any(ends(name, target) for target in targets)]


def ends(name: str, target: str) -> bool:
    """Tell whether a module's name is ``target`` or ends in it after a dot."""
    return name == target or name.endswith("." + target)


def features(module: nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of an nn.Linear (weight out x in) or a Conv1D (weight in x out)."""
    rows, columns = module.get_parameter("weight").shape
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


class LoRA:
    """LoRA adapters of many clients on one base: a source of gradients for local training.

    Attributes:
        spec: rank, alpha, targets.
        layout: PEFT's names and shapes; all A come first, then all B.
        targets: full names of the adapted modules.
        inner: the frozen layer (nn.Linear or Conv1D) under each adapted module, by its full name.
        model_names: names of all modules of the model as it was, adapted or not.
        rows_per_pass: how many clients may share a pass; None for any number.
    """

    rows_per_pass: int | None = None

    def __init__(self, base: Base, spec: LoRASpec) -> None:
        """Put adapters on ``base``; until something is bound they do nothing.

        Raises:
            ConfigError: if the targets cannot be adapted (:func:`choose_targets`,
                :func:`verify_rows`).
        """
        self.spec = spec
        self.targets = choose_targets(base, spec.targets)
        self.inner = {name: base.model.get_submodule(name) for name in self.targets}
        self.model_names = tuple(name for name, _ in base.model.named_modules())
        self._modules: dict[str, StackedLoRA] = {}
        shapes_A: dict[str, tuple[int, ...]] = {}
        shapes_B: dict[str, tuple[int, ...]] = {}
        for name, inner in self.inner.items():
            module = StackedLoRA(inner, spec.scale)
            base.model.set_submodule(name, module)
            inputs, outputs = features(inner)
            shapes_A[f"{peft_name(name)}.lora_A.weight"] = (spec.rank, inputs)
            shapes_B[f"{peft_name(name)}.lora_B.weight"] = (outputs, spec.rank)
            self._modules[peft_name(name)] = module
        self.layout = Layout(shapes_A | shapes_B)
        verify_rows(base, self)

    def initial(self, seed: int) -> Tensor:
        """Return the first adapter ``(P,)``: B is zero, A uniform in ±1/sqrt(inputs) as in PEFT."""
        flat = torch.zeros(self.layout.size)
        for name, view in self.layout.views(flat).items():
            if ".lora_A." in name:
                bound = 1 / math.sqrt(view.shape[-1])
                view.uniform_(-bound, bound, generator=torch_generator(seed, "adapter", name))
        return flat

    def bind(self, views: Params | None) -> Params:
        """Let the adapted layers use ``(C, ...)`` views of a matrix; None restores the base.

        What is bound in one thread is not seen by another.

        Returns:
            The leaves that gradients are taken of, by name, in the order of the layout.
        """
        leaves = {name: view.detach().requires_grad_() for name, view in (views or {}).items()}
        for name, module in self._modules.items():
            module.bound.A_C = leaves.get(f"{name}.lora_A.weight")
            module.bound.B_C = leaves.get(f"{name}.lora_B.weight")
        return leaves


def peft_name(module: str) -> str:
    """Return the name PEFT gives an adapted module in its files."""
    return f"base_model.model.{module}"


@torch.no_grad()
def verify_rows(base: Base, lora: LoRA) -> None:
    """Check on a probe that every adapted layer sees the clients' rows one after the other.

    There are models whose layers see rows in another order (time first) or only some of them
    (experts), or that use a weight without calling its layer.  Adapters of several clients would be
    mixed up in the former, and ignored in the latter, without an error.

    Raises:
        ConfigError: naming the first layer for which it does not hold.
    """
    ids_CBT = torch.arange(3, 143, 7).remainder_(base.model.config.vocab_size).view(2, 2, 5)
    params_C = torch.stack([random_adapter(lora, client) for client in ("a", "b")])
    together = layer_inputs(base, lora, params_C, ids_CBT)
    alone = [layer_inputs(base, lora, params_C[c : c + 1], ids_CBT[c : c + 1]) for c in (0, 1)]
    for name in lora.targets:
        if not together[name]:
            raise ConfigError(
                f"adapter.targets: {base.name!r} uses the weight of {name!r} without calling the "
                "layer, so an adapter on it would do nothing; leave it out"
            )
        rows = zip(together[name], alone[0][name], alone[1][name], strict=False)
        if not all(are_concatenated(x, a, b) for x, a, b in rows):
            raise cannot_share(base, name)


def cannot_share(base: Base, name: str) -> ConfigError:
    """Say that clients cannot share a layer."""
    return ConfigError(
        f"adapter.targets: {name!r} of {base.name!r} does not see its rows in the order of the "
        "batch, so clients cannot share it; leave it out"
    )


def random_adapter(lora: LoRA, client: str) -> Tensor:
    """Return an adapter ``(P,)`` whose effect is about as large as that of the frozen weights."""
    flat = torch.empty(lora.layout.size)
    for name, view in lora.layout.views(flat).items():
        bound = 1 / math.sqrt(view.shape[-1]) / (1 if ".lora_A." in name else lora.spec.scale)
        view.uniform_(-bound, bound, generator=torch_generator("verify_rows", client, name))
    return flat


def layer_inputs(
    base: Base, lora: LoRA, params_C: Tensor, ids_CBT: Tensor
) -> dict[str, list[Tensor]]:
    """Return the rows ``(N, in)`` that every adapted layer sees, call by call, by layer's name.

    Raises:
        ConfigError: if a layer sees a number of rows that clients cannot share.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in lora.targets}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2).clone()
            if len(rows) % len(params_C):
                raise cannot_share(base, name)
            seen[name].append(rows)

        return note

    hooks = [base.model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in seen]
    try:
        lora.bind(lora.layout.views(params_C.to(base.device, base.dtype)))
        base.model.base_model(input_ids=ids_CBT.flatten(0, 1).to(base.device), use_cache=False)
    finally:
        lora.bind(None)
        for hook in hooks:
            hook.remove()
    return seen


def are_concatenated(x: Tensor, a: Tensor, b: Tensor) -> bool:
    """Tell whether rows ``x`` are the rows ``a``, then equally many rows ``b``, within rounding."""
    if len(a) != len(b) or len(x) != len(a) + len(b):
        return False
    exact = x.dtype in (torch.float32, torch.float64)
    error = (x - torch.cat([a, b])).abs().max()
    return bool(error <= (1e-3 if exact else 0.1) * x.std())
