"""The pilot's commands on a real, tiny run."""

from pathlib import Path

import pytest

from tests.tiny_worlds import World
from tests.ui.conftest import Call


@pytest.fixture
def piloted(call: Call, world: World, tmp_path: Path) -> Path:
    config = tmp_path / "piloted.toml"
    pilot = '[pilot]\npolicy = "null"\nbounds = { lr = [1e-3, 0.1] }\n'
    config.write_text(world.config.read_text() + pilot)
    assert call("run", config, "--out", tmp_path / "run", "--set", "rounds=2").code == 0
    return tmp_path / "run"


def test_a_run_is_explained_and_repeated(call: Call, piloted: Path, tmp_path: Path):
    said = call("explain", piloted)
    assert said.code == 0
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["Round 1", "Round 2"]
    assert call("explain", piloted, "--round", "2").out == said.out.splitlines()[1] + "\n"
    claims = call("explain", piloted, "--json").json["rounds"][1]["claims"]
    assert {claim["kind"] for claim in claims} >= {"change", "decision"}

    again = call("replay", piloted, "--out", tmp_path / "again")
    assert again.code == 0
    assert f"{tmp_path / 'again'} has the bits of {piloted} in each of its 2 rounds" in again.out


def test_a_round_that_is_not_there_is_refused(call: Call, piloted: Path):
    call("explain", piloted, "--round", "3").refused(2, "no round 3", "it has rounds 1 to 2")
    call("explain", piloted, "--round", "0").refused(2, "no round 0")


def test_a_wrong_pilot_is_refused(call: Call, world: World, tmp_path: Path):
    config = tmp_path / "wrong.toml"
    config.write_text(world.config.read_text() + '[pilot]\npolicy = "guess"\n')
    call("run", config, "--out", tmp_path / "x").refused(2, "pilot.policy: 'guess' is unknown")
    assert not (tmp_path / "x").exists()
