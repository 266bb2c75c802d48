"""A person between the proposal and the round: asked once, answered once, repeated by nobody."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import spec
from agents.experiment import replay, resume, run_experiment
from agents.seen import applied
from agents.spec import PilotSpec
from federation.config import Config
from federation.errors import ConfigError, StoppedError
from federation.runs import inbox
from federation.runs.inbox import Answer, GoOn, MoreRounds, Pause, Stop, post
from federation.runs.records import AskedRecord, CommandRecord, Record
from federation.runs.run import Run, problems
from federation.session import Watch
from tests.agents.valleys import descend
from tests.tiny_worlds import World, tiny_world

Reply = Callable[[AskedRecord], Answer | None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, rounds: int = 3, **pilot: object) -> Config:
    table = {"policy": "human:null", "bounds": {"lr": [1e-3, 0.1], "steps": [1, 4]}} | pilot
    plain = Config.from_toml(world.config, [f"rounds={rounds}", "engine.chunk=2"])
    return plain.model_copy(update={"pilot": table})


def answering(path: Path, reply: Reply) -> Watch:
    """Answer every question as soon as it stands in the journal."""

    def record(record: Record) -> None:
        if isinstance(record, AskedRecord) and (answer := reply(record)) is not None:
            post(path, answer)

    return Watch(record=record)


def approve(asked: AskedRecord) -> Answer:
    return Answer(asked=asked.id, answer="approve", by="eve")


def run(world: World, path: Path, reply: Reply, **pilot: object) -> Run:
    cache = world.folder / "cache"
    return run_experiment(config(world, **pilot), path, cache=cache, watch=answering(path, reply))


def states(run: Run) -> list[str | None]:
    return [x.checkpoint_sha256 for x in run.history.rounds.values()]


def rate(run: Run, round: int) -> float:
    return applied(run.history.decisions[round])["lr"]


def mixed(asked: AskedRecord) -> Answer:
    """Approve, edit, reject: one a round."""
    if asked.round == 0:
        return approve(asked)
    if asked.round == 1:
        low = float(json.loads(json.dumps(asked.bounds))["lr"]["low"])
        return Answer(asked=asked.id, answer="edit", values={"lr": low})
    return Answer(asked=asked.id, answer="reject")


@pytest.fixture(scope="module")
def answered(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(world, tmp_path_factory.mktemp("runs") / "run", mixed)


def test_what_is_answered_is_what_is_done(answered):
    history = answered.history
    proposed = [(history.asked[n].proposal or {})["values"] for n in range(3)]
    assert [x.source for x in history.decisions.values()] == ["human"] * 3
    assert {x.policy for x in history.decisions.values()} == {"human:null@1"}
    now = [applied(history.decisions[n]) for n in range(3)]
    assert {k: now[0][k] for k in ("lr", "steps")} == proposed[0]
    assert now[1]["lr"] == history.asked[1].bounds["lr"]["low"] != proposed[1]["lr"]
    assert now[1]["steps"] == proposed[1]["steps"]
    assert now[2] == now[1] and proposed[2]["lr"] != now[2]["lr"]
    people = [x.details["person"] for x in history.decisions.values()]
    assert [(x["id"], x["by"], x["answer"]) for x in people] == [
        ("round-1", "eve", "approve"),
        ("round-2", "person", "edit"),
        ("round-3", "person", "reject"),
    ]
    assert people[1]["proposed"] == proposed[1] and people[1]["answered"] == {"lr": now[1]["lr"]}
    assert history.decisions[0].reason == "approved by eve: drawn within the bounds"
    assert [x.details["verdict"] for x in history.decisions.values()][2] == "abstained"
    assert answered.asking is None and problems(answered.path) == []


def test_the_question_says_what_may_be_answered(answered):
    asked = answered.history.asked[1]
    assert (asked.id, asked.round, asked.policy, asked.violations) == ("round-2", 1, "null@1", ())
    lr = asked.values_schema["properties"]["lr"]
    assert (lr["minimum"], lr["maximum"]) == (asked.bounds["lr"]["low"], asked.bounds["lr"]["high"])
    assert asked.values["lr"] == rate(answered, 0)


def test_a_repetition_needs_no_person(answered, world, tmp_path):
    again = replay(answered.path, tmp_path / "again", cache=world.folder / "cache")
    assert states(again) == states(answered) and again.history.asked == {}
    assert {x.source for x in again.history.decisions.values()} == {"replay"}


def test_who_approves_everything_trains_what_the_policy_trains(world, tmp_path):
    people = run(world, tmp_path / "people", approve)
    cache = world.folder / "cache"
    alone = run_experiment(config(world, policy="null"), tmp_path / "alone", cache=cache)
    assert states(people) == states(alone)


def test_an_answer_that_is_not_allowed_is_refused_and_the_run_waits_on(world, tmp_path):
    path = tmp_path / "run"

    def reply(asked: AskedRecord) -> Answer:
        wrong = [
            Answer(asked=asked.id, answer="edit", values={"lr": 9.0}),
            Answer(asked=asked.id, answer="edit", values={"noise": 0.1}),
            Answer(asked=asked.id, answer="edit", values={"steps": 2.5}),
            Answer(asked=asked.id, answer="edit"),
            Answer(asked=asked.id, answer="approve", values={"lr": 0.01}),
            Answer(asked="round-9", answer="approve"),
        ]
        for n, answer in enumerate(wrong):
            post(path, answer)
            os.utime(inbox.file_of(path, answer.id), ns=(n, n))
        return Answer(asked=asked.id, answer="reject")

    found = run(world, path, reply, rounds=1)
    told = [x for x in found.history.commands.values() if not x.accepted]
    words = [
        "lr 9 is outside 0.005 to 0.02",
        "noise may not be changed",
        "steps 2.5 is not whole",
        "an edit has values",
        "values go with an edit, not with approve",
        "round-9 is no question that waits; the question is round-1",
    ]
    assert [x.reason for x in told] == words
    assert rate(found, 0) == 0.01


class Wild:
    """Proposes what is not allowed."""

    name = "wild@1"

    def decide(self, observation):
        from agents.proposals import Answer as Said
        from agents.proposals import Proposal

        return Said(proposal=Proposal(values={"lr": 5.0}, rationale="faster"))


def test_what_the_guard_refuses_cannot_be_approved(world, tmp_path, monkeypatch):
    monkeypatch.setattr(spec, "POLICIES", {"wild": Wild} | spec.POLICIES)
    path = tmp_path / "run"

    def reply(asked: AskedRecord) -> Answer:
        assert asked.violations == ("lr 5 is outside 0.005 to 0.02",)
        post(path, Answer(id="a", asked=asked.id, answer="approve"))
        os.utime(inbox.file_of(path, "a"), ns=(1, 1))
        return Answer(asked=asked.id, answer="edit", values={"lr": 0.015})

    found = run(world, path, reply, rounds=1, policy="human:wild")
    refused = found.history.commands["a"]
    assert (refused.accepted, refused.reason[:30]) == (False, "what was proposed is not allow")
    assert rate(found, 0) == 0.015 and applied(found.history.decisions[0])["steps"] == 2


def test_after_the_patience_the_fallback_decides_and_says_so(world, tmp_path):
    began = time.monotonic()
    found = run(world, tmp_path / "run", lambda asked: None, rounds=2, patience=0.3)
    assert time.monotonic() - began >= 0.6
    for decision in found.history.decisions.values():
        assert (decision.source, decision.policy) == ("fallback", "plateau@1")
        assert decision.reason == "nobody answered within 0.3 s"
        assert decision.details["person"]["answer"] is None


def test_waiting_is_no_training(tmp_path):
    """The seconds of a round are those of deciding, training and judging, not of a person."""
    descend(tmp_path / "run", 1, policy="human", patience=2.0)
    (record,) = Run.open(tmp_path / "run").history.rounds.values()
    assert record.seconds < 2.0


def test_ctrl_c_while_it_waits_leaves_a_run_that_asks_the_same_again(world, tmp_path, answered):
    path, cache = tmp_path / "run", world.folder / "cache"
    calls: list[str] = []

    def phase(words: str) -> None:
        if "waits for a person" in words and not calls:
            calls.append(words)
            raise KeyboardInterrupt

    def reply(asked: AskedRecord) -> Answer | None:
        return mixed(asked) if asked.round != 1 or calls else None

    watch = Watch(record=answering(path, reply).record, phase=phase)
    quiet = Watch(record=lambda record: None, phase=phase)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config(world), path, cache=cache, watch=quiet)
    stopped = Run.open(path)
    assert stopped.status == "stopped" and stopped.asking is not None
    assert stopped.asking.id == "round-1"
    inbox.put(path, mixed(stopped.asking))
    found = resume(path, cache=cache, watch=watch)
    assert [x.record.id for x in found.entries if isinstance(x.record, AskedRecord)] == [
        "round-1",
        "round-2",
        "round-3",
    ]
    assert states(found) == states(answered)


def test_an_answer_that_was_acknowledged_before_a_kill_is_used_after_it(world, tmp_path, answered):
    path, cache = tmp_path / "run", world.folder / "cache"

    class Killed(BaseException):
        """Stands for a process that is gone."""

    def record(record: Record) -> None:
        if isinstance(record, AskedRecord):
            post(path, mixed(record))
        if isinstance(record, CommandRecord) and record.round == 1:
            raise Killed

    with pytest.raises(Killed):
        run_experiment(config(world), path, cache=cache, watch=Watch(record=record))
    found = resume(
        path, cache=cache, watch=answering(path, lambda x: mixed(x) if x.round > 1 else None)
    )
    assert states(found) == states(answered)
    assert len(found.history.commands) == 3 and inbox.files(path) == []


def test_a_run_that_waits_can_be_stopped_paused_and_lengthened(world, tmp_path):
    path, cache, seen = tmp_path / "run", world.folder / "cache", []

    def reply(asked: AskedRecord) -> Answer | None:
        seen.append(asked.round)
        if asked.round == 0:
            for n, command in enumerate((Pause(), MoreRounds(n=1), approve(asked), GoOn())):
                post(path, command)
                os.utime(inbox.file_of(path, command.id), ns=(n, n))
            return None
        post(path, Stop())
        return None

    with pytest.raises(StoppedError):
        watch = answering(path, reply)
        run_experiment(config(world, rounds=1), path, cache=cache, watch=watch)
    stopped = Run.open(path)
    assert (stopped.status, len(stopped.rounds), stopped.rounds_planned) == ("stopped", 1, 2)
    assert all(x.accepted for x in stopped.history.commands.values())
    assert stopped.asking is not None
    inbox.put(path, approve(stopped.asking))
    assert len(resume(path, cache=cache).rounds) == 2


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("human:oracle", "'oracle' is unknown"),
        ("human:human", "'human' is unknown"),
        ("humans", "'humans' is unknown; there are fixed, .*human:NAME"),
    ],
)
def test_who_is_to_propose_must_be_there(policy, words, world, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run_experiment(config(world, policy=policy), tmp_path / "x", cache=world.folder / "cache")


def test_human_alone_shows_what_the_rule_proposes():
    found = PilotSpec(policy="human")
    assert (found.asks, found.proposer) == (True, "heuristic")
    assert PilotSpec(policy="human:optimizer:tpe").proposer == "optimizer:tpe"
    assert not PilotSpec().asks
