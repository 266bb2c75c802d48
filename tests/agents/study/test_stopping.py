"""A study that is told to stop, and what becomes of it."""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.study import stopping
from agents.study.conduct import conduct, resume_study, run_study
from agents.study.ledger import RUNS, Study, writing
from agents.study.runs import Bench, StudyWatch
from agents.study.spec import StudySpec
from federation.errors import ConfigError, StoppedError
from federation.runs import inbox
from federation.runs.folder import is_run
from federation.runs.inbox import Pause
from federation.runs.records import Record, RoundRecord
from federation.runs.run import Run
from federation.session import Watch
from tests.agents.study.studies import figures, said, spec
from tests.tiny_worlds import World

PATIENCE = 120.0  # seconds, on a machine with other work


def watched(at: str, then: Callable[[], object]) -> StudyWatch:
    """Call a function once, in the first round of a run."""
    called: list[str] = []

    @contextmanager
    def during(name: str, rounds: int, done: int):
        def record(written: Record) -> None:
            if name == at and isinstance(written, RoundRecord) and not called:
                called.append(name)
                then()

        yield Watch(record=record)

    return StudyWatch(during=during)


def two_rounds(world: World) -> StudySpec:
    own = spec(world)
    return own.model_copy(update={"base": {**own.base, "rounds": 2}, "max_client_steps": 2000})


def test_it_ends_after_the_round_in_flight_and_goes_on_to_the_same_verdict(
    world: World, tmp_path: Path
):
    out, cache = tmp_path / "study", world.folder / "cache"
    stop = watched("frozen-seed-1", lambda: stopping.stop(out, "eve"))
    with pytest.raises(StoppedError, match=f"stopped by eve; go on with: fedpilot study {out}"):
        run_study(two_rounds(world), out, cache=cache, watch=stop)
    run = Run.open(out / RUNS / "frozen-seed-1")
    assert (run.status, list(run.history.rounds)) == ("stopped", [0])
    assert [c.by for c in run.history.commands.values()] == ["eve"]
    assert "frozen-seed-1" not in Study.open(out).told.measured
    whole = resume_study(out, cache=cache)
    other = run_study(two_rounds(world), tmp_path / "other", cache=cache)
    assert figures(whole) == figures(other)
    assert said(whole.told) == said(other.told)


def test_between_two_runs_it_begins_no_further_one(world: World, tmp_path: Path):
    out, cache = tmp_path / "study", world.folder / "cache"

    def say(words: str) -> None:
        if words.startswith("noise floor"):
            stopping.stop(out)
            stopping.stop(out)  # a second click

    with pytest.raises(StoppedError, match="stopped by person"):
        run_study(spec(world), out, cache=cache, watch=StudyWatch(say=say))
    assert not [path for path in (out / RUNS).iterdir() if path.name.startswith("frozen")]
    assert len(inbox.files(out)) == 1
    assert resume_study(out, cache=cache).told.verdict is not None


def test_what_was_said_since_the_study_was_taken_up_is_heard(world: World, tmp_path: Path):
    out = tmp_path / "study"
    with writing(out, spec(world)):
        stopping.stop(out, "earlier")  # whom the conductor did not live to hear
    time.sleep(0.05)  # times of files have ticks
    with writing(out) as ledger:
        assert stopping.told(out) is None
        stopping.stop(out, "eve")
        with pytest.raises(StoppedError, match="stopped by eve"):
            conduct(Bench(ledger, world.folder / "cache"))
        assert len(inbox.files(out)) == 1


def test_a_run_that_is_being_loaded_plays_no_round(world: World, tmp_path: Path):
    out, cache = tmp_path / "study", world.folder / "cache"

    @contextmanager
    def during(name: str, rounds: int, done: int):
        stopping.stop(out)
        yield Watch()

    with pytest.raises(StoppedError, match="stopped by person"):
        run_study(spec(world), out, cache=cache, watch=StudyWatch(during=during))
    run = Run.open(out / RUNS / "plain-seed-0")
    assert (run.status, list(run.history.rounds)) == ("stopped", [])


def test_a_run_that_waits_is_told_too(world: World, tmp_path: Path):
    out, cache = tmp_path / "study", world.folder / "cache"
    run, found = out / RUNS / "plain-seed-0", list[BaseException]()

    def conduct() -> None:
        wait = watched("plain-seed-0", lambda: inbox.put(run, Pause()))  # type: ignore[call-arg]
        try:
            run_study(two_rounds(world), out, cache=cache, watch=wait)
        except StoppedError as stop:
            found.append(stop)

    thread = threading.Thread(target=conduct, daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not (is_run(run) and Run.open(run).paused) and time.monotonic() < end:
        thread.join(0.05)
    try:
        assert stopping.in_flight(out) == run
        stopping.stop(out)
        thread.join(PATIENCE)
        assert not thread.is_alive() and len(found) == 1
        assert stopping.in_flight(out) is None
    finally:
        if thread.is_alive():
            inbox.put(run, inbox.Stop())  # type: ignore[call-arg]
            thread.join(PATIENCE)


def test_who_cannot_hear_is_told_nothing(whole: Study, tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a study"):
        stopping.stop(tmp_path)
    with pytest.raises(ConfigError, match=f"go on with it by: fedpilot study {whole.path}"):
        stopping.stop(whole.path)
    assert inbox.files(whole.path) == []
