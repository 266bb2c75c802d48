"""Explanations say what the record says, and nothing else gets through."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.explain import NUMBER, Claim, as_text, explained, unsupported
from federation.errors import ConfigError
from federation.runs.records import RoundRecord
from tests.agents.histories import history


def test_a_round_is_told_in_sentences():
    claims, _ = explained(history([3.0, 2.7512], lrs=[0.01, 0.005]), 1)
    assert as_text(claims) == (
        "Round 2: training loss 2.751 nats per token, 0.249 lower than in the round before. "
        "Client learning rate: 0.01 to 0.005, decided by heuristic: no reason given. "
        "Hypothesis, not tested: the training loss fell because of the new client learning rate."
    )
    assert [claim.kind for claim in claims] == ["change", "decision", "hypothesis"]


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
            other = f"{float(match[0]) * 1.5 + 17:.3f}"
            text = claim.text[: match.start()] + other + claim.text[match.end() :]
            assert unsupported(claim.model_copy(update={"text": text}), facts) != []


def test_a_fact_that_is_not_there_cannot_be_cited():
    _, facts = explained(history([3.0, 2.0]), 1)
    claim = Claim(kind="change", text="All is well.", cites=("joy@1",))
    assert unsupported(claim, facts) == ["joy@1 is no fact"]


@pytest.mark.parametrize("text", ["accuracy rose by 12 points", "loss 2.75", "-0.3", "1e-3"])
def test_numbers_are_found_wherever_they_stand(text):
    assert re.search(NUMBER, text)
