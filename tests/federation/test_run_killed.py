"""A run killed at any instant or cut off from power ends as if nothing had happened.

Faults are injected at every operation on the file system, not at chosen ones, so that no crash
point can be forgotten.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.address import generator
from federation.runs.records import (
    RoundRecord,
)
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.tiny_runs import (
    OPERATIONS,
    ROUNDS,
    damage,
    killed,
    newest_checkpoint,
    operations_of,
    outcome,
    train,
)

# --- Killed at every operation -----------------------------------------------------------------


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.slow
def test_killed_at_every_operation_it_ends_the_same(tmp_path, undisturbed, no_waiting):
    total = operations_of(lambda: train(tmp_path / "count"))
    assert total > ROUNDS * 10
    for n in range(1, total + 1):
        path = tmp_path / f"{n}"
        assert killed(lambda: train(path), n)  # noqa: B023
        if (path / "config.json").exists():
            assert Run.open(path).status == "interrupted" or n == total
        train(path)
        assert outcome(path) == undisturbed, f"operation {n} of {total}"


def test_killed_again_while_resuming_it_ends_the_same(tmp_path, copy, undisturbed, no_waiting):
    damage(newest_checkpoint(copy))
    with open(copy / "journal.jsonl", "ab") as file:
        file.write(b'{"torn')
    for leftover in ("state/.round-0009.safetensors.1.tmp", "clients/.x.1.tmp", ".config.1.tmp"):
        (copy / leftover).write_bytes(b"half")

    def again(name: str) -> Path:
        return Path(shutil.copytree(copy, tmp_path / name))

    count = again("count")
    total = operations_of(lambda: train(count))
    for n in range(1, total + 1):
        path = again(f"{n}")
        assert killed(lambda: train(path), n)  # noqa: B023
        train(path)
        assert outcome(path) == undisturbed, f"operation {n} of {total}"


SCRIPT = """
import sys
from pathlib import Path
from tests.tiny_runs import train
train(Path(sys.argv[1]), 60)
"""


@pytest.mark.slow
def test_killed_from_outside_at_any_moment_it_ends_the_same(tmp_path):
    """A separate interpreter, real waiting for the disk, SIGKILL whenever the clock says."""
    rounds = 60
    train(tmp_path / "undisturbed", rounds)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    path, seen = tmp_path / "run", []
    for attempt in range(3):
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], env=env)
        while not (path / "journal.jsonl").exists():
            time.sleep(0.01)
        before = len((path / "journal.jsonl").read_bytes())
        while child.poll() is None and len((path / "journal.jsonl").read_bytes()) == before:
            time.sleep(0.001)
        time.sleep(float(generator(1, attempt, "kill").uniform(0, 0.3)))
        child.kill()
        child.wait()
        seen.append(len(Run.open(path).rounds))
    train(path, rounds)
    assert seen == sorted(seen)
    assert outcome(path) == outcome(tmp_path / "undisturbed")


# --- Cut off from power ------------------------------------------------------------------------


class PowerCut(BaseException):
    pass


class Disk:
    """What would be left of a directory if the power failed: only what was waited for.

    A file has the content of its last fsync (nothing before it), a directory the names of its own.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, cut: int | None) -> None:
        self.root, self.cut, self.count, self.dead = root, cut, 0, False
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, dict[str, int]] = {}
        for name in OPERATIONS:
            patch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable) -> Callable:
        def operation(*args, **kwargs):
            if self.dead:
                return None if name in ("fsync", "replace") else real(*args, **kwargs)
            self.count += 1
            if self.count == self.cut:
                self.dead = True
                raise PowerCut
            if name == "fsync":
                return self.sync(Path(os.readlink(f"/proc/self/fd/{args[0]}")))
            return real(*args, **kwargs)

        return operation

    def sync(self, path: Path) -> None:
        if path.is_dir():
            self.names[str(path)] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def left(self, copy: Path, directory: Path | None = None) -> None:
        """Write what is left to another directory."""
        copy.mkdir()
        for name, inode in self.names.get(str(directory or self.root), {}).items():
            below = (directory or self.root) / name
            if str(below) in self.names or below.is_dir():
                self.left(copy / name, below)
            else:
                (copy / name).write_bytes(self.contents.get(inode, b""))


def test_after_a_power_cut_at_any_operation_it_ends_the_same(tmp_path, undisturbed, no_waiting):
    """Also: a round whose append has returned is never lost."""
    total = operations_of(lambda: train(tmp_path / "count"))
    append = RunWriter.append
    for cut in range(1, total + 1, 2):
        path, left = tmp_path / f"{cut}", tmp_path / f"{cut} left"
        committed = []

        def noted(writer, record, committed=committed):
            entry = append(writer, record)
            if isinstance(record, RoundRecord):
                committed.append(record.round)
            return entry

        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(path, patch, cut)
            patch.setattr(RunWriter, "append", noted)
            with pytest.raises(PowerCut):
                train(path)
        disk.left(left)
        if (left / "config.json").exists():
            rounds = [one.round for one in Run.open(left).rounds]
            assert rounds[: len(committed)] == committed
        train(left)
        assert outcome(left) == undisturbed, f"operation {cut} of {total}"
