"""The federated algorithms there are, and the door where a name becomes one of them.

Algorithms whose novelty is on the server are in ``servers.py`` and ``robust.py``, what all of them
are made of in ``algorithm.py``.  The centralised baseline is an arrangement of the data, not an
algorithm.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from federation.algorithms.algorithm import (
    Algorithm,
    fedavg,
    report_delta,
    run_round,
    sent_params,
    uniform_mean,
    weighted_mean,
)
from federation.algorithms.robust import krum, median, multikrum, trimmedmean
from federation.algorithms.servers import (
    diloco,
    fedadagrad,
    fedadam,
    fedavgm,
    fedyogi,
)
from federation.algorithms.settings import (
    SETTINGS,
    FedNova,
    FedProx,
    Scaffold,
    check_settings,
    settings_schema,
)
from federation.errors import ConfigError
from federation.plan import RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "build",
    "diloco",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fednova",
    "fedprox",
    "fedyogi",
    "krum",
    "local",
    "median",
    "multikrum",
    "report_delta",
    "run_round",
    "scaffold",
    "sent_params",
    "settings_schema",
    "trimmedmean",
    "uniform_mean",
    "weighted_mean",
]


def fedprox(mu: float = FedProx.mu) -> Algorithm:
    """FedAvg whose clients are pulled back to the sent parameters.

    Li et al. 2020, arXiv:1812.06127, equation 2.  The proximal term mu/2 ||w - w_t||^2 enters as
    its exact gradient mu (w - w_t), so no autograd is spent on it.
    """

    def correct(grad_C: Tensor, params_C: Tensor, sent: Tree, kept_C: Tree) -> Tensor:
        return grad_C + mu * (params_C - sent["params"])

    return replace(fedavg(), correct=correct)


def scaffold(server_lr: float = Scaffold.server_lr) -> Algorithm:
    """Steer every client by the difference of the global and its own mean gradient.

    Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II: the client's control
    becomes ``c_k - c + (w_t - w_k) / (steps * lr)``, with the steps that this client made.  Clients
    are averaged uniformly, as there.  Upload and download are twice those of FedAvg.  A client that
    made no step keeps its control.

    Plain SGD only: under momentum or AdamW the change of the parameters is no sum of gradients.
    """

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        steps_C = delta_C.new_tensor(plan.steps_C)[:, None]
        descent_C = delta_C / (steps_C * plan.work.lr).clamp(min=plan.work.lr)
        change_C = torch.where(steps_C > 0, -sent["control"] - descent_C, 0.0)
        kept_C = {**kept_C, "control": kept_C["control"] + change_C}
        return {"delta": delta_C, "control_delta": change_C}, kept_C

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        share = len(plan.clients) / plan.population
        return {
            "params": state["params"] + server_lr * combined["delta"],
            "control": state["control"] + share * combined["control_delta"],
        }

    return replace(
        fedavg(),
        init=lambda params: {"params": params, "control": torch.zeros_like(params)},
        memory=lambda params: {"control": torch.zeros_like(params)},
        correct=lambda grad_C, params_C, sent, kept_C: grad_C + sent["control"] - kept_C["control"],
        report=report,
        combine=uniform_mean,
        step=step,
        sends=("params", "control"),
        check=plain_sgd_only,
    )


def plain_sgd_only(work: LocalWork) -> None:
    """Refuse local work whose change is not ``-lr`` times a sum of gradients.

    Raises:
        ConfigError: for AdamW and for momentum.
    """
    sgd_only(work)
    if work.momentum:
        raise ConfigError(
            "scaffold: its controls are sums of plain gradients, which momentum is not; "
            f"set work.momentum = 0 (got {work.momentum})"
        )


def sgd_only(work: LocalWork) -> None:
    """Refuse local work that is not SGD.

    Raises:
        ConfigError: for AdamW.
    """
    if work.optimizer != "sgd":
        raise ConfigError(
            "scaffold and fednova take the change of the parameters for a sum of gradients, which "
            f'{work.optimizer} does not make; set work.optimizer = "sgd"'
        )


def fednova(mu: float = FedNova.mu) -> Algorithm:
    """Average the clients' updates per unit of local progress: the busier do not pull harder.

    Wang et al. 2020, arXiv:2007.07481, equation 6 (normalised averaging, weights p_k by examples,
    ``tau_eff = sum_k p_k ||a_k||_1``).  Supported local solvers: SGD, SGD with momentum that starts
    anew every round, SGD with proximal term ``mu``, and both together; steps may differ by client.
    Every client uploads one number more than with FedAvg.
    """

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        norms = [accumulation(steps, plan.work, mu) for steps in plan.steps_C]
        norm_C = delta_C.new_tensor(norms)[:, None]
        direction_C = torch.where(norm_C > 0, delta_C / norm_C, 0.0)
        return {"delta": direction_C, "norm": norm_C}, kept_C

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        return {**state, "params": state["params"] + combined["norm"] * combined["delta"]}

    return replace(fedprox(mu), report=report, step=step, check=fresh_sgd_only)


def fresh_sgd_only(work: LocalWork) -> None:
    """Refuse local work in which gradients of earlier rounds act on.

    Raises:
        ConfigError: for AdamW, and for momentum that is kept between rounds.
    """
    sgd_only(work)
    if work.momentum and work.keep_optimizer:
        raise ConfigError(
            "fednova: momentum kept between rounds cannot be normalised by this round's steps; "
            "set work.keep_optimizer = false or work.momentum = 0"
        )


def accumulation(steps: int, work: LocalWork, mu: float) -> float:
    """Return ``||a||_1``: by how much all gradients of a round move the parameters, in units of lr.

    A gradient moves the parameters at its own step and, through momentum and the proximal pull, at
    all later ones; what it has done j steps on is the response to a unit impulse.  The last
    gradient has acted once, the first ``steps`` times.  Without momentum and pull: ``steps``.
    """
    moved, velocity, total = 0.0, 0.0, 0.0
    for j in range(steps):
        velocity = work.momentum * velocity + (1.0 if j == 0 else -work.lr * mu * moved)
        moved += velocity
        total += abs(moved)
    return total


def local() -> Algorithm:
    """Train every client alone: nothing is reported and the global parameters never move.

    The baseline that a federation has to beat.  A client's model is what was sent plus its ``own``.
    """

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        return {}, {**kept_C, "own": kept_C["own"] + delta_C}

    return replace(
        fedavg(),
        memory=lambda params: {"own": torch.zeros_like(params)},
        start=lambda sent, kept_C, clients: sent["params"] + kept_C["own"],
        report=report,
        step=lambda state, combined, plan: state,
    )


ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {name: globals()[name] for name in SETTINGS}


def build(name: str, settings: Mapping[str, Any]) -> Algorithm:
    """Build an algorithm from its name and settings that come from outside.

    Raises:
        ConfigError: if the name or a setting is unknown, or a setting is out of bounds.
    """
    checked = check_settings(name, settings)
    return ALGORITHMS[name](**checked)
