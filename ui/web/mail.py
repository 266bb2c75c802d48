"""Letters between pages and a worker that lives for a while: files in a folder, nothing else.

Whoever asks writes ``asked/<id>.json``, whole or not at all; an id counts once, so a double click
or a second tab asks nothing twice.  The worker takes the oldest, writes ``said/<id>.json`` and then
deletes what was asked.  It holds the folder's lock while it lives, answers what was asked whatever
becomes of the server that started it, and ends by itself when nobody asks any more: after a while,
or at once if that server is gone.  Whoever finds letters and no worker starts one.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation.errors import ConfigError, LockedError
from federation.runs import storage

ASKED, SAID, BEGAN, LOG = "asked", "said", "began", "worker.log"
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
KEPT = 50  # answers that are kept
LARGEST = 100_000  # bytes of a letter
STARTING = 25.0  # seconds that a worker may take until it holds the lock
LOOK = 0.1  # seconds between looks

Letter = dict[str, Any]
_POSTING = threading.Lock()  # threads of one server share the name of a temporary file


def post(folder: Path, id: str, letter: Mapping[str, object]) -> None:
    """Ask something; nothing happens if that id was asked before.

    Raises:
        ConfigError: if the id or the letter cannot be used.
        StorageError: if it cannot be written.
    """
    if not ID.fullmatch(id):
        raise ConfigError(f"{id!r} is no id of a letter: letters, digits, - and _")
    text = json.dumps(dict(letter), allow_nan=False).encode()
    if len(text) > LARGEST:
        raise ConfigError(f"this is too long: {len(text):,} bytes, {LARGEST:,} are allowed")
    with _POSTING:
        for name in (ASKED, SAID):
            with storage.explained(folder):
                (folder / name).mkdir(parents=True, exist_ok=True)
        if not (folder / SAID / f"{id}.json").exists() and not file_of(folder, id).exists():
            storage.atomic_write(file_of(folder, id), text)


def file_of(folder: Path, id: str) -> Path:
    """Return the file of what was asked."""
    return folder / ASKED / f"{id}.json"


def waiting(folder: Path) -> list[str]:
    """List the ids of letters without an answer, the oldest first."""
    found = []
    for file in (folder / ASKED).glob("*.json"):
        with suppress(FileNotFoundError):
            if ID.fullmatch(file.stem):
                found.append((file.stat().st_mtime_ns, file.stem))
    return [id for _, id in sorted(found)]


def asked(folder: Path, id: str) -> Letter | None:
    """Read a letter; None if it is gone or none."""
    return table(file_of(folder, id))


def said(folder: Path, id: str) -> Letter | None:
    """Read an answer; None while there is none."""
    return table(folder / SAID / f"{id}.json")


def newest(folder: Path) -> Letter | None:
    """Read the answer that was written last; None if there is none."""
    files = sorted((folder / SAID).glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return table(files[-1]) if files else None


def key(*parts: object) -> str:
    """Make an id of what is asked: the same of the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def table(file: Path) -> Letter | None:
    """Read a JSON object; None if it cannot be read as one."""
    try:
        if file.stat().st_size > 10 * LARGEST:
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def say(folder: Path, id: str, answer: Mapping[str, object]) -> None:
    """Write an answer, or more of it than before."""
    storage.atomic_write(folder / SAID / f"{id}.json", json.dumps(dict(answer)).encode())


def alive(folder: Path) -> bool:
    """Tell whether a worker is there."""
    return folder.is_dir() and storage.is_locked(folder)


def ensure(folder: Path, module: str, *args: str, runs: Path) -> None:
    """Start a worker if letters wait and none is there.

    Args:
        folder: of the letters, which exists.
        module: what runs.
        args: of it, after the folder.
        runs: folder of the runs; its parent is where relative paths start.

    Raises:
        StorageError: if the folder cannot be written.
    """
    began = folder / BEGAN
    with _POSTING:
        if alive(folder):
            return
        with suppress(OSError):
            if time.time() - began.stat().st_mtime < STARTING:
                return
        storage.atomic_write(began, b"")
        with storage.explained(folder / LOG), open(folder / LOG, "ab") as log:
            subprocess.Popen(  # not waited for: it goes on when this process has ended
                [sys.executable, "-m", module, str(folder.absolute()), *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def serve(
    folder: Path, perform: Callable[[str, Letter], Mapping[str, object]], idle_s: float
) -> int:
    """Answer letters in their order until nobody asked for a while, or whoever started it is gone.

    Args:
        folder: of the letters.
        perform: given id and letter, does what is asked; its answer is the last that is written.
        idle_s: seconds without a letter after which it ends.

    Returns:
        How many were answered; 0 too if another worker is there.
    """
    try:
        lock = storage.lock(folder)
    except LockedError:
        return 0
    count, last, parent = 0, time.monotonic(), os.getppid()
    try:
        (folder / BEGAN).unlink(missing_ok=True)
        while time.monotonic() - last < idle_s:
            ids = waiting(folder)
            if not ids and os.getppid() != parent:
                break
            if not ids:
                time.sleep(LOOK)
                continue
            say(folder, ids[0], perform(ids[0], asked(folder, ids[0]) or {}))
            file_of(folder, ids[0]).unlink(missing_ok=True)
            count, last = count + 1, time.monotonic()
            forget(folder)
    finally:
        lock.release()
    return count


def forget(folder: Path) -> None:
    """Delete all but the newest answers."""
    files = sorted((folder / SAID).glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    storage.remove(files[:-KEPT])
