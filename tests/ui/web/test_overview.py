"""The table of runs: every figure is of the records, and an empty column is none."""

from pathlib import Path

import pytest

from agents.privacy import spent
from tests.ui.web.made_uichat import steered
from tests.ui.web.recorded import record
from ui.web.lift import Lift
from ui.web.overview import COLUMNS, rows
from ui.web.store import Opened, Shelf


def shown(folder: Path, **more):
    return rows([(o, o.status) for o in Shelf(folder).opened()], **more)


def opened(folder: Path, name: str) -> Opened:
    return Shelf(folder).open(name)


def test_columns_without_a_value_are_left_out(tmp_path: Path) -> None:
    record(tmp_path / "one")
    there = set(shown(tmp_path).columns)
    assert {"run", "status", "trend", "loss", "match", "policy", "traffic"} <= there
    assert not there & {"lift", "interval", "tokens", "thinking", "epsilon", "tags"}
    assert "policy" in set(shown(tmp_path, wanted="no such run").columns)  # no column jumps


def test_what_a_model_cost_is_that_of_the_decisions(tmp_path: Path) -> None:
    steered(tmp_path / "asked")
    record(tmp_path / "ruled")
    table = shown(tmp_path).set_index("run")
    assert table.loc["asked", "tokens"] == 8 * 812
    assert table.loc["asked", "thinking"] == pytest.approx(8 * 0.4)
    assert table.loc["ruled"].isna()[["tokens", "thinking"]].all()


def test_what_noise_guarantees_is_the_accountants(tmp_path: Path) -> None:
    noisy = {"clip": 1.0, "noise": 1.0}
    record(tmp_path / "three", done=3, rounds=6, end=None, upload=noisy)
    record(tmp_path / "six", upload=noisy)
    record(tmp_path / "open")
    table = shown(tmp_path).set_index("run")
    told = spent(opened(tmp_path, "six").run)
    assert told is not None and table.loc["six", "epsilon"] == told.epsilon > 1
    assert table.loc["three", "epsilon"] < told.epsilon
    assert table.loc["open"].isna()["epsilon"]


def test_a_lift_stands_beside_its_interval(tmp_path: Path) -> None:
    record(tmp_path / "one")
    record(tmp_path / "two")
    lift = Lift(-0.02, -0.07, 0.03, 4, "inconclusive", "nats per token", "runs here")
    table = shown(tmp_path, lifts={"one": lift}).set_index("run")
    assert table.loc["one", "lift"] == -0.02
    assert table.loc["one", "interval"] == "-0.070 to +0.030"
    assert table.loc["two"].isna()[["lift", "interval"]].all()


def test_statuses_and_words_filter_together(tmp_path: Path) -> None:
    record(tmp_path / "good")
    record(tmp_path / "bad", end="failed")
    assert list(shown(tmp_path, states=["failed"])["run"]) == ["bad"]
    assert list(shown(tmp_path, states=["failed"], wanted="good")["run"]) == []


def test_traffic_has_the_unit_of_every_page(tmp_path: Path) -> None:
    run = opened(tmp_path, record(tmp_path / "one").name).run
    traffic = shown(tmp_path).set_index("run").loc["one", "traffic"]
    assert traffic * 2**20 == run.bytes_up + run.bytes_down
    assert COLUMNS["traffic"]["type_config"]["format"].endswith(" MiB")  # type: ignore[index]
