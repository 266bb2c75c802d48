"""A fork goes on from its parent's round: to the same bits unless something is otherwise."""

import json
import shutil
from pathlib import Path

import pytest

from agents.experiment import fork, replay, resume, run_experiment
from federation.config import Config
from federation.errors import ConfigError, CorruptError
from federation.runs.records import DecisionRecord, ForkRecord
from federation.runs.run import Run, problems
from federation.session import Watch
from federation.whatif import what_if
from tests.tiny_worlds import World, tiny_world

PILOT = {"policy": "null", "bounds": {"lr": [1e-3, 0.1]}}
SCAFFOLD = ('algorithm.name="scaffold"', 'work.optimizer="sgd"')


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def played(world: World, out: Path, *more: str, pilot: dict | None = None) -> Run:
    config = Config.from_toml(world.config, ["rounds=5", "engine.chunk=2", *more])
    config = config.model_copy(update={"pilot": pilot or {}})
    return run_experiment(config, out, cache=world.folder / "cache")


@pytest.fixture(scope="module")
def parent(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Clients keep something, a pilot decides."""
    out = tmp_path_factory.mktemp("runs") / "parent"
    return played(world, out, *SCAFFOLD, pilot=PILOT)


def states(run: Run) -> list[str | None]:
    return [x.checkpoint_sha256 for x in run.history.rounds.values()]


def decided(run: Run) -> list[object]:
    return [x.model_dump(exclude={"seconds"}) for x in run.history.decisions.values()]


def test_a_fork_without_a_change_reaches_its_parent_s_bits(world, parent, tmp_path):
    out = tmp_path / "fork"
    run = fork(parent.path, out, 2, cache=world.folder / "cache")
    assert states(run) == states(parent) and decided(run) == decided(parent)
    assert run.history.fork is not None and run.history.fork.memory
    assert run.history.fork.state_sha256 == parent.history.rounds[2].checkpoint_sha256
    assert run.history.fork.changed == ()
    assert problems(out) == [] and (run.status, run.rounds_planned) == ("finished", 5)
    before = (parent.path / "journal.jsonl").read_bytes()
    assert (out / "journal.jsonl").read_bytes().startswith(before[:1000])
    assert not list(tmp_path.glob(".fork-*"))


def test_what_is_otherwise_begins_after_the_round(world, parent, tmp_path):
    cache = world.folder / "cache"
    run = fork(parent.path, tmp_path / "fork", 2, overrides=["work.batch_size=1"], cache=cache)
    assert states(run)[:3] == states(parent)[:3] and states(run)[3] != states(parent)[3]
    assert run.history.fork is not None
    assert (run.history.fork.changed, run.history.fork.memory) == (("work.batch_size",), True)
    again = replay(run.path, tmp_path / "again", cache=cache)
    assert states(again) == states(run) and problems(again.path) == []


def test_a_fork_that_lasts_longer_is_repeated_after_its_first_checkpoints_went(
    world, parent, tmp_path
):
    cache = world.folder / "cache"
    run = fork(parent.path, tmp_path / "fork", 3, rounds=6, cache=cache)
    assert len(run.rounds) == 10 and states(run)[4] == states(parent)[4]
    shutil.copytree(run.path, tmp_path / "moved")  # the parent is not needed
    again = replay(tmp_path / "moved", tmp_path / "again", cache=cache)
    assert states(again) == states(run)


def test_a_fork_of_a_fork_with_another_algorithm_begins_clients_afresh(world, parent, tmp_path):
    cache = world.folder / "cache"
    other = ['algorithm.name="fedadam"', "algorithm.server_lr=0.01"]
    run = fork(parent.path, tmp_path / "a", 2, overrides=other, rounds=2, cache=cache)
    assert run.history.fork is not None and not run.history.fork.memory
    assert problems(run.path) == [] and len(run.rounds) == 5
    inner = fork(run.path, tmp_path / "b", 3, cache=cache)
    assert states(inner) == states(run)
    same = fork(run.path, tmp_path / "c", 2, cache=cache)
    assert states(same) == states(run) and problems(same.path) == []


def test_a_fork_that_was_stopped_goes_on_to_the_same_bits(world, parent, tmp_path):
    cache = world.folder / "cache"

    def stop(record: object) -> None:
        if isinstance(record, DecisionRecord) and record.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fork(parent.path, tmp_path / "torn", 2, cache=cache, watch=Watch(record=stop))
    assert states(resume(tmp_path / "torn", cache=cache)) == states(parent)


def test_noise_is_never_used_twice(world, tmp_path):
    noisy = played(world, tmp_path / "noisy", "upload.clip=0.1", "upload.noise=1.0")
    run = fork(noisy.path, tmp_path / "fork", 2, cache=world.folder / "cache")
    key = "noise.key"
    assert (run.path / key).read_bytes() != (noisy.path / key).read_bytes()
    assert states(run)[:3] == states(noisy)[:3] and states(run)[3] != states(noisy)[3]


@pytest.mark.parametrize(
    ("round", "how", "words"),
    [
        (0, {}, "has no checkpoint of round 1; rounds that can be forked from: 3, 4, 5"),
        (9, {}, "has no checkpoint of round 10"),
        (4, {}, "none is left after round 5; say how many are to follow: --rounds N"),
        (2, {"rounds": 0}, "--rounds 0: at least 1"),
        (2, {"overrides": ["seed=1"]}, "a fork has its parent's seed"),
        (2, {"overrides": ["adapter.rank=4"]}, "a fork has its parent's adapter.rank"),
        (2, {"overrides": ["work.lrr=1"]}, "unknown key work.lrr; did you mean work.lr?"),
        (2, {"overrides": ["algorithm.name=centralised", "cohort.size=1"]}, "its parent's clients"),
        (2, {"overrides": ["rounds=2"]}, "planned 2 rounds, none is left after round 3"),
    ],
)
def test_what_cannot_be_forked_is_refused(round, how, words, parent, world, tmp_path):
    with pytest.raises(ConfigError) as refused:
        fork(parent.path, tmp_path / "fork", round, cache=world.folder / "cache", **how)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "fork").exists()


def test_a_place_in_use_and_a_damaged_checkpoint_are_refused(parent, world, tmp_path):
    with pytest.raises(ConfigError, match="holds a run"):
        fork(parent.path, parent.path, 2, cache=world.folder / "cache")
    broken = Path(shutil.copytree(parent.path, tmp_path / "broken"))
    file = broken / "state" / "round-0002.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match=r"round-0002\.safetensors is damaged"):
        fork(broken, tmp_path / "fork", 2, cache=world.folder / "cache")
    assert not (tmp_path / "fork").exists() and not list(tmp_path.glob(".fork-*"))


def test_a_what_if_of_a_parent_s_round_is_asked_of_the_parent(world, parent, tmp_path):
    run = fork(parent.path, tmp_path / "fork", 3, cache=world.folder / "cache")
    with pytest.raises(ConfigError, match="is a fork, round 4 is its parent's: ask of"):
        from federation.changes import Change

        what_if(run.path, 3, Change(scale_lr=0.5), cache=world.folder / "cache")


def test_a_changed_configuration_of_a_fork_is_noticed(world, parent, tmp_path):
    run = fork(parent.path, tmp_path / "fork", 3, cache=world.folder / "cache")
    file = run.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 9}))
    assert any("config.json was changed" in what for what in problems(run.path))
    assert any(isinstance(x.record, ForkRecord) for x in run.entries)
