"""``fedpilot chat`` as a person and a script meet it."""

import builtins
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.runs import journal
from federation.runs.run import Run
from tests.tiny_worlds import World
from tests.ui.conftest import Call

ROOT = Path(__file__).parents[2]
LOOK = {"calls": [{"name": "get_facts", "args": {}}]}
PROPOSE = {"calls": [{"name": "propose_hyperparameters", "args": {"lr": 0.005}}]}
WRONG = {"answer": "The loss is 99.5 [loss@2]."}


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / "first"))


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    def write(*lines: dict) -> str:
        file = tmp_path / "script.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return f"scripted:{file}"

    return write


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Type lines; gives what stood before each."""

    def types(*lines: str) -> list[str]:
        left, asked = list(lines), []

        def answer(prompt: str = "") -> str:
            asked.append(prompt)
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr(builtins, "input", answer)
        return asked

    return types


def test_rules_answer_and_say_how_to_connect_a_model(call: Call, run: Path):
    said = call("chat", run, "--say", "help", "facts", "explain 2", "compare")
    assert (said.code, said.err) == (0, "")
    assert "--model openai:MODEL@http://127.0.0.1:8000/v1" in said.out
    assert "Round 2: training loss" in said.out
    assert "Other runs beside this one: none." in said.out


def test_a_model_answers_and_what_no_fact_supports_is_marked(call: Call, run: Path, script):
    said = call("chat", run, "--model", script(LOOK, WRONG, WRONG), "--say", "how is it?")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "you> how is it?" and lines[1] == "· get_facts"
    assert "refused and is asked for again: 99.5 is in no cited fact" in lines[-2]
    assert lines[-1].endswith("[loss@2].  [unsupported: 99.5 is in no cited fact]")


def test_what_acts_waits_and_is_decided_later(call: Call, run: Path, script, typed):
    spec = script(PROPOSE, {"answer": "Done."})
    said = call("chat", run, "--model", spec, "--say", "lower it", "and more")
    assert said.code == 0 and "and more" not in said.out
    assert f"decide with: fedpilot chat {run} --chat 1 --model {spec}" in said.err
    assert not (run / "proposals").exists()
    asked = typed("what?", "e", "no JSON", "e", '{"lr": 7}', "e", '{"lr": 0.004}')
    said = call("chat", run, "--chat", "1", "--model", script({"answer": "Done."}))
    assert said.code == 0
    assert "client learning rate: 0.01 -> 0.005" in said.out
    for words in ("write y, n or e", "are not JSON", "outside 0.001 to 0.1", "Done."):
        assert words in said.out
    assert asked[0].startswith("propose_hyperparameters: approve?") and asked[-1] == "you> "
    assert '"lr" = 0.004' in (run / "proposals" / "proposal-1.toml").read_text()


def test_no_is_told(call: Call, run: Path, script, typed):
    typed("lower it", "n", "too early", "exit")
    said = call("chat", run, "--model", script(PROPOSE, {"answer": "All right."}))
    assert "They say: too early" in said.out and "All right." in said.out
    assert said.err == (
        f"go on with: fedpilot chat {run} --chat 1 --model scripted:"
        f"{run.parents[1] / 'script.jsonl'}\n"
    )


def test_a_proposal_that_was_allowed_runs(call: Call, run: Path, tmp_path: Path):
    flags = ["--yes-to", "propose_hyperparameters", "--json"]
    said = call("chat", run, "--say", "propose lr=0.004 steps=1", *flags)
    assert [x["kind"] for x in said.json["events"]] == ["call", "approval", "outcome"]
    assert said.json["waiting"] == []
    file = said.json["events"][-1]["note"].splitlines()[0]
    assert call("run", file, "--out", tmp_path / "new").code == 0
    work = Run.open(tmp_path / "new").history.decisions[0].work
    assert (work["lr"], work["steps"]) == (0.004, 1)


def test_a_selection_is_kept_to(call: Call, run: Path, tmp_path: Path):
    said = call("chat", run, "--say", "select exclude=c1", "--yes-to", "select_clients", "--json")
    out, name = said.json["events"][-1], Run.open(run).history.decisions[0].clients[0]
    assert name not in out["shown"]
    file = out["note"].splitlines()[0]
    settings = ["--set", "rounds=6", "data.clients.unseen=0", "cohort.size=4"]
    assert call("run", file, "--out", tmp_path / "new", *settings).code == 0
    decisions = Run.open(tmp_path / "new").history.decisions.values()
    assert all(len(x.clients) == 4 and name not in x.clients for x in decisions)
    more = ["--set", "rounds=1", 'cohort.exclude=["nobody"]']
    call("run", file, "--out", tmp_path / "x", *more).refused(2, "there is no client 'nobody'")
    few = ["--set", "cohort.size=4"]
    call("run", file, "--out", tmp_path / "y", *few).refused(2, "cohort.exclude leaves 3 clients")


def test_a_dead_endpoint_is_one_line(call: Call, run: Path):
    spec = "openai:m@http://127.0.0.1:9/v1"
    said = call("chat", run, "--model", spec, "--say", "hello", "hello?")
    said.refused(10, "the model gave no answer: unreachable", f"--chat 1 --model {spec}")
    assert said.out == "you> hello\n"


def test_in_a_terminal_a_failure_can_be_asked_again(call: Call, run: Path, script, typed):
    typed("hello", "", "exit")
    spec = script({"failure": "timeout", "reason": "late"}, {"answer": "Here."})
    said = call("chat", run, "--model", spec)
    assert said.code == 0
    assert "no answer: timeout: late" in said.out and "Here." in said.out


def test_what_steers_a_terminal_is_not_printed(call: Call, run: Path, script):
    said = call("chat", run, "--model", script({"answer": "\x1b[J[/b]:x:"}), "--say", "hello")
    assert said.out.splitlines()[-1] == "?[J[/b]:x:"


def test_verify_names_a_chat_that_was_changed(call: Call, run: Path):
    assert call("chat", run, "--say", "facts").code == 0
    assert call("verify", run).code == 0
    file = run / "chats" / "1" / "journal.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"facts"', b'"fists"', 1))
    call("verify", run).refused(8, "chats/1/journal.jsonl record 1 was changed")
    call("chat", run, "--chat", "1", "--say", "facts").refused(8, "record 1 was changed")


def test_other_commands_do_not_stumble(call: Call, run: Path, tmp_path: Path):
    before = call("show", run).out
    assert call("chat", run, "--say", "run rounds=1", "--yes-to", "run_experiment").code == 0
    assert call("show", run).out == before
    assert call("resume", run).code == 0
    listed = call("runs", run.parent, "--json").json
    assert [Path(x["path"]).name for x in listed] == ["first", "first-chat-1"]


REFUSED = {
    "json without words": (["--json"], "--json is for scripts"),
    "a tool that reads": (["--yes-to", "get_facts"], "write one of generate_synthetic_data"),
    "no budget": (["--client-steps", -1], "--client-steps must be at least 0"),
    "no such chat": (["--chat", "7"], "has no chat '7'"),
    "no such model": (["--model", "gpt"], "'gpt' names no language model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked(name: str, call: Call, run: Path):
    flags, words = REFUSED[name]
    call("chat", run, *flags).refused(2, words)
    assert not (run / "chats").exists()


def test_there_is_no_chat_without_a_run(call: Call, tmp_path: Path):
    call("chat", tmp_path / "x", "--say", "facts").refused(2, "there is no such folder")


@pytest.mark.slow
def test_a_chat_killed_within_a_deed_can_be_gone_on_with(
    world: World, run: Path, home: Path, call: Call
):
    command = [sys.executable, "-m", "ui.main", "chat", str(run), "--client-steps", "100000"]
    command += ["--say", "run rounds=900", "--yes-to", "run_experiment"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"HOME": str(home)}, stderr=subprocess.PIPE
    )
    new, end = run.parent / "first-chat-1", time.monotonic() + 60
    while not (new / "journal.jsonl").exists() or b'"round"' not in journal_of(new):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert journal.verify(run / "chats" / "1" / "journal.jsonl").fault is None
    said = call("chat", run, "--chat", "1", "--say", "facts")
    assert said.code == 0 and "client_steps = " in said.out
    text = (run / "chats" / "1" / "journal.jsonl").read_text()
    assert '"cut off"' in text and text.count("run_experiment") == 1
    assert Run.open(new).status == "interrupted"


def journal_of(run: Path) -> bytes:
    return (run / "journal.jsonl").read_bytes()
