"""Runs and Live: every state that a run can be in has its page, and none is an exception box."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.runs.records import EvaluationRecord
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.recorded import config, of_round, record, start, write
from ui.web.jobs import Job
from ui.web.shell import plain


def test_an_empty_folder_offers_the_demo_on_both_pages(open_page: Open) -> None:
    for page in ("runs", "live"):
        app = open_page(page)
        assert "No runs yet" in words(app)
        assert "Start the demo" in [b.label for b in app.button]


def test_the_table_says_what_every_run_came_to(open_page: Open, runs: Path) -> None:
    record(runs / "good")
    record(runs / "half", done=3, rounds=9, end=None)
    table = open_page().dataframe[0].value.set_index("run")
    assert list(table.columns)[:2] == ["status", "trend"]
    assert table.loc["good", "status"] == "finished"
    assert table.loc["good", "loss"] == pytest.approx(3 / 6)
    assert table.loc["good", "match"] == pytest.approx(5 / 20)
    assert table.loc["half", "status"] == "interrupted"
    assert table.loc["half", "rounds"] == "3 of 9"


def test_the_table_is_searched_and_filtered(open_page: Open, runs: Path) -> None:
    record(runs / "good")
    record(runs / "half", done=3, rounds=9, end=None, algorithm={"name": "fedprox", "mu": 0.1})
    assert list(open_page(q="fedprox").dataframe[0].value["run"]) == ["half"]
    assert list(open_page(status="finished").dataframe[0].value["run"]) == ["good"]
    assert "No run is like that" in words(open_page(q="nothing of the kind"))


def test_the_table_is_drawn_anew_only_when_something_went_on(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[tuple[Callable[[], object], object]] = []
    monkeypatch.setattr(
        "ui.web.following.follow", lambda seen, drawn, *_: followed.append((seen, drawn))
    )
    record(runs / "over")
    open_page()
    assert not followed
    cfg = config(9)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        write(writer, cfg, 2)
        open_page()
        seen, drawn = followed[-1]
        assert seen() == drawn
        write(writer, cfg, 3)
        assert seen() != drawn


def test_a_selection_never_moves_on_to_another_run(open_page: Open, runs: Path) -> None:
    """Rows are selected by place; the table is another one where its runs are others."""
    record(runs / "one")
    ids = [open_page().dataframe[0].proto.id for _ in range(2)]
    record(runs / "two")
    assert ids[0] == ids[1] != open_page().dataframe[0].proto.id


def test_one_damaged_run_hides_no_other(open_page: Open, runs: Path) -> None:
    record(runs / "good")
    (record(runs / "bad") / "config.json").write_text("{")
    table = open_page().dataframe[0].value.set_index("run")
    assert table.loc["bad", "status"] == "damaged"
    assert table.loc["good", "status"] == "finished"


@pytest.mark.parametrize("end", ["finished", "stopped", "failed", None])
def test_live_shows_a_run_that_has_ended(open_page: Open, runs: Path, end: str | None) -> None:
    record(runs / "one", done=6, rounds=8 if end != "finished" else 6, end=end)
    app = open_page("live", run="one")
    said = words(app)
    assert (end or "interrupted") in said
    assert ("Go on" in said) == (end != "finished")
    assert plain("Round 6: loss 0.500.") in said
    assert len(app.get("vega_lite_chart")) == 3
    assert "0.250" in said  # exact match
    if end == "failed":
        assert "the data changed" in said


def test_live_shows_a_run_that_goes_on_and_one_without_rounds(open_page: Open, runs: Path) -> None:
    cfg = config(9)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        app = open_page("live", run="one")
        assert "No round is finished yet" in words(app)
        write(writer, cfg, 4)
        app = open_page("live", run="one")
        assert "running" in words(app)
        assert "Go on" not in words(app)
        assert app.get("progress")[0].value == round(100 * 4 / 9)


def test_a_base_model_alone_is_no_rise_and_no_scatter_is_claimed(
    open_page: Open, runs: Path
) -> None:
    cfg = config(9)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        writer.append(start(writer, cfg))
        writer.append(EvaluationRecord(subject="base", metrics={"nll": 4.0, "exact_match": 0.0}))
        for each in (x for x in of_round(0, ("a", "b", "c"), {}) if x.kind != "evaluation"):
            writer.append(each)
        app = open_page("live", run="one")
    shown = {metric.label: metric.proto for metric in app.metric}
    assert (shown["Exact match"].delta, shown["Training loss"].delta) == ("base model", "")
    assert "on base" not in str(shown["Exact match"]) + str(shown["Training loss"])
    assert "a round" not in str(shown["Training loss"])
    chart = json.loads(app.get("vega_lite_chart")[1].proto.spec)
    assert chart["encoding"]["y"]["scale"]["domain"] == [0, 1]  # all of its figures are zero


def test_one_more_round_is_offered_as_long_as_it_would_be_played(
    open_page: Open, runs: Path
) -> None:
    cfg = config(4)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        write(writer, cfg, 4)
        assert "One more round" in words(open_page("live", run="one"))
        (runs / "one" / "baselines").mkdir()
        assert "One more round" not in words(open_page("live", run="one"))


def test_the_newest_explanation_leads_to_its_decision(open_page: Open, runs: Path) -> None:
    record(runs / "one")
    for _ in range(2):  # drawn, and from the cache
        links = [link.proto for link in open_page("live", run="one").get("page_link")]
        assert [x.query_string for x in links if "round" in x.label] == ["run=one&round=6"]


def test_live_shows_what_is_left_of_a_damaged_run_and_offers_nothing(
    open_page: Open, runs: Path
) -> None:
    journal = record(runs / "bad") / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[14] = lines[14].replace(b"because", b"because!")
    journal.write_bytes(b"\n".join(lines))
    app = open_page("live", run="bad")
    assert "record 14" in words(app)
    assert "Go on" not in words(app)
    assert len(app.get("vega_lite_chart")) >= 2


def test_a_run_that_is_gone_is_said_to_be_gone(open_page: Open, runs: Path) -> None:
    record(runs / "one")
    assert "There is no run gone here any more" in words(open_page("live", run="gone"))


def test_a_name_from_outside_is_shown_as_it_is(open_page: Open, runs: Path) -> None:
    name = "![x](http://example.com/a.png) <b>bold</b>"
    record(runs / name.replace("/", "_"))
    said = words(open_page("live", run="$x$ **bold**"))
    assert "\\$x\\$ \\*\\*bold\\*\\*" in said


def test_going_on_with_a_run_starts_a_job_and_shows_it(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(runs / "one", done=3, rounds=6, end="stopped")
    record(runs / "two")
    asked: list[tuple[str, ...]] = []

    def start(folder: Path, title: str, args: list[str], about: str, once: str) -> Job:
        asked.append((*args, about))
        return Job(folder / ".jobs" / "x", title, tuple(args), about, 0.0)

    monkeypatch.setattr("ui.web.jobs.start", start)
    app = open_page("live", run="one")
    app.button(key="go-on").click().run()
    assert not app.exception, app.exception
    assert asked == [("resume", str(runs / "one"), "one")]
    assert "round 3 of 6" in app.get("progress")[0].text


def test_a_run_that_a_job_makes_is_shown_when_it_is_there(open_page: Open, runs: Path) -> None:
    folder = runs / ".jobs" / "abc"
    folder.mkdir(parents=True)
    asked = {"title": "the demo", "args": ["demo"], "about": "new", "began": time.time()}
    (folder / "job.json").write_text(json.dumps(asked))
    record(runs / "old")
    assert "new is starting" in str(open_page("live", job="abc").get("status"))
    record(runs / "new", done=2, rounds=4, end=None)
    app = open_page("live", job="abc")
    assert app.selectbox(key="run").value == "new"
    assert "round 2 of 4" in app.get("progress")[0].text
    (folder / "ended.json").write_text('{"code": 3}')
    (folder / "output.log").write_text("fedpilot: there is no such file\n")
    asked["about"] = "never"
    (folder / "job.json").write_text(json.dumps(asked))
    assert plain("there is no such file") in words(open_page("live", job="abc"))
