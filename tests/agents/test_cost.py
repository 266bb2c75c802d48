"""The pilot's own cost, without a model: at most 2 % of a round of the demo."""

from pathlib import Path
from time import process_time

from agents.experiment import run_experiment
from agents.pilot import PilotPlanner
from agents.spec import PilotSpec
from federation.config import Config
from federation.experiment import set_up
from tests.tiny_worlds import tiny_world
from ui.commands.demo import SETTINGS

ROUND = 2.0  # seconds of a processor: a round of the demo takes three and more


def test_deciding_and_explaining_a_round_takes_next_to_no_time(tmp_path: Path):
    """By the demo's own pilot, before every round of as many as the demo has."""
    (tmp_path / "world").mkdir()
    world, demo = tiny_world(tmp_path / "world"), Config.from_toml(SETTINGS)
    rounds = demo.rounds
    overrides = [f"rounds={rounds}", "engine.chunk=2", "work.lr=5e-3", "cohort.size=4"]
    plain = Config.from_toml(world.config, [*overrides, "work.steps=1"])
    # Made-up rows are decided on once, before the first round.
    pilot = {key: value for key, value in demo.pilot.items() if key != "synthetic"}
    config = plain.model_copy(update={"pilot": pilot})
    run = run_experiment(config, tmp_path / "run", cache=tmp_path / "cache")
    setup, spec = set_up(config, cache=tmp_path / "cache"), PilotSpec.of(config)
    assert spec is not None and spec.selection is not None
    planner, history = PilotPlanner(setup, run.history, 1000, spec), run.history
    began = process_time()
    for round in range(rounds):
        decision = planner.decide(round)
        assert list(planner.notes(history.rounds[round], decision))
        planner.learn(history.rounds[round], history.decisions[round])
    assert (process_time() - began) / rounds <= 0.02 * ROUND
