"""Randomness by address: every stream is named by what it is for, never by position or order.

An address is (run seed, round, client id, purpose) or any other tuple of integers and strings.
Any draw of any client in any round can therefore be replayed alone, in any grouping, on any engine.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def address(*parts: int | str) -> int:
    """Hash an address to 64 bits.  Types are kept apart: ``1`` and ``"1"`` differ."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        # Escaped, so that no name, whatever it holds, looks like the beginning of another part.
        text = str(part).replace("\\", "\\\\").replace("\x1f", "\\x1f")
        digest.update(f"{type(part).__name__}:{text}\x1f".encode())
    return int.from_bytes(digest.digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """Return the NumPy generator that lives at an address."""
    return np.random.Generator(np.random.Philox(address(*parts)))


def torch_generator(*parts: int | str) -> "torch.Generator":
    """Return the torch (CPU) generator that lives at an address."""
    import torch

    return torch.Generator().manual_seed(address(*parts) >> 1)
