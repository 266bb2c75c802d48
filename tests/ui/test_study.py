"""``fedpilot study`` as a person meets it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.study.ledger import JOURNAL
from agents.study.runs import Bench
from tests.tiny_worlds import World
from tests.ui.conftest import Call, Said

ROOT = Path(__file__).parents[2]
STUDY = """\
question = "Does training help?"
base = "{base}"
control = "plain"
seeds = [0, 1, 2]
noise_pairs = 3
max_client_steps = 600

[metric]
name = "nll"
direction = "lower"

[arms]
plain = []
frozen = ["work.lr=1e-6"]
"""


@pytest.fixture
def study(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "rate.toml"
    path.write_text(STUDY.format(base=world.config))
    return path


def test_a_study_is_conducted_and_reported(
    call: Call, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    said = call("study", study)
    assert said.code == 0, said.err
    assert "worse" in said.out and "report   studies/rate-1/report.md" in said.out
    assert "test set" not in said.err  # nobody watches the hidden split
    out = tmp_path / "studies" / "rate-1"
    written = {path.name for path in out.iterdir()}
    assert written >= {"report.md", "intervals.png", "curves.png", "study.json"}
    text = (out / "report.md").read_text()
    assert text.startswith("# Does training help?\n\n**`frozen` is worse than `plain`.**")
    found = call("study", out, "--json").json
    assert found["status"] == "finished"
    assert found["arms"]["frozen"]["judgement"]["verdict"] == "worse"
    assert found["client_steps"] <= found["max_client_steps"] == 600
    assert call("runs", out / "runs", "--json").json[0]["status"] == "finished"
    assert call("verify", out).out == f"{out} is as it was written\n"

    (out / "report.md").unlink()
    (out / "intervals.png").unlink()
    before = (out / JOURNAL).read_bytes()
    assert call("study", out, "--report").code == 0
    assert (out / "report.md").read_text() == text and (out / "intervals.png").exists()
    assert (out / JOURNAL).read_bytes() == before

    checkpoint = next((out / "runs" / "frozen-seed-1" / "state").iterdir())
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    call("verify", out).refused(8, "frozen-seed-1", "is damaged")
    (out / JOURNAL).write_bytes(before.replace(b'"seed":1', b'"seed":2', 1))
    call("verify", out).refused(8, "record", "was changed")


@pytest.mark.slow
def test_a_study_killed_by_the_system_goes_on_to_the_same_report(
    call: Call, study: Path, tmp_path: Path, home: Path
):
    out = tmp_path / "torn"
    command = [sys.executable, "-m", "ui.main", "study", str(study), "--out", str(out)]
    for lines in (4, 9):
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(home)},
        ) as process:
            until = time.monotonic() + 120
            while written(out) < lines and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        call("study", study, "--out", out).refused(2, "holds a study", f"fedpilot study {out}")
        command = [sys.executable, "-m", "ui.main", "study", str(out)]
    assert "is not finished" in report(call, out)
    assert call("study", out).code == 0
    assert call("study", study, "--out", tmp_path / "whole").code == 0
    assert (out / "report.md").read_text() == (tmp_path / "whole" / "report.md").read_text()


def written(out: Path) -> int:
    journal = out / JOURNAL
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def report(call: Call, out: Path) -> str:
    assert call("study", out, "--report").code == 0
    return (out / "report.md").read_text()


def test_what_cannot_be_is_one_line(call: Call, study: Path, tmp_path: Path):
    text = study.read_text()
    call("study", tmp_path / "none.toml").refused(2, "none.toml: there is no such file")
    call("study", tmp_path).refused(2, "is not the folder of a study")
    call("study", study, "--report").refused(2, "is not the folder of a study")
    for old, new, words in (
        ('control = "plain"', "", "control: is missing"),
        ("[0, 1, 2]", "[0]", "3 paired seeds at least"),
        ('"nll"', '"lossy"', "'lossy' is not measured"),
        ("600", "60", "max_client_steps is 60 and the study needs"),
    ):
        study.write_text(text.replace(old, new))
        call("study", study, "--out", tmp_path / "out").refused(2, words)
        assert not (tmp_path / "out").exists()


def test_a_stopped_study_says_how_to_go_on(
    call: Call, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(bench: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.study.conduct.measure_floor", stop)
    said = call("study", study, "--out", tmp_path / "out")
    said.refused(130, f"go on with: fedpilot study {tmp_path / 'out'}")


def test_what_is_asked_of_a_study_as_of_a_run_names_the_right_command(
    call: Call, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(bench: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.study.conduct.measure_floor", stop)
    out = tmp_path / "out"
    call("study", study, "--out", out)
    for command in (["show"], ["resume"], ["explain"], ["whatif", "--round", 1], ["export"]):
        more = ["--to", tmp_path / "x"] if command == ["export"] else []
        said = call(command[0], out, *command[1:], *more)
        said.refused(2, f"{out} is a study, not a run", f"fedpilot study {out} --report")
    call("show", tmp_path).refused(2, "is not a run")


def test_a_study_is_stopped_from_another_terminal(
    call: Call, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    said: list[Said] = []

    def measure(bench: Bench) -> None:
        said.append(call("steer", out, "stop", "--by", "eve"))
        told.append(call("steer", out, "pause"))
        bench.measure("plain", (), 0)

    told: list[Said] = []
    monkeypatch.setattr("agents.study.conduct.measure_floor", measure)
    ended = call("study", study, "--out", out)
    assert said[0].out == "stop: the study will follow after the round in flight\n"
    told[0].refused(2, "is a study", "one of its runs")
    ended.refused(130, f"stopped by eve; go on with: fedpilot study {out}")
    assert list((out / "runs").iterdir()) == []
    call("steer", out, "stop").refused(2, "does not go on", f"fedpilot study {out}")


def test_keys_of_a_study_are_set_as_those_of_a_run(call: Call, study: Path, tmp_path: Path):
    few = ["--set", "max_client_steps=1", "base.rounds=1"]
    call("study", study, "--out", tmp_path / "a", *few).refused(2, "max_client_steps")
    call("study", study, "--set", "base.work.lrr=1").refused(2, "work.lrr")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.json").write_text("{}")
    call("study", tmp_path / "old", "--set", "alpha=0.1").refused(2, "leave --set away")
