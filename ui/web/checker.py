"""Questions to the process that knows torch (:mod:`ui.web.expert`), asked without waiting.

An answer is a future: a page shows what it has and looks again.  Equal questions are asked once.
"""

import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from federation.errors import ConfigError

REMEMBERED = 500  # answers
SILENT = "the process that checks experiments ended; see what the server printed"

Answer = dict[str, Any]


class Checker:
    """One process beside the server, started at the first question; safe to use from threads."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._thread = ThreadPoolExecutor(1, "checker")
        self._answers: OrderedDict[str, Future[Answer]] = OrderedDict()
        self._guard = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, **question: object) -> Future[Answer]:
        """Ask, or find what was asked before; the future raises ConfigError for a user's error."""
        line = json.dumps({"ask": what, **question}, sort_keys=True)
        with self._guard:
            if line not in self._answers:
                self._answers[line] = self._thread.submit(self._asked, line)
                while len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(line)
            return self._answers[line]

    def _asked(self, line: str) -> Answer:
        said = self._told(line)
        if not said:
            with self._guard:
                self._answers.pop(line, None)
            raise ConfigError(SILENT)
        found = json.loads(said)
        if "error" in found:
            raise ConfigError(found["error"])
        return found["answer"]

    def _told(self, line: str) -> str:
        """Send a line to the process, starting it if need be; return its line, or nothing."""
        process = self._process
        if process is None or process.poll() is not None:
            if process is not None:
                process.communicate()
            process = self._process = started()
        if process.stdin is None or process.stdout is None:
            return ""
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()
        except (OSError, ValueError):
            return ""

    def close(self) -> None:
        """Let the process end."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._process is not None:
            self._process.communicate(timeout=30)


def started() -> "subprocess.Popen[str]":
    """Start the process: it asks no hub, and ends when our end of its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-m", "ui.web.expert"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


def answer_of(
    asked: "Future[Answer]", seconds: float, without: "list[Future[Answer]] | None" = None
) -> tuple[Answer | None, str]:
    """Wait a moment for an answer.

    Args:
        asked: what was asked.
        seconds: to wait.
        without: the answers that a page goes on without; this one is added if it is one of them.

    Returns:
        The answer, None while there is none; and the user's error, empty if there is none.
    """
    try:
        return asked.result(seconds), ""
    except TimeoutError:
        if without is not None:
            without.append(asked)
        return None, ""
    except ConfigError as error:
        return None, str(error)
