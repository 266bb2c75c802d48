"""Local optimizers over a matrix of clients: one row a client, one fused update for all of them.

Row c of the result depends only on row c of the arguments.  Everything is updated in place.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from federation.plan import LocalWork
from federation.tree import Tree


class Optimizer(NamedTuple):
    """A local optimizer.

    Attributes:
        init: ``(params_C) -> state``, each group ``(C, ...)``.
        update: ``(params_C, grad_C, state, work) -> None``; changes ``params_C`` and ``state``.
    """

    init: Callable[[Tensor], Tree]
    update: Callable[[Tensor, Tensor, Tree, LocalWork], None]


def sgd_init(params_C: Tensor) -> Tree:
    """Start without momentum."""
    return {"velocity": torch.zeros_like(params_C)}


def sgd_update(params_C: Tensor, grad_C: Tensor, state: Tree, work: LocalWork) -> None:
    """``v <- momentum v + g; w <- w - lr (v + decay w)`` (decoupled weight decay)."""
    if work.momentum:
        grad_C = state["velocity"].mul_(work.momentum).add_(grad_C)
    if work.weight_decay:
        params_C.mul_(1 - work.lr * work.weight_decay)
    params_C.sub_(grad_C, alpha=work.lr)


def adamw_init(params_C: Tensor) -> Tree:
    """Start moments at zero; each client counts its own steps."""
    return {
        "first": torch.zeros_like(params_C),
        "second": torch.zeros_like(params_C),
        "steps": params_C.new_zeros(len(params_C)),
    }


def adamw_update(params_C: Tensor, grad_C: Tensor, state: Tree, work: LocalWork) -> None:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2), as torch has it."""
    first, second = state["first"], state["second"]
    steps_C = state["steps"].add_(1)[:, None]
    first.lerp_(grad_C, 1 - work.beta1)
    second.mul_(work.beta2).addcmul_(grad_C, grad_C, value=1 - work.beta2)
    if work.weight_decay:
        params_C.mul_(1 - work.lr * work.weight_decay)
    denominator = second.div(1 - work.beta2**steps_C).sqrt_().add_(work.eps)
    params_C.sub_(first.div(denominator).mul_(work.lr / (1 - work.beta1**steps_C)))


OPTIMIZERS = {
    "sgd": Optimizer(sgd_init, sgd_update),
    "adamw": Optimizer(adamw_init, adamw_update),
}


def clip_rows(grad_C: Tensor, max_norm: float) -> Tensor:
    """Scale each row down to L2 norm ``max_norm`` where it is longer; in place."""
    norm_C = torch.linalg.vector_norm(grad_C, dim=-1, keepdim=True)
    return grad_C.mul_(max_norm / norm_C.clamp(min=max_norm))
