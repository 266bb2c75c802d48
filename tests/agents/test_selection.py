"""Who is asked, as a decision of the pilot: within its floors, and never at privacy's expense."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cohorts import cohort_of, overdue
from agents.experiment import replay, run_experiment
from agents.facts import Observation
from agents.guard import rule_on
from agents.proposals import Answer, Proposal
from agents.selection import (
    Selection,
    SelectionBounds,
    SelectionSpec,
    selection_bounds,
)
from federation.cohort.selection import CohortSpec, select
from federation.cohort.standing import Standing
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.run import ADAPTER, Run
from tests.agents.histories import EVEN, history, limits_of, seen, unequal
from tests.tiny_worlds import World, tiny_world

# --- Floors ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    population=st.integers(2, 40),
    asked=st.integers(1, 12),
    slack=st.integers(0, 5),
    rule=st.sampled_from(["uniform", "round_robin", "power_of_choice", "oort"]),
    seed=st.integers(0, 2**30),
)
def test_nobody_waits_longer_than_promised_whatever_the_rule(population, asked, slack, rule, seed):
    asked = min(asked, population)
    fairness = math.ceil(population / asked) + slack
    limits = SelectionSpec.model_validate({"fairness": fairness})
    wanted = Selection(rule=rule, candidates=3, exploration=0.1)
    standing, last = Standing.fresh(np.arange(population) + 1), np.full(population, -1)
    for round in range(3 * fairness):
        found = cohort_of(
            wanted,
            limits,
            CohortSpec(size=asked),
            standing,
            seed=seed,
            round=round,
            exclude=(),
            fewest=asked,
        )
        assert len(set(found.clients.tolist())) == asked
        last[found.clients] = round
        assert (round - last).max() < fairness
        loss = np.where(found.clients < population // 2, 9.0, 0.1)
        standing = standing.after(round, found.clients.tolist(), found.clients.tolist(), loss)


def test_who_was_away_comes_first_when_back():
    standing = Standing.fresh(np.ones(6))
    there = np.array([False, True, True, True, True, True])
    for round in range(8):
        standing = standing.now(there).after(round, [1 + round % 5], [], [])
    back = standing.now(np.ones(6, dtype=bool))
    assert 0 in overdue(6, back, (), 1, 1, seed=0, round=8)


@pytest.mark.parametrize("rule", ["power_of_choice", "oort", "round_robin"])
def test_chance_keeps_its_share_of_every_rule(rule):
    limits = SelectionSpec.model_validate({"exploration": 0.3})
    wanted = Selection(rule=rule, candidates=10, exploration=0.3)
    standing = Standing.fresh(np.ones(30))
    loss = np.linspace(0.1, 9.0, 30)
    standing = standing.after(0, range(30), range(30), loss)
    explored, asked = 0, set()
    for round in range(100):
        found = cohort_of(
            wanted,
            limits,
            CohortSpec(size=5),
            standing,
            seed=4,
            round=round,
            exclude=(),
            fewest=5,
        )
        explored += found.explored
        asked |= set(found.clients.tolist())
    assert explored == 150  # 0.3 of 500
    assert asked == set(range(30))


def test_an_even_choice_is_the_core_s_own():
    standing = Standing.fresh(np.ones(20))
    for round in range(20):
        found = cohort_of(
            EVEN,
            SelectionSpec(),
            CohortSpec(size=6),
            standing,
            seed=1,
            round=round,
            exclude=(3,),
            fewest=6,
        )
        core = select(CohortSpec(size=6), standing, 1, round, (3,))
        assert found.clients.tolist() == core.tolist()


# --- The guard ---------------------------------------------------------------------------------


def ruling(wanted: Selection, limits: SelectionBounds | None, **changes: object):
    observation = seen(unequal(3, 0.1, diverges="ward-b"), smallest=1, selection=limits)
    values = {"evidence": changes.pop("evidence", ())} | {"selection": wanted, **changes}
    return rule_on(Answer(proposal=Proposal.model_validate(values)), observation)


def test_a_choice_within_its_limits_is_applied_as_it_stands():
    wanted = EVEN.model_copy(update={"rule": "oort", "exclude": ("c2",)})
    found = ruling(wanted, limits_of(), evidence=("diverged_c2",))
    assert (found.verdict, found.selection) == ("accepted", wanted)


@pytest.mark.parametrize(
    ("change", "limits", "evidence", "words"),
    [
        ({"rule": "deadline"}, {}, (), "'deadline' is not one of uniform, round_robin"),
        ({"exploration": 0.05}, {}, (), "exploration 0.05 is outside 0.1 to 1"),
        ({"exclude": ("c2", "c9")}, {}, ("diverged_c2",), "2 clients would be excluded and 1 may"),
        ({"exclude": ("c9",)}, {}, (), "c9 is no client that anything was shown of"),
        ({"exclude": ("c2",)}, {}, (), "c2 would be excluded and no fact about it is cited"),
        ({"exclude": ("c2",)}, {}, ("loss@1",), "no fact about it is cited"),
        ({"exclude": ("c2",)}, {"population": 3}, ("missed_c2",), "2 clients would be left and 3"),
        ({"exclude": ("c2", "c2")}, {"most_excluded": 2}, ("missed_c2",), "excluded twice"),
        ({"rule": "oort"}, {"rules": ("uniform",), "why": "upload.noise: it"}, (), "upload.noise"),
        ({"exclude": ("c2",)}, {"most_excluded": 0, "why": "upload.noise: it"}, (), "upload.noise"),
    ],
)
def test_a_choice_outside_its_limits_is_refused_with_a_reason(change, limits, evidence, words):
    found = ruling(EVEN.model_copy(update=change), limits_of(**limits), evidence=evidence)
    assert (found.verdict, found.selection) == ("rejected", None)
    assert words in "; ".join(found.violations)


def test_where_it_is_not_open_nothing_is_chosen():
    assert ruling(EVEN, None).violations == ("selection may not be changed",)


def test_a_run_ends_early_only_where_it_may():
    stop = Answer(proposal=Proposal(action="stop"))
    assert rule_on(stop, seen(history([2.0]))).violations == (
        "the run may not end after this round",
    )
    assert rule_on(stop, seen(history([2.0]), may_stop=True)).action == "stop"


# --- Whole runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, rounds: int = 6, *overrides: str, **pilot: object) -> Config:
    settings = [f"rounds={rounds}", "engine.chunk=2", "cohort.size=2", *overrides]
    plain = Config.from_toml(world.config, settings)
    return plain.model_copy(update={"pilot": {"policy": "null", "selection": {}} | pilot})


def test_what_is_chosen_is_recorded_and_repeated_to_the_same_bits(world: World, tmp_path: Path):
    cache = world.folder / "cache"
    wanted = config(world, selection={"fairness": 3}, shadows=["fixed", "null"])
    run = run_experiment(wanted, tmp_path / "run", cache=cache)
    tables = [d.details["selection"] for d in run.history.decisions.values()]
    assert len({table["rule"] for table in tables}) > 1
    asked = [set(d.clients) for d in run.history.decisions.values()]
    assert all(set.union(*asked[n : n + 3]) == set.union(*asked) for n in range(4))
    assert "chosen by" in " ".join(x.text for x in run.history.explanations)
    for decision in run.history.decisions.values():
        shadow = decision.details["shadows"]
        table = decision.details["selection"]
        assert shadow["fixed@1"] == {} and shadow["null@1"]["selection"]["rule"] == table["rule"]
    again = replay(run.path, tmp_path / "again", cache=cache)
    assert adapter(again) == adapter(run)


def adapter(run: Run) -> bytes:
    return (run.path / ADAPTER / "adapter_model.safetensors").read_bytes()


NOISE = ("upload.clip=1.0", "upload.noise=0.5", "work.optimizer='sgd'")


def test_under_noise_cohorts_are_uniform_and_the_record_says_what_may_be_counted_on(
    world: World, tmp_path: Path
):
    """The control would choose other rules; under noise it is left none."""
    cache = world.folder / "cache"
    wanted = config(world, 4, *NOISE)
    run = run_experiment(wanted, tmp_path / "run", cache=cache)
    for decision in run.history.decisions.values():
        assert decision.details["selection"]["rule"] == "uniform"
        assert decision.details["selection"]["exclude"] == []
        assert decision.details["privacy"]["sampling"] == "uniform"
        assert decision.details["privacy"]["rate"] == 2 / 5
        size = len(decision.clients)
        standing = Standing.fresh(np.ones(5))
        uniform = select(CohortSpec(size=size), standing, 3, decision.round)
        assert decision.clients == tuple(f"client-{i}" for i in uniform)


def test_a_run_may_end_early_and_is_then_finished(world: World, tmp_path: Path):
    cache = world.folder / "cache"
    flat = config(world, 12, "work.lr=1e-9", policy="heuristic", selection=None, stop=2)
    flat = flat.model_copy(
        update={"evaluation": flat.evaluation.model_copy(update={"baselines": ("local",)})}
    )
    run = run_experiment(flat, tmp_path / "run", cache=cache)
    last = max(run.history.rounds)
    assert run.status == "finished" and 3 <= last < 11
    assert [n for n, d in run.history.decisions.items() if d.last] == [last]
    assert run.history.decisions[last].reason == "no gain beyond noise in 2 rounds"
    assert run.rounds[-1].evaluation["federated"]
    assert "The run ends after this round" in run.history.explanations[-1].text
    assert len(Run.open(run.path / "baselines" / "local").rounds) == last + 1
    again = replay(run.path, tmp_path / "again", cache=cache)
    assert len(again.rounds) == last + 1 and adapter(again) == adapter(run)


@pytest.mark.parametrize(
    ("overrides", "pilot", "words"),
    [
        ((), {"selection": {"rules": ["fastest"]}}, "selection.rules"),
        ((), {"selection": {"rules": ["oort"]}}, "configured cohort.rule 'uniform' is not among"),
        ((), {"selection": {"rules": ["uniform", "deadline"]}}, "deadline needs cohort.deadline"),
        ((), {"selection": {"fairness": 2}}, "2 clients a round do not reach 5 in 2 rounds"),
        ((), {"selection": {"exclude": 2}}, "keeps it back: set it to 1"),
        ((), {"selection": {"exploration": 0.0}}, "selection.exploration"),
        ((), {"selection": {"fairnes": 2}}, "did you mean selection.fairness"),
        (NOISE, {"selection": {"rules": ["uniform", "oort"]}}, "contradicts upload.noise"),
        (NOISE, {"selection": {"fairness": 4}}, "contradicts upload.noise"),
        (NOISE, {"selection": {"exclude": 1}, "smallest": 1}, "contradicts upload.noise"),
        ((), {"stop": 1}, "stop"),
    ],
)
def test_limits_that_contradict_are_refused_in_one_line(overrides, pilot, words, world, tmp_path):
    with pytest.raises(ConfigError, match=words) as refused:
        run_experiment(
            config(world, 3, *overrides, **pilot), tmp_path / "x", cache=world.folder / "cache"
        )
    assert "\n" not in str(refused.value)


def test_never_more_are_excluded_than_the_floor_of_the_population_allows(world: World):
    limits = SelectionSpec.model_validate({"exclude": 20, "floor": 0.8})
    assert selection_bounds(config(world), limits, 10).most_excluded == 2
    assert selection_bounds(config(world), limits, 9).most_excluded == 1


def test_an_observation_without_a_choice_is_as_before():
    assert isinstance(seen(history([2.0])), Observation)
    assert seen(history([2.0])).selection is None
