"""A run is resumed from any folder, whatever its configuration left to the current one."""

import json
from pathlib import Path

import pytest

from federation.config import Config
from federation.data.dataset import resolved
from federation.runs.run import Run
from tests.tiny_worlds import World
from tests.ui.conftest import Call
from tests.ui.test_errors import shortened


def test_what_is_relative_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()

    def kept(source: str, base: str = "nano") -> tuple[str, str]:
        table = {"model": {"base": base}, "data": {"source": source, "text": "{text}"}}
        config = resolved(Config.from_table(table), tmp_path)
        return config.data.source, config.model.base

    assert kept("rows.jsonl", "model") == (str(tmp_path / "rows.jsonl"), str(tmp_path / "model"))
    assert kept("*.jsonl") == (str(tmp_path / "*.jsonl"), "nano")
    assert kept("some/hub-name", "some/model") == ("some/hub-name", "some/model")


def test_tokens_are_kept_where_the_user_keeps_such_things(
    call: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert call("data", world.config).code == 0
    assert list((tmp_path / "fedpilot").iterdir())


def test_a_resolved_configuration_reads_back_as_itself(tmp_path: Path):
    config = resolved(Config.from_table({}), tmp_path)
    assert (config.data.clients.by, config.data.clients.key) == ("key", "client")
    again = Config.from_table(json.loads(config.model_dump_json()))
    assert resolved(again, tmp_path) == config


def test_a_run_with_relative_paths_resumes_elsewhere(
    call: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(world.folder)
    out = tmp_path / "run"
    relative = ["data.source=data.jsonl", "model.base=./base", 'evaluation.baselines=["local"]']
    assert call("run", "tiny.toml", "--out", out, "--set", *relative).code == 0
    adapter = out / "adapter" / "adapter_model.safetensors"
    whole = adapter.read_bytes()
    shortened(out)
    monkeypatch.chdir(tmp_path)
    assert call("resume", out).code == 0
    assert adapter.read_bytes() == whole and Run.open(out).status == "finished"
