"""Runs in processes of their own: interrupted, terminated, killed, and gone on with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.runs.run import Run, problems
from tests.tiny_worlds import World, tiny_world

ROOT = Path(__file__).parents[2]
ROUNDS = 6
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}

    def fedpilot(*argv: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "ui.main", *map(str, argv)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    return fedpilot


def options(world: World, out: Path) -> list[object]:
    """Scaffold and a baseline: clients keep something, and there is something to kill later on."""
    more = [f"rounds={ROUNDS}", "algorithm.name=scaffold", "work.optimizer=sgd"]
    more += ['evaluation.baselines=["local"]', "upload.top_k=0.5"]
    more += ["engine.chunk=2"]  # measured, it could differ between two runs, and with it their bits
    return ["run", world.config, "--out", out, "--set", *more]


@pytest.fixture(scope="module")
def undisturbed(world: World, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(*options(world, out))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def bits(run: Path) -> dict[str, bytes]:
    """Everything that a run leaves behind for others, and the baseline's last state."""
    files = [*(run / "adapter").iterdir(), *(run / "state").iterdir(), *(run / "clients").iterdir()]
    files += [*(run / "baselines" / "local" / "clients").iterdir()]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def journal_says(run: Path, words: bytes) -> Callable[[], bool]:
    journal = run / "journal.jsonl"
    return lambda: journal.exists() and words in journal.read_bytes()


IN_A_ROUND = b'"kind":"decision","body":{"round":2,'
IN_AN_EVALUATION = b'"kind":"evaluation","body":{"round":3,'
AT_THE_START = b'"kind":"start"'


def resumed(run: Path, start: Start) -> None:
    process = start("resume", run)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert Run.open(run).status == "finished" and not problems(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [AT_THE_START, IN_A_ROUND, IN_AN_EVALUATION],
    ids=["start", "round", "evaluation"],
)
def test_a_killed_run_resumes_to_the_same_bits(
    moment: bytes, world: World, start: Start, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "run"
    process = start(*options(world, out))
    wait_for(process, journal_says(out, moment))
    process.kill()
    process.communicate(timeout=PATIENCE)
    before = Run.open(out)
    assert before.status == "interrupted" and len(before.rounds) < ROUNDS
    resumed(out, start)
    assert bits(out) == bits(undisturbed)
    after = Run.open(out)
    assert after.evaluation == Run.open(undisturbed).evaluation
    assert after.rounds[: len(before.rounds)] == before.rounds


@pytest.mark.slow
def test_a_run_killed_in_its_baseline_resumes_to_the_same_bits(
    world: World, start: Start, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "run"
    process = start(*options(world, out))
    wait_for(process, journal_says(out / "baselines" / "local", IN_A_ROUND))
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert len(Run.open(out).rounds) == ROUNDS
    resumed(out, start)
    assert bits(out) == bits(undisturbed)
    assert Run.open(out).evaluation == Run.open(undisturbed).evaluation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_a_stopped_run_says_how_to_go_on(
    number: int, code: int, world: World, start: Start, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "run"
    process = start(*options(world, out))
    wait_for(process, journal_says(out, IN_A_ROUND))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    last = err.splitlines()[-1]
    assert last.startswith("fedpilot: ") and last.endswith(f"fedpilot resume {out}")
    assert "Traceback" not in err
    assert Run.open(out).status == "stopped"
    resumed(out, start)
    assert bits(out) == bits(undisturbed)


@pytest.mark.slow
def test_who_presses_ctrl_c_again_and_again_sees_one_line(
    world: World, start: Start, tmp_path: Path
):
    out = tmp_path / "run"
    process = start(*options(world, out), "rounds=1000")
    wait_for(process, journal_says(out, b'"kind":"round"'))
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate()
    assert process.returncode == 130 and "fedpilot resume" in said
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    assert Run.open(out).status in ("stopped", "interrupted")


def test_two_processes_cannot_write_one_run(world: World, start: Start, tmp_path: Path):
    out = tmp_path / "run"
    writer = start(*options(world, out))
    wait_for(writer, journal_says(out, IN_A_ROUND))
    writer.send_signal(signal.SIGSTOP)  # it holds the run for as long as we like
    try:
        second = start("resume", out)
        _, err = second.communicate(timeout=PATIENCE)
        assert second.returncode == 7 and len(err.splitlines()[-1:]) == 1
        assert str(writer.pid) in err.splitlines()[-1]
    finally:
        writer.send_signal(signal.SIGCONT)
    writer.communicate(timeout=PATIENCE)
    assert writer.returncode == 0 and not problems(out)
