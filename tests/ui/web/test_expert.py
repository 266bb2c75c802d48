"""The process that knows torch says what a run would say, and the checker passes it on."""

import json
import sys
from concurrent.futures import wait

import pytest

from tests.ui.web.made_uinew import instead
from ui.web import checker
from ui.web.checker import Checker, answer_of
from ui.web.expert import answered
from ui.web.forms import controls


def said(ask: str, **question) -> dict:
    return answered(json.dumps({"ask": ask, **question}))


def test_every_algorithm_says_what_it_can_be_set_to():
    found = said("algorithms")["answer"]
    assert found["fedavg"]["schema"]["properties"] == {}
    (mu,) = controls(found["fedprox"]["schema"], "algorithm.")
    assert (mu.key, mu.kind, mu.least) == ("algorithm.mu", "number", 0)
    assert all(x["about"].endswith(".") for x in found.values())


def test_sizes_are_those_of_the_model_and_what_is_sent():
    whole = said("check", table={"adapter": {"rank": 4, "targets": ["q_proj"]}})["answer"]
    assert whole["parameters"] == 5_795_072
    assert whole["down"] == whole["up"] == 4 * whole["trained"]
    fewer = said("check", table={"upload": {"top_k": 0.1}})["answer"]
    assert fewer["up"] < fewer["down"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"algorithm": {"name": "fedprox", "mu": -1.0}}, "mu"),
        ({"algorithm": {"name": "krum"}, "cohort": {"size": 2}}, "krum"),
        ({"adapter": {"targets": ["nowhere"]}}, "nowhere"),
        ({"pilot": {"policy": "nobody"}}, "nobody"),
        ({"pilot": {"shadows": ["nobody"]}}, "nobody"),
        ({"model": {"base": "/no/where"}}, "model.base"),
    ],
)
def test_what_a_run_would_refuse_is_refused_in_a_line(table, words):
    error = said("check", table=table)["error"]
    assert words in error and "\n" not in error


def test_a_model_that_is_not_here_has_no_sizes():
    assert said("check", table={"model": {"base": "somebody/some-model"}}) == {"answer": {}}


def test_an_example_is_cut_where_a_run_cuts_it():
    row = {"instruction": "Say it.", "context": "", "response": "lost luggage"}
    ask = {"row": row, "fields": list(row), "origin": "row 1"}
    table = {"data": {"source": "x", "prompt": "{instruction}", "response": "{response}"}}
    found = said("example", table=table, **ask)["answer"]
    assert "".join(found["tokens"][found["prompt"] : -1]) == "lost luggage"
    assert found["text"] == ["Say it.\n", "lost luggage"] and not found["truncated"]
    table["data"]["response"] = "{respons}"
    assert "did you mean response" in said("example", table=table, **ask)["error"]


def test_equal_questions_are_asked_once_and_errors_are_the_users(monkeypatch):
    instead(monkeypatch)
    asking = Checker()
    try:
        first = asking.ask("check", table={})
        assert asking.ask("check", table={}) is first
        wait([first], 20)
        assert answer_of(first, 0)[0] is not None
        refused = asking.ask("check", table={"algorithm": {"name": "krum"}})
        wait([refused], 20)
        assert answer_of(refused, 0) == (None, "algorithm.name = 'krum' needs 5 reports a round")
    finally:
        asking.close()


def test_a_process_that_died_is_started_anew(monkeypatch):
    real = checker.subprocess.Popen
    programs = iter(["pass", 'print(input() and \'{"answer": {"x": 1}}\', flush=True); input()'])
    instead(monkeypatch)

    def once():
        command = [sys.executable, "-c", next(programs)]
        pipe = checker.subprocess.PIPE
        return real(command, stdin=pipe, stdout=pipe, text=True)

    monkeypatch.setattr(checker, "started", once)
    asking = Checker()
    try:
        assert "ended" in answer_of(asking.ask("check"), 20)[1]
        assert asking._process is not None
        asking._process.wait(20)
        assert answer_of(asking.ask("check"), 20)[0] == {"x": 1}
    finally:
        asking.close()
