"""Decisions and playground in every state a run can be in."""

import pytest
import streamlit as st

from federation.runs import inbox
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import words
from tests.ui.web.made_uichat import asked, config, open_run, steered
from tests.ui.web.recorded import record
from ui.web import chats, mail


@pytest.mark.parametrize("page", ["decisions", "playground"])
def test_every_state_is_designed(open_page, runs, page):
    open_page(page)
    steered(runs / "finished")
    record(runs / "failed", done=2, end="failed")
    record(runs / "killed", done=0, end=None)
    broken = record(runs / "damaged")
    journal = broken / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b"because", b"becauze")
    journal.write_bytes(b"".join(lines))
    for name in ("finished", "failed", "killed", "damaged"):
        app = open_page(page, run=name)
        assert (name == "damaged") == ("read-only" in words(app))


def test_a_decision_is_shown_whole(open_page, runs):
    steered(runs / "steered")
    app = open_page("decisions", run="steered", round="5", fact="loss@3", answer="true")
    said = words(app)
    assert [x.value for x in app.subheader] == ["Round 5"]
    for part in ("fallback", "refused", "lr 5 is outside", "fact loss", "Fork after"):
        assert part in said, part
    assert [x.value for x in app.code] and "](http" not in said  # a link in an answer is text


def test_a_fork_is_offered_only_from_a_round_whose_state_is_kept(open_page, runs, monkeypatch):
    record(runs / "kept", done=3)
    monkeypatch.setattr(
        "ui.web.actions.checkpoint_files", lambda path, history: {1: path / "config.json"}
    )
    for n, kept in ((2, True), (1, False)):
        assert open_page("decisions", run="kept", round=str(n)).button(key="fork").disabled != kept


def test_columns_in_which_nothing_stands_are_left_out_and_why_is_among_the_first(open_page, runs):
    steered(runs / "expects")
    record(runs / "rules")
    columns = list(table(open_page("decisions", run="expects", table="true")).columns)
    assert columns[:4] == ["round", "source", "changed", "why"] and "came" in columns
    columns = list(table(open_page("decisions", run="rules", table="true")).columns)
    assert "expected" not in columns and "came" not in columns and "changed" in columns


def table(app):
    return next(x.value for x in app.dataframe if "verdict" in x.value.columns)


def test_an_answer_is_posted_once_and_a_refusal_is_shown(open_page, runs):
    cfg = config()
    with RunWriter.create(runs / "asks", cfg.model_dump_json()) as writer:
        open_run(writer, cfg, 3)
        writer.append(asked(cfg, writer, 3, lr=0.006))
        app = open_page("decisions", run="asks")
        assert "Round 4 waits for you" in words(app)
        app.button(key="approve").click().run()
        assert not app.exception
        (command,) = inbox.waiting(runs / "asks")
        assert isinstance(command, inbox.Answer) and command.answer == "approve"
        assert "is on its way" in words(app)


@pytest.mark.parametrize("answer", ["approve", "edit", "reject"])
def test_who_leaves_the_page_at_once_has_answered(open_page, runs, monkeypatch, answer):
    cfg = config()
    with RunWriter.create(runs / "asks", cfg.model_dump_json()) as writer:
        open_run(writer, cfg, 3)
        writer.append(asked(cfg, writer, 3, lr=0.006))
        app = open_page("decisions", run="asks")
        if answer == "edit":
            app.number_input(key="edit-round-4-lr").set_value(0.004)
            button = next(x for x in app.button if x.label == "Use these values")
        else:
            button = app.button(key=answer)
        monkeypatch.setattr("ui.web.asking.card", lambda run: st.stop())
        button.click().run()
        assert not app.exception
        (command,) = inbox.waiting(runs / "asks")
        assert isinstance(command, inbox.Answer) and command.answer == answer
        assert command.values.get("lr") == (0.004 if answer == "edit" else None)


def test_what_may_not_be_approved_is_not_offered(open_page, runs):
    cfg = config()
    with RunWriter.create(runs / "asks", cfg.model_dump_json()) as writer:
        open_run(writer, cfg, 3)
        writer.append(asked(cfg, writer, 3, lr=5.0))
        app = open_page("decisions", run="asks")
        assert app.button(key="approve").disabled and not app.button(key="reject").disabled


def test_something_is_said_and_waits_for_the_worker(open_page, runs, monkeypatch):
    monkeypatch.setattr(mail, "ensure", lambda *args, **kw: None)
    steered(runs / "steered")
    app = open_page("playground", run="steered", **{"play-view": "Copilot"})
    app.chat_input[0].set_value("facts").run()
    assert not app.exception
    (name,) = [path.name for path in (runs / "steered" / "chats").iterdir()]
    folder = chats.post_of(runs / "steered" / "chats" / name)
    (id,) = mail.waiting(folder)
    assert mail.asked(folder, id) == {"kind": "say", "text": "facts", "model": ""}
