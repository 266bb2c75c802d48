"""The page of a new experiment: filled, changed, refused in a line, started."""

import json
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from federation.config import Config
from tests.ui.web.made_uinew import APP, instead, recorded
from ui.web import drafts, jobs
from ui.web.draft import SECTIONS, Draft
from ui.web.jobs import Job

Open = Callable[..., AppTest]


@pytest.fixture
def open_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open the page on an empty folder of runs, as soon as its questions were answered.

    Parts of the form are drawn as if a person had looked at them before.
    """
    monkeypatch.setenv("FEDPILOT_RUNS", str(tmp_path))
    instead(monkeypatch)
    st.cache_resource.clear()

    def opened(parts: Iterable[str] = (*SECTIONS, "More about text"), **query: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.session_state["opened"] = {f"new1.{name}" for name in parts}
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
    return next(t.value for t in app.text if "rounds = " in t.value)


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
        ("synthetic", {"controls": 7}),
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


def drafted(app: AppTest) -> str:
    id = app.query_params["draft"]
    return id if isinstance(id, str) else id[0]


def test_a_reload_finds_what_was_written(open_new, tmp_path):
    app = open_new()
    assert "draft" not in app.query_params and not (tmp_path / ".drafts").exists()
    app.number_input("new1.work.steps").set_value(7)
    looked(app)
    app.number_input("new1.upload.noise").set_value(1.0)  # wrong without a clip
    app.text_input("new-name").set_value("mine")
    looked(app)
    again = open_new(draft=drafted(app))
    assert toml(again) == toml(app) and "steps = 7" in toml(again)
    assert again.text_input("new-name").value == "mine"
    assert any("noise needs clip" in e.value for e in again.error)
    again.number_input("new1.work.steps").set_value(8)
    looked(again)
    assert drafted(again) == drafted(app)
    assert len(list((tmp_path / ".drafts").iterdir())) == 1


def test_a_clone_that_was_changed_is_kept_and_can_be_cloned_anew(open_new, tmp_path):
    recorded(tmp_path / "old", Config.from_table({"rounds": 3}))
    app = open_new(like="old")
    app.number_input("new1.rounds").set_value(5)
    looked(app)
    assert "like" not in app.query_params
    assert "rounds = 5" in toml(open_new(draft=drafted(app)))
    app.query_params.clear()
    app.query_params["like"] = "old"
    looked(app)
    assert "rounds = 3" in toml(app)


def test_what_is_loaded_is_kept_at_once(open_new):
    app = open_new()
    app.text_area("load-text").set_value("rounds = 4")
    looked(app)
    next(b for b in app.button if b.label == "Take it").click()
    looked(app)
    assert "rounds = 4" in toml(open_new(draft=drafted(app)))


def test_one_can_start_anew_and_the_draft_stays(open_new):
    app = open_new()
    app.number_input("new1.work.steps").set_value(7)
    looked(app)
    id = drafted(app)
    next(b for b in app.button if b.label == "Begin anew").click()
    looked(app)
    assert "draft" not in app.query_params and "steps = 7" not in toml(app)
    assert "steps = 7" in toml(open_new(draft=id))


def test_a_draft_that_is_gone_is_said_in_a_line(open_new):
    app = open_new(draft="f" * 16)
    assert "not kept any more" in app.error[0].value and "rounds = 9" in toml(app)


def test_a_made_up_set_stands_beside_the_data_of_a_run(open_new, tmp_path, monkeypatch):
    rows = tmp_path / "mine.jsonl"
    rows.write_text(json.dumps({"question": "q", "answer": "a", "site": "x"}) + "\n")
    data = {
        "source": str(rows), "prompt": "{question}", "response": "{answer}",
        "clients": {"by": "key", "key": "site"},
    }  # fmt: skip
    recorded(tmp_path / "old", Config.from_table({"rounds": 3, "data": data}))
    folder = tmp_path / ".data" / "one"
    folder.mkdir(parents=True)
    (folder / "profile.toml").write_text("")
    made = {"client": "x", "instruction": "i", "context": "", "response": "r", "label": "l"}
    (folder / "set.jsonl").write_text(json.dumps(made) + "\n")
    app = open_new(**{"like": "old", "made-up": "one", "how": "extra"})
    table = tomllib.loads(toml(app))
    assert table["rounds"] == 3 and table["data"]["source"] == str(rows)
    assert table["data"]["extra"] == str(folder / "set.jsonl")
    assert table["data"]["extra_fields"] == {
        "question": "instruction", "answer": "response", "site": "client",
    }  # fmt: skip
    assert not app.error
    said = "\n".join(c.value for c in app.caption).replace("\\", "")
    assert "Filled from run old and the made-up set one" in said
    app.text_area("new1.data.extra_fields").set_value("question = instruction\nsite = client")
    looked(app)
    assert "data.extra: data.response: no row has" in app.error[0].value.replace("\\", "")
    own = open_new(**{"made-up": "one", "how": "extra"})
    assert tomllib.loads(toml(own))["data"]["extra"] == str(folder / "set.jsonl")
    assert own.error and own.button("start").disabled  # whose data they are beside is not named


def looked_through(app: AppTest) -> int:
    """Look at every part of the form, and at all that is folded there; return how much that is."""
    seen = 0
    for section in SECTIONS.values():
        app.session_state["new-tabs"] = f"{section.icon} {section.title}"
        looked(app)
        folded = [part.label for part in app.expander]
        for name in folded[seen:]:
            app.session_state[f"new1.{name}"] = True
            looked(app)
        seen = len(folded)
    return seen


LIKE = [
    {},
    {"engine": {"token_budget": 4096}, "seed": 7, "upload": {"bits": 8}},
    {"pilot": {"policy": "human", "selection": {"fairness": 2}, "shadows": ["fixed"]}},
    {"pilot": {"policy": "plateau", "bounds": {"lr": [0.001, 0.1]}, "max_client_steps": 50}},
    {"algorithm": {"name": "fedprox", "mu": 0.5}, "schedule": {"kind": "cosine"}},
]


@pytest.mark.parametrize("table", LIKE)
def test_what_nobody_looked_at_counts_as_if_somebody_had(open_new, tmp_path, table):
    recorded(tmp_path / "old", Config.from_table(table))
    app = open_new(parts=(), like="old")
    before, drawn = toml(app), len(app.number_input)
    assert looked_through(app) > 8
    assert len(app.number_input) > 5 * drawn
    assert toml(app) == before


def test_a_draft_of_a_study_is_none_of_an_experiment(open_new, tmp_path):
    drafts.keep(tmp_path, "a" * 16, Draft({"arms": {}, "base": {}}, "elsewhere"))
    app = open_new(draft="a" * 16)
    assert "is none of this form" in app.error[0].value and "rounds" in toml(app)
