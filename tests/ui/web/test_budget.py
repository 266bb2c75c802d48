"""What an experiment takes: counted, or said to be an estimate and from where."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from federation.config import Config
from ui.web.budget import budget, memory, pace_of
from ui.web.charts.mixes import MOST_CLIENTS, mix_frame, mixes

SIZES = {"down": 100, "up": 25, "base_bytes": 1000, "trained": 10}
CONFIG = Config.from_table(
    {
        "rounds": 3,
        "cohort": {"size": 4, "over_select": 1.5},
        "work": {"steps": 5, "batch_size": 2},
    }
)


def earlier(name: str, seconds: float, **model: Any) -> Any:
    rounds = {0: SimpleNamespace(seconds=seconds, client_steps=20)}
    config = {"model": {"base": "nano", **model}, "work": {"batch_size": 2}}
    history = SimpleNamespace(rounds=rounds)
    return SimpleNamespace(path=Path(name), config=config, history=history)


def test_steps_examples_and_bytes_are_counted():
    spent = budget(CONFIG, SIZES)
    assert (spent.client_steps, spent.examples) == (60, 120)
    assert (spent.down, spent.up) == (3 * 6 * 100, 3 * 4 * 25)
    assert (spent.tokens, spent.most_tokens) == (None, 120 * 512)
    assert budget(CONFIG, SIZES, (), 10.0).tokens == 1200


def test_what_is_not_known_is_not_made_up():
    spent = budget(CONFIG, {})
    assert (spent.down, spent.up, spent.seconds, spent.like) == (None, None, None, "")


def test_seconds_are_those_of_a_run_on_the_same_model():
    runs = [earlier("other", 999.0, base="big"), earlier("mine", 8.0), earlier("older", 80.0)]
    spent = budget(CONFIG, SIZES, runs)
    assert spent.like == "mine"
    assert spent.seconds == pytest.approx(8.0 / 40 * 120)


def test_a_run_without_steps_has_no_pace():
    run = earlier("x", 1.0)
    run.history.rounds[0].client_steps = 0
    assert pace_of(run) is None


def test_memory_counts_moments_only_where_there_are_some():
    sgd = Config.from_table({"work": {"optimizer": "sgd"}})
    assert memory(CONFIG, SIZES, 3) == 1000 + 3 * 10 * 4 * 4
    assert memory(sgd, SIZES, 3) == 1000 + 3 * 10 * 4 * 2


def client(name: str, **labels: int) -> dict[str, Any]:
    return {"client": name, "labels": labels, "examples": sum(labels.values())}


def test_shares_of_a_client_sum_to_one_and_nobody_is_lost_in_silence():
    many = [client(f"c{i}", **{f"l{j}": i + j + 1 for j in range(40)}) for i in range(60)]
    frame, more = mix_frame(many)
    assert more == 60 - MOST_CLIENTS
    shares: dict[str, float] = {}
    for name, share in zip(frame["client"], frame["share"], strict=True):
        shares[name] = shares.get(name, 0.0) + share
    assert list(shares.values()) == pytest.approx([1.0] * MOST_CLIENTS)
    assert mixes(frame, "topic").to_dict()["mark"]["type"] == "rect"
