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


def test_a_run_says_who_decided_and_that_its_model_was_of_no_use(
    call: Call, piloted: Path, tmp_path: Path
):
    script = tmp_path / "script.jsonl"
    script.write_text('{"answer": "no idea"}\n')
    steered = ["pilot.policy=llm", f"pilot.model=scripted:{script}", "rounds=2"]
    config = tmp_path / "piloted.toml"
    said = call("run", config, "--out", tmp_path / "advised", "--set", *steered)
    assert said.code == 0 and "pilot    2 decisions (fallback)" in said.out
    assert "no usable answer of the model in 2 of 2; newest: empty" in said.out
    assert f"why      fedpilot explain {tmp_path / 'advised'}" in said.out


def test_a_person_who_starts_a_run_reads_what_is_proposed(
    call: Call, piloted: Path, tmp_path: Path
):
    settings = ["pilot.policy=human", "pilot.patience=0.1", "rounds=1"]
    config = tmp_path / "piloted.toml"
    said = call("run", config, "--out", tmp_path / "asking", "--set", *settings)
    assert said.code == 0 and "plateau@1 proposes for round 1: everything as it is" in said.err
    assert f"fedpilot steer {tmp_path / 'asking'} approve round-1" in said.err


def test_a_round_that_is_not_there_is_refused(call: Call, piloted: Path):
    call("explain", piloted, "--round", "3").refused(2, "no round 3", "it has rounds 1 to 2")
    call("explain", piloted, "--round", "0").refused(2, "no round 0")


def test_a_wrong_pilot_is_refused(call: Call, world: World, tmp_path: Path):
    config = tmp_path / "wrong.toml"
    config.write_text(world.config.read_text() + '[pilot]\npolicy = "guess"\n')
    call("run", config, "--out", tmp_path / "x").refused(2, "pilot.policy: 'guess' is unknown")
    assert not (tmp_path / "x").exists()
