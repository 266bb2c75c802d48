"""What is said where there is too little to say something of."""

import math

import pytest

from federation.runs.records import RoundRecord
from ui.commands.data import by_topic
from ui.progress import round_words


def test_rows_too_few_for_topics_are_of_one(capsys: pytest.CaptureFixture[str]):
    column = by_topic(["a word"], 1, seed=0)  # pyright: ignore[reportArgumentType]
    assert (list(column.codes), list(column.names)) == ([0], ["all"])
    assert capsys.readouterr().err.startswith("one topic for all rows: ")


def test_a_round_without_a_step_did_not_diverge():
    record = RoundRecord(
        round=0, clients=("a",), loss={"a": math.nan}, bytes_up=0, bytes_down=0, client_steps=0
    )
    assert "diverged" not in round_words(record) and "nobody made a step" in round_words(record)
    assert "loss diverged" in round_words(record.model_copy(update={"client_steps": 2}))
