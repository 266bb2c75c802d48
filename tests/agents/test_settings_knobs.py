"""Knobs that are settings of an algorithm: open where it has them, applied round by round."""

from pathlib import Path

import pytest

from agents.experiment import replay, run_experiment
from agents.knobs import configured
from agents.seen import applied
from federation.config import Config
from federation.errors import ConfigError
from federation.runs.records import DecisionRecord
from federation.runs.run import ADAPTER, Run
from federation.session import Watch
from federation.whatif import contributions
from tests.tiny_worlds import World, tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, *overrides: str, **bounds: object) -> Config:
    plain = Config.from_toml(world.config, ["rounds=4", "engine.chunk=2", *overrides])
    return plain.model_copy(update={"pilot": {"policy": "null", "bounds": bounds}})


def adapter(run: Run) -> bytes:
    return (run.path / ADAPTER / "adapter_model.safetensors").read_bytes()


ADAM = ("algorithm.name=fedadam", "algorithm.server_lr=0.01")
PROX = ("algorithm.name=fedprox", "algorithm.mu=0.5")


@pytest.mark.parametrize(
    ("overrides", "knob", "bounds"),
    [(ADAM, "server_lr", [1e-3, 0.1]), (PROX, "mu", [0.05, 50.0])],
)
def test_a_setting_is_turned_explained_and_repeated(
    overrides, knob, bounds, world: World, tmp_path: Path
):
    cache = world.folder / "cache"
    run = run_experiment(config(world, *overrides, **{knob: bounds}), tmp_path / "run", cache=cache)
    decisions = run.history.decisions.values()
    values = [d.settings[knob] for d in decisions]
    assert len(set(values)) == 4 and values == [applied(d)[knob] for d in decisions]
    assert "decided by heuristic" in run.history.explanations[-1].text
    again = replay(run.path, tmp_path / "again", cache=cache)
    assert adapter(again) == adapter(run)
    # What was decided is what was done: without it the model is another.
    other = run_experiment(
        config(world, *overrides, lr=[0.01, 0.01]), tmp_path / "other", cache=cache
    )
    assert adapter(other) != adapter(run)


def test_a_what_if_plays_a_round_with_the_settings_that_were_decided(world: World, tmp_path: Path):
    cache = world.folder / "cache"
    wanted = config(world, *ADAM, "data.split.test=0.3", server_lr=[1e-3, 0.1])
    run = run_experiment(wanted, tmp_path / "run", cache=cache)
    assert contributions(run.path, 2, cache=cache).reproduced


def test_a_run_that_was_stopped_goes_on_with_the_settings_of_its_rounds(
    world: World, tmp_path: Path
):
    from agents.experiment import resume

    cache = world.folder / "cache"
    wanted = config(world, *ADAM, server_lr=[1e-3, 0.1])
    whole = run_experiment(wanted, tmp_path / "whole", cache=cache)

    def stop(record: object) -> None:
        if isinstance(record, DecisionRecord) and record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "torn", cache=cache, watch=Watch(record=stop))
    assert adapter(resume(tmp_path / "torn", cache=cache)) == adapter(whole)


@pytest.mark.parametrize(
    ("overrides", "bounds", "words"),
    [
        ((), {"server_lr": [0.1, 1.0]}, "pilot.bounds.server_lr: fedavg has no such setting"),
        (ADAM, {"mu": [0.1, 1.0]}, "pilot.bounds.mu: fedadam has no such setting"),
        (("algorithm.name=fedprox", "algorithm.mu=0.0"), {"mu": [0.1, 1.0]}, "or it is 0"),
        (PROX, {"mu": [1.0, 2.0]}, "the configured 0.5 is outside 1 to 2"),
        (
            ("upload.clip=1.0", "upload.noise=0.5"),
            {"cohort_size": [1, 3]},
            "decides how well upload.noise protects",
        ),
    ],
)
def test_a_setting_that_is_not_there_is_refused_in_one_line(
    overrides, bounds, words, world, tmp_path
):
    with pytest.raises(ConfigError, match=words) as refused:
        run_experiment(
            config(world, *overrides, **bounds), tmp_path / "x", cache=world.folder / "cache"
        )
    assert "\n" not in str(refused.value)


def test_what_a_configuration_says_of_a_setting(world: World):
    assert configured(config(world, "algorithm.name=diloco"))["server_lr"] == 0.7
    assert configured(config(world, *PROX))["mu"] == 0.5
    assert {"server_lr", "mu"}.isdisjoint(configured(config(world)))
