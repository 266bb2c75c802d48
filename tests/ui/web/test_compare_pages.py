"""Clients, Compare and Studies: every state has its page, and what a button starts is a command."""

import json
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from agents.study.ledger import Study
from federation.errors import ConfigError
from federation.runs import inbox, storage
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.made_uicompare import final, record_clients, record_study
from tests.ui.web.recorded import config, record, write
from ui.web import jobs, studies
from ui.web.naming import Naming


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the commands that pages would start."""
    found: list[list[str]] = []

    def start(runs: Path, title: str, args: list[str], about: str = "") -> None:
        found.append(list(args))

    monkeypatch.setattr(jobs, "start", start)
    return found


def button(app, label: str):
    return next(b for b in app.button if b.label == label)


def test_clients_shows_who_gives_what_under_names_and_under_pseudonyms(
    open_page: Open, runs: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_clients(runs / "one")
    app = open_page("clients", run="one", parts="true")
    said = words(app)
    assert "Behaviour plane" in said
    assert "3 repeats" in said
    assert len(app.get("vega_lite_chart")) == 4  # plane, cosines, contributions, served
    assert list(app.dataframe[0].value["client"]) == ["ward-a", "ward-b", "ward-c"]
    app.number_input(key="repeats").set_value(4).run()
    button(app, "Find out").click().run()
    button(app, "Count rows").click().run()
    one = str((runs / "one").absolute())
    whatif = ["whatif", one, "--round=1", "--contributions", "--repeats=4"]
    assert asked == [whatif, ["data", one, "--json"]]
    app = open_page("clients", run="one", names="pseudonyms", parts="true")
    assert list(app.dataframe[0].value["client"]) == ["c1", "c2", "c3"]
    assert "ward" not in words(app) + str(app.get("vega_lite_chart"))
    monkeypatch.setenv("FEDPILOT_SHARED", "1")
    app = open_page("clients", run="one", names="names", parts="true")
    assert list(app.dataframe[0].value["client"]) == ["c1", "c2", "c3"]


def test_clients_says_what_to_do_where_updates_were_not_kept(open_page: Open, runs: Path) -> None:
    record_clients(runs / "one", keep=False, asked=False)
    said = words(open_page("clients", run="one"))
    assert "engine.keep_updates" in said
    assert "Behaviour plane" not in said
    assert "No round was asked about yet" in said


@pytest.mark.parametrize("page", ["clients", "compare"])
def test_pages_of_no_run_one_that_runs_one_that_failed_and_one_that_is_damaged(
    open_page: Open, runs: Path, page: str
) -> None:
    assert "No runs yet" in words(open_page(page))
    cfg = config(9)
    with RunWriter.create(runs / "runs-now", cfg.model_dump_json()) as writer:
        open_page(page, run="runs-now", view="what-if")
        write(writer, cfg, 4)
        app = open_page(page, run="runs-now", view="what-if")
        assert "The run goes on" in words(app)
    record(runs / "bad", end="failed")
    open_page(page, run="bad", view="what-if")
    journal = runs / "bad" / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[14] = lines[14].replace(b"because", b"because!")
    journal.write_bytes(b"\n".join(lines))
    app = open_page(page, run="bad", view="what-if")
    assert "damaged" in words(app)
    open_page(page, runs="bad,runs-now")


def test_compare_overlays_runs_and_says_which_is_better(open_page: Open, runs: Path) -> None:
    for seed in range(3):
        final(runs / f"plain-{seed}", 2.0 + 0.1 * seed, seed)
        final(runs / f"hot-{seed}", 1.5 + 0.11 * seed, seed, work={"lr": 0.02})
    app = open_page("compare", runs="plain-0,hot-0")
    assert app.multiselect(key="runs").value == ["plain-0", "hot-0"]
    said = words(app)
    assert "3 pairs" in said
    assert len(app.get("vega_lite_chart")) == 3  # curves, parallel coordinates, intervals
    came, given = app.dataframe[0].value.set_index("figure"), app.dataframe[1].value
    assert came.loc["loss, nats per token ↓", "hot-0"] == "1.5000 ★"
    assert came.loc["loss, nats per token ↓", "plain-0"] == "2.0000"
    assert list(given["key"]) == ["work.lr"]
    app.multiselect(key="runs").set_value(["plain-0", "plain-1"]).run()
    assert not app.exception
    assert "noise floor" in words(app)
    app.multiselect(key="runs").set_value(["plain-0"]).run()
    assert "two to six" in words(app)


def test_a_what_if_is_put_together_checked_and_started(
    open_page: Open, runs: Path, asked: list[list[str]]
) -> None:
    record_clients(runs / "one")
    app = open_page("compare", run="one", view="what-if")
    said = words(app)
    assert "better than as it was" in said
    assert "nothing is changed so far" in said
    assert button(app, "Play it again").disabled
    app.multiselect(key="drop").set_value(["ward-c"]).run()
    app.selectbox(key="combine").set_value("median").run()
    app.number_input(key="times").set_value(5).run()
    button(app, "Play it again").click().run()
    one = str((runs / "one").absolute())
    line = ["whatif", one, "--round=1", "--drop=ward-c", "--algorithm=median", "--repeats=5"]
    assert asked == [line]
    app.multiselect(key="reweight").set_value(["ward-c"]).run()
    assert "dropped and reweighted" in words(app)
    assert button(app, "Play it again").disabled


@pytest.mark.parametrize(
    ("upto", "says"),
    [("floor", "No arm has the three pairs"), ("look", "validation split"), ("verdict", "Verdict")],
)
def test_studies_shows_how_far_one_is(open_page: Open, runs: Path, upto: str, says: str) -> None:
    record_study(runs / "rates", upto)
    app = open_page("studies")
    said = words(app)
    assert says in said
    assert ("Go on" in said) == (upto != "verdict")
    table = app.dataframe[0].value.set_index("arm")
    assert table.loc["hot", "verdict"] == ("–" if upto == "floor" else "better")


def test_a_study_is_stopped_and_goes_on(
    open_page: Open, runs: Path, asked: list[list[str]]
) -> None:
    app = open_page("studies")
    assert "No study yet" in words(app)
    path = record_study(runs / "rates", "look")
    lock = storage.lock(path)
    try:
        app = open_page("studies")
        assert "between two runs" in words(app) and "Go on" not in words(app)
        app.button(key="stop").click().run()
        assert [inbox.read(file).command for file in inbox.files(path)] == ["stop"]  # type: ignore[union-attr]
        assert not [b for b in app.button if b.label == "Stop"]
        assert "stops after the round in flight" in app.get("status")[0].label
    finally:
        lock.release()
    app = open_page("studies")
    app.button(key="go-on").click().run()
    assert asked == [["study", str((runs / "rates").absolute())]]


def test_a_study_that_failed_says_why_and_one_that_was_stopped_does_not(
    open_page: Open, runs: Path
) -> None:
    record_study(runs / "rates", "look")
    folder = runs / jobs.JOBS / "x"
    folder.mkdir(parents=True)
    args = ["study", str(runs / "rates")]
    told = {"title": "going on", "args": args, "about": "rates", "began": 1.0}
    (folder / jobs.ASKED).write_text(json.dumps(told))
    (folder / jobs.LOG).write_text("fedpilot: the data changed\n")
    for code, says in ((3, True), (130, False), (143, False), (0, False)):
        (folder / jobs.ENDED).write_text(json.dumps({"code": code}))
        assert ("the data changed" in words(open_page("studies"))) is says
        assert "the data changed" not in words(open_page("runs"))


def test_a_study_that_is_being_started_is_shown_as_soon_as_it_is_there(
    open_page: Open, runs: Path
) -> None:
    folder = runs / jobs.JOBS / "x"
    folder.mkdir(parents=True)
    told = {"title": "it", "args": ["study", "x.toml"], "about": "rates", "began": time.time()}
    (folder / jobs.ASKED).write_text(json.dumps(told))
    app = open_page("studies", job="x")
    assert "rates is starting" in app.get("status")[0].label
    (folder / jobs.ENDED).write_text(json.dumps({"code": 2}))
    (folder / jobs.LOG).write_text("fedpilot: seeds: add some\n")
    assert "seeds: add some" in words(open_page("studies", job="x")).replace("\\", "")
    record_study(runs / "rates")
    app = open_page("studies", job="x")
    assert app.query_params.get("study") in ("rates", ["rates"])
    assert "Verdict" in words(app) and "seeds" not in words(app)


def test_a_damaged_study_is_a_line(open_page: Open, runs: Path) -> None:
    path = record_study(runs / "rates")
    spec = path / "study.json"
    spec.write_text(spec.read_text().replace("Does it", "Did it"))
    app = open_page("studies")
    assert "was changed since the study began" in words(app).replace("\\", "")
    assert not [b for b in app.button if b.label in ("Go on", "Stop")]


def test_a_report_is_one_file_with_its_pictures(tmp_path: Path) -> None:
    path = record_study(tmp_path / "rates")
    with pytest.raises(ConfigError, match="no report yet"):
        studies.report(path)
    (path / "report.md").write_text("# Yes")
    (path / "intervals.png").write_bytes(b"png")
    names = zipfile.ZipFile(BytesIO(studies.report(path))).namelist()
    assert names == ["rates/report.md", "rates/intervals.png"]
    naming = Naming.hidden([], ["Yes", "hot"])  # a client after whom an arm is called
    with zipfile.ZipFile(BytesIO(studies.report(path, naming))) as packed:
        assert packed.namelist() == ["rates/report.md"]
        assert packed.read("rates/report.md") == b"# n1"


def test_stages_come_in_order(tmp_path: Path) -> None:
    states = {}
    for upto in ("floor", "look", "verdict"):
        study = Study.open(record_study(tmp_path / upto, upto))
        states[upto] = [(s.name, s.state) for s in studies.stages(study)]
    assert states["floor"] == [("noise floor", "now"), ("pairs", "later"), ("verdict", "later")]
    assert states["look"] == [("noise floor", "done"), ("pairs", "now"), ("verdict", "later")]
    assert {state for _, state in states["verdict"]} == {"done"}
