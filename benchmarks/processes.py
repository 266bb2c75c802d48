"""Systems as processes: started, asked one at a time, ended.  Light: no torch here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.settings import System

ROOT = Path(__file__).parents[1]


class Process:
    """A system that waits, without using the processor, until it is asked for a round.

    Attributes:
        system: which.
        startup_seconds: from starting Python to being ready.
        result: where it writes what came out of a round.
    """

    def __init__(self, system: System, folder: Path, result: Path, threads: int) -> None:
        """Start a system on the work in ``folder`` and wait until it is ready."""
        self.system, self.result = system, result
        command = [sys.executable, "-m", "benchmarks.worker"]
        start = time.perf_counter()
        self._child = subprocess.Popen(
            [*command, str(folder), system.model_dump_json(), str(result)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(threads),
        )
        self._answer()
        self.startup_seconds = time.perf_counter() - start

    def __enter__(self) -> "Process":
        """Return the running process."""
        return self

    def __exit__(self, *raised: object) -> None:
        """End it."""
        self._child.kill()
        self._child.communicate()

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command and return the answer.

        Raises:
            RuntimeError: if the process died.
        """
        if self._child.stdin is None:
            raise ValueError("the process was started without a stdin")
        print(command, file=self._child.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            code = self._child.wait()
            raise RuntimeError(f"{self.system.name} ended with code {code}; see its error above")
        return json.loads(line)


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a system: so many threads, no network, no chatter."""
    fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
    }
    return {**os.environ, **fixed, **quiet}
