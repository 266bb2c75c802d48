"""Jobs: processes that outlive whoever started them, and say how they ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.errors import ConfigError
from ui.web import jobs


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something, not for ever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_job_says_how_it_ended_and_what_it_said(tmp_path: Path) -> None:
    good = jobs.start(tmp_path, "a configuration", ["init", str(tmp_path / "new.toml")])
    bad = jobs.start(tmp_path, "a show", ["show", str(tmp_path / "nothing")], "nothing")
    assert good.alive
    until(lambda: not good.alive and not bad.alive)
    assert good.code == 0 and "new.toml" in good.output
    assert bad.code == 2
    assert "there is no such folder" in bad.said
    assert [job.id for job in jobs.jobs(tmp_path, "nothing")] == [bad.id]
    assert {job.title for job in jobs.jobs(tmp_path)} == {"a configuration", "a show"}


def test_a_job_outlives_who_started_it_and_its_death_is_seen(tmp_path: Path) -> None:
    # A server that starts a job and is killed at once.
    code = (
        "import sys, pathlib as p, ui.web.jobs as j; j.start(p.Path(sys.argv[1]), '', sys.argv[2:])"
    )
    args = [str(tmp_path), "ui", str(tmp_path), "--port", str(free_port())]
    subprocess.run([sys.executable, "-c", code, *args], check=True, timeout=60)
    (job,) = jobs.jobs(tmp_path)
    until(lambda: (job.folder / "lock").exists())
    assert job.alive
    assert job.code is None
    owner = int(json.loads((job.folder / "lock").read_text())["pid"])
    os.kill(owner, signal.SIGKILL)
    until(lambda: not job.alive, 10)
    assert job.code is None  # it was killed: it did not say


@pytest.mark.parametrize("text", ["", "{", "[]", '{"title": "x"}'])
def test_a_folder_that_describes_no_job_is_none(tmp_path: Path, text: str) -> None:
    folder = tmp_path / jobs.JOBS / "20260101T000000-aaaaaaaa"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(text)
    assert jobs.jobs(tmp_path) == []


def test_what_cannot_be_typed_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--out"):
        jobs.start(tmp_path, "a repetition", ["replay", str(tmp_path / "one")])
    assert not list(tmp_path.iterdir())


def test_the_same_wish_twice_is_one_job(tmp_path: Path) -> None:
    first = jobs.start(tmp_path, "the runs", ["runs", str(tmp_path)], once="the demo")
    again = jobs.start(tmp_path, "the runs", ["runs", str(tmp_path)], once="the demo")
    other = jobs.start(tmp_path, "the runs", ["runs", str(tmp_path)], once="another demo")
    assert first.folder == again.folder != other.folder
    until(lambda: not first.alive and not other.alive)
    assert (first.code, other.code) == (0, 0)
