"""What a careless or hostile person may do to the interface ends in a line, and harms nothing."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from federation.errors import ConfigError, LockedError, StorageError
from federation.runs.records import EndRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.made_uinew import instead
from tests.ui.web.recorded import config, record, write
from ui.web import actions, jobs, places
from ui.web.following import differs
from ui.web.jobs import Job
from ui.web.store import Shelf, tag, tags


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that were written down; no process is started, and they look alive."""
    found: list[Job] = []

    class Process:
        def __init__(self, command: list[str], **rest: object) -> None:
            job = jobs.read(Path(command[-1]))
            assert job is not None
            found.append(job)

        def poll(self) -> None:
            return None

    monkeypatch.setattr("ui.web.jobs.subprocess.Popen", Process)
    return found


def ended(job: Job, code: int) -> None:
    (job.folder / jobs.ENDED).write_text(json.dumps({"code": code}))


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "a\nb", "x" * 300, "--out"])
def test_a_fork_never_leads_out_of_the_folder(runs: Path, begun: list[Job], name: str) -> None:
    record(runs / "one")
    with pytest.raises(ConfigError, match="name: "):
        actions.fork(runs, "one", 2, name, 6)
    assert begun == []


def test_a_run_of_any_name_can_be_forked_and_repeated(runs: Path, begun: list[Job]) -> None:
    odd = "my run: é / ../x".replace("/", "|")
    record(runs / odd)
    actions.replay(runs, odd)
    actions.fork(runs, odd, 2, places.harmless(f"{odd}-fork2"), 6)
    assert [places.checked_name(job.about) for job in begun] == [
        "my-run-x-replay", "my-run-x-fork2",
    ]  # fmt: skip
    assert places.harmless("x" * 300 + "-fork7").endswith("-fork7")
    assert places.harmless("..") == "data"


def test_two_clicks_make_one_run_and_another_wish_another(runs: Path, begun: list[Job]) -> None:
    record(runs / "one")
    first = actions.fork(runs, "one", 2, "two", 6)
    assert actions.fork(runs, "one", 2, "two", 6).id == first.id
    assert actions.fork(runs, "one", 3, "two", 6).about == "two-2"
    assert actions.replay(runs, "one").id == actions.replay(runs, "one").id
    assert [job.about for job in begun] == ["two", "two-2", "one-replay"]


def test_a_wish_that_failed_or_whose_run_was_deleted_can_be_wished_again(
    runs: Path, begun: list[Job]
) -> None:
    first = actions.start_demo(runs, "demo")
    ended(first, 3)
    second = actions.start_demo(runs, "demo")
    record(runs / "demo")
    ended(second, 0)
    assert actions.start_demo(runs, "demo").id == second.id
    Shelf(runs).delete("demo")
    actions.start_demo(runs, "demo")
    assert len(begun) == 3
    assert len(jobs.jobs(runs)) == 3  # what failed is told still


def test_a_job_that_cannot_be_written_down_leaves_nothing_that_blocks_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **rest: object) -> None:
        raise StorageError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("federation.runs.storage.atomic_write", full)
        with pytest.raises(StorageError):
            actions.start_demo(runs, "demo")
    assert list((runs / jobs.JOBS).iterdir()) == []


@pytest.mark.parametrize(
    ("page", "key"), [("live", "go-on"), ("live", "fork"), ("decisions", "fork")]
)
def test_jobs_that_cannot_be_written_are_a_line(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, page: str, key: str
) -> None:
    path = record(runs / "one", done=3, rounds=6, end="stopped")
    (runs / jobs.JOBS).write_text("in the way")
    monkeypatch.setattr(
        "ui.web.actions.checkpoint_files", lambda path, history: {2: path / "config.json"}
    )
    app = open_page(page, run="one")
    app.button(key=key).click().run()
    assert not app.exception, app.exception
    told = words(app) + "".join(str(x.value) for x in app.toast)
    assert jobs.JOBS.replace(".", "\\.") in told
    assert path.exists()


def test_what_is_linked_is_let_go_and_stays_where_it_lies(runs: Path, tmp_path: Path) -> None:
    outside = record(tmp_path / "outside")
    (runs / "one").symlink_to(outside)
    Shelf(runs).delete("one")
    assert list(runs.iterdir()) == []
    assert Run.open(outside).status == "finished"


def test_of_two_tabs_that_delete_one_hears_that_it_is_done(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(runs / "one")
    shelf = Shelf(runs)
    shelf.delete("one")
    monkeypatch.setattr(shelf, "path", lambda name: path)  # as it was found a moment before
    with pytest.raises(ConfigError, match="deleted already"):
        shelf.delete("one")


def test_a_run_that_begins_while_it_is_deleted_is_not_deleted(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(runs / "one", end=None)
    monkeypatch.setattr("federation.runs.storage.is_locked", lambda path: False)
    with RunWriter.reopen(path) as writer:
        with pytest.raises(LockedError, match="stop it first"):
            Shelf(runs).delete("one")
        writer.append(EndRecord(status="stopped"))
    assert Run.open(path).status == "stopped"


def test_what_is_half_there_is_no_run(runs: Path) -> None:
    record(runs / ".one.123.tmp")
    assert Shelf(runs).names() == []
    with pytest.raises(ConfigError, match="there is no run"):
        Shelf(runs).open(".one.123.tmp")


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "pipe"])
def test_a_run_with_something_else_in_it_is_not_taken_in(
    runs: Path, tmp_path: Path, kind: str
) -> None:
    source = record(tmp_path / "elsewhere" / "one")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("private")
    inside = source / "chats"
    inside.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(inside / "x")
    else:
        led = {"file": secret / "key", "folder": secret, "nothing": tmp_path / "nowhere"}
        (inside / "x").symlink_to(led[kind])
    with pytest.raises(ConfigError, match="x is a link, or no file"):
        Shelf(runs).take_in(source)
    assert list(runs.iterdir()) == []


def test_a_run_is_taken_in_under_a_link_and_never_with_the_folder_itself(
    runs: Path, tmp_path: Path
) -> None:
    source = record(tmp_path / "elsewhere" / "one")
    (tmp_path / "link").symlink_to(source)
    assert Shelf(runs).take_in(tmp_path / "link") == "one"
    within = Shelf(source / "runs")
    with pytest.raises(ConfigError, match="holds the runs of this server"):
        within.take_in(source)
    with pytest.raises(ConfigError, match="dot"):
        Shelf(runs).take_in(record(tmp_path / ".hidden"))


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "a\0b", "x" * 5000])
def test_a_path_that_can_be_none_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no path|check the path") as caught:
        places.typed_path(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


LIKE = ["x" * 300, "a\0b", "../one", "a\nb"]


@pytest.mark.parametrize("name", LIKE)
def test_a_form_like_a_run_of_an_impossible_name_says_so(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    instead(monkeypatch)
    record(runs / "one")
    app = open_page("new", like=name)
    assert len(app.error) >= 1


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "/", "x" * 300, "/etc/passwd"])
def test_what_is_no_run_is_not_imported(open_page: Open, runs: Path, text: str) -> None:
    record(runs / "one")
    app = open_page("runs")
    app.text_input[0].input(text).run()
    app.button(key="import").click().run()
    assert not app.exception, app.exception
    assert len(app.error) == 1


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("decisions", "its recipe decides every round beforehand"),
        ("playground", "which knows no questions yet"),
        ("live", "Training loss"),
        ("clients", "nothing of it can be played again"),
        ("compare", "Choose two to six runs"),
        ("runs", "Select a run"),
    ],
)
def test_a_recipe_of_a_newer_version_breaks_no_page(
    open_page: Open, runs: Path, page: str, says: str
) -> None:
    table = {"rounds": 2, "epochs": {"tinystories": 1, "tea-leaves": 2}, "antenna": 3}
    with RunWriter.create(runs / "one", json.dumps(table)) as writer:
        write(writer, config(2), 2)
        writer.append(EndRecord(status="finished"))
    assert says in words(open_page(page, run="one"))


@pytest.mark.parametrize("page", ["live", "decisions", "clients", "playground", "compare"])
def test_a_run_that_is_deleted_under_an_open_page_is_told_in_a_line(
    open_page: Open, runs: Path, page: str
) -> None:
    record(runs / "one")
    record(runs / "two")
    app = open_page(page, run="one")
    Shelf(runs).delete("one")
    app.run()
    assert not app.exception, app.exception


def test_a_page_that_follows_looks_again_when_its_run_is_gone(runs: Path) -> None:
    record(runs / "one")
    shelf = Shelf(runs)
    state = shelf.open("one").state
    assert not differs(lambda: shelf.open("one").state, state)
    shelf.delete("one")
    assert differs(lambda: shelf.open("one").state, state)


def test_many_threads_write_one_file_without_harm(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(tag, tmp_path, [str(n)]) for n in range(200)]:
            done.result()
    assert len(tags(tmp_path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["tags.json"]


ROWS = {
    "half.jsonl": b'{"text":"\\ud800","\\ud800":["\\udfff"],"a\\n\\n![x](http://e.example/x)":1}\n',
    "wide.csv": b",".join(b"c%d" % n for n in range(5000)) + b"\n" + b",".join([b"1"] * 5000),
    "binary.csv": bytes(range(256)) * 50,
    "archive.parquet": b"PK\x03\x04" + bytes(5000),
    "latin.txt": b"caf\xe9\n",
    "deep.jsonl": b"[" * 100_000,
    "long.txt": b"x" * 3_000_000,
    "null.csv": b"a\0b,c\n1,2\n",
    "empty.parquet": b"",
}


@pytest.mark.parametrize("name", ROWS)
def test_whatever_is_uploaded_is_rows_or_a_line(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    instead(monkeypatch)
    path = places.keep_upload(runs, f"../../{name}", ROWS[name])
    assert path.parent == (runs / places.UPLOADS).absolute()
    app = open_page("new")
    box = next(x for x in app.text_input if str(x.key).endswith("data.source"))
    box.input(str(path)).run()
    assert not app.exception, app.exception
    assert len(app.dataframe) + len(app.error) >= 1
    assert "![" not in "".join(x.value for x in app.caption)
    assert max(len(x.value) for x in app.caption) < 3000


def test_foreign_things_among_the_runs_spoil_no_page(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(runs / "one")
    (runs / "notes.txt").write_text("x")
    (runs / "loop").symlink_to(runs / "loop")
    for name, inside in (("a", "journal.jsonl"), ("b", "lock")):
        (runs / name / inside).mkdir(parents=True)
        (runs / name / "config.json").write_text("{}")
    record(runs / "locked")
    real = Run.open

    def opened(path: str | Path) -> Run:
        if Path(path).name == "locked":
            raise StorageError("permission denied")
        return real(path)

    monkeypatch.setattr(Run, "open", opened)
    monkeypatch.setattr(Run, "readable", opened)
    assert Shelf(runs).names()[0] in ("one", "locked")
    assert list(open_page("runs").dataframe[0].value["run"]) == ["one"]


def test_runs_that_have_no_figure_yet_are_compared_all_the_same(
    open_page: Open, runs: Path
) -> None:
    for name, lr in (("one", 0.1), ("two", 0.2)):
        cfg = config(2, work={"lr": lr})
        with RunWriter.create(runs / name, cfg.model_dump_json()):
            pass
    assert "From settings to figures" in words(open_page("compare", runs="one,two"))
