"""What happens to updates on their way: functions from Algorithm to Algorithm.

Each wraps what the client does before sending and what the server does after receiving in one
function, so that the two halves cannot disagree.  A packed report consists of the very tensors that
travel (codes, scales, indices), so ``nbytes`` of a report row is what its client uploads.

Order: compression goes outside, ``quantize(top_k(clip_updates(fedavg(), 1.0), 0.1), 8)``; what
cannot be wrapped raises ConfigError.  A row that is not finite stays not finite through every
wrapper, so that the server can reject that client and no other.  An algorithm that reports nothing
still reports nothing.

Shape suffixes: C clients, P flat parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from federation.address import generator
from federation.algorithms.algorithm import Algorithm, uniform_mean, weighted_mean
from federation.algorithms.packing import pack_blocks, unpack_blocks
from federation.errors import ConfigError
from federation.plan import RoundPlan
from federation.tree import Tree

MaxNorm = Annotated[float, Field(gt=0, description="largest L2 norm of one client's update")]
Fraction = Annotated[float, Field(gt=0, le=1, description="share of the values that are sent")]
Bits = Annotated[Literal[4, 8], Field(description="bits of one value that is sent")]

SECRET_LENGTH = 16  # characters; a shorter key of the noise could be guessed


def clip_updates(algorithm: Algorithm, max_norm: MaxNorm) -> Algorithm:
    """Scale every client's update down to L2 norm ``max_norm`` where it is longer.

    McMahan et al. 2018, arXiv:1710.06963 (flat clipping: one norm over all parameters).  What local
    work did is clipped, before the algorithm reports it and before anything compresses it.

    Raises:
        ConfigError: if the norm is not positive and finite.
    """
    _positive("clip_updates: max_norm", max_norm)

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        return algorithm.report(clip(delta_C, max_norm), sent, kept_C, plan)

    return replace(algorithm, report=report)


def add_noise(
    algorithm: Algorithm,
    max_norm: MaxNorm,
    multiplier: float,
    expected_cohort: float,
    secret: str,
) -> Algorithm:
    """Make the mean update of a round differentially private for whole clients.

    McMahan et al. 2018, arXiv:1710.06963, algorithm 1 with fixed denominator and a trusted server:
    updates are clipped, summed with equal weights whatever the clients' sizes, and divided by the
    expected cohort; the number that reported would leak and change the sensitivity.  Gaussian noise
    of standard deviation ``multiplier * max_norm`` is on the sum.  Clients clip before they send,
    and the server clips again in ``combine``, so that the bound holds whatever lies in between.

    The noise is added in ``step`` because ``combine`` does not know the round, and fresh noise
    needs an address: (secret, round).  What ``combine`` returns is not private; nothing but
    ``step`` may see it.  The privacy spent is for an accountant to say; it holds only while nobody
    knows ``secret``, and while no round is played twice with different clients under the same
    secret.  The stream is a statistical one of 64 bits of seed, not a cryptographic one.

    Args:
        algorithm: one that reports its clients' updates and nothing else.
        max_norm: C, largest L2 norm of one client's update.
        multiplier: z, noise in units of ``max_norm``; 0 adds none.
        expected_cohort: q N, the mean size of a cohort.
        secret: key of the noise, at least 16 characters, unrelated to the run seed; for example
            ``secrets.token_hex(16)``.

    Raises:
        ConfigError: if an argument is out of bounds, or the algorithm reports more than an update
            or does not average what it receives.
    """
    _positive("add_noise: max_norm", max_norm)
    _positive("add_noise: expected_cohort", expected_cohort)
    if not (math.isfinite(multiplier) and multiplier >= 0):
        raise ConfigError(f"add_noise: multiplier must be finite and >= 0, got {multiplier}")
    if len(secret) < SECRET_LENGTH:
        raise ConfigError(f"add_noise: secret needs at least {SECRET_LENGTH} characters")

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        report_C, kept_C = algorithm.report(delta_C, sent, kept_C, plan)
        if report_C.keys() - {"delta"}:
            raise ConfigError(
                "add_noise protects an algorithm that reports one 'delta' a client, this one "
                f"reports {sorted(report_C)}; use another, and compress outside of add_noise"
            )
        if algorithm.combine not in (weighted_mean, uniform_mean):
            raise ConfigError(
                "add_noise protects a sum of updates, and this algorithm combines them otherwise;"
                " choose one that averages, such as fedavg, or drop upload.noise"
            )
        return {group: clip(x_C, max_norm) for group, x_C in report_C.items()}, kept_C

    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        # In float64, so that the order of the clients leaves no trace.
        wide_C = {group: x_C.to(torch.float64) for group, x_C in report_C.items()}
        return {
            group: (clip(x_C, max_norm).sum(dim=0) / expected_cohort).to(report_C[group].dtype)
            for group, x_C in wide_C.items()
        }

    def step(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
        std = multiplier * max_norm / expected_cohort
        noisy = {
            group: mean + std * gaussian(mean, secret, plan.round, group)
            for group, mean in combined.items()
        }
        return algorithm.step(state, noisy, plan)

    return replace(algorithm, report=report, combine=combine, step=step)


def top_k(algorithm: Algorithm, fraction: Fraction) -> Algorithm:
    """Send the largest values of every client's delta; the rest waits with the client.

    Stich et al. 2018, arXiv:1809.07599, algorithm 1 (sparsification with memory), with the update
    of a round in place of a gradient: what is not sent is added to the client's next update.
    ``k = ceil(fraction * P)``.  Other reported groups travel whole.

    Per client ``4 + k * (4 + bytes of a value)`` bytes travel for the delta: P and the indices are
    int32.

    Raises:
        ConfigError: if the fraction is not in (0, 1], or the algorithm reports no plain ``delta``.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"top_k: fraction must be in (0, 1], got {fraction}")

    def memory(params: Tensor) -> Tree:
        return {**algorithm.memory(params), "residual": torch.zeros_like(params)}

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        report_C, kept_C = algorithm.report(delta_C, sent, kept_C, plan)
        if not report_C:
            return report_C, kept_C
        if "delta" not in report_C:
            raise ConfigError(
                "top_k needs an algorithm that reports a plain 'delta', this one reports "
                f"{sorted(report_C)}; quantize goes outside: quantize(top_k(...))"
            )
        wanted_C = report_C["delta"] + kept_C["residual"]
        packed_C = sparsify(wanted_C, math.ceil(fraction * wanted_C.shape[1]))
        other_C = {group: x_C for group, x_C in report_C.items() if group != "delta"}
        return {**other_C, **packed_C}, {**kept_C, "residual": residual(wanted_C, packed_C)}

    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        whole_C = {group: x_C for group, x_C in report_C.items() if group not in SPARSE}
        if report_C:
            whole_C["delta"] = densify(report_C)
        return algorithm.combine(whole_C, weight_C)

    return replace(algorithm, memory=memory, report=report, combine=combine)


SPARSE = ("delta.index", "delta.size", "delta.value")


def sparsify(dense_C: Tensor, k: int) -> Tree:
    """Keep the k values of largest magnitude of each row.

    Returns:
        ``delta.index`` int32 ``(C, k)``, ``delta.value`` ``(C, k)``, ``delta.size`` int32
        ``(C, 1)``.

    Raises:
        ConfigError: if a row is too long for int32.
    """
    clients, size = dense_C.shape
    if size > torch.iinfo(torch.int32).max:
        raise ConfigError(f"top_k: int32 cannot index {size} parameters; train an adapter")
    index_C = dense_C.abs().topk(k, dim=1).indices
    return {
        "delta.index": index_C.to(torch.int32),
        "delta.size": torch.full((clients, 1), size, dtype=torch.int32, device=dense_C.device),
        "delta.value": dense_C.gather(1, index_C),
    }


def densify(packed_C: Mapping[str, Tensor]) -> Tensor:
    """Write the values that were sent into rows of zeros ``(C, P)``."""
    value_C = packed_C["delta.value"]
    dense_C = value_C.new_zeros(len(value_C), int(packed_C["delta.size"].max()))
    return dense_C.scatter_(1, packed_C["delta.index"].long(), value_C)


def residual(wanted_C: Tensor, packed_C: Mapping[str, Tensor]) -> Tensor:
    """Return what was to be sent and was not, ``(C, P)``."""
    return wanted_C - densify(packed_C)


def quantize(algorithm: Algorithm, bits: Bits) -> Algorithm:
    """Send every reported number as 8 or 4 bits, rounded at random so that its mean is exact.

    Alistarh et al. 2017, arXiv:1610.02132, section 3 (QSGD), with the largest magnitude of a block
    of 256 values in place of the norm of the row, and codes of fixed width.  Random by address (run
    seed, round, client, group).  Integer groups, such as indices, travel as they are.

    Per client and group of P numbers ``P`` (8 bits) or ``ceil(P / 2)`` (4 bits) bytes of codes and
    ``4 * ceil(P / 256)`` of scales travel.

    Raises:
        ConfigError: if bits are not 4 or 8, or the algorithm's reports are quantised already.
    """
    if bits not in (4, 8):
        raise ConfigError(f"quantize: bits must be 4 or 8, got {bits}")

    def report(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
        report_C, kept_C = algorithm.report(delta_C, sent, kept_C, plan)
        if any(x_C.dtype == torch.uint8 for x_C in report_C.values()):
            raise ConfigError("quantize: these reports are quantised already; quantize once")
        packed_C: Tree = {}
        for group, x_C in report_C.items():
            if x_C.is_floating_point():
                codes_C, scale_C = pack_blocks(x_C, dither(x_C, plan, group), bits)
                packed_C |= {f"{group}.codes": codes_C, f"{group}.scale": scale_C}
            else:
                packed_C[group] = x_C
        return packed_C, kept_C

    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        whole_C: Tree = {}
        for group, x_C in report_C.items():
            if group.endswith(".codes"):
                group = group.removesuffix(".codes")
                whole_C[group] = unpack_blocks(x_C, report_C[f"{group}.scale"], bits)
            elif not group.endswith(".scale"):
                whole_C[group] = x_C
        return algorithm.combine(whole_C, weight_C)

    return replace(algorithm, report=report, combine=combine)


def gaussian(like: Tensor, secret: str, round: int, group: str) -> Tensor:
    """Draw standard normal numbers shaped as ``like`` at the secret address of a round."""
    draw = generator("noise", secret, round, group).standard_normal(like.shape)
    return torch.from_numpy(draw).to(like)


def dither(x_C: Tensor, plan: RoundPlan, group: str) -> Tensor:
    """Draw uniform numbers in [0, 1) for every client at its own address, shaped as ``x_C``."""
    draws = [
        generator(plan.seed, plan.round, client, "quantize", group).random(x_C.shape[1], "float32")
        for client in plan.clients
    ]
    return torch.stack([torch.from_numpy(draw) for draw in draws]).to(x_C.device)


def clip(x_C: Tensor, max_norm: float) -> Tensor:
    """Scale each row down to L2 norm ``max_norm`` where it is longer; zero and NaN stay."""
    return x_C * (max_norm / row_norms(x_C).clamp(min=max_norm)).to(x_C.dtype)


def row_norms(x_C: Tensor) -> Tensor:
    """Return the L2 norm of each row, float64 ``(C, 1)``: a float32 row cannot overflow it."""
    return torch.linalg.vector_norm(x_C, dim=1, keepdim=True, dtype=torch.float64)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be positive and finite, got {value}")
