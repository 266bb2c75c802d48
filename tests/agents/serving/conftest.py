"""A tiny run, and a server for it that is not vLLM."""

import json
import stat
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from agents.serving.bridge import Bridge
from agents.serving.health import Known
from agents.serving.records import ServingRecord
from federation import experiment, releases
from federation.config import Config
from federation.releases import Source
from federation.runs.run import Run
from llm_tools import Server, ServerSpec
from tests.agents.serving.vllm_like import WEIGHTS, Answers, Vllm, serving_in_thread
from tests.tiny_worlds import World, tiny_world

ROUNDS = 3  # as many as keep their checkpoints


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def finished(world: World) -> Run:
    """A finished run; only to be read."""
    config = Config.from_toml(world.config, ["work.lr=0.3"])
    return experiment.run_experiment(config, world.folder / "run", cache=world.folder / "cache")


@pytest.fixture(scope="session")
def source(finished: Run) -> Source:
    return releases.open_source(finished, "float32")


@pytest.fixture(scope="session")
def prompts(source: Source) -> list[list[int]]:
    return releases.probes(source)


@pytest.fixture(scope="session")
def answers(source: Source, prompts: list[list[int]], world: World) -> Answers:
    """What the base model and every round say."""
    found = {"base": top(source, None, prompts)}
    for round in range(ROUNDS):
        release = releases.release(source, round, world.folder / "releases")
        content = sha256((release.folder / WEIGHTS).read_bytes()).hexdigest()
        found[content] = top(source, release.params, prompts)
    return found


def top(source: Source, params: torch.Tensor | None, prompts: list[list[int]]):
    best = releases.next_log_probs(source, params, prompts).topk(20)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{str(i): v for i, v in zip(*row, strict=True)} for row in rows]


@dataclass
class Scene:
    """A bridge to a server that does what it is told."""

    bridge: Bridge
    vllm: Vllm
    notes: list[ServingRecord] = field(default_factory=list)

    def served(self) -> str | None:
        """Return the name of the folder that ``fed`` is on the server."""
        folder = self.vllm.adapters.get("fed")
        return folder.name if folder else None


@pytest.fixture
def scene(source: Source, prompts, answers: Answers, tmp_path: Path):
    vllm = Vllm(prompts, answers)
    notes: list[ServingRecord] = []
    with serving_in_thread(vllm) as port:
        spec = ServerSpec(kind="vllm", model="m", max_loras=2)
        url = f"http://127.0.0.1:{port}/v1"
        server = Server(spec, url, "k", tmp_path / "log", 0, vllm)  # pyright: ignore[reportArgumentType]
        (tmp_path / "log").write_text("its last words\n")
        base = Known("the base model", releases.next_log_probs(source, None, prompts))
        bridge = Bridge(source, server, tmp_path / "adapters", prompts, base, 0.01, notes.append)
        yield Scene(bridge, vllm, notes)


@pytest.fixture
def like_vllm(prompts, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter in which, it seems, vLLM is installed."""
    table, script = tmp_path / "table.json", tmp_path / "python"
    table.write_text(json.dumps({"prompts": prompts, "answers": answers}))
    module = Path(__file__).with_name("vllm_like.py")
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("VLLM_LIKE", str(table))
    monkeypatch.setenv("FEDPILOT_VLLM_PYTHON", str(script))
    return script
