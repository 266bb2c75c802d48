"""Server optimizers: the mean change of the clients is a pseudo-gradient that ascends.

Knows the state of the server; knows nothing of clients.  Each algorithm is FedAvg with another
``init`` and ``step``.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from federation.algorithms.algorithm import Algorithm, fedavg
from federation.algorithms.settings import (
    BiasCorrection,
    DiLoCo,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
)
from federation.plan import RoundPlan
from federation.tree import Tree


def fedavgm(server_lr: float = FedAvgM.server_lr, momentum: float = FedAvgM.momentum) -> Algorithm:
    """FedAvg with heavy-ball momentum: ``v <- momentum v + mean delta; w <- w + lr v``.

    Hsu et al. 2019, arXiv:1909.06335 (no factor ``1 - momentum`` on the new delta).
    """

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        velocity = momentum * state["velocity"] + combined["delta"]
        return {"params": state["params"] + server_lr * velocity, "velocity": velocity}

    return replace(fedavg(), init=with_velocity, step=step)


def diloco(server_lr: float = DiLoCo.server_lr, momentum: float = DiLoCo.momentum) -> Algorithm:
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
    server_lr: float = FedAdagrad.server_lr,
    beta1: float = FedAdagrad.beta1,
    tau: float = FedAdagrad.tau,
    v0: float | None = FedAdagrad.v0,
) -> Algorithm:
    """FedAvg with Adagrad on the server.  Reddi et al. 2020, arXiv:2003.00295, algorithm 2."""
    return adaptive(adagrad_v, server_lr, beta1, tau, v0)


def fedyogi(
    server_lr: float = FedYogi.server_lr,
    beta1: float = FedYogi.beta1,
    beta2: float = FedYogi.beta2,
    tau: float = FedYogi.tau,
    v0: float | None = FedYogi.v0,
) -> Algorithm:
    """FedAvg with Yogi on the server.  Reddi et al. 2020, arXiv:2003.00295, algorithm 2."""
    return adaptive(lambda v, square: yogi_v(v, square, beta2), server_lr, beta1, tau, v0)


def fedadam(
    server_lr: float = FedAdam.server_lr,
    beta1: float = FedAdam.beta1,
    beta2: float = FedAdam.beta2,
    tau: float = FedAdam.tau,
    v0: float | None = FedAdam.v0,
    bias_correction: BiasCorrection = FedAdam.bias_correction,
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
