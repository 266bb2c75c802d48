"""Rows of real numbers as rows of bytes: 8 or 4 bits a value, one scale a block.

Knows nothing of clients beyond their axis, and draws nothing: the caller brings the random numbers.

Shape suffixes: C clients, P values of a row, N blocks of a row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256  # values that share a scale
LEVELS = {8: 127, 4: 7}  # codes -L ... L, so that zero is exact
ABSENT = 15  # the 4-bit code that no value has: pads an odd row to whole bytes


def pack_blocks(x_C: Tensor, uniform_C: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round each value of a block up or down to a multiple of (largest magnitude / levels).

    A value is rounded up with a probability equal to its distance from the lower multiple, so its
    expectation over ``uniform_C`` is the value itself.  A block that is not finite gets a scale
    that is not finite.

    Args:
        x_C: numbers ``(C, P)``.
        uniform_C: random numbers in [0, 1), float32 ``(C, P)``.
        bits: 8 or 4.

    Returns:
        Codes, uint8 ``(C, P)`` or ``(C, ceil(P / 2))``, and scales, float32 ``(C, N)``.
    """
    levels = LEVELS[bits]
    largest_C = _blocks(x_C.abs()).amax(dim=2).to(torch.float64)
    scale_C = _not_below(largest_C)
    spread_C = _spread(scale_C, x_C.shape[1]).to(torch.float64)
    ratio_C = torch.where(spread_C > 0, x_C / spread_C, 0.0)
    # In float64, where level + uniform cannot round up to the next level.
    codes_C = torch.floor(ratio_C * levels + uniform_C.to(torch.float64)) + levels
    codes_C = codes_C.nan_to_num().to(torch.uint8)  # a NaN is told by its scale
    return (codes_C if bits == 8 else _pair(codes_C)), scale_C


def unpack_blocks(codes_C: Tensor, scale_C: Tensor, bits: int) -> Tensor:
    """Return the numbers that codes and scales stand for, float32 ``(C, P)``."""
    levels = LEVELS[bits]
    single_C = codes_C if bits == 8 else _unpair(codes_C)
    ratio_C = (single_C.to(torch.float32) - levels) / levels
    return ratio_C * _spread(scale_C, single_C.shape[1])


def _blocks(x_C: Tensor) -> Tensor:
    missing = -x_C.shape[1] % BLOCK
    return F.pad(x_C, (0, missing)).unflatten(1, (-1, BLOCK))


def _spread(scale_C: Tensor, size: int) -> Tensor:
    return scale_C.repeat_interleave(BLOCK, dim=1)[:, :size]


def _not_below(largest_C: Tensor) -> Tensor:
    """Round to float32 upwards, so that no ratio exceeds one and no code its range."""
    rounded_C = largest_C.to(torch.float32)
    above_C = torch.nextafter(rounded_C, torch.full_like(rounded_C, math.inf))
    return torch.where(rounded_C < largest_C, above_C, rounded_C)


def _pair(codes_C: Tensor) -> Tensor:
    whole_C = F.pad(codes_C, (0, codes_C.shape[1] % 2), value=ABSENT)
    return whole_C[:, 0::2] | (whole_C[:, 1::2] << 4)


def _unpair(bytes_C: Tensor) -> Tensor:
    codes_C = torch.stack([bytes_C & 15, bytes_C >> 4], dim=2).flatten(1)
    odd = bool((codes_C[:, -1] == ABSENT).all())
    return codes_C[:, :-1] if odd else codes_C
