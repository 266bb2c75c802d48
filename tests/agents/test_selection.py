"""Who is asked, as a decision of the pilot: within its floors, and never at privacy's expense."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cohorts import cohort_of, overdue
from agents.experiment import replay, run_experiment
from agents.facts import Observation, facts_of_clients
from agents.guard import rule_on
from agents.policies.choosing import Choosing, Stopping, improves
from agents.policies.model import Adviser, schema_of, shown
from agents.policies.rules import Fixed, Null
from agents.proposals import Answer, Proposal
from agents.selection import (
    RULES,
    Selection,
    SelectionBounds,
    SelectionSpec,
    selection_bounds,
    selection_model,
)
from federation.cohort.selection import CohortSpec, select
from federation.cohort.standing import Standing
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.records import RoundRecord
from federation.runs.run import ADAPTER, History, Run
from llm_tools import decodable
from llm_tools.scripted import ScriptedChat
from tests.agents.histories import history, seen
from tests.tiny_worlds import World, tiny_world

EVEN = Selection(rule="uniform", candidates=2, exploration=0.1)


def bounds(**changes: object) -> SelectionBounds:
    table = {
        "rules": RULES[:4],
        "exploration": 0.1,
        "most_excluded": 1,
        "known": ("c2",),
        "population": 9,
        "current": EVEN,
    }
    return SelectionBounds.model_validate(table | changes)


def unequal(rounds: int, spread: float, missing: int = 0, diverges: str = "") -> History:
    """A history of three clients whose losses lie apart, some of which do not report."""
    found = history([2.0] * rounds)
    for n in range(rounds):
        loss = {"ward-a": 2 - spread, "ward-b": 2.0, "ward-c": 2 + spread}
        lost = dict.fromkeys([f"late-{i}" for i in range(missing)], "late")
        asked = (*loss, *lost)
        if diverges:
            lost |= {diverges: "diverged: its update is not finite"}
            loss.pop(diverges)
        decision = found.decisions[n].model_copy(update={"clients": asked})
        found.decisions[n] = decision
        found.rounds[n] = RoundRecord(round=n, clients=tuple(loss), loss=loss, missing=lost)
    return found


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
    found = ruling(wanted, bounds(), evidence=("diverged_c2",))
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
    found = ruling(EVEN.model_copy(update=change), bounds(**limits), evidence=evidence)
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


# --- The rule ----------------------------------------------------------------------------------


def chosen(found: History, limits: SelectionBounds | None = None, **changes: object) -> Proposal:
    answer = Choosing(Fixed()).decide(seen(found, selection=limits or bounds(), **changes))
    assert answer.proposal is not None
    return answer.proposal


def test_without_evidence_nothing_changes():
    assert chosen(history([])).abstains
    assert chosen(unequal(3, 0.01)).abstains
    assert chosen(unequal(2, 1.0)).abstains


def test_unequal_losses_are_evidence():
    found = chosen(unequal(3, 1.0))
    assert found.selection is not None and found.selection.rule == "power_of_choice"
    assert found.evidence == ("loss_spread@2", "loss@2")
    assert found.rationale == "clients' losses are far apart"


def test_clients_that_are_late_as_well_call_for_oort():
    found = chosen(unequal(3, 1.0, missing=1)).selection
    assert found is not None and found.rule == "oort"


def test_losses_that_came_together_are_evidence_for_an_even_choice():
    limits = bounds(current=EVEN.model_copy(update={"rule": "power_of_choice"}))
    found = chosen(unequal(3, 0.01), limits).selection
    assert found is not None and found.rule == "uniform"


def test_where_everybody_is_asked_there_is_nothing_to_choose():
    assert chosen(unequal(3, 1.0), bounds(population=3)).abstains


def test_who_keeps_diverging_is_excluded_up_to_the_limit():
    found = chosen(unequal(3, 0.01, diverges="ward-b"), smallest=1)
    assert found.selection is not None and found.selection.exclude == ("c2",)
    assert found.evidence == ("diverged_c2",)
    once = chosen(unequal(1, 0.01, diverges="ward-b"), smallest=1)
    assert once.abstains
    nobody = chosen(unequal(3, 0.01, diverges="ward-b"), bounds(most_excluded=0), smallest=1)
    assert nobody.abstains


def idle(found: History, *rounds: int) -> History:
    """The same run, in which ward-b sent noise in some rounds."""
    for n in rounds:
        found.rounds[n] = found.rounds[n].model_copy(update={"idle": {"ward-b": "noise"}})
    return found


def test_who_does_no_work_is_excluded_once_it_is_most_of_what_it_sends():
    found = chosen(idle(unequal(3, 0.01), 0, 2), smallest=1)
    assert found.selection is not None and found.selection.exclude == ("c2",)
    assert found.evidence == ("idle_c2",)
    for rounds in ((2,), (0, 2)):
        assert chosen(idle(unequal(4, 0.01), *rounds), smallest=1).abstains, "half is not most"
    assert chosen(idle(unequal(3, 0.01), 0, 2), smallest=2).abstains


@settings(max_examples=60, deadline=None)
@given(
    spread=st.floats(0, 1.9),
    missing=st.integers(0, 3),
    diverges=st.sampled_from(["", "ward-a", "ward-b"]),
    rounds=st.integers(0, 6),
    rules=st.lists(st.sampled_from(RULES[:4]), min_size=1, unique=True),
    most=st.integers(0, 2),
    seed=st.integers(0, 2**30),
)
def test_no_rule_chooses_what_the_guard_refuses(
    spread, missing, diverges, rounds, rules, most, seed
):
    limits = bounds(
        rules=tuple(rules), most_excluded=most, current=EVEN.model_copy(update={"rule": rules[0]})
    )
    found = unequal(rounds, spread, missing, diverges)
    observation = seen(found, smallest=1, selection=limits, seed=seed)
    for policy in (Choosing(Fixed()), Null()):
        assert rule_on(policy.decide(observation), observation).violations == ()


def test_single_clients_are_shown_only_where_they_may_be():
    found = unequal(3, 0.1, diverges="ward-b")
    told = {fact.id for fact in seen(found, smallest=1, selection=bounds()).facts}
    assert {"missed_c2", "diverged_c2"} <= told
    for other in ({"smallest": 2}, {"selection": bounds(most_excluded=0)}, {"selection": None}):
        observation = seen(found, **({"smallest": 1, "selection": bounds(known=())} | other))
        assert not [fact for fact in observation.facts if "_c" in fact.id]
    assert "ward" not in str(facts_of_clients(found, 3))
    idler = idle(unequal(3, 0.1), 1, 2)
    assert {"idle_c2", "idle@2"} <= {
        x.id for x in seen(idler, smallest=1, selection=bounds()).facts
    }
    cohort = seen(idler, smallest=2, selection=bounds(known=())).facts
    assert [fact.id for fact in cohort if "idle" in fact.id] == ["idle@1", "idle@2"]
    assert not [x for x in seen(idler, smallest=4).facts if "idle" in x.id]
    assert "ward" not in str(facts_of_clients(idler, 3))


# --- Early ends --------------------------------------------------------------------------------


def test_a_falling_loss_improves_and_a_flat_one_does_not():
    draw = np.random.default_rng(0)
    falls = [3 - 0.1 * n + 0.02 * draw.normal() for n in range(10)]
    assert improves(falls, 5)
    flat = [sum(not improves(list(draw.normal(2, 0.1, 10)), 5) for _ in range(200))]
    assert flat[0] > 180


def test_a_run_without_a_gain_is_ended_and_another_goes_on():
    flat = history([3.0, 2.0, 2.01, 1.99, 2.0, 2.01, 1.99, 2.0])
    answer = Stopping(Fixed(), 3).decide(seen(flat, may_stop=True))
    assert answer.proposal is not None
    assert (answer.proposal.action, answer.proposal.evidence) == ("stop", ("loss@7",))
    for observation in (
        seen(flat),
        seen(history([3.0 - 0.2 * n for n in range(8)]), may_stop=True),
    ):
        assert Stopping(Fixed(), 3).decide(observation).proposal.action == "continue"


# --- A model -----------------------------------------------------------------------------------


def test_a_model_chooses_a_rule_and_its_parameters_and_no_cohort():
    found = unequal(3, 0.1, diverges="ward-b")
    observation = seen(found, smallest=1, selection=bounds(), may_stop=True)
    schema = decodable(schema_of(observation))
    choice = schema["$defs"]["ClientSelectionProposal"]["properties"]
    assert choice["rule"]["enum"] == list(RULES[:4])
    assert choice["exclude"]["items"] == {"const": "c2", "type": "string"}
    assert choice["exploration"]["minimum"] == 0.1
    assert schema["properties"]["action"]["enum"] == ["continue", "stop"]
    said = {
        **{name: 0.01 if name == "lr" else 4 for name in observation.bounds},
        "abstain": False,
        "expected_low": 1.0,
        "expected_high": 2.0,
        "rationale": "one is broken",
        "evidence": ["diverged_c2"],
        "selection": {"rule": "oort", "candidates": 2, "exploration": 0.2, "exclude": ["c2"]},
        "action": "continue",
    }
    answer = Adviser(ScriptedChat(script=[said]), "scripted", 5.0).decide(observation)
    ruled = rule_on(answer, observation)
    assert ruled.violations == ()
    assert ruled.selection == Selection(rule="oort", candidates=2, exploration=0.2, exclude=("c2",))
    assert "selection.rule: how clients are chosen, one of uniform" in shown(observation)["knobs"]
    assert "diverged_c2 = 3 rounds" in shown(observation)["facts"]


def test_what_cannot_be_chosen_is_not_in_a_model_s_schema():
    plain = schema_of(seen(history([3.0])))
    assert {"selection", "action"}.isdisjoint(plain.model_fields)
    assert "exclude" not in selection_model(bounds(most_excluded=0)).model_fields


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
