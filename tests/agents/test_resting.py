"""A server that fails again and again is asked less often, and the journal alone says when."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from pydantic import JsonValue

from agents.experiment import fork, replay, resume, run_experiment
from agents.facts import digest
from agents.resting import LONGEST, PATIENCE, resting
from agents.seen import seen_again
from federation import experiment
from federation.config import Config
from federation.runs.history import History
from federation.runs.records import DecisionRecord
from federation.runs.run import ADAPTER, Run
from llm_tools import OF_SERVER, Failure
from tests.llm_tools import fault_server as endpoint
from tests.llm_tools.fault_server import MODES, Handler
from tests.tiny_worlds import World, tiny_world

How = Callable[[int], str]
"""Round -> how a question then fails; empty: it is answered."""


def lived(rounds: int, how: How) -> tuple[list[int], list[str]]:
    """Play decisions alone: the rounds in which a model is asked, and why it is not in others."""
    history, asked, rests = History(), [], []
    for round in range(rounds):
        if why := resting(history, round):
            rests.append(why)
            trace: dict[str, JsonValue] = {}
        else:
            asked.append(round)
            trace = {"attempts": 1}
            if how(round):
                trace["failure"] = how(round)
        history.add(decision(round, trace))
    return asked, rests


def decision(round: int, trace: dict[str, JsonValue]) -> DecisionRecord:
    return DecisionRecord(
        round=round, source="fallback", policy="p", clients=(), work={}, details={"trace": trace}
    )


@pytest.mark.parametrize("failure", sorted(OF_SERVER))
def test_a_dead_server_is_asked_in_gaps_that_double_up_to_a_bound(failure):
    asked, rests = lived(100, lambda round: failure)
    gaps = [now - before for before, now in pairwise(asked)]
    assert asked[:PATIENCE] == list(range(PATIENCE))
    assert gaps[PATIENCE - 1 :] == [2, 4, 8, *[LONGEST] * (len(gaps) - PATIENCE - 2)]
    assert rests[0] == f"rested after 4 failures in a row ({failure}), until round 6"
    assert rests[1] == f"rested after 5 failures in a row ({failure}), until round 10"


@pytest.mark.parametrize("failure", sorted(set(Failure) - OF_SERVER))
def test_a_model_that_spoils_its_answers_is_asked_every_round(failure):
    assert lived(30, lambda round: failure) == (list(range(30)), [])


def test_who_answers_or_fails_otherwise_is_asked_again_at_once():
    for now in ("", "malformed", "rate_limited"):
        asked, _ = lived(13, lambda round, now=now: now if round == 9 else "timeout")
        assert asked == [0, 1, 2, 3, 5, 9, 10, 11, 12]


def test_failures_of_two_kinds_in_turn_are_no_dead_server():
    asked, _ = lived(20, lambda round: "timeout" if round % 3 else "unreachable")
    assert asked == list(range(20))


# --- Whole runs --------------------------------------------------------------------------------

ROUNDS = 8
ASKED = [0, 1, 2, 3, 5]
WHY = "rested after 4 failures in a row (unauthorised), until round 6"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, **pilot: object) -> Config:
    quick = ["evaluation.every=1000", "engine.chunk=3", "cohort.size=2", "work.steps=1"]
    plain = Config.from_toml(world.config, [f"rounds={ROUNDS}", *quick])
    table = {"bounds": {"lr": [1e-3, 0.1], "steps": [1, 2]}} | pilot
    return plain.model_copy(update={"pilot": table})


def adapter(run: Run) -> bytes:
    return (run.path / ADAPTER / "adapter_model.safetensors").read_bytes()


def decided(run: Run) -> list[dict[str, Any]]:
    """What was decided, and not how long it took."""
    return [x.model_dump(exclude={"seconds"}) for x in run.history.decisions.values()]


def test_a_refused_key_is_not_tried_in_every_round(world, tmp_path):
    """And a run that was killed while its model rested goes on as if it had not been."""
    cache = world.folder / "cache"
    with endpoint.fault_server() as (address, seen):
        own = config(world, policy="llm", model=f"openai:m@{address}/status401/v1", deadline=60)
        whole = run_experiment(own, tmp_path / "whole", cache=cache)
        assert len(seen.requests) == len(ASKED)

        def kill(record: object) -> None:
            if isinstance(record, DecisionRecord) and record.round == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_experiment(own, tmp_path / "torn", cache=cache, watch=experiment.Watch(record=kill))
        torn = resume(tmp_path / "torn", cache=cache)
        assert len(seen.requests) == 2 * len(ASKED)
    assert decided(torn) == decided(whole) and adapter(torn) == adapter(whole)
    assert adapter(replay(whole.path, tmp_path / "again", cache=cache)) == adapter(whole)
    for round, record in enumerate(decided(whole)):
        details = record["details"]
        assert (record["source"], record["policy"]) == ("fallback", "plateau@1")
        assert seen_again(whole, round).sha256 == details["observation_sha256"]
        assert ("attempts" in details["trace"]) == (round in ASKED)
        if round not in ASKED:
            assert record["reason"].startswith("rested after") and details["verdict"] == "rejected"
    assert whole.history.decisions[4].reason == WHY
    rule = run_experiment(config(world, policy="heuristic"), tmp_path / "rule", cache=cache)
    assert adapter(whole) == adapter(rule)


def test_a_hybrids_optimizer_decides_while_its_adviser_rests(world, tmp_path):
    own = {"policy": "hybrid", "warmup": 0, "share": 1.0, "deadline": 60}
    with endpoint.fault_server() as (address, seen):
        model = f"openai:m@{address}/status401/v1"
        run = run_experiment(
            config(world, model=model, **own), tmp_path / "run", cache=world.folder / "cache"
        )
    assert len(seen.requests) == len(ASKED)
    found = [x["details"]["trace"]["adviser"] for x in decided(run)]
    assert [n for n, why in enumerate(found) if why.startswith("unauthorised: ")] == ASKED
    assert found[4] == WHY
    assert {x.source for x in run.history.decisions.values()} == {"optimizer"}


def test_a_server_that_comes_back_decides_again(world, tmp_path, monkeypatch):
    """Nobody there for six rounds; then it answers, and is asked in every round that follows."""

    def answer(handler: Handler) -> None:
        mode = "abstains" if len(seen.requests) > len(ASKED) - 1 else "status503"
        MODES[mode](handler)

    said = {"abstain": True, "lr": 0.01, "evidence": [], "rationale": ""}
    said |= {"expected": 1.5, "margin": 0.5}
    monkeypatch.setitem(MODES, "abstains", endpoint.says(json.dumps(said)))
    monkeypatch.setitem(MODES, "back", answer)
    with endpoint.fault_server() as (address, seen):
        own = config(world, policy="llm", model=f"openai:m@{address}/back/v1", deadline=60)
        own = own.model_copy(update={"pilot": own.pilot | {"bounds": {"lr": [1e-3, 0.1]}}})
        run = run_experiment(own, tmp_path / "run", cache=world.folder / "cache")
    sources = [x.source for x in run.history.decisions.values()]
    assert sources == ["fallback"] * 5 + ["llm"] * 3


def test_a_fork_asks_at_once_whom_it_likes(world, tmp_path):
    cache = world.folder / "cache"
    with endpoint.fault_server() as (address, seen):
        own = config(world, policy="llm", model=f"openai:m@{address}/status401/v1", deadline=60)
        whole = run_experiment(own, tmp_path / "whole", cache=cache)
        seen.requests.clear()
        fork(whole.path, tmp_path / "fork", 6, cache=cache)
        assert len(seen.requests) == 1


def test_what_was_seen_before_there_was_any_rest_has_the_hash_it_had(world, tmp_path):
    own = config(world, policy="heuristic").model_copy(update={"rounds": 1})
    run: Run = run_experiment(own, tmp_path / "run", cache=world.folder / "cache")
    seen = seen_again(run, 0)
    plain = seen.model_dump(mode="json")
    assert "resting" not in plain and seen.sha256 == digest(plain)
    assert seen.model_copy(update={"resting": "why"}).sha256 != seen.sha256
