"""Servers that are started here: they answer, die, never answer; nothing of them is left."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from llm_tools import Failure, ServerError, ServerSpec, ask, chat_model, serve
from tests.llm_tools.conftest import Decision
from tests.llm_tools.fault_server import GOOD

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stand_in(tmp_path):
    """An interpreter in which, it seems, vLLM is installed."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/llm_tools/stand_in.py "$@"\n')
    script.chmod(0o755)
    return lambda model, **rest: ServerSpec(kind="vllm", model=model, python=str(script), **rest)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids, within):
    end = monotonic() + within
    while monotonic() < end and any(map(alive, pids)):
        sleep(0.05)
    return not any(map(alive, pids))


def group_of(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def processes(group):
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if group_of(pid) == group]


def test_a_server_answers_with_its_key_and_leaves_nothing(stand_in, tmp_path):
    with serve(stand_in("slow"), tmp_path / "log") as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server.url)
        answer = ask(server.chat_model(seed=1), "?", Decision)
        assert (answer.value, answer.model) == (Decision(**GOOD), "base")
        assert ask(server.chat_model("fed@r1"), "?", Decision).value
        stranger = chat_model(f"openai:base@{server.url}")
        assert ask(stranger, "?", Decision).failure == Failure.UNAUTHORISED
        group = processes(server.pid)
        assert len(group) >= 3
        assert server.key not in repr(server)
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in group]
        assert not any(server.key.encode() in line for line in lines)
    assert gone(group, 1)
    assert server.key not in server.log.read_text()


def test_lora_is_asked_for_as_vllm_wants_it(stand_in, tmp_path):
    spec = stand_in("slow", max_loras=2, max_lora_rank=32, options=("--enforce-eager",))
    with serve(spec, tmp_path / "log") as server:
        told = json.loads(server.log.read_text().splitlines()[0])
    command = " ".join(told["args"])
    assert command.startswith("-m vllm.entrypoints.openai.api_server --model slow ")
    assert "--enable-lora --max-loras 2 --max-lora-rank 32" in command
    assert command.endswith("--enforce-eager")
    assert "--host 127.0.0.1" in command
    assert told["env"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert told["env"]["VLLM_NO_USAGE_STATS"] == "1"
    assert told["env"]["DO_NOT_TRACK"] == "1"
    assert told["env"]["LANGSMITH_TRACING"] == "false"


def test_without_adapters_none_can_be_loaded(stand_in, tmp_path):
    with serve(stand_in("slow"), tmp_path / "log") as server:
        told = json.loads(server.log.read_text().splitlines()[0])
    assert "--enable-lora" not in told["args"]
    assert told["env"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


def test_ranks_are_those_of_vllm():
    with pytest.raises(ValueError, match="max_lora_rank"):
        ServerSpec(kind="vllm", model="m", max_lora_rank=24)


def test_a_server_that_dies_is_one_line_with_its_last_words(stand_in, tmp_path):
    start = monotonic()
    with pytest.raises(ServerError) as error, serve(stand_in("dies"), tmp_path / "log"):
        pass
    words = str(error.value)
    assert "RuntimeError: no such model | ended with status 3" in words
    assert str(tmp_path / "log") in words
    assert "\n" not in words
    assert error.value.exit_code == 10
    assert monotonic() - start < 10


def test_a_server_that_never_is_healthy_is_stopped(stand_in, tmp_path):
    log = tmp_path / "log"
    start = monotonic()
    late = pytest.raises(ServerError, match="did not answer within 2 s")
    with late, serve(stand_in("sick", start_s=2.0), log):
        pass
    assert monotonic() - start < 10
    assert gone([int(re.search(r"child (\d+)", log.read_text())[1])], 1)


def test_a_server_that_will_not_end_is_made_to(stand_in, tmp_path):
    with serve(stand_in("stubborn", stop_s=1.0), tmp_path / "log") as server:
        group = processes(server.pid)
        start = monotonic()
    assert 0.9 < monotonic() - start < 5  # by the keeper: we would wait for six seconds
    assert gone(group, 1)


def test_an_error_of_the_caller_stops_it_too(stand_in, tmp_path):
    with pytest.raises(ZeroDivisionError), serve(stand_in("slow"), tmp_path / "log") as server:
        group = processes(server.pid)
        raise ZeroDivisionError
    assert gone(group, 1)


def test_an_interpreter_that_is_not_there(tmp_path):
    spec = ServerSpec(kind="vllm", model="m", python="/nowhere/python")
    absent = pytest.raises(ServerError, match="/nowhere/python cannot be started")
    with absent, serve(spec, tmp_path / "log"):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from llm_tools import ServerSpec, serve
spec = ServerSpec(kind="vllm", model="slow", python=sys.argv[1], stop_s=1.0)
with serve(spec, Path(sys.argv[2])) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


def test_it_ends_when_we_are_killed(stand_in, tmp_path):
    command = [sys.executable, "-c", KILLED, stand_in("slow").python, str(tmp_path / "log")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as ours:
        group = processes(int(ours.stdout.readline()))
        assert len(group) >= 3
        os.kill(ours.pid, signal.SIGKILL)
    assert gone(group, 5)


CHAT = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.mark.slow
def test_transformers_serve_for_real(tmp_path):
    folder = tmp_path / "nano"
    shutil.copytree(ROOT / "federation" / "nano", folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    spec = ServerSpec(kind="transformers", model=str(folder), options=("--device", "cpu"))
    with serve(spec, tmp_path / "log") as server:
        model = server.chat_model(max_tokens=24, seed=0)
        answer = ask(model, "Which learning rate?", Decision, deadline_s=120, repairs=1)
        # It follows no grammar and nano writes no JSON: what matters is that this is told.
        assert answer.failure in (Failure.MALFORMED, Failure.EMPTY, Failure.TOO_LARGE), answer
        assert answer.raw or answer.failure == Failure.EMPTY
        group = processes(server.pid)
    assert gone(group, 2)
