"""Experiments that are being written, kept beside the runs: whoever has a draft's id finds it."""

import json
import re
import secrets
from dataclasses import asdict
from pathlib import Path

from federation.errors import ConfigError
from federation.runs import storage
from ui.web.draft import Draft

DRAFTS = ".drafts"
ID = re.compile(r"[0-9a-f]{16}")
KEPT = 100  # drafts; the oldest go


def new_id() -> str:
    """Return a name that nobody guesses."""
    return secrets.token_hex(8)


def file_of(runs: Path, id: str) -> Path:
    """Return the file of a draft.

    Raises:
        ConfigError: if the id is none.
    """
    if not ID.fullmatch(id):
        raise ConfigError(f"{id[:80]!r} names no draft; begin anew")
    return runs / DRAFTS / f"{id}.json"


def keep(runs: Path, id: str, draft: Draft) -> None:
    """Write a draft down, in place of what it was before.

    Raises:
        StorageError: if it cannot be written.
    """
    path = file_of(runs, id)
    with storage.explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    storage.atomic_write(path, json.dumps(asdict(draft)).encode())
    files = sorted(path.parent.glob("*.json"), key=age)
    storage.remove(files[:-KEPT])


def age(path: Path) -> float:
    """Return when a file was written; of one that is gone, long ago."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def read(runs: Path, id: str) -> Draft:
    """Read a draft.

    Raises:
        ConfigError: if there is none that can be read.
    """
    try:
        found = json.loads(file_of(runs, id).read_text(encoding="utf-8"))
        draft = Draft(**found)
    except (OSError, ValueError, TypeError):
        raise ConfigError("this draft is not kept any more; the form is filled anew") from None
    if not isinstance(draft.table, dict):
        raise ConfigError("this draft is damaged; the form is filled anew")
    return draft
