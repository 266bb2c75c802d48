"""Work that the interface starts and does not do: ``fedpilot`` in processes of their own.

A job is a folder ``RUNS/.jobs/<id>``: what was asked, what the process said, and how it ended.  The
process holds the folder's lock while it lives, in a session of its own, so it outlives the server
and whoever looks later still sees whether it goes on.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from federation.errors import StorageError
from federation.runs import storage
from ui.arguments import parse

JOBS = ".jobs"
ASKED, ENDED, LOG = "job.json", "ended.json", "output.log"
STARTING = 20.0  # seconds that a process may take until it holds the lock
PROGRESS = re.compile(r"[\d.]+ s +(.*)")
"""A line by which a run tells what it is at."""
CHILDREN: list["subprocess.Popen[bytes]"] = []
"""Processes that this one started: kept until they end, so that none stays behind as a zombie."""
TOLD = 20_000  # bytes of what it said that are looked at
LARGEST = 50_000_000  # bytes of JSON that are read


@dataclass(frozen=True)
class Job:
    """A command that was started.

    Attributes:
        folder: where it is written down.
        title: what it is, for people.
        args: what follows ``fedpilot``.
        about: name of the run that it makes or is about; empty: of none.
        began: seconds since the epoch.
    """

    folder: Path
    title: str
    args: tuple[str, ...]
    about: str
    began: float

    @property
    def id(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def code(self) -> int | None:
        """Its exit code; None while it goes on, or if it was killed."""
        try:
            return int(json.loads((self.folder / ENDED).read_text())["code"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def alive(self) -> bool:
        """Whether its process lives, or is about to."""
        if self.code is not None:
            return False
        if storage.is_locked(self.folder):
            return True
        return not (self.folder / storage.LOCK).exists() and time.time() - self.began < STARTING

    @property
    def said(self) -> str:
        """What it said last: of a command that failed, the line that says why."""
        lines = [line for line in self.output.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1].removeprefix("fedpilot: ").strip() if lines else ""

    @property
    def step(self) -> str:
        """What a run that it makes is at, as it says itself; empty if it does not say."""
        found = PROGRESS.fullmatch(self.said)
        return found[1] if found else ""

    @property
    def output(self) -> str:
        """The end of what it said."""
        try:
            data = (self.folder / LOG).read_bytes()
        except OSError:
            return ""
        return data[-TOLD:].decode("utf-8", "replace")

    @property
    def printed(self) -> dict[str, Any] | None:
        """The JSON that it printed, once it succeeded; None if there is none."""
        if self.code != 0:
            return None
        try:
            with open(self.folder / LOG, "rb") as log:
                text = log.read(LARGEST).decode("utf-8", "replace")
        except OSError:
            return None
        for start in re.finditer(r"^\{", text, re.MULTILINE):
            try:
                found, _ = json.JSONDecoder().raw_decode(text[start.start() :])
            except ValueError:
                continue
            return found
        return None


def start(runs: Path, title: str, args: Sequence[str], about: str = "", once: str = "") -> Job:
    """Start a command of ``fedpilot`` in a process of its own.

    Args:
        runs: folder of the runs; its parent is where relative paths start.
        title: what it is, for people.
        args: what follows ``fedpilot``.
        about: name of the run that it makes or is about.
        once: what the wish is called: whoever wishes the same again, by a second click or in
            another tab, gets the job that there is.

    Raises:
        ConfigError: if the command is none that can be typed.
        StorageError: if the folder cannot be written.
    """
    parse(args)
    folder = runs / JOBS / f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
    if once:
        folder = runs / JOBS / f"once-{hashlib.sha256(once.encode()).hexdigest()[:16]}"
    job = Job(folder, title, tuple(args), about, time.time())
    with storage.explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            known = read(folder) or replace(job, began=folder.stat().st_mtime)
            if known.alive or (known.code == 0 and (not about or (runs / about).exists())):
                return known
            folder.rename(folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}"))
            folder.mkdir()  # it failed, was killed, or its run was deleted: it is tried again
    try:
        begin(job)
    except StorageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return job


def begin(job: Job) -> None:
    """Write a job down in its folder and start its process.

    Raises:
        StorageError: if something cannot be written, or no process begun.
    """
    folder = job.folder
    asked = {"title": job.title, "args": list(job.args), "about": job.about, "began": job.began}
    storage.atomic_write(folder / ASKED, json.dumps(asked).encode())
    with storage.explained(folder / LOG), open(folder / LOG, "wb") as log:
        child = subprocess.Popen(  # not waited for: it goes on when this process has ended
            [sys.executable, "-m", "ui.web.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    CHILDREN[:] = [*(other for other in CHILDREN if other.poll() is None), child]


def read(folder: Path) -> Job | None:
    """Read what was asked; None if it cannot be read."""
    try:
        asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
        args = tuple(str(x) for x in asked["args"])
        return Job(folder, str(asked["title"]), args, str(asked["about"]), float(asked["began"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def jobs(runs: Path, about: str | None = None) -> list[Job]:
    """List jobs, the newest first.

    Args:
        runs: folder of the runs.
        about: only those of this run.
    """
    found = [read(folder) for folder in (runs / JOBS).glob("*")]
    kept = [job for job in found if job and about in (None, job.about)]
    return sorted(kept, key=lambda job: job.began, reverse=True)
