"""The data studio: empty, described, made, judged."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from federation.runs import storage
from tests.ui.web.made_uinew import APP, recorded
from ui.web import jobs, made_sets
from ui.web.jobs import Job
from ui.web.made_sets import Order

Open = Callable[..., AppTest]
ROW = {
    "client": "a", "domain": "bank", "task": "intent", "label": "x", "instruction": "Do *it*.",
    "context": "![i](http://a/b.png)", "response": "x", "choices": [],
}  # fmt: skip
CARD = {
    "version": 1, "seed": 0, "rows": 1, "source": {"kind": "templates"},
    "skew": [{"client": "a", "asked": {"x": 1}, "got": {"x": 1}, "distance": 0.0}],
    "missing": [], "refused": {"duplicate": 2}, "failures": {},
    "diversity": {"distinct_1": 0.1, "distinct_2": 0.05, "overlap": 0.5, "spread": 0.9},
    "privacy": {"private_text": "none was read", "epsilon": 0.0, "votes": None},
    "likeness": None, "leakage": None, "gate": None,
}  # fmt: skip
GATE = {
    "admitted": False, "metric": "nll", "seeds": [0, 1, 2], "without": [2.0, 2.1, 2.2],
    "having": [2.5, 2.6, 2.9], "gain": -0.5, "low": -0.9, "high": -0.1, "confidence": 0.95,
}  # fmt: skip


@pytest.fixture
def open_studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("FEDPILOT_RUNS", str(tmp_path))

    def opened(**query: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.switch_page(str(APP.parent / "app_pages" / "studio.py"))
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception, app.exception
        return app

    return opened


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a set into the folder as its job would."""
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda *_, **__: SimpleNamespace(poll=lambda: 0))
    table = {"clients": {"a": {"domain": "bank", "size": 1}}}
    job = made_sets.begin(tmp_path, "one", table, Order())
    folder = tmp_path / ".data" / "one"
    (folder / "set.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "set.card.json").write_text(json.dumps(CARD))
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 0}')
    return folder


def said(app: AppTest) -> str:
    return "\n".join(x.value for shown in (app.markdown, app.caption) for x in shown)


def test_nothing_yet_offers_to_describe(open_studio):
    app = open_studio()
    assert "No made-up data yet" in said(app)


def test_from_a_description_to_a_job(open_studio, tmp_path, monkeypatch):
    started: list[Job] = []

    def start(runs, title, args, about=""):
        started.append(Job(runs / "x", title, tuple(args), about, time.time()))
        return started[-1]

    monkeypatch.setattr(jobs, "start", start)
    app = open_studio(**{"studio-view": "Describe"})
    assert not app.error and app.metric[0].value == "200"
    app.number_input("studio1.client0.size").set_value(40).run()
    assert app.metric[0].value == "120"
    next(b for b in app.button if b.label == "Add").click().run()
    assert app.metric[0].value == "180" and "[clients.hospital-3]" in app.code[0].value
    app.text_input("studio-name").set_value("mine")
    app.button("make").click().run()
    assert not app.exception
    file = tmp_path / ".data" / "mine" / "profile.toml"
    assert started[0].args[:2] == ("synthesize", str(file))
    assert "size = 40" in file.read_text()


def test_what_cannot_be_made_is_said_and_not_started(open_studio):
    app = open_studio(**{"studio-view": "Describe"})
    app.selectbox("studio1.client0.style").set_value("terse").run()
    assert not app.error
    app.text_area("studio1.client0.labels").set_value("no such label = 2").run()
    assert "no such label" in app.error[0].value and app.button("make").disabled
    app.text_area("studio1.client0.labels").set_value("lost card = many").run()
    assert app.error and not app.exception


def test_a_set_is_shown_with_its_card_and_nothing_of_it_is_markup(open_studio, made):
    text = said(open_studio(set="one"))
    assert "made, not judged" not in text or "one" in text
    assert "Overlap" in text and "Not measured: no private text" in text
    assert "2 rows refused" in text
    assert r"Do \*it\*\." in text and "![i](" not in text


def test_the_gate_speaks_with_its_interval(open_studio, made):
    (made / "gated.card.json").write_text(json.dumps(CARD | {"gate": GATE}))
    (made / "gated.rejected.jsonl").write_text(json.dumps(ROW) + "\n")
    app = open_studio(set="one")
    assert app.metric[0].value == "-0.5000" and "rejected" in said(app)
    assert any(b.label == "Ask the gate" for b in app.button)  # again, otherwise


def test_a_set_whose_card_is_torn_is_no_exception(open_studio, made):
    (made / "set.card.json").write_text("{")
    (made / "set.jsonl").write_text("{")
    assert not open_studio(set="one").exception


def test_a_set_that_failed_says_why(open_studio, made):
    (made / "set.jsonl").unlink()
    (made / "set.card.json").unlink()
    app = open_studio(set="one")
    assert "stopped before it was made" in app.error[0].value


def test_a_rejected_set_can_be_judged_again_otherwise(open_studio, made, tmp_path):
    (made / "gated.card.json").write_text(json.dumps(CARD | {"gate": GATE}))
    (made / "gated.rejected.jsonl").write_text(json.dumps(ROW) + "\n")
    app = open_studio(set="one")
    app.number_input("gate-one-0.gate.seeds").set_value(5).run()
    assert "5 pairs of runs" in said(app)
    next(b for b in app.button if b.label == "Ask the gate").click().run()
    assert not app.exception and not app.error
    job = made_sets.job_of(tmp_path, made)
    assert job is not None and str(made / "gated-2.jsonl") in job.args
    assert "seeds = 5" in (made / "profile-2.toml").read_text()
    (made / "gated-2.card.json").write_text(json.dumps(CARD | {"gate": {**GATE, "admitted": True}}))
    (made / "gated-2.jsonl").write_text(json.dumps(ROW) + "\n")
    storage.atomic_write(job.folder / jobs.ENDED, b'{"code": 0}')
    text = said(open_studio(set="one"))
    assert "Judged 2 times" in text and "rejected (loss, nats per token" in text.replace("\\", "")


def test_beside_real_data_means_those_of_a_run_or_ones_own(open_studio, made, tmp_path):
    links = lambda app: [x.proto.query_string for x in app.get("page_link") if "Train" in x.label]  # noqa: E731
    assert links(open_studio(set="one")) == ["made-up=one&how=extra", "made-up=one&how=source"]
    recorded(tmp_path / "mine")
    assert links(open_studio(set="one")) == [
        "made-up=one&how=extra&like=mine",
        "made-up=one&how=source",
    ]


def test_a_table_says_none_of_what_is_not_known(open_studio, made):
    (made / "set.card.json").unlink()
    assert open_studio(set="one").dataframe[0].proto.placeholder == "–"
