"""A stand-in for the process that knows torch, and a small recorded run; nothing is trained."""

import subprocess
import sys
from pathlib import Path

import pytest

from federation.config import Config
from federation.runs.records import StartRecord
from federation.runs.writer import RunWriter
from ui.web import checker

ROOT = Path(__file__).parents[3]
APP = ROOT / "ui" / "web" / "app.py"
EXPERT = """
import json, sys
SIZES = {"parameters": 1000, "base_bytes": 2000, "trained": 100, "down": 400, "up": 400,
         "kept": 0, "modules": ["q_proj"], "context": 64}
MU = {"properties": {"mu": {"type": "number", "minimum": 0, "default": 0.01,
                            "description": "strength of the pull"}}}
for line in sys.stdin:
    question = json.loads(line)
    if question["ask"] == "algorithms":
        said = {"answer": {"fedavg": {"schema": {}, "about": "Average."},
                           "krum": {"schema": {}, "about": "Nearest."},
                           "fedprox": {"schema": MU, "about": "Pull."}}}
    elif question["ask"] == "example":
        said = {"answer": {"tokens": ["a", " b", "<end>"], "prompt": 1, "truncated": False,
                           "whole": 3, "text": ["a", " b"]}}
    elif question["ask"] == "study":
        wrong = "double-lr: algorithm.name = 'krum' needs 5 reports a round"
        said = {"error": wrong} if "krum" in line else {"answer": {}}
    elif question["table"].get("algorithm", {}).get("name") == "krum":
        said = {"error": "algorithm.name = 'krum' needs 5 reports a round"}
    else:
        said = {"answer": SIZES}
    print(json.dumps(said), flush=True)
"""


def instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process that answers at once stand in for the one that loads torch."""

    def started() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", EXPERT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    monkeypatch.setattr(checker, "started", started)


def recorded(folder: Path, config: Config | None = None) -> Path:
    """Write a run that was begun and stopped before its first round."""
    config = config or Config.model_validate({})
    with RunWriter.create(folder, config.model_dump_json()) as writer:
        writer.append(
            StartRecord(
                seed=0, chunk_size=1, threads=1, dtype="float32", versions={},
                config_sha256=writer.config_sha256,
            )
        )  # fmt: skip
    return folder
