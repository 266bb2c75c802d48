"""A far move is tried by a few clients first; what they trained is their part of the round."""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from agents import spec
from agents.canary import Known, how_many, is_far, judged
from agents.experiment import replay, run_experiment
from agents.explain import explained
from agents.proposals import Answer, Proposal, Source
from agents.seen import applied, seen_again
from federation.changes import Change
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.records import (
    DecisionRecord,
    EvaluationRecord,
    Record,
    ResumeRecord,
    RollbackRecord,
    RoundRecord,
    computed,
)
from federation.runs.run import Run, problems
from federation.session import Watch
from federation.whatif import what_if
from tests.agents.histories import CLIENTS, history
from tests.agents.valleys import descend
from tests.tiny_runs import killed, operations_of
from tests.tiny_worlds import World, tiny_world

ROUNDS, FARAWAY = 6, 3
OPEN: dict[str, Any] = {"policy": "jumping", "bounds": {"lr": [0.001, 10.0]}, "trust": 100.0}
TRIED: dict[str, Any] = OPEN | {"canary": 0.3}
GOOD: dict[str, Any] = OPEN | {"policy": "helpful", "trust": 10.0}
SHY: dict[str, Any] = TRIED | {"policy": "shy"}
FIXED: dict[str, Any] = OPEN | {"policy": "fixed"}
WANTED: dict[str, dict[str, Any]] = {"jumping": TRIED, "helpful": GOOD | {"canary": 0.3}}
SPENT = {"bytes_down": 8, "bytes_up": 8, "tokens": 1, "client_steps": 3}


class Jumping:
    """Multiplies the learning rate in some rounds, and keeps it in the others."""

    name = "jumping@1"
    jumps: Mapping[int, float] = MappingProxyType({FARAWAY: 100.0})
    source: Source = "heuristic"

    def decide(self, observation):
        factor = self.jumps.get(observation.round)
        if factor is None:
            return Answer(proposal=Proposal(source=self.source))
        values = {"lr": min(observation.bounds["lr"].current * factor, 10.0)}
        proposal = Proposal(values=values, rationale="a jump", source=self.source)
        return Answer(proposal=proposal)


class Helpful(Jumping):
    """Jumps, and it does good."""

    jumps = MappingProxyType({2: 4.0})


class Shy(Jumping):
    """A language model that moves a little, twice."""

    jumps = MappingProxyType({2: 1.01, 4: 1.01})
    source = "llm"


@pytest.fixture(scope="module", autouse=True)
def jumpers():
    with pytest.MonkeyPatch.context() as patch:
        known = {"jumping": Jumping, "helpful": Helpful, "shy": Shy} | spec.POLICIES
        patch.setattr(spec, "POLICIES", known)
        yield


@pytest.fixture(scope="module", params=["jumping", "helpful"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def played(name: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return descended(tmp_path_factory.mktemp("runs") / "run", **WANTED[name])


def descended(path: Path, watch: Watch | None = None, **pilot: Any) -> Run:
    descend(path, ROUNDS, watch, **pilot)
    return Run.open(path)


def bits(run: Run) -> list[tuple]:
    """Whatever a repetition must repeat of what was done, to the bit."""
    records = (x.record for x in run.entries)
    done = (RoundRecord, RollbackRecord, EvaluationRecord)
    return [computed(x) for x in records if isinstance(x, done)]


def decisions(run: Run) -> list[dict]:
    return [x.model_dump(exclude={"seconds"}) for x in run.history.decisions.values()]


# --- What comes of a trial ----------------------------------------------------------------------


def test_an_accepted_trial_is_the_round_without_one(tmp_path):
    """Law: nothing is trained twice, and no bit is another."""
    tried = descended(tmp_path / "a", **WANTED["helpful"])
    plain = descended(tmp_path / "b", **GOOD)
    canary = tried.history.decisions[2].canary
    assert canary is not None and canary.accepted and canary.reason == ""
    assert canary.clients == tried.history.decisions[2].clients[:1]
    assert canary.values == {"lr": 0.2} and canary.limit is not None
    assert canary.loss == tried.history.rounds[2].loss[canary.clients[0]] < canary.limit
    assert bits(tried) == bits(plain) and problems(tried.path) == []
    others = [x.canary for n, x in tried.history.decisions.items() if n != 2]
    assert others == [None] * (ROUNDS - 1)


def test_a_refused_trial_leaves_the_values_before_and_its_cost(tmp_path):
    found = descended(tmp_path / "a", **TRIED)
    plain = descended(tmp_path / "b", **FIXED)
    decision, canary = (d := found.history.decisions[FARAWAY]), d.canary
    assert canary is not None and not canary.accepted and canary.values == {"lr": 5.0}
    assert (decision.source, decision.policy) == ("fallback", "canary@1")
    assert decision.details["verdict"] == "rejected"
    assert decision.details["violations"] == [canary.reason] == [decision.reason]
    assert decision.details["proposal"]["values"] == {"lr": 5.0}  # type: ignore[index]
    assert applied(decision)["lr"] == decision.work["lr"] == 0.05
    assert states(found) == states(plain)  # what the canary kept is put back
    spent, fair = found.history.rounds[FARAWAY], plain.history.rounds[FARAWAY]
    assert spent.bytes_down - fair.bytes_down == canary.bytes_down == 16
    assert spent.bytes_up - fair.bytes_up == canary.bytes_up == 16
    assert spent.client_steps - fair.client_steps == canary.client_steps == 3
    assert spent.tokens - fair.tokens == canary.tokens == 1
    assert spent.clients == fair.clients and spent.loss == fair.loss
    assert problems(found.path) == []


def states(run: Run) -> list[tuple]:
    return [(x.checkpoint_sha256, x.kept) for x in run.history.rounds.values()]


def test_both_are_explained(played, name):
    round = FARAWAY if name == "jumping" else 2
    claims, facts = explained(played.history, round)
    canary = played.history.decisions[round].canary
    text = next(x.text for x in claims if x.text.startswith("Tried first by 1 of the clients: "))
    assert f"client learning rate {5 if name == 'jumping' else 0.2}" in text
    assert f"up to {canary.limit:.3f} was allowed" in text
    assert ("refused, and the values before" in text) == (name == "jumping")
    assert facts[f"canary_loss@{round}"].value == pytest.approx(canary.loss, rel=1e-5)
    in_journal = next(x.text for x in played.history.explanations if x.round == round)
    assert "Tried first by 1 of the clients" in in_journal
    assert "up to" not in in_journal  # of one client, and pilot.smallest is 2


def test_what_was_tried_is_seen_from_the_next_round_on(tmp_path):
    found = descended(tmp_path / "a", **TRIED, smallest=1)
    shown = {fact.id for fact in observed(found, FARAWAY + 1)}
    assert {f"canary_lr@{FARAWAY}", f"canary_loss@{FARAWAY}"} <= shown
    assert not [id for id in (x.id for x in observed(found, FARAWAY)) if "canary" in id]


def observed(run: Run, round: int):
    from agents.pilot import PilotPlanner
    from agents.spec import PilotSpec
    from federation.runs.history import history_of
    from tests.agents.valleys import setup_of

    before = history_of(run.entries)
    before.rounds = {n: x for n, x in before.rounds.items() if n < round}
    table = PilotSpec.model_validate(TRIED | {"smallest": 1})
    return PilotPlanner(setup_of(ROUNDS), before, 8, table).observation(round).facts


def test_a_models_first_move_is_tried_however_short(tmp_path):
    found = descended(tmp_path / "a", **SHY).history.decisions
    assert [n for n, x in found.items() if x.canary] == [2]
    assert found[2].source == found[4].source == "llm"


def test_without_client_steps_for_a_trial_the_move_is_refused(tmp_path):
    """The run as configured takes 54 client-steps: none is left for a trial in vain."""
    found = descended(tmp_path / "a", **TRIED, max_client_steps=54).history
    assert found.decisions[FARAWAY].canary is None
    assert applied(found.decisions[FARAWAY])["lr"] == 0.05
    refused = str(found.decisions[FARAWAY].details["violations"])
    assert "it would have to be tried first: 30 client-steps, and 27 are left" in refused
    found = descended(tmp_path / "b", **TRIED, max_client_steps=57).history
    assert found.decisions[FARAWAY].canary is not None
    assert sum(x.client_steps for x in found.rounds.values()) == 57


# --- Killed, and repeated -----------------------------------------------------------------------


def test_it_is_repeated_without_the_pilot_to_the_same_bits(played, tmp_path):
    descend(tmp_path / "again", ROUNDS, repeating=played.history)
    again = Run.open(tmp_path / "again")
    records = [x for x in bits(again) if x[0] == "round"]
    assert records == [x for x in bits(played) if x[0] == "round"]
    assert {x.source for x in again.history.decisions.values()} == {"replay"}


@pytest.mark.slow
def test_killed_at_any_operation_it_goes_on_to_the_same_bits(played, name, tmp_path):
    """Among them those between a trial, its decision and the training of the rest."""
    total = operations_of(lambda: dying(tmp_path / "count", name))
    where = FARAWAY if name == "jumping" else 2
    n, hits = total * where // ROUNDS - 40, 0
    for at in range(n, n + 110, 3):
        path = tmp_path / f"{at}"
        assert killed(lambda: dying(path, name), at)  # noqa: B023
        hits += Run.open(path).history.last_round == where - 1
        found = descended(path, **WANTED[name])
        assert bits_that_count(found) == bits_that_count(played)
        assert decisions(found) == decisions(played) and problems(path) == []
    assert hits > 5


def dying(path: Path, name: str) -> None:
    descend(path, ROUNDS, **WANTED[name])


def bits_that_count(run: Run) -> list[tuple]:
    return [computed(x) for x in run.history.rounds.values()]


@pytest.mark.parametrize("where", ["after the trial", "before the rest"])
def test_killed_between_trial_and_rest(where, played, name, tmp_path):
    path, round = tmp_path / "run", FARAWAY if name == "jumping" else 2
    wanted = WANTED[name]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def record(record: Record) -> None:
        if isinstance(record, DecisionRecord) and record.round == round:
            die()

    def first_life() -> None:
        if where == "before the rest":
            descend(path, ROUNDS, Watch(record=record), **wanted)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agents.pilot.judged", lambda *rest: die())
            descend(path, ROUNDS, **wanted)

    pid = os.fork()
    if pid == 0:
        first_life()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert (round in Run.open(path).history.decisions) == (where == "before the rest")
    found = descended(path, **wanted)
    assert any(isinstance(x.record, ResumeRecord) for x in found.entries)
    assert bits_that_count(found) == bits_that_count(played) and decisions(found) == decisions(
        played
    )
    assert problems(path) == []


# --- On a real model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def real(world: World, chunk: int, **pilot: object) -> Config:
    lines = ["rounds=4", f"engine.chunk={chunk}", "evaluation.baselines=[]"]
    plain = Config.from_toml(world.config, lines)
    table = {"policy": "helpful", "bounds": {"lr": [1e-4, 1.0]}, "trust": 10.0} | pilot
    return plain.model_copy(update={"pilot": table})


def test_a_real_run_is_the_one_without_a_trial_and_is_repeated(world, tmp_path):
    cache = world.folder / "cache"
    tried = run_experiment(real(world, 1, canary=0.5), tmp_path / "a", cache=cache)
    plain = run_experiment(real(world, 1), tmp_path / "b", cache=cache)
    canary = tried.history.decisions[2].canary
    assert canary is not None and canary.accepted and len(canary.clients) == 2
    assert states(tried) == states(plain)
    assert seen_again(tried, 3).sha256 == tried.history.decisions[3].details["observation_sha256"]
    again = replay(tried.path, tmp_path / "again", cache=cache)
    assert states(again) == states(tried)


def test_stacks_are_those_of_the_trial_whoever_plays_the_round_again(world, tmp_path):
    """Three clients fit a stack; two tried first, and so they share none with the third."""
    cache = world.folder / "cache"
    tried = run_experiment(real(world, 8, canary=0.5), tmp_path / "a", cache=cache)
    assert tried.history.decisions[2].canary is not None
    assert what_if(tried.path, 2, Change(scale_lr=0.5), cache=cache).reproduced
    assert states(replay(tried.path, tmp_path / "again", cache=cache)) == states(tried)


# --- Configurations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"canary": 0}, "canary must be a finite number above 0 and at most 1"),
        ({"canary": 1.5}, "canary must be a finite number above 0 and at most 1"),
        ({"canary": 0.2, "bounds": {"cohort_size": [1, 3]}}, "tries lr, steps, mu, and pilot.bou"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(table, words, world, tmp_path):
    config = real(world, 1).model_copy(update={"pilot": table})
    with pytest.raises(ConfigError, match=words) as refused:
        run_experiment(config, tmp_path / "x", cache=world.folder / "cache")
    assert "\n" not in str(refused.value)


def test_noise_and_trials_exclude_each_other(world, tmp_path):
    noisy = ["upload.clip=1.0", "upload.noise=1.0"]
    config = Config.from_toml(world.config, noisy).model_copy(update={"pilot": {"canary": 0.2}})
    with pytest.raises(ConfigError, match=r"pilot\.canary contradicts upload\.noise"):
        run_experiment(config, tmp_path / "x", cache=world.folder / "cache")


# --- On journals in memory ----------------------------------------------------------------------


def test_far_is_more_than_half_of_the_trust_region_by_ratio():
    before = {"lr": 0.01, "steps": 4.0, "server_lr": 1.0, "cohort_size": 3.0}
    assert not is_far(before | {"lr": 0.02}, before, 4.0)
    assert is_far(before | {"lr": 0.0201}, before, 4.0)
    assert is_far(before | {"lr": 0.0049}, before, 4.0)
    assert is_far(before | {"steps": 9.0}, before, 4.0)
    # What the server does with reports does not show while they are made.
    assert not is_far(before | {"server_lr": 4.0, "cohort_size": 12.0}, before, 4.0)


def test_one_client_tries_at_least_and_shares_are_rounded_up():
    assert [how_many(x, 10) for x in (0.01, 0.1, 0.3, 0.31, 1.0)] == [1, 1, 3, 4, 10]
    assert how_many(0.07, 100) == 7


def losses(found, *rounds: dict[str, float]) -> None:
    for n, of in enumerate(rounds):
        found.add(RoundRecord(round=n, clients=tuple(of), loss=of))


def test_a_client_is_compared_with_itself_and_a_new_one_with_the_last_cohort():
    found = history([])
    a, b, c = CLIENTS
    losses(found, {a: 3.0, b: 1.0}, {a: 2.8, b: 1.2})
    known = Known.of(found)
    assert known.before([a]) == 2.8 and known.before([c]) == 2.0
    assert known.before([a, c]) == pytest.approx(2.4)
    # Deviations: 1, -1 of the first round's mean, then -0.2, 0.2 of each client's own loss.
    noise = math.sqrt((1 + 1 + 0.04 + 0.04) / 3)
    assert known.noise == pytest.approx(noise)
    assert known.limit([a]) == pytest.approx(2.8 + 2 * noise)
    assert known.limit([a, c]) == pytest.approx(2.4 + 2 * noise / math.sqrt(2))


def test_rounds_that_were_undone_are_no_measure():
    found = history([3.0, 2.0, 50.0])
    found.add(RollbackRecord(round=2, to=1, loss=50.0, limit=6.0, reason="it diverged"))
    assert Known.of(found).before([CLIENTS[0]]) == 2.0


@pytest.mark.parametrize(
    ("values", "accepted"),
    [([2.0, 2.0], True), ([9.0, 2.0], False), ([2.0], False), ([2.0, math.nan], False), ([], 0)],
)
def test_worse_beyond_noise_or_no_number_is_refused(values, accepted):
    found = judged(history([2.0, 2.1, 2.0]), {"lr": 1.0}, CLIENTS[:2], values, SPENT)
    assert found.accepted == accepted and bool(found.reason) != accepted


def test_before_any_round_only_a_number_is_asked_for():
    assert judged(history([]), {"lr": 1.0}, CLIENTS[:1], [99.0], SPENT).accepted
    assert not judged(history([]), {"lr": 1.0}, CLIENTS[:1], [math.inf], SPENT).accepted
