"""A language model that decides: scripted, so that it does whatever is worst."""

import json
from pathlib import Path

import pytest

from agents.experiment import run_experiment
from agents.guard import rule_on
from agents.pilot import decide
from agents.policies.model import Adviser, Hybrid, schema_of, shown
from agents.policies.optimizer import TPE
from agents.policies.rules import Fixed, Plateau
from agents.spec import PilotSpec, build_policy
from federation.config import Config
from federation.errors import ConfigError
from llm_tools import CallFailed, Failure, decodable
from llm_tools.scripted import ScriptedChat
from tests.agents.histories import CLIENTS, history, seen
from tests.tiny_worlds import World, tiny_world

FALLING = [3.0, 2.7, 2.4, 2.1, 1.9]
GOOD = {
    "lr": 0.012,
    "steps": 5,
    "abstain": False,
    "expected": 1.75,
    "margin": 0.25,
    "rationale": "it still falls",
    "evidence": ["loss@4"],
}


def adviser(*script: object) -> Adviser:
    return Adviser(ScriptedChat(script=list(script)), "scripted", 5.0)


def test_a_good_answer_is_a_proposal_and_is_applied():
    observation = seen(history(FALLING))
    answer = adviser(GOOD).decide(observation)
    assert answer.proposal is not None
    assert answer.proposal.values == {"lr": 0.012, "steps": 5.0}
    assert answer.proposal.source == "llm"
    assert answer.proposal.expected == (1.5, 2.0)
    assert rule_on(answer, observation).verdict == "accepted"
    assert answer.trace["attempts"] == 1
    assert answer.trace["prompt"] == "decide@2"
    assert json.loads(str(answer.trace["raw"])) == GOOD


def test_a_model_may_abstain():
    answer = adviser(GOOD | {"abstain": True}).decide(seen(history(FALLING)))
    assert rule_on(answer, seen(history(FALLING))).verdict == "abstained"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([CallFailed(Failure.UNREACHABLE, "refused")], "unreachable"),
        ([CallFailed(Failure.UNAUTHORISED, "401")], "unauthorised"),
        (["no JSON"] * 3, "malformed"),
        ([GOOD | {"lr": 1e3}] * 3, "invalid"),
        ([GOOD | {"steps": 10**6}] * 3, "invalid"),
        ([GOOD | {"noise": 0.0}] * 3, "invalid"),
        ([GOOD | {"evidence": ["loss@99"]}] * 3, "invalid"),
        ([{}] * 3, "invalid"),
    ],
)
def test_whatever_goes_wrong_a_rule_decides_and_the_record_says_so(script, words):
    decided = decide(adviser(*script), Plateau(), seen(history(FALLING)))
    assert decided.source == "fallback"
    assert decided.name == "plateau@1"
    assert decided.ruling.verdict == "rejected"
    assert words in decided.ruling.violations[0]


def test_two_repairs_are_allowed():
    decided = decide(adviser("what?", {}, GOOD), Plateau(), seen(history(FALLING)))
    assert decided.source == "llm"
    assert decided.answer.trace["attempts"] == 3


@pytest.mark.parametrize("limited", ["calls", "tokens"])
def test_a_spent_budget_asks_nobody(limited):
    model = ScriptedChat(script=[GOOD])
    answer = Adviser(model, "scripted", 5.0).decide(seen(history(FALLING), budget={limited: 0.0}))
    assert answer.failure == f"the budget of {limited} is spent"
    assert model.asked == []


def test_what_is_asked_for_can_be_enforced_by_servers():
    for losses in ([], FALLING):
        schema = decodable(schema_of(seen(history(losses))))
        assert schema["properties"]["lr"]["maximum"] == 0.02
        assert schema["properties"]["steps"]["type"] == "integer"


def test_a_model_says_why_before_it_says_what():
    """Grammars have fields written in the order of the schema."""
    for losses, cited in (([], []), (FALLING, ["evidence"])):
        schema = decodable(schema_of(seen(history(losses))))
        wanted = ["rationale", *cited, "lr", "steps", "expected", "margin", "abstain"]
        assert list(schema["properties"]) == wanted == schema["required"]


def test_whatever_the_schema_lets_a_model_expect_is_an_interval_of_losses():
    observation = seen(history(FALLING))
    for loss, margin in ((0.0, 0.0), (0.0, 100.0), (100.0, 0.0), (2.0, 3.0)):
        answer = adviser(GOOD | {"expected": loss, "margin": margin}).decide(observation)
        assert rule_on(answer, observation).verdict == "accepted"
        assert answer.proposal is not None
        assert answer.proposal.expected == (max(0.0, loss - margin), loss + margin)


def test_a_model_is_shown_facts_and_bounds_and_no_name():
    text = "\n".join(shown(seen(history(FALLING))).values())
    assert "loss@4 = 1.9 nats per token" in text
    assert "lr: client learning rate, per step; now 0.01, allowed 0.005 to 0.02" in text
    assert not [client for client in CLIENTS if client in text]


def test_an_adviser_overrules_in_a_share_of_the_rounds_after_the_warm_up():
    found = []
    sources: dict[str, int] = {}
    losses = [3.0 - 0.1 * n for n in range(20)]
    for round in range(20):
        shown_now = seen(history(losses[:round])).model_copy(update={"sources": dict(sources)})
        policy = Hybrid(TPE(), adviser(GOOD | {"evidence": []}), share=0.3, warmup=4)
        source = policy.decide(shown_now).proposal.source
        sources[source] = sources.get(source, 0) + 1
        found.append(source)
    assert found[:4] == ["optimizer"] * 4
    assert found.count("llm") == 6
    assert all(found[: n + 1].count("llm") <= 0.3 * (n + 1) for n in range(20))


def test_an_adviser_that_fails_or_abstains_overrules_nobody():
    observation = seen(history(FALLING))
    planned = TPE().decide(observation).proposal
    for script in ([CallFailed(Failure.TIMEOUT, "late")], [GOOD | {"abstain": True}]):
        answer = Hybrid(TPE(), adviser(*script), share=1.0, warmup=0).decide(observation)
        assert answer.proposal == planned
        assert answer.trace["adviser"] in ("timeout: late", "abstained")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def test_training_never_stops_and_provenance_is_exact(world: World, tmp_path: Path):
    first = {name: value for name, value in GOOD.items() if name not in ("steps", "evidence")}
    lines = [
        {"answer": first},
        {"failure": "timeout", "reason": "late"},
        {"answer": "ignore all bounds"},
        {"answer": {"lr": 1000}},
        {"answer": "still not JSON"},
    ]
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pilot = {"policy": "llm", "model": f"scripted:{script}", "bounds": {"lr": [1e-3, 0.1]}}
    config = Config.from_toml(world.config, ["rounds=4"]).model_copy(update={"pilot": pilot})
    run = run_experiment(config, tmp_path / "run", cache=world.folder / "cache")
    assert run.status == "finished"
    decisions = run.history.decisions
    assert [d.source for d in decisions.values()] == ["llm", "fallback", "fallback", "fallback"]
    assert decisions[0].work["lr"] == 0.012
    assert "timeout: late" in decisions[1].details["violations"][0]
    assert decisions[2].details["trace"]["attempts"] == 3
    assert decisions[1].policy == "plateau@1"
    assert decisions[1].details["asked"] == f"llm:scripted:{script}@2"


@pytest.mark.parametrize(
    ("pilot", "words"),
    [
        ({"policy": "llm"}, "pilot.policy 'llm' needs pilot.model, whom to ask"),
        ({"policy": "hybrid", "model": "gpt"}, "pilot.model: .*'gpt' names no language model"),
        ({"policy": "llm", "model": "openai:m@nowhere"}, "pilot.model: .*is no URL"),
        ({"policy": "llm", "model": "openai:m@https://example.org/v1"}, "environment variable"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused_in_one_line(pilot, words, world, tmp_path):
    config = Config.from_toml(world.config).model_copy(update={"pilot": pilot})
    with pytest.raises(ConfigError, match=words) as refused:
        run_experiment(config, tmp_path / "x", cache=world.folder / "cache")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("deadline", "waits"), [(20.0, 60.0), (900.0, 900.0)])
def test_a_reply_may_take_as_long_as_the_answer_may(deadline, waits):
    model = "openai:m@http://127.0.0.1:1/v1"
    spec = PilotSpec(policy="llm", model=model, deadline=deadline)
    policy = build_policy("llm", 1, spec)
    assert isinstance(policy, Adviser)
    assert (policy.deadline, policy.model.request_timeout) == (deadline, waits)


def test_fixed_needs_no_language_model():
    assert decide(Fixed(), Fixed(), seen(history(FALLING))).source == "heuristic"
