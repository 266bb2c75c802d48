"""What people bring and write lies whole in its place, or not at all."""

import json
from pathlib import Path

import pytest

from federation.errors import ConfigError, DataError
from federation.runs import storage
from ui.web import jobs, places, samples
from ui.web.jobs import Job


def ended(job: Job, code: int, said: str) -> None:
    (job.folder / jobs.LOG).write_text(said)
    storage.atomic_write(job.folder / jobs.ENDED, json.dumps({"code": code}).encode())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "x" * 65, "ä", "a b"])
def test_a_name_that_no_folder_should_have_is_refused(name):
    with pytest.raises(ConfigError, match="name"):
        places.checked_name(name)


def test_a_name_that_is_taken_is_refused(tmp_path, started):
    (tmp_path / "one").mkdir()
    with pytest.raises(ConfigError, match="already"):
        places.start_run(tmp_path, "one", {})
    assert not started


def test_a_run_is_written_down_and_started(tmp_path, started):
    job = places.start_run(tmp_path, "one", {"rounds": 2, "work": {"lr": 0.5}})
    file = tmp_path / ".configs" / "one.toml"
    assert file.read_text() == "rounds = 2\n\n[work]\nlr = 0.5\n"
    assert job.args == ("run", str(file), "--out", str(tmp_path / "one"))
    assert job.about == "one" and len(started) == 1


def test_an_upload_stays_in_its_folder_whatever_it_is_called(tmp_path):
    first = places.keep_upload(tmp_path, "../../etc/Pass wd.JSONL", b"{}")
    assert first.parent == tmp_path / ".uploads"
    assert first.name.startswith("Pass-wd-") and first.suffix == ".jsonl"
    assert places.keep_upload(tmp_path, "../../etc/Pass wd.JSONL", b"{}") == first
    assert places.keep_upload(tmp_path, "Pass wd.jsonl", b"[]") != first
    with pytest.raises(ConfigError, match="jsonl"):
        places.keep_upload(tmp_path, "x.exe", b"")


def test_clients_are_counted_once_and_again_when_the_source_changed(tmp_path, started):
    table = {"data": {"source": "x.jsonl"}}
    assert places.clients_job(tmp_path, table, "1", start=False) is None
    job = places.clients_job(tmp_path, table, "1", start=True)
    assert job is not None
    ended(job, 0, 'reading\n{\n "clients": []\n}\n')
    assert places.clients_job(tmp_path, table, "1", start=True) == job
    assert job.printed == {"clients": []}
    assert places.clients_job(tmp_path, table, "2", start=False) is None
    assert len(started) == 1


def test_a_count_that_failed_is_started_anew_when_asked(tmp_path, started):
    job = places.clients_job(tmp_path, {}, "", start=True)
    assert job is not None
    ended(job, 2, "fedpilot: no")
    assert job.printed is None
    assert places.clients_job(tmp_path, {}, "", start=False) == job
    assert places.clients_job(tmp_path, {}, "", start=True) != job


def test_a_sample_is_the_beginning_of_a_source(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"a": i, "b": None}) + "\n" for i in range(50)))
    found = samples.look({"data": {"source": "rows.jsonl"}}, tmp_path)
    assert found is not None and len(found.rows) == samples.ROWS
    assert found.fields == ("a", "b") and found.origins[1] == "rows.jsonl row 2"
    assert samples.shown(found.rows[1]) == {"a": "1", "b": ""}


@pytest.mark.parametrize("source", ["somebody/something", "x" * 5000, "~nobody-of-that-name/x"])
def test_a_source_that_is_not_here_is_not_asked_of_a_hub(tmp_path, source):
    assert samples.look({"data": {"source": source}}, tmp_path) is None


def test_a_source_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(DataError, match="row 1"):
        samples.look({"data": {"source": "x.jsonl"}}, tmp_path)


def test_a_file_that_changed_has_another_stamp(tmp_path: Path):
    file = tmp_path / "x"
    file.write_text("a")
    before = samples.stamp("x", tmp_path)
    file.write_text("ab")
    assert samples.stamp("x", tmp_path) != before != ""
