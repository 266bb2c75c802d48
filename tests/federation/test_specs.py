"""Quantities that are declared once: the schedule of the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.config import Config, set_key
from federation.errors import ConfigError
from federation.specs import ScheduleSpec

KINDS = ("constant", "cosine", "linear", "wsd")


@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.floats(0, 0.999),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_no_round_has_more_than_the_configured_rate(kind, rounds, warmup, decay, floor):
    spec = ScheduleSpec(kind=kind, warmup=warmup, decay=decay, floor=floor)
    for round in range(rounds):
        assert 0 < spec.factor(round, rounds) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_that_warm_up_almost_fills_is_at_the_full_rate(kind: str):
    spec = ScheduleSpec.model_validate({"kind": kind, "warmup": 0.98})
    assert spec.factor(9, 10) == 1.0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rounds=0", "rounds must be a whole number from 1 to 1000000 (rounds of send,"),
        ("rounds='two'", "), got 'two'"),
        ("rounds=1.5", "rounds must be a whole number from 1 to 1000000 (rounds of send,"),
        ("work.lr='x'", "work.lr must be a finite number above 0 and at most 10 (client learning"),
        ("work.lr=nan", "per optimizer step), got nan"),
        ("work.momentum=1", "work.momentum must be a finite number of at least 0 and below 1"),
        ("work.keep_optimizer=3", "work.keep_optimizer must be true or false"),
        ("work=3", "work must be a table, got 3"),
        ("work.lr.x=1", "per optimizer step), got a table"),
        ("adapter.targets='q_proj'", "adapter.targets must be 'all-linear' or a list (names of"),
        ("adapter.targets=['']", "adapter.targets.0 must be text that is not empty, got ''"),
        ("adapter.kind='x'", "adapter.kind must be"),
        ("adapter.kind='x'", "'lora', 'full'"),
        ("engine.chunk='foo'", "engine.chunk must be a whole number or 'auto' (clients trained"),
        ("evaluation.metrics=[]", "evaluation.metrics must be a list of 1 or more"),
        ("model.dtype='float16'", "model.dtype must be 'auto', 'bfloat16', 'float32' or 'float64'"),
        ("algorithm.name=3", "algorithm.name must be text"),
        ("foo=1", "unknown key foo"),
        ("wrok.lr=1", "unknown key wrok; did you mean work?"),
        ("learning_rate=1", "unknown key learning_rate"),
        ("work.learning_rate=1", "unknown key work.learning_rate; work has batch_size, beta1,"),
        ("lr=1", "unknown key lr; did you mean work.lr?"),
        ("data={source='x.jsonl',count=3}", "count is of source = 'organisations' alone"),
    ],
)
def test_what_cannot_be_is_said_in_our_words(override: str, words: str):
    table: dict = {}
    set_key(table, override)
    with pytest.raises(ConfigError) as refused:
        Config.from_table(table)
    said = str(refused.value)
    assert words in said and "nput should" not in said and "\n" not in said
    assert not said.endswith("?") or "cohort" not in said
