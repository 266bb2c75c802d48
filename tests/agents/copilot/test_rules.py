"""Chat without a model: commands over the same tools; names and pseudonyms."""

import subprocess
import sys
from pathlib import Path

import pytest

from agents.copilot.copilot import open_copilot
from agents.copilot.desk import ACTS, TOOLS
from agents.copilot.events import Approval, Facts, Outcome, Text
from agents.copilot.names import Names
from agents.copilot.rules import HELP
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.run import Run
from tests.agents.copilot.conftest import ORDER, tree

COMMANDS = {
    "facts": ("get_facts", {}),
    "facts 2": ("get_facts", {"round": 2, "before": 0}),
    "explain 3": ("explain_round", {"round": 3}),
    "explain round 3": ("explain_round", {"round": 3}),
    "compare": ("compare_runs", {"run": ""}),
    "compare r1": ("compare_runs", {"run": "r1"}),
    "whatif 3 drop=c1,c2 repeats=2": (
        "what_if",
        {"round": 3, "drop": ["c1", "c2"], "repeats": 2},
    ),
    "propose lr=0.005 steps=3": ("propose_hyperparameters", {"lr": 0.005, "steps": 3}),
    "select exclude=c2 rule=oort": ("select_clients", {"exclude": ["c2"], "rule": "oort"}),
    "run rounds=1": ("run_experiment", {"rounds": 1}),
    "synthesize bank=5": (
        "generate_synthetic_data",
        {"clients": [{"domain": "bank", "size": 5}]},
    ),
}


def test_every_tool_has_a_command():
    assert {name for name, _ in COMMANDS.values()} == TOOLS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_calls_its_tool_and_what_acts_waits(command, run):
    name, args = COMMANDS[command]
    before = tree(run.parent)
    with open_copilot(run, max_client_steps=100) as copilot:
        first, *rest = copilot.say(command)
        assert (first.name, first.args) == (name, args)
        assert [type(x) for x in rest] == [Approval if name in ACTS else Facts]
        assert copilot.unanswered is False
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fact", "there is no command 'fact'; see: help"),
        ("explain", "for example: explain 3"),
        ("explain three", "for example: explain 3"),
        ("propose lr", "write KEY=VALUE"),
        ("say 'x", "No closing quotation"),
        ("help", HELP),
    ],
)
def test_what_is_no_command_is_told_in_a_line(command, words, run):
    with open_copilot(run) as copilot:
        (told,) = copilot.say(command)
    assert isinstance(told, Text) and words in told.text
    assert "--model" in HELP


QUESTIONS = {
    "hi": "which client is worst?",
    "Hello!": "of 3 rounds played",
    "how did it go?": "Validation loss:",
    "what's up": "The run is finished, 3 of 3 rounds played.",
    "which client is worst": "number 1 of 5, worst first",
    "who is best?": "number 5 of 5, worst first",
    "why is client St-Mary-Ward-7 worse": "is St-Mary-Ward-7: ",
    "why is c2 worse": "drop=c2",
    "what should I do next": "fedpilot fork",
    "what happened in round " + "9" * 5000: "There is no such round; 3 were played.",
    "explain " + "9" * 5000: "write explain and a round",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_newcomer_asks_is_answered_and_acts_on_nothing(question, run):
    before = tree(run.parent)
    with open_copilot(run) as copilot:
        events = list(copilot.say(question))
        assert copilot.unanswered is False and not copilot.pending
    assert isinstance(events[-1], Text) and QUESTIONS[question] in events[-1].text
    assert tree(run.parent) == before


def test_the_worst_client_is_the_one_with_the_highest_loss_on_its_own_test(run):
    with open_copilot(run) as copilot:
        (told,) = copilot.say("which client is worst")
    judged = [x for x in Run.open(run).evaluations if x.split == "clients" and x.round is not None]
    loss = judged[-1].per_client["nll"]
    first = next(line for line in told.text.splitlines() if "number 1 of" in line)
    name = max(loss, key=loss.__getitem__)
    assert f"{name}: {loss[name]:.3f}" in first


def test_the_best_client_is_named_first(run):
    with open_copilot(run) as copilot:
        (told,) = copilot.say("which client is best?")
    places = [line for line in told.text.splitlines() if "worst first" in line]
    assert [line.partition("number ")[2][:6] for line in places] == ["5 of 5", "4 of 5", "3 of 5"]


@pytest.mark.parametrize("question", ["what happened in round 2", "why was the loss of round 2 so"])
def test_a_question_about_a_round_is_its_explanation(question, run):
    with open_copilot(run) as copilot:
        called, *_ = copilot.say(question)
    assert (called.name, called.args) == ("explain_round", {"round": 2})


def test_an_approved_command_is_carried_out(run):
    with open_copilot(run) as copilot:
        *_, waiting = copilot.say("select exclude=c2 rule=oort")
        (done,) = copilot.decide(waiting.call, "approve")
    assert isinstance(done, Outcome) and done.status == "done"
    cohort = Config.from_toml(run / "proposals" / "proposal-1.toml").cohort
    assert (cohort.rule, len(cohort.exclude)) == ("oort", 1)


@pytest.mark.parametrize("text", ["", "  ", "x" * 20_001])
def test_nothing_and_too_much_cannot_be_said(text, run):
    with open_copilot(run) as copilot, pytest.raises(ConfigError, match="1 to 20,000 characters"):
        list(copilot.say(text))


def test_a_model_that_cannot_be_made_is_one_line(run):
    for spec, words in {"gpt": "names no language model", "openai:m@nowhere": "is no URL"}.items():
        with pytest.raises(ConfigError, match=words) as refused, open_copilot(run, model=spec):
            pass
        assert "\n" not in str(refused.value)
    assert not (run / "chats").exists()


def test_rules_need_no_langchain(run):
    code = (
        "import sys\n"
        "for name in ('langchain', 'langchain_core', 'langgraph'): sys.modules[name] = None\n"
        "from agents.copilot.copilot import open_copilot\n"
        f"with open_copilot({str(run)!r}) as copilot: print(len(list(copilot.say('facts'))))\n"
    )
    root = Path(__file__).parents[3]
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, timeout=60, capture_output=True
    )
    assert told.stdout == b"2\n"


def test_names_are_hidden_wherever_a_person_writes_them(tmp_path):
    clients = {"c1": "Ward 7", "c2": "Ward 7 North", "c3": "a", "c4": "12", "c5": "0301234"}
    names = Names(clients, {"r1": tmp_path / "best-run"})
    text = "Is ward 7 like Ward 7 north in best-run? And a, 12 and 0301234?"
    assert names.hidden(text) == "Is c1 like c2 in r1? And a, 12 and c5?"
    assert names.hidden("Wards 7") == "Wards 7"


def test_names_are_hidden_however_their_words_are_joined():
    names = Names({"c1": "St. Mary", "c2": "zebra-clinic", "c3": "zebra clinic", "c4": "- -"}, {})
    assert names.hidden("without-st-mary-2, ST.MARY, st_mary") == "without-c1-2, c1, c1"
    assert names.hidden("Zebra Clinic, zebra-clinic, zebra / clinic") == "c3, c2, c2"
    assert names.hidden("st, mary; mary st - - a -- b") == "st, mary; mary st c4 a -- b"


def test_a_person_is_told_names_in_signs_that_a_terminal_can_show():
    names = Names({"c1": "x\x1b[31m" + "y" * 99, "c2": ORDER}, {})
    (line, _) = names.told(["c1", "c2"])
    assert line.startswith("c1 is x?[31myy") and len(line) < 70
