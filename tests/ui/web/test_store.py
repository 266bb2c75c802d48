"""The shelf of runs: what it finds, how it grows, what it refuses, and what it does to damage."""

import json
from pathlib import Path

import pytest

from federation.errors import ConfigError, CorruptError, LockedError
from federation.runs.writer import RunWriter
from tests.ui.web.recorded import config, record, write
from ui.web.store import Shelf, differences, tag, tags


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_folder_that_is_not_there_holds_no_runs(folder: Path) -> None:
    assert Shelf(folder).names() == []


def test_a_run_grows_while_it_is_looked_at(folder: Path) -> None:
    shelf, cfg = Shelf(folder), config()
    with RunWriter.create(folder / "one", cfg.model_dump_json()) as writer:
        write(writer, cfg, 2)
        first = shelf.open("one")
        assert (first.status, len(first.run.rounds)) == ("running", 2)
        write(writer, cfg, 5)
        assert len(shelf.open("one").run.rounds) == 5
        assert len(first.run.rounds) == 2  # what a page holds does not change under its hands
    assert shelf.open("one").status == "interrupted"


def test_nothing_is_read_again_while_nothing_happens(folder: Path) -> None:
    shelf = Shelf(folder)
    record(folder / "one")
    assert shelf.open("one").run is shelf.open("one").run


def test_another_run_of_the_same_name_is_another_run(folder: Path) -> None:
    shelf = Shelf(folder)
    record(folder / "one")
    assert len(shelf.open("one").run.rounds) == 6
    shelf.delete("one")
    record(folder / "one", done=2, rounds=3, end=None)
    assert len(shelf.open("one").run.rounds) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "../one", "a/b", "nothing", "one\0"])
def test_a_name_never_leads_out_of_the_folder(folder: Path, name: str) -> None:
    record(folder / "one")
    record(folder.parent / "two")
    with pytest.raises(ConfigError, match="there is no run"):
        Shelf(folder).open(name)


def test_of_a_damaged_run_what_is_before_the_damage_is_readable(folder: Path) -> None:
    journal = record(folder / "one") / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[10] = (
        lines[10].replace(b'"seconds":1.5', b'"seconds":9.5').replace(b"because", b"why not")
    )
    journal.write_bytes(b"\n".join(lines))
    opened = Shelf(folder).open("one")
    assert opened.status == "damaged"
    assert "record 10" in opened.damage
    assert len(opened.run.rounds) == 2


def test_a_damaged_configuration_is_damage_and_no_crash(folder: Path) -> None:
    (record(folder / "one") / "config.json").write_text("{")
    opened = Shelf(folder).open("one")
    assert opened.status == "damaged"
    assert len(opened.run.rounds) == 6


def test_damage_that_was_mended_is_none(folder: Path) -> None:
    file = record(folder / "one") / "config.json"
    whole = file.read_bytes()
    file.write_text("{}")
    shelf = Shelf(folder)
    assert shelf.open("one").status == "damaged"
    file.write_bytes(whole)
    assert shelf.open("one").status == "finished"


def test_what_is_being_written_is_not_deleted(folder: Path) -> None:
    shelf, cfg = Shelf(folder), config()
    with (
        RunWriter.create(folder / "one", cfg.model_dump_json()),
        pytest.raises(LockedError, match="stop it first"),
    ):
        shelf.delete("one")
    shelf.delete("one")
    assert shelf.names() == []


def test_a_run_is_taken_in_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    shelf, source = Shelf(folder), record(tmp_path / "elsewhere" / "one")
    assert shelf.take_in(source) == "one"
    assert shelf.open("one").status == "finished"
    with pytest.raises(ConfigError, match="already"):
        shelf.take_in(source)
    with pytest.raises(ConfigError, match="not a run directory"):
        shelf.take_in(tmp_path)
    bad = record(tmp_path / "elsewhere" / "two")
    (bad / "config.json").write_text("{}")
    with pytest.raises((ConfigError, CorruptError), match=r"damaged|changed"):
        shelf.take_in(bad)
    assert [p.name for p in folder.iterdir()] == ["one"]


def test_tags_are_kept_and_a_file_that_holds_none_is_none(folder: Path) -> None:
    path = record(folder / "one")
    tag(path, ["  good ", "", "baseline", "good"])
    assert tags(path) == ("baseline", "good")
    (path / "tags.json").write_text(json.dumps({"no": "list"}))
    assert tags(path) == ()


def test_differences_name_the_keys_that_differ_and_no_others() -> None:
    found = differences(
        {"a": {"work": {"lr": 1, "steps": 2}}, "b": {"work": {"lr": 2, "steps": 2}}}
    )
    assert found == {"work.lr": {"a": 1, "b": 2}}
