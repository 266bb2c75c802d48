"""One system in a process of its own: ``python -m benchmarks.worker FOLDER SYSTEM RESULT``.

Reads commands from stdin, one a line, and answers each with a line of JSON on stdout: ``run`` runs
the round of the setting and writes its result; ``tune`` searches for the fastest PEFT loop.  The
first answer, without being asked, says that the system is ready.

Shape suffixes: C clients, P flat parameters.
"""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.settings import SYSTEM, Ours, Peer, System
from benchmarks.work import Work, read_work

Round = Callable[[], tuple[Tensor, Tensor]]


def ours(work: Work, system: Ours) -> Round:
    """Load the base, adapt it, and return the round of the setting on our engine."""
    from federation.algorithms.algorithm import fedavg
    from federation.training.base import load_base
    from federation.training.engine import LocalEngine
    from federation.training.local import Task
    from federation.training.lora import LoRA
    from federation.training.memory import RamMemory

    base = load_base(str(work.model), system.dtype)
    lora = LoRA(base, work.setting.lora)
    task = Task(base, lora, fedavg(), work.tokens)
    engine = LocalEngine(task, work.rows.__getitem__, RamMemory(), chunk=system.chunk)
    plan, layout = work.plan, work.layout
    drawn = zip(engine.schedules(plan), work.schedules.values(), strict=True)
    if not all(np.array_equal(ours, theirs) for ours, theirs in drawn):
        raise ValueError("the engine draws other batches than those handed to the PEFT loop")
    sent = {"params": lora.layout.flatten(work.adapter)}

    def train() -> tuple[Tensor, Tensor]:
        reports = engine.train(sent, plan)
        params_C = sent["params"] + reports.tree_C["delta"]
        named = (lora.layout.views(params) for params in params_C)
        return torch.stack([layout.flatten(views) for views in named]), reports.loss_C

    return train


def theirs(work: Work, system: Peer) -> Round:
    """Load the base, adapt it, and return the round of the setting as a PEFT loop."""
    from benchmarks.peft_loop import PeftLoop

    return PeftLoop(work, system).train


def prepared(work: Work, system: System) -> Round:
    """Return the round of the setting on a system that is ready for it."""
    return ours(work, system) if isinstance(system, Ours) else theirs(work, system)


def run(train: Round, result: Path) -> dict[str, float]:
    """Run one round; store what came out."""
    start = time.perf_counter()
    params_C, loss_C = train()
    seconds = time.perf_counter() - start
    save_file({"params_C": params_C.contiguous(), "loss_C": loss_C.contiguous()}, result)
    del params_C, loss_C
    give_memory_back()
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def give_memory_back() -> None:
    """Give freed memory back to the system, where the C library can; others need it meanwhile."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_bytes() -> int:
    """Return the most memory this process has had resident.

    Of this program alone where the system says so: ``getrusage`` counts what the process was
    before it became this program, a copy of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text(encoding="ascii").splitlines())
        return next(int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tune(work: Work, system: System) -> dict[str, object]:
    """Return the fastest PEFT loop of this kind."""
    from benchmarks.peft_loop import fastest

    if isinstance(system, Ours):
        raise ValueError("only PEFT loops are tuned")
    return fastest(work, system).model_dump()


def main(folder: str, system_json: str, result: str) -> None:
    """Answer commands until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    work, system = read_work(Path(folder)), SYSTEM.validate_json(system_json)
    train = prepared(work, system)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        commands = {"run": lambda: run(train, Path(result)), "tune": lambda: tune(work, system)}
        print(json.dumps(commands[line.strip()]()), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
