"""Letters, and the worker that has a chat: everything once, nothing lost."""

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from agents.copilot.copilot import open_copilot
from federation.errors import ConfigError
from tests.ui.web.made_uichat import steered
from ui.web import chats, mail
from ui.web.answering import Question, Speaker
from ui.web.talking import Worker


@pytest.fixture
def run(tmp_path):
    return steered(tmp_path / "steered")


def worker(run: Path, chat: str, stack: ExitStack) -> Worker:
    folder = chats.post_of(run / "chats" / chat)
    folder.mkdir(exist_ok=True)
    return Worker(folder, run, chat, stack)


def test_a_letter_is_asked_once_and_answered_in_order(tmp_path):
    folder = tmp_path / "post"
    for id, text in (("b", "first"), ("a", "second"), ("b", "again")):
        mail.post(folder, id, {"text": text})
    seen: list[str] = []

    def perform(id: str, letter: mail.Letter):
        seen.append(str(letter["text"]))
        return {"done": True}

    assert mail.serve(folder, perform, idle_s=0.3) == 2
    assert seen == ["first", "second"]
    mail.post(folder, "b", {"text": "once more"})
    assert mail.waiting(folder) == [] and mail.said(folder, "b") == {"done": True}
    assert not mail.alive(folder)
    with pytest.raises(ConfigError):
        mail.post(folder, "../b", {})


ORPHAN = """
import subprocess, sys, time
from pathlib import Path
from federation.runs import storage
folder = Path(sys.argv[1])
serve = "import sys, time; from pathlib import Path; from ui.web import mail;" \
    "mail.serve(Path(sys.argv[1]), lambda id, letter: time.sleep(1) or {'done': True}, 600)"
subprocess.Popen([sys.executable, "-c", serve, str(folder)])
while not storage.is_locked(folder):
    time.sleep(0.02)
"""


def test_a_worker_answers_what_was_asked_and_ends_with_its_server(tmp_path):
    folder = tmp_path / "post"
    mail.post(folder, "one", {"text": "first"})
    mail.post(folder, "two", {"text": "second"})
    subprocess.run([sys.executable, "-c", ORPHAN, str(folder)], check=True, timeout=60)
    end = time.monotonic() + 30
    while mail.alive(folder):
        assert time.monotonic() < end, "it waits for letters that nobody posts any more"
        time.sleep(0.05)
    assert mail.said(folder, "one") == mail.said(folder, "two") == {"done": True}


def test_a_chat_is_had_in_letters(run):
    chat = chats.begin(run)
    with ExitStack() as stack:
        here = worker(run, chat, stack)
        assert here.perform("1", {"kind": "say", "text": "facts 3"}) == {"done": True}
        talk = chats.read(run / "chats" / chat)
        assert [t.said.text for t in talk.turns if t.said] == ["facts 3"]
        assert "loss@2" in talk.facts and not talk.unanswered
        here.perform("2", {"kind": "say", "text": "propose lr=0.006"})
        (waiting,) = chats.read(run / "chats" / chat).waiting
        assert waiting.name == "propose_hyperparameters"
        head = {"kind": "decide", "call": waiting.call}
        wrong = here.perform("3", {**head, "verdict": "edit", "args": {"lr": 5.0}})
        assert "5 is outside" in str(wrong["failure"])
        assert chats.read(run / "chats" / chat).waiting == [waiting]
        right = here.perform("4", {**head, "verdict": "edit", "args": {"lr": 0.007}})
        assert right == {"done": True}
        talk = chats.read(run / "chats" / chat)
        assert talk.waiting == [] and talk.turns[-1].steps[0].result is not None
        assert "0.007" in (run / "proposals" / "proposal-1.toml").read_text()
        bad = here.perform("5", {"kind": "say", "text": ""})
        assert "text" in str(bad["failure"])


def test_a_letter_that_was_begun_before_a_kill_is_not_said_twice(run):
    chat = chats.begin(run)
    letter = {"kind": "say", "text": "facts"}
    with ExitStack() as stack:
        worker(run, chat, stack).perform("1", letter)
    with ExitStack() as stack:  # the answer was lost: the letter lies there still
        worker(run, chat, stack).perform("1", letter)
    turns = chats.read(run / "chats" / chat).turns
    assert [t.said.text for t in turns if t.said] == ["facts"]
    with ExitStack() as stack:
        worker(run, chat, stack).perform("2", letter)
    assert len(chats.read(run / "chats" / chat).turns) == 2


def test_what_was_decided_elsewhere_waits_no_longer(run):
    chat = chats.begin(run)
    with ExitStack() as stack:
        worker(run, chat, stack).perform("1", {"kind": "say", "text": "propose lr=0.006"})
    (waiting,) = chats.read(run / "chats" / chat).waiting
    with open_copilot(run, chat=chat) as copilot:  # on a terminal
        list(copilot.decide(waiting.call, "reject"))
    assert chats.read(run / "chats" / chat).waiting == []


def test_a_scripted_model_is_named_by_its_spec_and_doubts_are_marked(run, tmp_path):
    script = tmp_path / "script.jsonl"
    look = '{"calls": [{"name": "get_facts", "args": {}}]}'
    wrong = '{"answer": "It went well. The loss is 99.5 [loss@7]."}'
    script.write_text(f"{look}\n{wrong}\n{wrong}\n")
    chat = chats.begin(run)
    with ExitStack() as stack:
        model = f"scripted:{script}"
        here = worker(run, chat, stack)
        said = {"kind": "say", "text": "how is it?", "model": model}
        assert here.perform("1", said) == {"done": True}
        missing = {"kind": "say", "text": "and?", "model": "scripted:/nowhere"}
        assert "failure" in here.perform("2", missing)
    talk = chats.read(run / "chats" / chat)
    assert talk.model == model
    answer = talk.turns[0].answer
    assert answer is not None
    marked = chats.marked(answer)
    assert marked[0] == ("It went well.", ()) and "99.5" in marked[1][1][0]
    assert [f.id for f in chats.cited(answer.text, talk.facts)] == ["loss@7"]


def test_questions_to_models_are_bounded():
    with pytest.raises(ValueError, match="256"):
        Question(prompt="x", who=(Speaker(subject="base"),), tokens=257)
    with pytest.raises(ValueError, match="at least 1"):
        Question(prompt="", who=(Speaker(subject="base"),))
