"""Trees: server state, what is sent, what is reported, what a client keeps, a checkpoint.

A Tree is ``{group: tensor}``.  A group is *flat*: all its numbers lie in one row of P, and a
:class:`Layout` says which slice of the row is which named tensor.  On the server a group is
``(P,)``; for clients it has a leading clients axis C, one contiguous ``(C, P)`` matrix.  So
FedAvg is one matrix-vector product, an optimizer step one fused update, a clip one row norm, an
upload one slice; and the mathematics of an algorithm reads as it does in its paper.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

Tree = dict[str, Tensor]
Params = dict[str, Tensor]  # named tensors, by PEFT's or the model's own names


@dataclass(frozen=True)
class Layout:
    """Which slice of a flat row is which named tensor.

    Attributes:
        shapes: shape of every tensor by name; the order of the mapping is the order in the row.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def size(self) -> int:
        """P, the number of values in one row."""
        return sum(prod(shape) for shape in self.shapes.values())

    def slices(self) -> Iterator[tuple[str, slice, tuple[int, ...]]]:
        """Yield (name, slice of the row, shape) in order."""
        ends = accumulate(prod(shape) for shape in self.shapes.values())
        for (name, shape), end in zip(self.shapes.items(), ends, strict=True):
            yield name, slice(end - prod(shape), end), shape

    def views(self, flat: Tensor) -> Params:
        """View a row ``(P,)`` or a matrix ``(C, P)`` as named tensors, without copying.

        Raises:
            ValueError: if the last axis of ``flat`` is not P long.
        """
        if flat.shape[-1] != self.size:
            raise ValueError(f"a row of this layout has {self.size} values, got {flat.shape[-1]}")
        return {
            name: flat[..., where].unflatten(-1, shape) if shape else flat[..., where.start]
            for name, where, shape in self.slices()
        }

    def flatten(self, params: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Copy named tensors into one row ``(P,)``.

        Raises:
            ValueError: if names or shapes differ from the layout's, naming the first that does.
        """
        unknown = sorted(params.keys() ^ self.shapes.keys())
        if unknown:
            raise ValueError(f"tensor {unknown[0]!r} is missing or not part of this layout")
        flat = torch.empty(self.size, dtype=dtype)
        for name, where, shape in self.slices():
            if tuple(params[name].shape) != shape:
                got = tuple(params[name].shape)
                raise ValueError(f"tensor {name!r} has shape {got}, the layout says {shape}")
            flat[where] = params[name].detach().reshape(-1)
        return flat

    def mask(self, belongs: Callable[[str], bool]) -> Tensor:
        """Return a boolean row ``(P,)``, true where a tensor's name satisfies ``belongs``."""
        row = torch.zeros(self.size, dtype=torch.bool)
        for name, where, _ in self.slices():
            row[where] = belongs(name)
        return row


def rows(tree_C: Tree, index: Sequence[int]) -> Tree:
    """Select clients by their position on the C axis."""
    return {group: x_C[list(index)] for group, x_C in tree_C.items()}


def finite_rows(tree_C: Tree, clients: int) -> list[bool]:
    """Tell for each client whether all its values are finite."""
    fine_C = torch.ones(clients, dtype=torch.bool)
    for x_C in tree_C.values():
        if x_C.is_floating_point():
            fine_C &= torch.isfinite(x_C).reshape(clients, -1).all(dim=1)
    return fine_C.tolist()


def concat(parts: Iterable[Tree]) -> Tree:
    """Concatenate along the clients axis C: the union of disjoint groups of clients.

    Raises:
        ValueError: if there is no part, or the parts do not hold the same groups.
    """
    parts = list(parts)
    if not parts or any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(f"cannot join trees with groups {[sorted(part) for part in parts]}")
    return {group: torch.cat([part[group] for part in parts]) for group in parts[0]}


def nbytes(tree: Tree) -> int:
    """Bytes of all values of a tree as they stand in memory (names excluded, dtype included)."""
    return sum(x.numel() * x.element_size() for x in tree.values())
