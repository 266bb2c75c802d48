"""Full-parameter training: the model's own weights are what is trained.

The same source of gradients as LoRA, one client a pass, because clients share no frozen part.
"""

import torch
from torch import Tensor

from federation.training.base import Base
from federation.training.grafts import FastEmbedding, replace_modules
from federation.tree import Layout, Params


class FullParameters:
    """All parameters of a model as a source of gradients.

    Attributes:
        layout: the model's own parameter names and shapes (tied tensors once).
        rows_per_pass: 1: every client has a model of its own.
    """

    rows_per_pass: int | None = 1

    def __init__(self, base: Base) -> None:
        """Take over the parameters of ``base``; its embedding now sums gradients in float32."""
        embedding = base.model.get_input_embeddings()

        def wide(module: torch.nn.Module) -> torch.nn.Module | None:
            weight = module.get_parameter("weight") if module is embedding else None
            return None if weight is None else FastEmbedding(weight)

        replace_modules(base.model, wide)
        self._parameters = dict(base.model.named_parameters())
        self._wide = torch.promote_types(base.dtype, torch.float32)
        self._start = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.layout = Layout({name: tuple(p.shape) for name, p in self._parameters.items()})

    def initial(self, seed: int) -> Tensor:
        """Return the model's weights as they were loaded or initialised, ``(P,)``."""
        return self.layout.flatten(self._start, self._wide)

    def bind(self, views: Params | None) -> Params:
        """Let the model use the views ``(1, ...)`` of a matrix; None makes it what it was at first.

        Returns:
            The leaves that gradients are taken of, by name, in the order of the layout.
        """
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(views is not None)
            parameter.data = self._start[name] if views is None else views[name][0]
        return {**self._parameters}
