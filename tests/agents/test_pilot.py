"""The pilot in the round loop, on a federation so small that a whole run takes a second."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from agents.experiment import replay, resume, run_experiment
from agents.facts import observe
from agents.knobs import bounds_now
from agents.seen import applied, seen_again
from federation import experiment
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.records import DecisionRecord, ResumeRecord
from federation.runs.run import ADAPTER, Run, problems
from tests.tiny_worlds import World, tiny_world

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, rounds: int = 6, **pilot: object) -> Config:
    table = {"policy": "null", "bounds": {"lr": [1e-3, 0.1], "steps": [1, 4]}} | pilot
    plain = Config.from_toml(world.config, [f"rounds={rounds}", "engine.chunk=2"])
    return plain.model_copy(update={"pilot": table})


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "null"
    return run_experiment(config(world), out, cache=world.folder / "cache")


def adapter(run: Run) -> bytes:
    return (run.path / ADAPTER / "adapter_model.safetensors").read_bytes()


def test_what_is_decided_is_what_is_done(run):
    decisions = run.history.decisions
    assert len({d.work["lr"] for d in decisions.values()}) == 6
    for round, decision in decisions.items():
        values = applied(decision)
        assert decision.work["lr"] == values["lr"]
        assert decision.work["steps"] == values["steps"]
        trained = run.history.rounds[round]
        assert trained.client_steps == values["steps"] * len(trained.clients)
    assert problems(run.path) == []


def test_a_value_moves_by_no_more_than_the_trust_region_allows(run):
    rates = [0.01, *(float(d.work["lr"]) for d in run.history.decisions.values())]
    for before, now in pairwise(rates):
        assert before / 2 <= now <= before * 2
        assert 1e-3 <= now <= 0.1


def test_the_record_says_what_was_seen_said_allowed_and_what_others_would_say(run):
    for round, decision in run.history.decisions.items():
        details = decision.details
        assert details["verdict"] == "accepted"
        assert details["violations"] == []
        assert details["asked"] == "null@1"
        assert set(details["shadows"]) == {"fixed@1", "plateau@1"}
        outer = {"lr": (1e-3, 0.1), "steps": (1.0, 4.0)}
        before = (
            applied(run.history.decisions[round - 1])
            if round
            else {"lr": 0.01, "steps": 2.0, "cohort_size": 3.0}
        )
        again = observe(
            run.history,
            bounds_now(outer, before, 2.0),
            before,
            {},
            round=round,
            rounds=6,
            seed=3,
            smallest=2,
        )
        assert again.sha256 == details["observation_sha256"]
        assert seen_again(run, round) == again


def test_every_round_is_explained_in_the_journal(run):
    texts = {x.round: x.text for x in run.history.explanations}
    assert sorted(texts) == list(range(6))
    assert texts[0].startswith("Round 1: training loss ")
    assert all("decided by heuristic" in texts[n] for n in range(1, 6))


def test_a_repetition_from_the_journal_has_the_same_bits(run, world, tmp_path):
    again = replay(run.path, tmp_path / "again", cache=world.folder / "cache")
    assert adapter(again) == adapter(run)
    assert {d.source for d in again.history.decisions.values()} == {"replay"}


def test_a_repetition_needs_no_policy_no_optimizer_and_no_network(run, world, tmp_path):
    code = """
import socket, sys
BLOCKED = {"langchain", "langchain_core", "langchain_openai", "optuna", "cmaes"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
def refused(*a, **k):
    raise OSError("no network")
socket.socket.connect = refused
from agents.experiment import replay
from itertools import pairwise
from pathlib import Path
replay(sys.argv[1], sys.argv[2], cache=Path(sys.argv[3]))
"""
    out, cache = tmp_path / "again", world.folder / "cache"
    command = [sys.executable, "-c", code, str(run.path), str(out), str(cache)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    assert adapter(Run.open(out)) == adapter(run)


@pytest.mark.parametrize("policy", ["null", "heuristic", "optimizer:tpe", "optimizer:cmaes"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(policy, world, tmp_path):
    wanted = config(world, policy=policy)
    cache = world.folder / "cache"
    whole = run_experiment(wanted, tmp_path / "whole", cache=cache)

    def stop(record: object) -> None:
        if isinstance(record, DecisionRecord) and record.round == 3:
            raise KeyboardInterrupt

    watch = experiment.Watch(record=stop)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "torn", cache=cache, watch=watch)
    torn = resume(tmp_path / "torn", cache=cache)
    assert any(isinstance(entry.record, ResumeRecord) for entry in torn.entries)
    assert adapter(torn) == adapter(whole)
    decided = [
        [d.model_dump(exclude={"seconds"}) for d in r.history.decisions.values()]
        for r in (torn, whole)
    ]
    assert decided[0] == decided[1]


def test_a_pilot_that_keeps_everything_trains_what_the_rules_train(world, tmp_path):
    cache = world.folder / "cache"
    plain = Config.from_toml(world.config, ["rounds=3", "engine.chunk=2"])
    by_rule = experiment.run_experiment(plain, tmp_path / "rule", cache=cache)
    fixed = plain.model_copy(update={"pilot": {"policy": "fixed"}})
    steered = run_experiment(fixed, tmp_path / "fixed", cache=cache)
    assert adapter(steered) == adapter(by_rule)


def test_the_core_alone_refuses_a_pilot(world, tmp_path):
    with pytest.raises(ConfigError, match=r"has a \[pilot\]: run it with agents.run_experiment"):
        experiment.run_experiment(config(world), tmp_path / "x", cache=world.folder / "cache")


@pytest.mark.parametrize(
    ("pilot", "words"),
    [
        ({"policy": "oracle"}, "pilot.policy: 'oracle' is unknown; there are fixed, heuristic"),
        ({"polcy": "null"}, "unknown key polcy; did you mean policy?"),
        ({"bounds": {"lr": [0.1, 0.001]}}, "pilot.bounds.lr: write \\[low, high\\]"),
        ({"bounds": {"lr": [0.02, 0.1]}}, "the configured 0.01 is outside 0.02 to 0.1"),
        ({"bounds": {"noise": [0.1, 1]}}, "pilot.bounds.noise: unknown knob; there are lr, steps"),
        ({"bounds": {"cohort_size": [1, 99]}}, "99 clients are more than the 5 there are"),
        ({"trust": 1.0}, "trust must be"),
        ({"max_client_steps": 10}, "the run as configured takes 36"),
        ({"policy": "optimizer:cmaes", "bounds": {"lr": [0.001, 0.1]}}, "needs two open knobs"),
    ],
)
def test_a_pilot_that_cannot_be_is_refused_in_one_line(pilot, words, world, tmp_path):
    with pytest.raises(ConfigError, match=words) as refused:
        run_experiment(config(world, **pilot), tmp_path / "x", cache=world.folder / "cache")
    assert "\n" not in str(refused.value)


def test_a_pilot_and_a_schedule_do_not_both_steer(world, tmp_path):
    wanted = config(world)
    schedule = wanted.schedule.model_copy(update={"kind": "cosine"})
    both = wanted.model_copy(update={"schedule": schedule})
    with pytest.raises(ConfigError, match="both steer the learning rate"):
        run_experiment(both, tmp_path / "x", cache=world.folder / "cache")


def test_no_name_and_no_text_of_a_client_is_in_what_a_policy_is_shown(run, world, tmp_path):
    """The rows and the ids of clients are planted as canaries; the facts are scanned for them."""
    cited = [json.dumps(x.details) for x in run.history.explanations]
    traces = [json.dumps(d.details) for d in run.history.decisions.values()]
    for text in (*cited, *traces):
        assert not [name for name in run.history.rounds[0].loss if name in text]
        assert "sum 0 and" not in text


def test_only_a_finished_run_is_repeated(world, tmp_path):
    def stop(record: object) -> None:
        if isinstance(record, DecisionRecord) and record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(
            config(world),
            tmp_path / "torn",
            cache=world.folder / "cache",
            watch=experiment.Watch(record=stop),
        )
    with pytest.raises(ConfigError, match="is stopped, and only a finished run is repeated"):
        replay(tmp_path / "torn", tmp_path / "again", cache=world.folder / "cache")
