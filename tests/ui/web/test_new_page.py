"""The page of a new experiment: filled, changed, refused in a line, started."""

import json
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from federation.config import Config
from tests.ui.web.made_uinew import APP, instead, recorded
from ui.web import jobs
from ui.web.jobs import Job

Open = Callable[..., AppTest]


@pytest.fixture
def open_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open the page on an empty folder of runs, as soon as its questions were answered."""
    monkeypatch.setenv("FEDPILOT_RUNS", str(tmp_path))
    instead(monkeypatch)
    st.cache_resource.clear()

    def opened(**query: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.switch_page(str(APP.parent / "app_pages" / "new.py"))
        for name, value in query.items():
            app.query_params[name] = value
        return looked(app)

    yield opened
    st.cache_resource.clear()


def looked(app: AppTest) -> AppTest:
    """Run until everything that was asked is answered."""
    for _ in range(20):
        app.run()
        assert not app.exception, app.exception
        if not any("hourglass" in c.value for c in app.caption):
            return app
        time.sleep(0.2)
    raise AssertionError("the questions are never answered")


def toml(app: AppTest) -> str:
    return next(c.value for c in app.code if "rounds = " in c.value)


def test_from_the_demo_to_a_job(open_new, tmp_path, monkeypatch):
    started: list[Job] = []

    def start(runs, title, args, about=""):
        started.append(Job(runs / "x", title, tuple(args), about, time.time()))
        return started[-1]

    monkeypatch.setattr(jobs, "start", start)
    app = open_new()
    assert (app.metric[0].label, app.metric[0].value) == ("Client-steps", "216")
    app.number_input("new1.work.steps").set_value(7)
    looked(app)
    assert "steps = 7" in toml(app) and app.metric[0].value == "252"
    app.text_input("new-name").set_value("mine")
    app.button("start").click().run()
    assert started[0].args == (
        "run", str(tmp_path / ".configs" / "mine.toml"), "--out", str(tmp_path / "mine"),
    )  # fmt: skip
    config = Config.from_toml(tmp_path / ".configs" / "mine.toml")
    assert config.work.steps == 7 and config.pilot["policy"] == "heuristic"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("new1.upload.noise", 1.0, "noise needs clip"),
        ("new1.work.lr", 0.0, r"work\.lr"),
        ("new1.pilot.trust", 1.0, "trust"),
    ],
)
def test_an_error_is_shown_in_a_line_and_nothing_can_be_started(open_new, key, value, words):
    app = open_new()
    app.number_input(key).set_value(value)
    looked(app)
    assert len(app.error) == 2 and all(words in e.value for e in app.error)
    assert app.button("start").disabled


def test_what_only_torch_can_tell_is_refused_too(open_new):
    app = open_new()
    app.selectbox("new1.algorithm.name").set_value("krum")
    looked(app)
    assert "needs 5 reports" in app.error[0].value and app.button("start").disabled


def test_settings_appear_with_their_algorithm(open_new):
    app = open_new()
    app.selectbox("new1.algorithm.name").set_value("fedprox")
    looked(app)
    app.number_input("new1.fedprox.algorithm.mu").set_value(0.5)
    looked(app)
    assert 'name = "fedprox"\nmu = 0.5' in toml(app)


def test_like_a_run(open_new, tmp_path):
    recorded(tmp_path / "old", Config.from_table({"rounds": 3, "algorithm": {"name": "fedprox"}}))
    app = open_new(like="old")
    assert "rounds = 3" in toml(app) and 'name = "fedprox"' in toml(app)
    assert any("run old" in c.value for c in app.caption)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("selection", None),
        ("selection", {}),
        ("selection", {"fairness": 2}),
        ("synthetic", {}),
        ("synthetic", {"pairs": 5}),
    ],
)
def test_a_clone_does_beside_the_knobs_what_its_parent_did(open_new, tmp_path, part, said):
    pilot = {"policy": "human"} | ({} if said is None else {part: said})
    recorded(tmp_path / "old", Config.from_table({"pilot": pilot}))
    cloned = tomllib.loads(toml(open_new(like="old")))
    assert cloned["pilot"]["policy"] == "human"
    assert cloned["pilot"].get(part) == said


def test_one_switch_says_whether_rows_are_made_up(open_new):
    app = open_new()
    assert "[pilot.synthetic]" in toml(app)
    switch = app.toggle(key="new1-pilot.synthetic")
    assert "[pilot.synthetic]" not in toml(switch.set_value(False).run())
    assert "[pilot.synthetic]" in toml(switch.set_value(True).run())


def test_a_person_may_be_asked(open_new):
    assert "human" in open_new().selectbox("new1.pilot.policy").options


def test_like_a_run_that_is_not_there(open_new):
    app = open_new(like="gone")
    assert "gone" in app.error[0].value and "rounds = 9" in toml(app)


def test_a_text_fills_the_form_or_is_refused(open_new):
    app = open_new()
    take = next(b for b in app.button if b.label == "Take it")
    app.text_area("load-text").set_value("rounds = 0")
    looked(app)
    take = next(b for b in app.button if b.label == "Take it")
    take.click().run()
    assert any("rounds" in e.value for e in app.error)
    app.text_area("load-text").set_value("rounds = 4\n[upload]\nbits = 8")
    looked(app)
    next(b for b in app.button if b.label == "Take it").click()
    looked(app)
    assert "rounds = 4" in toml(app) and "bits = 8" in toml(app)


@pytest.mark.parametrize("by", ["iid", "dirichlet", "quantity", "shards", "topic"])
def test_every_partition_asks_for_what_it_needs(open_new, by):
    app = open_new()
    app.selectbox("new1.data.clients.by").set_value(by)
    looked(app)
    keys = {w.key for w in app.number_input}
    assert ("new1.data.clients.alpha" in keys) == (by in ("dirichlet", "quantity"))
    assert bool(app.error) == (by in ("dirichlet", "quantity"))


def test_a_file_of_ones_own(open_new, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"q": "![x](http://a/b.png)", "a": "2"}) + "\n")
    app = open_new()
    app.text_input("new1.data.source").set_value(str(file))
    looked(app)
    said = app.error[0].value.replace("\\", "")
    assert 'by = "key" needs key' in said  # that of the built-in data is not a field of these
    app.selectbox("new1.data.clients.by").set_value("iid")
    looked(app)
    assert "data: give prompt and response" in app.error[0].value.replace("\\", "")
    app.text_area("new1.data.prompt").set_value("{q}")
    app.text_area("new1.data.response").set_value("{a}")
    looked(app)
    assert [x.value for x in app.error] == []
    assert any("green-background" in m.value for m in app.markdown)
    app.text_area("new1.data.prompt").set_value("{question}")
    looked(app)
    said = app.error[0].value.replace("\\", "")
    assert "data.prompt: no row has a field 'question'; there are q, a" in said
    assert app.button(key="start").disabled
    app.text_input("new1.data.source").set_value("no-such.jsonl")
    looked(app)
    assert not app.exception
