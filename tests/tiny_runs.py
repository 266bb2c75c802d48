"""A training loop that is tiny, and real in what matters to a run directory.

Its state has a memory, its clients have one each, its draws are by address, and it is written as a
run is written.
"""

import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from federation.address import generator
from federation.runs import run, storage
from federation.runs.records import (
    DecisionRecord,
    EndRecord,
    EvaluationRecord,
    RoundRecord,
    StartRecord,
    computed,
)
from federation.runs.run import Run
from federation.runs.writer import RunWriter

POPULATION, COHORT, ROUNDS, P = 5, 2, 5, 3
FRESH = {"kept": torch.zeros(P)}
CONFIG_JSON = '{"seed": 1}\n'


def train(
    path: Path, rounds: int = ROUNDS, policy: Callable[[int], list[int]] | None = None
) -> None:
    """Start or resume a run and bring it to its end."""
    there = (path / "config.json").exists()
    with RunWriter.reopen(path) if there else RunWriter.create(path, CONFIG_JSON) as writer:
        if writer.history.start is None:
            writer.append(start(writer))
        writer.keep_updates = 2
        state = writer.load() or {"params": torch.ones(P), "momentum": torch.zeros(P)}
        for number in range(writer.next_round, rounds):
            state = one_round(writer, number, state, policy or drawn)
        writer.append(EndRecord(status="finished"))


def start(writer: RunWriter) -> StartRecord:
    return StartRecord(
        seed=1,
        chunk_size=1,
        threads=1,
        dtype="float32",
        versions={},
        config_sha256=writer.config_sha256,
    )


def drawn(number: int) -> list[int]:
    return generator(1, number, "cohort").permutation(POPULATION)[:COHORT].tolist()


def one_round(writer: RunWriter, number: int, state, policy) -> dict[str, torch.Tensor]:
    if writer.decided is None:
        clients = tuple(f"client {n}" for n in policy(number))
        writer.append(
            DecisionRecord(round=number, source="heuristic", policy="x", clients=clients, work={})
        )
    clients = writer.decided.clients
    kept_C = writer.memory.gather(clients, FRESH)["kept"]
    noise = [generator(1, number, client, "noise").normal(size=P) for client in clients]
    noise_C = torch.tensor(np.stack(noise), dtype=torch.float32)
    delta_C = torch.sin(state["params"] + kept_C) + noise_C
    for row, client in enumerate(clients):
        writer.memory.scatter([client], {"kept": (kept_C / 3 + delta_C)[row : row + 1]})
    momentum = 0.9 * state["momentum"] + delta_C.mean(0)
    state = {"params": state["params"] + momentum, "momentum": momentum}
    loss = float(state["params"].square().sum())
    writer.append(EvaluationRecord(round=number, subject="federated", metrics={"loss": loss}))
    saved = writer.checkpoint(number, state, {"report/delta": delta_C})
    writer.append(
        RoundRecord(round=number, clients=clients, bytes_up=10, bytes_down=20, **saved._asdict())
    )
    return state


def outcome(path: Path) -> dict:
    """Everything that an undisturbed run and a resumed one must have in common."""
    end = Run.open(path)
    files = {
        str(file.relative_to(path)): sha256(file.read_bytes()).hexdigest()
        for directory in ("state", "clients")
        for file in (path / directory).iterdir()
        if ".bad" not in file.name
    }
    return {
        "files": files,
        "rounds": [computed(one.record) for one in end.rounds],
        "decisions": end.history.decisions,
        "figures": [one.evaluation for one in end.rounds],
        "status": end.status,
        "bytes": (end.bytes_up, end.bytes_down),
        "problems": run.problems(path),
        "left": [str(p) for p in path.rglob("*") if storage.is_temporary(p.name)],
    }


def damage(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def newest_checkpoint(path: Path) -> Path:
    return max((path / "state").glob("round-*.safetensors"))


OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate")


class KilledAt:
    """Let the process die before its n-th operation on the file system, or amid it if a write."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int | None = None) -> None:
        self.count, self.n = 0, n
        for name in OPERATIONS:
            patch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable) -> Callable:
        # The page cache outlives a killed process: nothing is lost by not waiting for the disk.
        do = (lambda fd: None) if name == "fsync" else real

        def operation(*args, **kwargs):
            self.count += 1
            if self.count != self.n:
                return do(*args, **kwargs)
            if name == "write":
                do(args[0], bytes(args[1])[: len(args[1]) // 2])
            return os.kill(os.getpid(), signal.SIGKILL)

        return operation


def operations_of(work: Callable[[], None]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        counter = KilledAt(patch)
        work()
    return counter.count


def killed(work: Callable[[], None], n: int) -> bool:
    """Do the work in a forked process that is killed at its n-th operation; whether it was."""
    pid = os.fork()
    if pid == 0:
        with pytest.MonkeyPatch.context() as patch:
            KilledAt(patch, n)
            try:
                work()
            finally:
                os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
