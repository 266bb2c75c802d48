"""The form of a study: filled from a run, changed, refused in a line, started."""

import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from agents.study.spec import from_toml
from federation.config import Config
from tests.ui.web.conftest import words
from tests.ui.web.made_uicompare import STUDY, record_study
from tests.ui.web.made_uinew import APP, instead, recorded
from ui.web import drafts, jobs
from ui.web.draft import Draft
from ui.web.jobs import Job

Open = Callable[..., AppTest]
SMALL = {"rounds": 2, "work": {"lr": 0.01, "steps": 4}, "cohort": {"size": 3}}


@pytest.fixture
def open_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open the form on a folder with a run, as soon as its questions were answered."""
    monkeypatch.setenv("FEDPILOT_RUNS", str(tmp_path))
    instead(monkeypatch)
    st.cache_resource.clear()
    recorded(tmp_path / "one", Config.from_table(SMALL))

    def opened(**query: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.switch_page(str(APP.parent / "app_pages" / "new_study.py"))
        for name, value in query.items():
            app.query_params[name] = value
        return looked(app)

    yield opened
    st.cache_resource.clear()


def looked(app: AppTest) -> AppTest:
    """Run until everything that was asked is answered."""
    for _ in range(40):
        app.run()
        assert not app.exception, app.exception
        if not any("hourglass" in c.value for c in app.caption):
            return app
        time.sleep(0.1)
    raise AssertionError("the questions are never answered")


def study(app: AppTest) -> dict:
    return tomllib.loads(next(c.value for c in app.code if "[arms]" in c.value))


def filled(app: AppTest) -> str:
    return next(c.value for c in app.caption if c.value.startswith("Filled from"))


def press(app: AppTest, label: str) -> AppTest:
    next(b for b in app.button if b.label == label).click()
    return looked(app)


def test_from_a_run_to_a_job(open_new, tmp_path, monkeypatch):
    started: list[Job] = []

    def start(runs, title, args, about=""):
        started.append(Job(runs / "x", title, tuple(args), about, time.time()))
        return started[-1]

    monkeypatch.setattr(jobs, "start", start)
    app = open_new(of="one")
    assert "Filled from run one." in filled(app)
    made = study(app)
    assert made["base"]["work"]["lr"] == 0.01 and made["arms"] == {
        "plain": [], "double-lr": ["work.lr=0.02"],
    }  # fmt: skip
    assert made["max_client_steps"] == 2 * 3 * 4 * (5 + 3 + 5)
    assert {m.label: m.value for m in app.metric}["Runs"] == "13"
    app.text_input("study1.question").set_value("Is it worth it?")
    app.number_input("study1.seeds").set_value(3)
    app.number_input("study1.base.rounds").set_value(1)
    looked(app)
    app.text_input("study-name").set_value("mine")
    line = next(c.value for c in app.code if c.value.startswith("fedpilot study"))
    app.button("start").click().run()
    file = tmp_path / ".configs" / "mine.toml"
    assert started[0].args == ("study", str(file), "--out", str(tmp_path / "mine"))
    assert " ".join(["fedpilot", *started[0].args]) == line.replace("/study", "/mine")
    spec = from_toml(file)
    assert (spec.question, spec.seeds, spec.base["rounds"]) == ("Is it worth it?", (0, 1, 2), 1)
    assert spec.max_client_steps == 3 * 4 * (3 + 3 + 3)


def test_arms_come_and_go_and_change_what_is_chosen(open_new):
    app = open_new(of="one")
    press(app, "Add an arm")
    assert study(app)["arms"]["arm"] == []
    app.text_input("study2.name2").set_value("Two Things")
    app.multiselect("study2.arm2.keys").set_value(["work.steps", "algorithm.name"])
    looked(app)
    app.number_input("study2.arm2.work.steps").set_value(7)
    app.selectbox("study2.arm2.algorithm.name").set_value("fedprox")
    looked(app)
    changes = ["work.steps=7", 'algorithm.name="fedprox"']
    assert study(app)["arms"]["two-things"] == changes
    app.multiselect("study2.arm2.keys").set_value(["work.steps", "algorithm.name", "algorithm.mu"])
    looked(app)
    app.number_input("study2.arm2.algorithm.mu").set_value(0.5)
    looked(app)
    assert study(app)["arms"]["two-things"] == [*changes, "algorithm.mu=0.5"]
    app.button("study2.remove1").click()
    looked(app)
    arms = study(app)["arms"]
    assert arms == {"plain": [], "two-things": [*changes, "algorithm.mu=0.5"]}
    for _ in range(4):
        press(app, "Add an arm")
    assert len(study(app)["arms"]) == 6
    assert "Add an arm" not in [b.label for b in app.button]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("study1.arm1.work.lr", 0.0, "work.lr"),
        ("study1.base.data.split.test", 0.0, "data.split.test"),
        ("study1.max_client_steps", 10, "the study needs"),
        ("study1.noise_pairs", 9, "noise_pairs"),
    ],
)
def test_an_error_is_one_line_beside_its_field_and_nothing_can_be_started(
    open_new, key, value, says
):
    app = open_new(of="one")
    app.number_input(key).set_value(value)
    looked(app)
    assert len(app.error) == 2
    assert all(says in e.value.replace("\\", "") and "\n" not in e.value for e in app.error)
    assert app.button("start").disabled
    assert "work.lr" in str(study(app)["arms"])  # the text beside stays in step


def test_a_change_needs_a_value(open_new):
    app = open_new(of="one")
    app.multiselect("study1.arm1.keys").set_value(["upload.clip", "no.such"])
    looked(app)
    assert "upload.clip needs a value" in app.error[0].value.replace("\\", "")
    app.number_input("study1.arm1.upload.clip").set_value(1.0)
    app.text_input("study1.arm1.raw.no.such").set_value("3")
    looked(app)
    assert "unknown key no" in app.error[0].value.replace("\\", "")


def test_what_only_torch_can_tell_is_refused_too(open_new):
    app = open_new(of="one")
    app.multiselect("study1.arm1.keys").set_value(["algorithm.name"])
    looked(app)
    app.selectbox("study1.arm1.algorithm.name").set_value("krum")
    looked(app)
    assert "needs 5 reports" in app.error[0].value and app.button("start").disabled


def test_a_search_and_who_proposes(open_new):
    app = open_new(of="one")
    app.toggle("study1-search").set_value(True)
    looked(app)
    assert "search.bounds" in app.error[0].value.replace("\\", "")
    app.toggle("study1.search.bounds.lr").set_value(True)
    looked(app)
    found = study(app)["search"]
    assert found["bounds"] == {"lr": [0.001, 0.1]} and found["trials"] == 8
    assert found["max_client_steps"] == 8 * 24
    app.toggle("study1-agent").set_value(True)
    looked(app)
    assert "agent.model" in app.error[0].value.replace("\\", "")
    app.text_input("study1.agent.model").set_value("scripted:x")
    looked(app)
    assert not app.error and study(app)["agent"] == {"model": "scripted:x"}


def test_it_is_filled_from_what_there_is(open_new, tmp_path):
    assert "Filled from the example." in filled(open_new())
    record_study(tmp_path / "rates")
    app = open_new(of="rates")
    assert study(app)["arms"] == {"plain": [], "hot": ["work.lr=0.02"]}
    recorded(tmp_path / "two", Config.from_table({**SMALL, "rounds": 5}))
    app = open_new(of="one,two")
    assert study(app)["arms"] == {"plain": [], "two": ["rounds=5"]}
    app = open_new(of="gone")
    assert "gone" in app.error[0].value
    app.text_area("study-text").set_value(STUDY).run()
    press(app, "Take the text")
    assert study(app)["question"] == "Does it help?"
    app.text_area("study-text").set_value("rounds = 0").run()
    next(b for b in app.button if b.label == "Take the text").click().run()
    assert not app.exception and "rounds" in words(app)


def drafted(app: AppTest) -> str:
    id = app.query_params["draft"]
    return id if isinstance(id, str) else id[0]


def test_a_reload_finds_the_study_that_was_written(open_new, tmp_path):
    app = open_new(of="one")
    assert "draft" not in app.query_params and not (tmp_path / ".drafts").exists()
    press(app, "Add an arm")
    id = drafted(app)
    assert "of" not in app.query_params
    app.text_input("study2.name2").set_value("short")
    app.multiselect("study2.arm2.keys").set_value(["work.steps"])
    looked(app)
    app.number_input("study2.arm2.work.steps").set_value(7)
    app.number_input("study2.seeds").set_value(3)
    app.text_input("study-name").set_value("mine")
    app.toggle("study2-search").set_value(True)
    looked(app)
    assert drafted(app) == id and len(list((tmp_path / ".drafts").iterdir())) == 1
    again = open_new(draft=id)
    assert study(again) == study(app) and study(again)["arms"]["short"] == ["work.steps=7"]
    assert "search" in study(again) and study(again)["seeds"] == [0, 1, 2]
    assert again.text_input("study-name").value == "mine"
    assert "Filled from run one." in filled(again)


def test_a_name_stays_while_arms_come_and_go(open_new):
    app = open_new(of="one")
    app.text_input("study-name").set_value("mine")
    looked(app)
    press(app, "Add an arm")
    assert app.text_input("study-name").value == "mine"


def test_an_open_budget_stays_open_in_a_draft(open_new):
    app = open_new(of="one")
    app.number_input("study1.seeds").set_value(3)
    looked(app)
    again = open_new(draft=drafted(app))
    before = study(again)["max_client_steps"]
    again.number_input("study1.seeds").set_value(5)
    looked(again)
    assert study(again)["max_client_steps"] > before


def test_one_can_start_a_study_anew_and_the_draft_stays(open_new):
    app = open_new(of="one")
    app.text_input("study1.question").set_value("Is it worth it?")
    looked(app)
    id = drafted(app)
    press(app, "Begin anew")
    assert "draft" not in app.query_params and "of" not in app.query_params
    assert study(app)["question"] != "Is it worth it?"
    assert study(open_new(draft=id))["question"] == "Is it worth it?"


@pytest.mark.parametrize("table", [{"rounds": 3}, {"arms": {}, "control": "a", "base": {}}])
def test_a_draft_of_something_else_is_said_and_the_form_is_there(open_new, tmp_path, table):
    drafts.keep(tmp_path, "a" * 16, Draft(table, "elsewhere"))
    app = open_new(draft="a" * 16)
    assert "is none of this form" in app.error[0].value
    assert study(app)["arms"]
