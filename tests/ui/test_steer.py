"""A run in another thread, steered from the command line."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.experiment import resume, run_experiment
from federation.config import Config
from federation.errors import StoppedError
from federation.runs import inbox
from federation.runs.inbox import Pause
from federation.runs.run import Run, is_run
from tests.tiny_worlds import World
from tests.ui.conftest import Call

PATIENCE = 60.0


def until(what: Callable[[], bool]) -> None:
    """Wait for something, not for ever."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@contextmanager
def paused(path: Path, world: World, **pilot: object) -> Iterator[Path]:
    """A run of two rounds in another thread, paused before its first round; it ends on leaving."""
    config = Config.from_toml(world.config, ["rounds=2", "engine.chunk=2"])
    config = config.model_copy(update={"pilot": pilot})

    def work() -> None:
        try:
            run_experiment(config, path, cache=world.folder / "cache")
        except StoppedError as stop:
            stopped.append(stop)

    stopped: list[StoppedError] = []
    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: is_run(path))
        inbox.put(path, Pause())
        until(lambda: Run.open(path).paused)
        yield path
    finally:
        if thread.is_alive():
            inbox.put(path, inbox.Stop())
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_run_is_paused_lengthened_and_let_go_on(call: Call, world: World, tmp_path: Path):
    with paused(tmp_path / "run", world) as run:
        assert "running, paused" in call("show", run).out
        assert call("show", run, "--json").json["paused"] is True
        call("steer", run, "pause").refused(2, "refused pause: it is paused already")
        call("resume", run).refused(7, "is paused", f"fedpilot steer {run} resume")
        said = call("steer", run, "more-rounds", 1, "--by", "eve", "--json").json
        assert (said["command"], said["accepted"], said["reason"]) == ("more_rounds", True, "")
        record = Run.open(run).history.commands[said["id"]]
        assert (record.by, record.arguments) == ("eve", {"n": 1})
        assert call("steer", run, "resume").out == "resume: done\n"
        until(lambda: Run.open(run).status == "finished")
    shown = call("show", run, "--json").json
    assert (shown["rounds"], shown["rounds_planned"], shown["paused"]) == (3, 3, False)
    assert call("verify", run).code == 0


def test_a_longer_run_is_repeated_to_the_same_bits(call: Call, world: World, tmp_path: Path):
    with paused(tmp_path / "run", world, policy="null", bounds={"lr": [1e-3, 0.1]}) as run:
        said = call("steer", run, "more-rounds", 1).out
        assert said == "more-rounds: it has 3 rounds now\n"
        call("steer", run, "resume")
        until(lambda: Run.open(run).status == "finished")
    assert "in each of its 3 rounds" in call("replay", run, "--out", tmp_path / "again").out


def test_a_run_is_stopped_and_gone_on_with(call: Call, world: World, tmp_path: Path):
    with paused(tmp_path / "run", world) as run:
        said = call("steer", run, "stop").out
        assert said == f"stop: done; go on with it later: fedpilot resume {run}\n"
        until(lambda: Run.open(run).status == "stopped")
    call("steer", run, "pause").refused(2, "is not running", f"fedpilot resume {run}")
    assert "status     stopped by person\n" in call("show", run).out
    assert resume(run, cache=world.folder / "cache").status == "finished"


def test_a_stop_is_one_line_and_a_code(call: Call, world: World, tmp_path: Path):
    """The command that ran it says where it stands and how to go on."""
    with paused(tmp_path / "run", world) as run:
        call("steer", run, "stop")
        until(lambda: Run.open(run).status == "stopped")
    inbox.put(run, inbox.Stop(by="eve"))
    call("resume", run).refused(130, "stopped by eve", f"go on with: fedpilot resume {run}")


def test_a_run_that_does_not_go_on_is_not_steered(call: Call, finished: Path, tmp_path: Path):
    last = len(Run.open(finished).rounds)
    forked = f"fedpilot fork {finished} --round {last} --rounds N --out NEW"
    for deed in (["pause"], ["more-rounds", 2]):
        call("steer", finished, *deed).refused(2, "is finished", forked)
    call("steer", tmp_path / "nothing", "stop").refused(2, "there is no such folder")
    assert not (finished / "inbox").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["more-rounds", "0"], "more_rounds: n must be a whole number from 1"),
        (["more-rounds", "many"], "write a whole number, not 'many'"),
        (["edit", "round-1", "lr"], "'lr': write KEY=VALUE"),
        (["edit", "round-1", "lr=fast"], "'lr=fast': write KEY=VALUE"),
        (["edit", "round-1", "lr=nan"], "answer: values must be a finite number"),
        (["edit", "round-1"], "required: KEY=VALUE"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: COMMAND"),
    ],
)
def test_what_is_no_command_is_refused(argv, words, call: Call, finished: Path):
    call("steer", finished, *argv).refused(2, words)


def test_a_question_is_answered_from_the_command_line(call: Call, world: World, tmp_path: Path):
    with paused(tmp_path / "run", world, policy="human", bounds={"lr": [1e-3, 0.1]}) as run:
        if Run.open(run).asking is None:  # it was paused before it asked
            early = call("steer", run, "approve", "round-1")
            early.refused(2, "does not ask round-1", "asks nothing")
        call("steer", run, "resume")
        until(lambda: Run.open(run).asking is not None)
        told = call("show", run).out
        assert f"fedpilot steer {run} approve round-1" in told
        assert "plateau@1 proposes for round 1: everything as it is" in told
        assert "lr from 0.005 to 0.02" in told and f"steer {run} edit round-1 KEY=VALUE" in told
        on = f"let it go on with: fedpilot steer {run} resume"
        assert call("steer", run, "pause").out == f"pause: it waits after 0 of 2 rounds; {on}\n"
        assert call("steer", run, "resume").out == "resume: done\n"
        shown = call("show", run, "--json").json["asking"]
        assert (shown["id"], shown["round"], shown["policy"]) == ("round-1", 1, "plateau@1")
        call("steer", run, "approve", "round-2").refused(2, "does not ask round-2: it asks round-1")
        call("steer", run, "edit", "round-1", "lr=5").refused(2, "lr 5 is outside 0.005 to 0.02")
        assert call("steer", run, "edit", "round-1", "lr=0.02").out == "edit: done\n"
        until(lambda: (x := Run.open(run).asking) is not None and x.id == "round-2")
        assert call("steer", run, "reject", "round-2", "--by", "eve").out == "reject: done\n"
        until(lambda: Run.open(run).status == "finished")
    decided = Run.open(run).history.decisions
    assert [x.work["lr"] for x in decided.values()] == [0.02, 0.02]
    assert [x.source for x in decided.values()] == ["human", "human"]


def test_a_run_is_forked(call: Call, world: World, finished: Path, tmp_path: Path):
    out = tmp_path / "fork"
    said = call(
        "fork", finished, "--round", 2, "--out", out, "--set", "work.lr=0.02", "--rounds", 1
    )
    assert said.code == 0 and f"fedpilot show {out}" in said.out
    shown = call("show", out, "--json").json
    assert (shown["rounds"], shown["rounds_planned"], shown["status"]) == (3, 3, "finished")
    assert call("verify", out).code == 0
    call("fork", finished, "--round", 9, "--out", tmp_path / "x").refused(2, "no checkpoint of")
    call("fork", finished, "--round", 3, "--out", tmp_path / "x").refused(2, "none is left")
    call("fork", finished, "--round", 2, "--out", finished).refused(2, "holds a run")
    assert not (tmp_path / "x").exists()


def test_a_fork_counts_the_rounds_that_it_was_told_to_have(
    call: Call, finished: Path, tmp_path: Path
):
    out = tmp_path / "longer"
    said = call("fork", finished, "--round", 2, "--out", out, "--set", "rounds=4")
    assert said.code == 0 and "round 4 of 4:" in said.err
