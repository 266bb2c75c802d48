"""Trees as safetensors: the same bytes for the same tree, and distrust of what is read.

Knows tensors and files, not runs.  Torch is imported only when a tree is at hand.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from federation.errors import CorruptError
from federation.runs import storage

if TYPE_CHECKING:
    from torch import Tensor

    from federation.tree import Tree

HEADER_LIMIT = 1 << 20
"""Bytes a header may have: a tree has few groups, a hostile file may have 10^5."""


def encode_tree(tree: "Tree", metadata: Mapping[str, str] | None = None) -> bytes:
    """Write a tree as safetensors: the same bytes for the same tree and metadata, always.

    Args:
        tree: ``{group: tensor}``, any shapes.
        metadata: notes for people and tools.
    """
    from safetensors.torch import save

    tensors = {name: x.detach().clone().contiguous() for name, x in tree.items()}
    return _canonical(save(tensors, dict(metadata) if metadata else None))


def _canonical(data: bytes) -> bytes:
    """Order the metadata, which the library writes in an order that differs every time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Let a library write safetensors, and turn what it says of the disk into one line.

    Args:
        path: what is being written.

    Raises:
        StorageError: in place of what the system or safetensors raises.
    """
    from safetensors import SafetensorError

    with storage.explained(path):
        try:
            yield
        except SafetensorError as error:
            if found := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
            raise


def decode_tree(data: bytes, where: object) -> "Tree":
    """Read a tree from safetensors.

    Args:
        data: the bytes, from a disk or from a stranger.
        where: what to call it in an error.

    Raises:
        CorruptError: if it is not a whole safetensors file with a header of at most 1 MiB.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if int.from_bytes(data[:8], "little") > HEADER_LIMIT:
        raise CorruptError(f"{where} is not a tree of tensors: its header exceeds 1 MiB")
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptError(f"{where} is damaged, or no safetensors file: {error}") from error


def check_tree(tree: "Tree", like: "Tree", where: object) -> None:
    """Check that a tree has exactly the groups, dtypes and shapes of another.

    Raises:
        CorruptError: naming the first group that differs.
    """
    for name in sorted(tree.keys() ^ like.keys()):
        what = "lacks group" if name in like else "has an unexpected group"
        raise CorruptError(f"{where} {what} {name!r}; expected exactly {sorted(like)}")
    for name, expected in like.items():
        got, want = _kind(tree[name]), _kind(expected)
        if got != want:
            raise CorruptError(f"{where} group {name!r} is {got}, expected {want}")


def check_finite(tree: "Tree", where: object) -> None:
    """Check that every value of a tree is finite.

    Raises:
        CorruptError: naming the first group with a NaN or an infinity, and how many it has.
    """
    for name, x in tree.items():
        wrong = int((~x.isfinite()).sum())
        if wrong:
            raise CorruptError(f"{where} group {name!r} has {wrong} non-finite values")


def _kind(x: "Tensor") -> str:
    return f"{str(x.dtype).removeprefix('torch.')}{tuple(x.shape)}"


def load_tree(path: Path, sha256: str | None = None) -> "Tree":
    """Read a tree from a file.

    Args:
        path: a safetensors file.
        sha256: the hash it must have, where one was recorded.

    Raises:
        CorruptError: if it is damaged.
        StorageError: if it cannot be read.
    """
    with storage.explained(path):
        data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptError(f"{path} is damaged: its hash is not the recorded one")
    return decode_tree(data, path)


def save_tree(path: Path, tree: "Tree", metadata: Mapping[str, str] | None = None) -> str:
    """Write a tree atomically.

    Returns:
        The sha256 of the file.

    Raises:
        StorageError: as :func:`federation.runs.storage.atomic_write`.
    """
    data = encode_tree(tree, metadata)
    storage.atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()
