"""Whether two systems did the same work.

In float32 adapters and losses must agree to 1e-4.  Two bfloat16 implementations cannot agree so
closely; there each system is compared with float32, and ours may be at most twice as far from it as
PEFT loops in bfloat16 are in the median: which of them is fastest is chance and must not decide.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = 1e-4
BFLOAT16_FACTOR = 2.0
TRAINS = 0.5  # a loop whose change is further than this from float32's, relatively, does not count


class OtherWork(Exception):
    """Two systems did not do the same work."""

    def __init__(self, detail: str) -> None:
        """Say what differs."""
        super().__init__(f"both sides did not do the same work: {detail}")


@dataclass(frozen=True)
class Result:
    """What came out of a round.

    Attributes:
        params_C: each client's adapter after its steps, ``(C, P)``.
        loss_C: its mean training loss, nats per token, ``(C,)`` float64.
    """

    params_C: Tensor
    loss_C: Tensor

    @staticmethod
    def read(path: Path) -> "Result":
        """Read a result."""
        return Result(**load_file(path))


@dataclass(frozen=True)
class Deviation:
    """How far a result is from the one it is compared with.

    Attributes:
        adapter: largest difference of any adapter value.
        loss: root mean square over clients of the difference of losses, nats per token.
        loss_max: the largest of them.
        change: norm of the difference of the adapters over the norm of the reference's change.
    """

    adapter: float
    loss: float
    loss_max: float
    change: float


def deviation(result: Result, reference: Result, initial: Tensor) -> Deviation:
    """Compare a result with a reference.

    Args:
        result: what is judged.
        reference: what it is compared with.
        initial: the adapter ``(P,)`` both started from.
    """
    if result.params_C.shape != reference.params_C.shape:
        shapes = f"{tuple(result.params_C.shape)} and {tuple(reference.params_C.shape)}"
        raise OtherWork(f"adapters of shapes {shapes}")
    apart_C = result.params_C - reference.params_C
    loss_C = (result.loss_C - reference.loss_C).abs()
    changed = torch.linalg.vector_norm(reference.params_C - initial)
    return Deviation(
        adapter=apart_C.abs().max().item(),
        loss=loss_C.square().mean().sqrt().item(),
        loss_max=loss_C.max().item(),
        change=(torch.linalg.vector_norm(apart_C) / changed).item(),
    )


def check_float32(name: str, found: Deviation) -> None:
    """Refuse a float32 result that is not the reference's.

    Raises:
        OtherWork: saying what differs by how much.
    """
    # Written so that a NaN is refused, too.
    if not (found.adapter <= TOLERANCE and found.loss_max <= TOLERANCE):
        raise OtherWork(
            f"{name}: adapters differ by up to {found.adapter:.1e}, "
            f"losses by up to {found.loss_max:.1e} (allowed: {TOLERANCE:.0e})"
        )


def check_bfloat16(name: str, found: Deviation, peers: Sequence[Deviation]) -> None:
    """Refuse a bfloat16 result further from float32 than twice what PEFT loops usually are.

    Args:
        name: of our system.
        found: how far it is from float32.
        peers: how far PEFT loops in bfloat16 are, at least one.

    Raises:
        OtherWork: saying how far both are.
    """
    for what in ("loss", "change"):
        ours, theirs = getattr(found, what), median(getattr(peer, what) for peer in peers)
        if not ours <= max(BFLOAT16_FACTOR * theirs, TOLERANCE):
            raise OtherWork(
                f"{name}: its {what} is {ours:.1e} away from float32's, PEFT loops' in the median "
                f"{theirs:.1e} (allowed: {BFLOAT16_FACTOR:g} times that)"
            )
