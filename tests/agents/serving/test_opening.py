"""A run is served from beginning to end: by what looks like vLLM, and by transformers itself."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from agents.serving import opening, records
from agents.serving.opening import served_rank, serving
from agents.serving.place import chat_template
from agents.serving.records import Served
from agents.serving.spec import ServeSpec
from agents.serving.whole import serving_whole
from agents.synthesis.make import ModelFailed
from federation import experiment
from federation.config import Config
from federation.errors import ConfigError, FedpilotError, LockedError
from federation.runs import journal
from federation.runs.run import Run
from ui.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy, in which something may be written."""
    return Run.open(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("FEDPILOT_API_KEY", raising=False)


def gone(pid: int) -> bool:
    end = monotonic() + 10
    while monotonic() < end:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        sleep(0.05)
    return False


def kinds(run: Run) -> list[str]:
    path = run.path / records.SERVING / records.JOURNAL
    return [entry.record.kind.removeprefix("serving.") for entry in journal.read(path)]


def test_it_is_started_written_down_and_ended(run, like_vllm):
    before = {x: x.read_bytes() for x in run.path.rglob("*") if x.is_file()}
    with serving(run, ServeSpec()) as served:
        key = served.key_file
        assert key is not None
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert key.read_text() == served.bridge.server.key
        record = served.bridge.catch_up()
        assert isinstance(record, Served), record
        assert record.round == 2
        pid = served.bridge.server.pid
        with pytest.raises(LockedError), serving(run, ServeSpec()):
            pass
        told = json.loads(served.bridge.server.log.read_text().splitlines()[0])
    assert gone(pid)
    assert not key.exists()
    assert kinds(run) == ["started", "served", "ended"]
    assert all(path.read_bytes() == data for path, data in before.items())
    command = " ".join(told)
    assert "--enable-lora --max-loras 2 --max-lora-rank 8 --max-cpu-loras 5" in command
    assert "--dtype float32 --enforce-eager --chat-template" in command
    assert served.bridge.server.key not in command


def test_the_key_may_be_given(run, like_vllm, monkeypatch):
    monkeypatch.setenv("FEDPILOT_API_KEY", "sk-given")
    with serving(run, ServeSpec()) as served:
        assert (served.bridge.server.key, served.key_file) == ("sk-given", None)
    files = [x.read_bytes() for x in (run.path / "serving").rglob("*") if x.is_file()]
    assert not any(b"sk-given" in data for data in files)


def test_a_server_of_another_base_model_is_no_server(run, like_vllm, monkeypatch):
    file = Path(os.environ["VLLM_LIKE"])
    table = json.loads(file.read_text())
    table["answers"]["base"] = [dict.fromkeys(row, -3.0) for row in table["answers"]["base"]]
    file.write_text(json.dumps(table))
    wrong = pytest.raises(ModelFailed, match=r"base is \S+ nats off the base model")
    with wrong, serving(run, ServeSpec()):
        pass
    assert not (run.path / "serving" / "key").exists()


def test_a_port_that_is_taken(run, like_vllm):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = ServeSpec(port=taken.getsockname()[1])
        with pytest.raises(ModelFailed, match="choose another port"), serving(run, spec):
            pass


def test_without_vllm_it_says_how_to_get_it(run, monkeypatch, capsys):
    monkeypatch.delenv("FEDPILOT_VLLM_PYTHON", raising=False)
    assert main(["serve", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for words in ("no vLLM here", "pip install vllm", "FEDPILOT_VLLM_PYTHON=", "--engine"):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--follow", "--round", "1"], "drop either"),
        (["--round", "0"], "rounds count from 1"),
        (["--engine", "ollama"], "serve: engine"),
        (["--port", "99999"], "serve: port"),
        (["--option", "=3"], "write NAME or NAME=VALUE"),
        (["--engine", "transformers", "--follow"], "drop --follow"),
    ],
)
def test_what_cannot_be_asked_for(finished, arguments, words, like_vllm, capsys):
    assert main(["serve", str(finished.path), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_round_that_is_not_there_is_told_before_a_server_is_looked_for(
    run, engine, monkeypatch, capsys
):
    monkeypatch.delenv("FEDPILOT_VLLM_PYTHON", raising=False)
    there = sorted(run.path.rglob("*"))
    assert main(["serve", str(run.path), "--round", "77", "--engine", engine]) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint of round 77; rounds that have one: 1, 2, 3" in said
    assert said.count("\n") == 1
    assert sorted(run.path.rglob("*")) == there


def test_a_run_without_a_round_is_told_before_a_server_is_looked_for(run, monkeypatch, capsys):
    monkeypatch.delenv("FEDPILOT_VLLM_PYTHON", raising=False)
    file = run.path / "journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b'"kind":"round"' in line)
    file.write_bytes(b"".join(lines[:first]))
    assert main(["serve", str(run.path)]) == 2
    assert "has no round yet; wait for it with --follow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('algorithm.name="local"', "each client has its own"),
        ('adapter={kind="full"}', "trains all weights"),
    ],
)
def test_what_no_server_can_serve(world, override, words, tmp_path, like_vllm):
    config = Config.from_toml(world.config, [override, "rounds=1"])
    run = experiment.run_experiment(config, tmp_path / "run", cache=world.folder / "cache")
    with pytest.raises(ConfigError, match=words), serving(run, ServeSpec()):
        pass
    assert not (run.path / "serving").exists()


def test_ranks_are_rounded_up_to_vllms():
    assert [served_rank(rank) for rank in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]


def test_options_are_passed_on():
    spec = ServeSpec(options=("max-model-len=64", "--enforce-eager", 'hf={"a": "b=c"}'))
    wanted = ["--max-model-len", "64", "--enforce-eager", "--hf", '{"a": "b=c"}']
    assert spec.arguments == wanted


def test_a_chat_reads_as_the_prompts_that_were_learnt(source):
    tokenizer = source.base.tokenizer
    said = [{"role": "user", "content": "sum 1 and 2"}]
    read = tokenizer.apply_chat_template(
        said, chat_template=chat_template(source), tokenize=False, add_generation_prompt=True
    )
    assert read == "sum 1 and 2\n"


def test_verify_reads_its_journal_too(run, like_vllm, capsys):
    with serving(run, ServeSpec()):
        pass
    assert main(["verify", str(run.path)]) == 0
    file = run.path / "serving" / "journal.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"nano"', b'"NANO"').replace(b"base", b"bass"))
    assert main(["verify", str(run.path)]) == 8
    assert str(file) in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_follows_a_run_and_ends_with_all_it_started(run, like_vllm):
    """A run of which one round is there at first, and two more appear."""
    file = run.path / "journal.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b'"kind":"round"' in line)
    file.write_bytes(b"".join(lines[: first + 1]))
    command = [sys.executable, "-m", "ui.main", "serve", str(run.path), "--follow", "--ask", "Hi"]
    out = run.path.parent / "out"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with out.open("w") as written:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT, env=environment
        )
    try:
        until(process, out, "fed      says")
        assert "fed is round 1" in out.read_text()
        with file.open("ab") as rest:
            rest.write(b"".join(lines[first + 1 :]))
        until(process, out, "fed is round 3")
        log = (run.path / "serving" / "server.log").read_text()
        assert log
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    said = out.read_text()
    assert re.search(r"address  http://127\.0\.0\.1:\d+/v1\n", said)
    assert "models   base, fed, fed@r1 " in said
    assert f"$(cat {run.path}/serving/key)" in said
    assert said.count("> Hi\n") == 2
    assert said.endswith("fedpilot: stopped\n")
    assert kinds(run) == ["started", "served", "served", "ended"]
    port = int(re.search(r":(\d+)/v1", said)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def until(process: subprocess.Popen, out: Path, words: str) -> None:
    end = monotonic() + 240
    while words not in out.read_text():
        assert process.poll() is None, out.read_text()
        assert monotonic() < end, out.read_text()
        sleep(0.1)


@pytest.mark.slow
def test_transformers_serve_for_real(run, monkeypatch):
    options = ("device=cpu",)
    with serving_whole(run, ServeSpec(engine="transformers", options=options), 1) as whole:
        assert whole.record.round == 1
        assert whole.record.distance is None
        pid = whole.server.pid
        models = run.path / "serving" / "models"
        assert sorted(x.name for x in models.iterdir()) == ["base", "fed"]
    assert gone(pid)
    assert kinds(run) == ["started", "served", "ended"]


def test_an_adapter_that_transformers_answers_otherwise_is_not_served(run, monkeypatch):
    said = ["another answer"] * 3
    monkeypatch.setattr("federation.releases.continuations", lambda *rest: said)
    monkeypatch.setattr("agents.serving.health.continuation", lambda *rest: "an answer")
    monkeypatch.setattr("agents.serving.whole.serve", pretended)
    with pytest.raises(FedpilotError, match="base does not answer as the run's own model does"):
        serving_whole(run, ServeSpec(engine="transformers")).__enter__()


class pretended:
    """A server that was started."""

    def __init__(self, spec: object, log: Path) -> None:
        pass

    def __enter__(self) -> object:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_the_interpreter_that_is_named_must_be_there(monkeypatch):
    monkeypatch.setenv("FEDPILOT_VLLM_PYTHON", "/nowhere/python")
    with pytest.raises(ConfigError, match="there is no /nowhere/python"):
        opening.vllm_python()
