"""Explanations say what the record says, and nothing else gets through."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.claims import NUMBER, Claim, as_text, unsupported
from agents.explain import explained
from federation.errors import ConfigError
from federation.runs.records import (
    ContributionsRecord,
    Effect,
    RollbackRecord,
    RoundRecord,
    WhatIfRecord,
)
from federation.runs.run import History
from tests.agents.histories import CLIENTS, history, seen


def test_a_round_is_told_in_sentences():
    claims, _ = explained(history([3.0, 2.7512], lrs=[0.01, 0.005]), 1)
    assert as_text(claims) == (
        "Round 2: training loss 2.751 nats per token, 0.249 lower than in the round before. "
        "Client learning rate: 0.01 to 0.005, decided by heuristic: no reason given. "
        "Hypothesis, not tested: the training loss fell because of the new client learning rate."
    )
    assert [claim.kind for claim in claims] == ["change", "decision", "hypothesis"]


def test_a_round_is_named_once_in_a_row():
    texts = ["Round 2: a 1.", "Round 2: b 2.", "Client learning rate: x.", "Round 3: c."]
    claims = [Claim(kind="change", text=text, cites=()) for text in texts]
    assert as_text(claims) == "Round 2: a 1. B 2. Client learning rate: x. Round 3: c."


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (CLIENTS, "than in the round before. "),
        (
            ("ward-c", "ward-d"),
            "than in the round before; clients in both: 1, of 2 now and 3 then. ",
        ),
        (("ward-d", "ward-e"), "than in the round before; other clients trained then. "),
    ],
)
def test_losses_of_other_clients_are_not_compared_in_silence(others, words):
    found, work = history([3.0]), history([3.0, 2.0], clients=others)
    found.add(work.decisions[1])
    found.add(work.rounds[1])
    claims, facts = explained(found, 1)
    assert words in as_text(claims) + " "
    wrong = claims[0].model_copy(update={"text": claims[0].text.replace("1, of 2", "1, of 7")})
    assert bool(unsupported(wrong, facts)) is ("in both" in words)


def test_who_did_not_report_is_a_risk():
    found = history([3.0, 2.0])
    found.add(
        RoundRecord(round=1, clients=("ward-a", "ward-b"), loss={"ward-a": 2.0, "ward-b": 2.2})
    )
    claims, _ = explained(found, 1)
    assert "1 of 3 clients did not report." in [c.text for c in claims if c.kind == "risk"]


@pytest.mark.parametrize("round", [-1, 2, 99])
def test_a_round_that_was_not_played_cannot_be_explained(round):
    with pytest.raises(ConfigError, match="rounds 1 to 2 were played"):
        explained(history([3.0, 2.0]), round)


ELSEWHERE = 91_733.137  # farther than any fact: a changed number is never another true one


@settings(max_examples=200, deadline=None)
@given(
    losses=st.lists(st.floats(1e-3, 30), min_size=2, max_size=6),
    lrs=st.lists(st.floats(1e-6, 1.0), min_size=6, max_size=6),
    data=st.data(),
)
def test_every_number_checks_out_and_a_changed_one_does_not(losses, lrs, data):
    found = history(losses, lrs=lrs[: len(losses)])
    claims, facts = explained(found, len(losses) - 1)
    for claim in claims:
        assert unsupported(claim, facts) == []
        numbers = list(NUMBER.finditer(claim.text))
        if numbers:
            match = data.draw(st.sampled_from(numbers))
            other = f"{float(match[0]) * 1.5 + ELSEWHERE:.3f}"
            text = claim.text[: match.start()] + other + claim.text[match.end() :]
            assert unsupported(claim.model_copy(update={"text": text}), facts) != []


@settings(max_examples=200, deadline=None)
@given(
    losses=st.lists(st.floats(1e-3, 30), min_size=2, max_size=4),
    turned=st.lists(st.floats(1e-3, 10), min_size=4, max_size=4),
    missing=st.integers(0, 2),
    diverged=st.booleans(),
    rules=st.lists(st.sampled_from(["uniform", "oort"]), min_size=4, max_size=4),
    reason=st.text(st.characters(codec="ascii"), max_size=400),
    last=st.booleans(),
    data=st.data(),
)
def test_whatever_was_decided_every_number_checks_out_and_a_changed_one_does_not(
    losses, turned, missing, diverged, rules, reason, last, data
):
    """Settings, choices, early ends, clients that are lost, and reasons full of numbers."""
    found = history(losses)
    for n, decision in found.decisions.items():
        choice = {"rule": rules[n], "candidates": 2, "exploration": 0.1, "exclude": []}
        more = {"settings": {"server_lr": turned[n]}, "details": {"selection": choice}}
        more |= {"reason": reason, "last": last and n == len(losses) - 1}
        found.decisions[n] = decision.model_copy(update=more)
        lost = dict.fromkeys(CLIENTS[:missing], "diverged: no number" if diverged else "late")
        left = {c: x for c, x in found.rounds[n].loss.items() if c not in lost}
        changed = {"clients": tuple(left), "loss": left, "missing": lost}
        found.rounds[n] = found.rounds[n].model_copy(update=changed)
    claims, facts = explained(found, len(losses) - 1)
    for claim in claims:
        assert unsupported(claim, facts) == []
        for match in NUMBER.finditer(claim.text):
            other = f"{float(match[0]) * 1.5 + ELSEWHERE:.3f}"
            text = claim.text[: match.start()] + other + claim.text[match.end() :]
            assert unsupported(claim.model_copy(update={"text": text[:400]}), facts) != []
    assert len(claims) >= 1 and (not last or "ends after this round" in as_text(claims))


def test_a_fact_that_is_not_there_cannot_be_cited():
    _, facts = explained(history([3.0, 2.0]), 1)
    claim = Claim(kind="change", text="All is well.", cites=("joy@1",))
    assert unsupported(claim, facts) == ["joy@1 is no fact"]


@pytest.mark.parametrize("text", ["accuracy rose by 12 points", "loss 2.75", "-0.3", "1e-3"])
def test_numbers_are_found_wherever_they_stand(text):
    assert re.search(NUMBER, text)


# --- What was tested ---------------------------------------------------------------------------


def test_a_number_at_the_end_of_a_sentence_is_checked_too():
    _, facts = explained(history([3.0, 2.5]), 1)
    claim = Claim(kind="change", text="The loss came to 7.", cites=("loss@1",))
    assert unsupported(claim, facts) == ["7 is in no cited fact"]
    assert unsupported(claim.model_copy(update={"text": "The loss came to 2.50."}), facts) == []


def what_if(change: dict, effect: Effect, **more) -> WhatIfRecord:
    values = effect.values
    return WhatIfRecord(
        round=more.pop("round", 1),
        rounds=more.pop("rounds", 1),
        change=change,
        was=(2.0,) * len(values),
        would_be=tuple(2.0 + x for x in values),
        effect=effect,
        updates="kept",
        reproduced=True,
        same=False,
    )


SHOWN = Effect(mean=0.25, low=0.2, high=0.3, values=(0.25, 0.25))
UNCLEAR = Effect(mean=0.25, low=-0.1, high=0.6, values=(0.5, 0.0))
ONCE = Effect(mean=0.25, values=(0.25,))


def test_a_cause_is_tested_once_a_what_if_took_it_back():
    found = history([3.0, 2.7512], lrs=[0.01, 0.005])
    found.add(what_if({"scale_lr": 2.0}, SHOWN))
    claims, facts = explained(found, 1)
    assert [claim.kind for claim in claims] == ["change", "decision", "tested"]
    assert claims[-1].text == (
        "Tested: with the client learning rate as in the round before, the test loss would have"
        " been 2.2500 instead of 2.0000 nats per token, a difference between 0.2000 and 0.3000."
    )
    assert set(claims[-1].cites) <= facts.keys()


@pytest.mark.parametrize(
    "test",
    [
        what_if({"scale_lr": 3.0}, SHOWN),
        what_if({"scale_lr": 2.0, "steps": 4}, SHOWN),
        what_if({"scale_lr": 2.0}, SHOWN, round=0),
        what_if({"steps": 8}, SHOWN),
    ],
)
def test_another_question_does_not_test_a_cause(test):
    found = history([3.0, 2.7512], lrs=[0.01, 0.005])
    found.add(test)
    assert "hypothesis" in [claim.kind for claim in explained(found, 1)[0]]


def test_an_interval_around_zero_shows_nothing_and_once_is_no_interval():
    found = history([3.0, 2.5])
    found.add(what_if({"clip": 1.0}, UNCLEAR))
    found.add(what_if({"algorithm": "krum:byzantine=2"}, ONCE))
    tested = {c.text: c for c in explained(found, 1)[0] if c.kind == "tested"}
    clipped, krum = tested
    assert clipped.startswith("Tested: with updates clipped, ")
    assert clipped.endswith("between -0.1000 and 0.6000: no effect is shown.")
    assert krum.startswith("Tested: with krum as algorithm, ") and "difference" not in krum


def test_only_the_latest_answer_to_a_question_counts():
    found = history([3.0, 2.5])
    found.add(what_if({"clip": 1.0}, UNCLEAR))
    found.add(what_if({"clip": 2.0}, SHOWN))
    assert "no effect" not in as_text(explained(found, 1)[0])


OWN = (("a", 0.3), ("b", 0.31), ("c", 0.32), ("d", -2.0))


def shares(round: int = 1) -> ContributionsRecord:
    effects = {"ward-a": ONCE, "ward-b": Effect(mean=-0.5, values=(-0.5,))}
    return ContributionsRecord(
        round=round, was=(2.0,), effects=effects, updates="kept", reproduced=True
    )


def test_clients_have_no_names_and_few_of_them_are_not_told_of():
    found = history([3.0, 2.5])
    found.add(what_if({"drop": ["ward-a"]}, SHOWN))
    found.add(shares())
    claims, facts = explained(found, 1)
    assert "would have changed by -0.5000 to 0.2500." in as_text(claims)
    assert "without some of the clients" in as_text(claims)
    assert "ward" not in as_text(claims) + "".join(facts)
    told = explained(found, 1, smallest=2)
    assert "Tested" not in as_text(told[0])
    assert not [name for name in told[1] if name.startswith(("whatif", "contribution"))]


def test_a_report_without_work_is_a_risk_and_nobody_is_named():
    found = history([3.0, 2.5])
    assert "no work" not in as_text(explained(found, 1)[0])
    found.rounds[1] = found.rounds[1].model_copy(update={"idle": {"ward-b": "noise"}})
    claims, facts = explained(found, 1)
    assert facts["idle@1"].value == 1
    assert [x.text for x in claims if x.kind == "risk"] == [
        "Reports of 1 clients held no work of their own: nothing, noise, or what the model did"
        " before."
    ]
    assert "ward" not in as_text(claims) + "".join(facts)
    assert "no work" not in as_text(explained(found, 1, smallest=4)[0])


def test_a_report_that_spoils_rows_like_its_own_is_a_risk_and_nobody_is_named():
    own = {f"ward-{c}": Effect(mean=x, low=x - 0.1, high=x + 0.1, values=(x,)) for c, x in OWN}
    found = history([3.0, 2.5])
    found.add(shares().model_copy(update={"own": own}))
    claims, facts = explained(found, 1)
    assert facts["spoilers@1"].value == 1
    assert [x.text for x in claims if x.kind == "risk"] == [
        "Tested: reports of 1 clients spoil others' rows like their own, far beyond those of the"
        " rest."
    ]
    assert "ward" not in as_text(claims) + "".join(facts)
    assert "spoil" not in as_text(explained(found, 1, smallest=2)[0])


def test_what_was_tested_steers_nothing():
    """The test set judges: a policy sees nothing of it."""
    before = seen(history([3.0, 2.5]))
    found = history([3.0, 2.5])
    found.add(what_if({"clip": 1.0}, SHOWN))
    found.add(shares())
    assert seen(found).sha256 == before.sha256


# --- Rounds that were undone -------------------------------------------------------------------


def undone(losses: list[float], *, to: int | None, lrs: list[float], reason: str = "") -> History:
    found = history(losses, lrs=lrs)
    why = reason or "its training loss 9 is above 6"
    back = RollbackRecord(round=1, to=to, loss=losses[1], limit=6.25, reason=why)
    found.add(back)
    return found


def test_a_round_that_was_undone_is_told_with_its_facts():
    found = undone([3.0, 9.125], to=0, lrs=[0.01, 0.02])
    claims, facts = explained(found, 1)
    first = claims[0]
    assert first.kind == "risk" and first.text == (
        "Round 2 was undone: its training loss of 9.125 nats per token is above 6.25, the most that"
        " is allowed. The state after round 1 holds again."
    )
    assert first.cites == ("restored@1", "undone_loss@1", "undone_limit@1")
    assert (facts["restored@1"].value, facts["undone_loss@1"].value) == (1, 9.125)
    wrong = first.model_copy(update={"text": first.text.replace("9.125", "9.126")})
    assert unsupported(wrong, facts) == ["9.126 is in no cited fact"]


def test_a_loss_that_is_no_number_is_told_without_one_and_so_is_the_first_state():
    found = undone([3.0, math.nan], to=None, lrs=[0.01, 0.02], reason="no number in 3 of 4")
    text = explained(found, 1)[0][0].text
    assert text == (
        "Round 2 was undone: no number in some of some. The state before the first round holds"
        " again."
    )


def test_the_round_after_says_where_it_began_and_blames_no_knob():
    found = undone([3.0, 9.0, 2.9], to=0, lrs=[0.01, 0.02, 0.01])
    claims, _ = explained(found, 2)
    texts = [claim.text for claim in claims]
    assert "It began where the state after round 1 holds: round 2 was undone." in texts
    assert any(claim.kind == "decision" for claim in claims)
    assert not any(claim.kind == "hypothesis" for claim in claims)


def test_few_clients_hide_the_loss_of_an_undone_round():
    found = undone([3.0, 9.0], to=0, lrs=[0.01, 0.02])
    assert "undone_loss@1" not in explained(found, 1, smallest=4)[1]
