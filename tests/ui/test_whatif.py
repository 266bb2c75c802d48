"""``fedpilot whatif`` on a real, tiny run."""

import shutil
from pathlib import Path

import pytest

from federation.runs.run import Run
from tests.tiny_worlds import World
from tests.ui.conftest import Call


@pytest.fixture(scope="module")
def kept(world: World, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ui.main import main

    out = tmp_path_factory.mktemp("kept") / "run"
    settings = ["engine.keep_updates=2", "engine.chunk=2"]
    assert main(["run", str(world.config), "--out", str(out), "--set", *settings]) == 0
    return out


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "run"))


def reported(run: Path, round: int = 2) -> tuple[str, ...]:
    return Run.open(run).history.rounds[round].clients


def test_a_client_is_left_out(call: Call, run: Path):
    client = reported(run)[0]
    said = call("whatif", run, "--round", 3, "--drop", client)
    assert said.code == 0
    texts = {line[:10].strip(): line[11:] for line in said.out.splitlines()}
    assert texts["what if"] == f"round 3, without {client}"
    assert " as it was, " in texts["test loss"] and " otherwise: " in texts["test loss"]
    assert texts["updates"] == "as the run kept them"
    values = call("whatif", run, "--round", 3, "--drop", client, "--json").json
    assert values["round"] == 3 and values["change"] == {"drop": [client]}
    assert values["reproduced"] and values["updates"] == "kept" and not values["same"]
    assert f"{values['was'][0]:.4f} as it was" in texts["test loss"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--scale-lr", 0.5, "--repeats", 2],
            ["0.5 times the learning rate", "trained again; 2 times"],
        ),
        (["--algorithm", "median"], ["combined by median", "kept them"]),
        (["--algorithm", "trimmedmean:trim=0.34"], ["combined by trimmedmean:trim=0.34"]),
        (["--clip", 0.01], ["updates clipped to 0.01", "kept them"]),
        (["--clip", 1e5], ["either way: the model is the same to the bit"]),
        (["--steps", 1, "--clip", 1.0], ["updates clipped to 1, 1 step each", "trained again"]),
    ],
)
def test_other_changes(flags: list[object], words: list[str], call: Call, run: Path):
    said = call("whatif", run, "--round", 3, *flags)
    assert said.code == 0, said.err
    for word in words:
        assert word in said.out
    assert "caution" not in said.out


def test_two_rounds_again(call: Call, run: Path):
    said = call(
        "whatif", run, "--round", 2, "--rounds", 2, "--reweight", f"{reported(run, 1)[0]}=3"
    )
    assert said.code == 0, said.err
    assert "rounds 2 to 3, reweighted " in said.out


def test_contributions(call: Call, run: Path):
    said = call("whatif", run, "--round", 3, "--contributions", "--repeats", 2)
    assert said.code == 0
    for client in reported(run):
        assert client in said.out
    assert "--repeats" not in said.out
    values = call("whatif", run, "--round", 3, "--contributions", "--json").json
    assert values["effects"].keys() == set(reported(run))
    own = values["own"] or values["effects"]
    worst = min(own, key=lambda name: own[name]["mean"])
    once = call("whatif", run, "--round", 3, "--contributions").out
    assert ("far beyond the others: nobody" in " ".join(once.split())) == bool(values["own"])
    assert "small differences may be luck; --repeats 5 gives intervals" in " ".join(once.split())
    assert once.index(worst) == min(once.index(client) for client in reported(run))


def test_other_commands_do_not_stumble(call: Call, run: Path, tmp_path: Path):
    before = call("show", run).out, call("explain", run).out.splitlines()[0]
    status = call("show", run, "--json").json
    assert call("whatif", run, "--round", 3, "--scale-lr", 0.5).code == 0
    assert call("whatif", run, "--round", 3, "--contributions").code == 0
    assert (call("show", run).out, call("explain", run).out.splitlines()[0]) == before
    assert call("show", run, "--json").json == status
    assert call("verify", run).code == 0
    assert call("resume", run).code == 0
    again = call("replay", run, "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert call("runs", tmp_path).code == 0


REFUSED = {
    "nothing": ([], "say what is otherwise: --drop"),
    "two questions": (["--contributions", "--clip", 1], "--contributions leaves out each client"),
    "contributions of rounds": (["--contributions", "--rounds", 2], "is about one round"),
    "contradiction": (["--drop", "a", "--reweight", "a=2"], "a is dropped and reweighted"),
    "two weights": (["--reweight", "a=2", "--reweight", "a=3"], "gives a two weights"),
    "no weight": (["--reweight", "a"], "--reweight a: write CLIENT=FACTOR"),
    "weight of a word": (["--reweight", "a=much"], "--reweight a=much: write CLIENT=FACTOR"),
    "negative weight": (["--reweight", "a=-1"], "must be a finite number above 0"),
    "no number": (["--clip", "tight"], "--clip"),
    "unknown client": (["--drop", "client-9"], "no client client-9 reported in round 3"),
    "unknown algorithm": (["--algorithm", "medain"], "did you mean 'median'?"),
    "too many rounds": (["--clip", 1, "--rounds", 9], "from round 3 on at most 1 can be played"),
    "no repeat": (["--clip", 1, "--repeats", 0], "repeats must be from 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked(name: str, call: Call, run: Path):
    flags, words = REFUSED[name]
    call("whatif", run, "--round", 3, *flags).refused(2, words)
    assert Run.open(run).history.whatifs == []


def test_rounds_and_runs_that_are_not_there(call: Call, run: Path, tmp_path: Path):
    call("whatif", run, "--round", 4, "--clip", 1).refused(2, "no round 4", "rounds 1 to 3")
    call("whatif", run, "--round", 0, "--clip", 1).refused(2, "no round 0")
    call("whatif", tmp_path / "x", "--round", 1, "--clip", 1).refused(2, "there is no such folder")


def test_without_a_round_it_is_about_the_last(call: Call, run: Path):
    assert call("whatif", run, "--clip", 1e5, "--json").json["round"] == 3
    two = call("whatif", run, "--clip", 1e5, "--rounds", 2, "--json").json
    assert (two["round"], two["rounds"]) == (2, 2)
    assert call("whatif", run, "--contributions", "--json").json["round"] == 3


def test_a_slip_in_a_clients_name_is_told_before_anything_is_loaded(call: Call, run: Path):
    said = call("whatif", run, "--drop", "client-9")
    said.refused(2, "no client client-9 reported in round 3")
    assert "loading" not in said.err


def test_a_run_in_use_is_left_alone(call: Call, run: Path):
    from federation.runs.writer import RunWriter

    with RunWriter.amend(run):
        said = call("whatif", run, "--round", 3, "--clip", 1)
        said.refused(7, "is being written by process", "another what-if: repeat this one when")
