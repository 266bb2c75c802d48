"""Deliberately broken copies: each is what a tired person might have written.

Those that replace a whole algorithm take the intact one from the modules that define it, where the
tests do not patch it.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from federation.address import generator
from federation.algorithms import catalogue, packing, robust, servers, transforms
from federation.algorithms.algorithm import Algorithm, fedavg, uniform_mean
from federation.plan import RoundPlan
from federation.tree import Tree

intact_scaffold = catalogue.scaffold
intact_fedadam = servers.fedadam
intact_adaptive = servers.adaptive
intact_add_noise = transforms.add_noise
intact_gaussian = transforms.gaussian
intact_dither = transforms.dither
intact_local = catalogue.local
intact_krum_order = robust.krum_order

# ------------------------------------------------------------- engines


def mean_over_clients(loss_C: Tensor) -> Tensor:
    return loss_C.mean()


def address_of_a_place(plan: RoundPlan, client: str, position: int) -> tuple[int | str, ...]:
    return plan.seed, plan.round, position, "batch"


def memory_of_a_place(client: str, position: int) -> str:
    return f"client-{position}"


def never_finished(plan: RoundPlan, step: int) -> Tensor:
    return torch.ones(len(plan.clients), dtype=torch.bool)


# ------------------------------------------------------------- averages and server steps


def unnormalised(report_C: Tree, weight_C: Tensor) -> Tree:
    return {group: torch.tensordot(weight_C, x_C, dims=1) for group, x_C in report_C.items()}


def equal_weights(report_C: Tree, weight_C: Tensor) -> Tree:
    return {group: x_C.mean(dim=0) for group, x_C in report_C.items()}


def mean_over_every_axis(report_C: Tree, weight_C: Tensor) -> Tree:
    return {group: x_C.mean() for group, x_C in report_C.items()}


def added_in_place(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
    return {**state, "params": state["params"].add_(combined["delta"])}


def averaging_momentum(server_lr: float = 1.0, momentum: float = 0.9) -> Algorithm:
    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        velocity = momentum * state["velocity"] + (1 - momentum) * combined["delta"]
        return {"params": state["params"] + server_lr * velocity, "velocity": velocity}

    return replace(fedavg(), init=servers.with_velocity, step=step)


def squaring_the_momentum(
    next_v: Callable[[Tensor, Tensor], Tensor],
    server_lr: float,
    beta1: float,
    tau: float,
    v0: float | None,
    scale: Callable[[RoundPlan], float] = servers.unscaled,
) -> Algorithm:
    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        m = beta1 * state["m"] + (1 - beta1) * combined["delta"]
        v = next_v(state["v"], m * m)
        ascent = server_lr * scale(plan) * m / (v.sqrt() + tau)
        return {"params": state["params"] + ascent, "m": m, "v": v}

    return replace(intact_adaptive(next_v, server_lr, beta1, tau, v0, scale), step=step)


def starting_from_zero(
    next_v: Callable[[Tensor, Tensor], Tensor],
    server_lr: float,
    beta1: float,
    tau: float,
    v0: float | None,
    scale: Callable[[RoundPlan], float] = servers.unscaled,
) -> Algorithm:
    return intact_adaptive(next_v, server_lr, beta1, tau, 0.0, scale)


def yogi_with_the_sign_turned(v: Tensor, square: Tensor, beta2: float) -> Tensor:
    return v + (1 - beta2) * square * torch.sign(v - square)


def adagrad_that_forgets(v: Tensor, square: Tensor) -> Tensor:
    return square


def bias_exponent_off_by_one(*settings: float, **named: float | str) -> Algorithm:
    intact = intact_fedadam(*settings, **named)

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        return intact.step(state, combined, replace(plan, round=plan.round - 1))

    return replace(intact, step=step)


# ------------------------------------------------------------- client halves


def pulled_to_the_origin(mu: float = 0.01) -> Algorithm:
    def correct(grad_C: Tensor, params_C: Tensor, sent: Tree, kept_C: Tree) -> Tensor:
        return grad_C + mu * params_C

    return replace(fedavg(), correct=correct)


def scaffold_over_the_cohort(server_lr: float = 1.0) -> Algorithm:
    intact = intact_scaffold(server_lr)

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        return intact.step(state, combined, replace(plan, population=len(plan.clients)))

    return replace(intact, step=step)


def scaffold_with_nominal_steps(server_lr: float = 1.0) -> Algorithm:
    intact = intact_scaffold(server_lr)

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        return intact.report(delta_C, sent, kept_C, replace(plan, steps=None))

    return replace(intact, report=report)


def scaffold_without_steps(server_lr: float = 1.0) -> Algorithm:
    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        steps_C = delta_C.new_tensor(plan.steps_C)[:, None]
        change_C = -sent["control"] - delta_C / (steps_C * plan.work.lr)
        kept_C = {**kept_C, "control": kept_C["control"] + change_C}
        return {"delta": delta_C, "control_delta": change_C}, kept_C

    return replace(intact_scaffold(server_lr), report=report)


def scaffold_turned_round(server_lr: float = 1.0) -> Algorithm:
    def correct(grad_C: Tensor, params_C: Tensor, sent: Tree, kept_C: Tree) -> Tensor:
        return grad_C - sent["control"] + kept_C["control"]

    return replace(intact_scaffold(server_lr), correct=correct)


def scaffold_with_shared_controls(server_lr: float = 1.0) -> Algorithm:
    def correct(grad_C: Tensor, params_C: Tensor, sent: Tree, kept_C: Tree) -> Tensor:
        return grad_C + sent["control"] - kept_C["control"].mean(dim=0)

    return replace(intact_scaffold(server_lr), correct=correct)


def no_normalisation(steps: int, work: object, mu: float) -> float:
    return 1.0


def steps_alone(steps: int, work: object, mu: float) -> float:
    return float(steps)


def local_that_forgets() -> Algorithm:
    return replace(intact_local(), start=lambda sent, kept_C, C: sent["params"].expand(C, -1))


# ------------------------------------------------------------- robust combines


def lower_median(left_out: Callable[[int], int]) -> Callable[[Tree, Tensor], Tree]:
    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        return {group: x_C.median(dim=0).values for group, x_C in report_C.items()}

    return combine


def krum_of_all_neighbours(report_C: Tree, clients: int, byzantine: int) -> list[int]:
    return intact_krum_order(report_C, clients, -1)


def krum_of_the_first_on_a_tie(report_C: Tree, clients: int, byzantine: int) -> list[int]:
    delta_C = report_C["delta"]
    away_CC = torch.cdist(delta_C, delta_C, compute_mode=robust.EXACT).square()
    away_CC = away_CC.fill_diagonal_(torch.inf).sort(dim=1).values
    score_C = away_CC[:, : clients - byzantine - 2].sum(dim=1)
    return score_C.argsort(stable=True).tolist()


# ------------------------------------------------------------- wrappers


def norm_of_the_stack(x_C: Tensor) -> Tensor:
    return x_C.norm().to(torch.float64).expand(len(x_C), 1)


def scaled_to_the_norm(x_C: Tensor, max_norm: float) -> Tensor:
    return x_C * (max_norm / transforms.row_norms(x_C)).to(x_C.dtype)


def nothing_waits(wanted_C: Tensor, packed_C: Tree) -> Tensor:
    return torch.zeros_like(wanted_C)


def smallest_values(dense_C: Tensor, k: int) -> Tree:
    index_C = dense_C.abs().topk(k, dim=1, largest=False).indices
    size_C = torch.full((len(dense_C), 1), dense_C.shape[1], dtype=torch.int32)
    value_C = dense_C.gather(1, index_C)
    return {"delta.index": index_C.int(), "delta.size": size_C, "delta.value": value_C}


def nearest(x_C: Tensor, plan: RoundPlan, group: str) -> Tensor:
    return torch.full(x_C.shape, 0.5)


def dither_of_a_place(x_C: Tensor, plan: RoundPlan, group: str) -> Tensor:
    draws = [
        generator(plan.seed, plan.round, c, "quantize", group).random(x_C.shape[1], "float32")
        for c in range(len(x_C))
    ]
    return torch.stack([torch.from_numpy(draw) for draw in draws])


def dither_of_the_first_round(x_C: Tensor, plan: RoundPlan, group: str) -> Tensor:
    return intact_dither(x_C, replace(plan, round=0), group)


def nibbles_swapped(codes_C: Tensor) -> Tensor:
    whole_C = torch.nn.functional.pad(codes_C, (0, codes_C.shape[1] % 2), value=packing.ABSENT)
    return whole_C[:, 1::2] | (whole_C[:, 0::2] << 4)


def scale_rounded_to_nearest(largest_C: Tensor) -> Tensor:
    return largest_C.to(torch.float32)


def noise_of_the_first_round(like: Tensor, secret: str, round: int, group: str) -> Tensor:
    return intact_gaussian(like, secret, 0, group)


def half_the_noise(like: Tensor, secret: str, round: int, group: str) -> Tensor:
    return intact_gaussian(like, secret, round, group) / 2


def noise_over_whoever_came(
    algorithm: Algorithm, max_norm: float, multiplier: float, cohort: float, secret: str
) -> Algorithm:
    intact = intact_add_noise(algorithm, max_norm, multiplier, cohort, secret)
    return replace(intact, combine=uniform_mean)


def noise_on_trust(
    algorithm: Algorithm, max_norm: float, multiplier: float, cohort: float, secret: str
) -> Algorithm:
    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        return {group: x_C.sum(dim=0) / cohort for group, x_C in report_C.items()}

    return replace(
        intact_add_noise(algorithm, max_norm, multiplier, cohort, secret), combine=combine
    )
