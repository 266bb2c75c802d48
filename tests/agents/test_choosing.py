"""Who proposes whom to ask, and when to end: the rules, the control, and a model within them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.facts import facts_of_clients
from agents.guard import rule_on
from agents.policies.choosing import Choosing, Stopping, improves
from agents.policies.model import Adviser, schema_of, shown
from agents.policies.rules import Fixed, Null
from agents.proposals import Proposal
from agents.selection import RULES, Selection, SelectionBounds, selection_model
from federation.runs.run import History
from llm_tools import decodable
from llm_tools.scripted import ScriptedChat
from tests.agents.histories import EVEN, history, limits_of, seen, unequal

# --- The rule ----------------------------------------------------------------------------------


def chosen(found: History, limits: SelectionBounds | None = None, **changes: object) -> Proposal:
    answer = Choosing(Fixed()).decide(seen(found, selection=limits or limits_of(), **changes))
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
    limits = limits_of(current=EVEN.model_copy(update={"rule": "power_of_choice"}))
    found = chosen(unequal(3, 0.01), limits).selection
    assert found is not None and found.rule == "uniform"


def test_where_everybody_is_asked_there_is_nothing_to_choose():
    assert chosen(unequal(3, 1.0), limits_of(population=3)).abstains


def test_who_keeps_diverging_is_excluded_up_to_the_limit():
    found = chosen(unequal(3, 0.01, diverges="ward-b"), smallest=1)
    assert found.selection is not None and found.selection.exclude == ("c2",)
    assert found.evidence == ("diverged_c2",)
    once = chosen(unequal(1, 0.01, diverges="ward-b"), smallest=1)
    assert once.abstains
    nobody = chosen(unequal(3, 0.01, diverges="ward-b"), limits_of(most_excluded=0), smallest=1)
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
    limits = limits_of(
        rules=tuple(rules), most_excluded=most, current=EVEN.model_copy(update={"rule": rules[0]})
    )
    found = unequal(rounds, spread, missing, diverges)
    observation = seen(found, smallest=1, selection=limits, seed=seed)
    for policy in (Choosing(Fixed()), Null()):
        assert rule_on(policy.decide(observation), observation).violations == ()


def test_single_clients_are_shown_only_where_they_may_be():
    found = unequal(3, 0.1, diverges="ward-b")
    told = {fact.id for fact in seen(found, smallest=1, selection=limits_of()).facts}
    assert {"missed_c2", "diverged_c2"} <= told
    for other in (
        {"smallest": 2},
        {"selection": limits_of(most_excluded=0)},
        {"selection": None},
    ):
        observation = seen(found, **({"smallest": 1, "selection": limits_of(known=())} | other))
        assert not [fact for fact in observation.facts if "_c" in fact.id]
    assert "ward" not in str(facts_of_clients(found, 3))
    idler = idle(unequal(3, 0.1), 1, 2)
    assert {"idle_c2", "idle@2"} <= {
        x.id for x in seen(idler, smallest=1, selection=limits_of()).facts
    }
    cohort = seen(idler, smallest=2, selection=limits_of(known=())).facts
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
    observation = seen(found, smallest=1, selection=limits_of(), may_stop=True)
    schema = decodable(schema_of(observation))
    choice = schema["$defs"]["ClientSelectionProposal"]["properties"]
    assert choice["rule"]["enum"] == list(RULES[:4])
    assert choice["exclude"]["items"] == {"const": "c2", "type": "string"}
    assert choice["exploration"]["minimum"] == 0.1
    assert schema["properties"]["action"]["enum"] == ["continue", "stop"]
    said = {
        **{name: 0.01 if name == "lr" else 4 for name in observation.bounds},
        "abstain": False,
        "expected": 1.5,
        "margin": 0.5,
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
    assert "exclude" not in selection_model(limits_of(most_excluded=0)).model_fields
