"""Server optimizers: the mean change of the clients is a pseudo-gradient that ascends.

Knows the state of the server; knows nothing of clients.  Each algorithm is FedAvg with another
``init`` and ``step``.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from federation.algorithms.algorithm import Algorithm, fedavg
from federation.plan import RoundPlan
from federation.tree import Tree

ServerLR = Annotated[float, Field(gt=0, le=100, description="server learning rate")]
Decay = Annotated[float, Field(ge=0, lt=1, description="decay of a moving average, per round")]
Tau = Annotated[float, Field(gt=0, le=1, description="adaptivity: added to the root of v")]
FirstV = Annotated[
    float | None,
    Field(ge=0, description="v before the first round; tau squared, as in the paper, if omitted"),
]
BiasCorrection = Annotated[
    Literal["none", "flower"],
    Field(description="none: the paper's; flower: scale the step as Flower's FedAdam does"),
]


def fedavgm(server_lr: ServerLR = 1.0, momentum: Decay = 0.9) -> Algorithm:
    """FedAvg with heavy-ball momentum: ``v <- momentum v + mean delta; w <- w + lr v``.

    Hsu et al. 2019, arXiv:1909.06335 (no factor ``1 - momentum`` on the new delta).
    """

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        velocity = momentum * state["velocity"] + combined["delta"]
        return {"params": state["params"] + server_lr * velocity, "velocity": velocity}

    return replace(fedavg(), init=with_velocity, step=step)


def diloco(server_lr: ServerLR = 0.7, momentum: Decay = 0.9) -> Algorithm:
    """Many local AdamW steps, then one Nesterov step on the mean delta.

    Douillard et al. 2023, arXiv:2311.08105, algorithm 1; Nesterov's momentum in the form of
    ``torch.optim.SGD``.  Inner optimizers persist with ``work.keep_optimizer``.  Deltas are
    weighted by examples: the plain mean of algorithm 1 where clients hold equally many.
    """

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        velocity = momentum * state["velocity"] + combined["delta"]
        ahead = combined["delta"] + momentum * velocity
        return {"params": state["params"] + server_lr * ahead, "velocity": velocity}

    return replace(fedavg(), init=with_velocity, step=step)


def with_velocity(params: Tensor) -> Tree:
    """Start the server at rest."""
    return {"params": params, "velocity": torch.zeros_like(params)}


def fedadagrad(
    server_lr: ServerLR = 0.1, beta1: Decay = 0.0, tau: Tau = 1e-3, v0: FirstV = None
) -> Algorithm:
    """FedAvg with Adagrad on the server.  Reddi et al. 2020, arXiv:2003.00295, algorithm 2."""
    return adaptive(adagrad_v, server_lr, beta1, tau, v0)


def fedyogi(
    server_lr: ServerLR = 0.1,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
    tau: Tau = 1e-3,
    v0: FirstV = None,
) -> Algorithm:
    """FedAvg with Yogi on the server.  Reddi et al. 2020, arXiv:2003.00295, algorithm 2."""
    return adaptive(lambda v, square: yogi_v(v, square, beta2), server_lr, beta1, tau, v0)


def fedadam(
    server_lr: ServerLR = 0.1,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
    tau: Tau = 1e-3,
    v0: FirstV = None,
    bias_correction: BiasCorrection = "none",
) -> Algorithm:
    """FedAvg with Adam on the server.  Reddi et al. 2020, arXiv:2003.00295, algorithm 2.

    The paper corrects no bias.  Flower's FedAdam multiplies the step of its round t = 1, 2, ... by
    ``sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1))`` and starts with ``v0=0``.
    """

    def factor(plan: RoundPlan) -> float:
        exponent = plan.round + 2  # Flower's server_round + 1, and its rounds start from 1
        return (1 - beta2**exponent) ** 0.5 / (1 - beta1**exponent)

    scale = factor if bias_correction == "flower" else unscaled
    return adaptive(lambda v, square: adam_v(v, square, beta2), server_lr, beta1, tau, v0, scale)


def adagrad_v(v: Tensor, square: Tensor) -> Tensor:
    """Sum the squares."""
    return v + square


def yogi_v(v: Tensor, square: Tensor, beta2: float) -> Tensor:
    """Move v towards the square by a step that does not depend on their distance."""
    return v - (1 - beta2) * square * torch.sign(v - square)


def adam_v(v: Tensor, square: Tensor, beta2: float) -> Tensor:
    """Average the squares."""
    return beta2 * v + (1 - beta2) * square


def unscaled(plan: RoundPlan) -> float:
    """Correct no bias."""
    return 1.0


def adaptive(
    next_v: Callable[[Tensor, Tensor], Tensor],
    server_lr: float,
    beta1: float,
    tau: float,
    v0: float | None,
    scale: Callable[[RoundPlan], float] = unscaled,
) -> Algorithm:
    """Build an adaptive server: ``m <- beta1 m + (1 - beta1) d; w <- w + lr m / (sqrt(v) + tau)``.

    Args:
        next_v: ``(v, d * d) -> v``; v follows the square of the mean delta d, not of m.
        server_lr: server learning rate.
        beta1: decay of m.
        tau: adaptivity.
        v0: v before the first round; ``tau ** 2`` if None.
        scale: factor on the learning rate of a round.
    """
    first_v = tau**2 if v0 is None else v0

    def init(params: Tensor) -> Tree:
        zeros = torch.zeros_like(params)
        return {"params": params, "m": zeros, "v": torch.full_like(params, first_v)}

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        delta = combined["delta"]
        m = beta1 * state["m"] + (1 - beta1) * delta
        v = next_v(state["v"], delta * delta)
        ascent = server_lr * scale(plan) * m / (v.sqrt() + tau)
        return {"params": state["params"] + ascent, "m": m, "v": v}

    return replace(fedavg(), init=init, step=step)
