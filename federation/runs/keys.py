"""Secrets that noise is drawn from: made once, kept in a file that its owner alone may read.

A secret must not follow from a seed, which anybody may know; and whoever goes on with something
needs the very same one again.
"""

import re
import secrets
from pathlib import Path

from federation.errors import CorruptError
from federation.runs import storage

NOISE_KEY = "noise.key"
"""File of a run directory with the secret of its privacy noise."""
KEY_BYTES = 16


def draw_key(file: Path) -> None:
    """Draw a secret into a new file.

    Raises:
        StorageError: if it cannot be written.
    """
    storage.atomic_write(file, secrets.token_hex(KEY_BYTES).encode(), mode=0o600)


def read_key(file: Path) -> str:
    """Read a secret.

    Raises:
        CorruptError: if it is gone or damaged.
        StorageError: if it cannot be read.
    """
    if not file.exists():
        raise CorruptError(f"{file} is missing, other noise would follow; restore it from a copy")
    with storage.explained(file):
        key = file.read_bytes()
    if not re.fullmatch(rb"[0-9a-f]{%d}" % (2 * KEY_BYTES), key):
        raise CorruptError(f"{file} is damaged: it is no key; restore it from a copy")
    return key.decode()
