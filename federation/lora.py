"""LoRA for many clients at once over one frozen base.

Hu et al. 2021, arXiv:2106.09685: ``y = W x + s B A x`` with ``s = alpha / r`` (or ``alpha / sqrt(r)``,
Kalajdzievski 2023, arXiv:2312.03732).  Here A and B carry a clients axis, and a batch holds the rows of all
clients one after the other.  Names of tensors and files are exactly PEFT's.

Shape suffixes: C clients, B batch rows, T tokens, R rank, P flat parameters.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from federation.address import torch_generator
from federation.base import Base
from federation.errors import ConfigError
from federation.grafts import linears
from federation.specs import LoRASpec
from federation.tree import Layout, Params

ALL_LINEAR = "all-linear"


class StackedLoRA(nn.Module):
    """A frozen linear layer and C clients' adapters on it.

    While nothing is bound it is the frozen layer.  ``lora_A`` is ``(C, R, in)``, ``lora_B`` is
    ``(C, out, R)``; the input's rows are those of client 0, then client 1, and so on, equally many each.
    """

    def __init__(self, base: nn.Module, scale: float) -> None:
        """Wrap a layer (nn.Linear or Conv1D)."""
        super().__init__()
        self.base = base
        self.scale = scale
        self.lora_A: Tensor | None = None
        self.lora_B: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight (some models look at its dtype)."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + s B_c A_c x`` for the rows of every client c."""
        y = self.base(x)
        if self.lora_A is None or self.lora_B is None:
            return y
        C = len(self.lora_A)
        low = torch.bmm(x.reshape(C, -1, x.shape[-1]), self.lora_A.mT)
        stacked = torch.baddbmm(y.view(C, -1, y.shape[-1]), low, self.lora_B.mT, alpha=self.scale)
        return stacked.view(y.shape)


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
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


class LoRA:
    """LoRA adapters of many clients on one base: a source of gradients for local training.

    Attributes:
        spec: rank, alpha, targets.
        layout: PEFT's names and shapes; all A come first, then all B.
        targets: full names of the adapted modules.
        rows_per_pass: how many clients may share a pass; None for any number.
    """

    rows_per_pass: int | None = None

    def __init__(self, base: Base, spec: LoRASpec) -> None:
        """Put adapters on ``base``; until something is bound they do nothing."""
        self.spec = spec
        self.targets = choose_targets(base, spec.targets)
        self._modules: dict[str, StackedLoRA] = {}
        shapes_A: dict[str, tuple[int, ...]] = {}
        shapes_B: dict[str, tuple[int, ...]] = {}
        for name in self.targets:
            inner = base.model.get_submodule(name)
            module = StackedLoRA(inner, spec.scale)
            base.model.set_submodule(name, module)
            inputs, outputs = features(inner)
            shapes_A[f"{peft_name(name)}.lora_A.weight"] = (spec.rank, inputs)
            shapes_B[f"{peft_name(name)}.lora_B.weight"] = (outputs, spec.rank)
            self._modules[peft_name(name)] = module
        self.layout = Layout(shapes_A | shapes_B)

    def initial(self, seed: int) -> Tensor:
        """Return the first adapter ``(P,)``: B is zero, A uniform in ±1/sqrt(inputs) as in PEFT."""
        flat = torch.zeros(self.layout.size)
        for name, view in self.layout.views(flat).items():
            if ".lora_A." in name:
                bound = 1 / math.sqrt(view.shape[-1])
                view.uniform_(-bound, bound, generator=torch_generator(seed, "adapter", name))
        return flat

    def bind(self, views: Params | None) -> Params:
        """Let the adapted layers use ``(C, ...)`` views of a matrix; None makes the model the base again.

        Returns:
            The leaves that gradients are taken of, by name, in the order of the layout.
        """
        leaves = {name: view.detach().requires_grad_() for name, view in (views or {}).items()}
        for name, module in self._modules.items():
            module.lora_A = leaves.get(f"{name}.lora_A.weight")
            module.lora_B = leaves.get(f"{name}.lora_B.weight")
        return leaves


def peft_name(module: str) -> str:
    """Return the name PEFT gives an adapted module in its files."""
    return f"base_model.model.{module}"
