"""Reports without work: told by hand-made updates, and the same after a kill."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from federation.address import generator
from federation.config import Config
from federation.experiment import Setup, begin, set_up
from federation.idling import Past, alikeness, told
from federation.plan import Reports, RoundPlan
from federation.runs.history import riders
from federation.runs.records import RoundRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.specs import LocalWork
from federation.tree import Tree
from tests.tiny_worlds import World, tiny_world

P = 4000
STEPS = torch.full((6,), 4.0)


def drawn(*address: object, size: int = P) -> torch.Tensor:
    return torch.from_numpy(generator("idling", *address).standard_normal(size)).float()


def honest(clients: int = 6, shared: float = 0.6) -> torch.Tensor:
    """Updates that point partly the same way, as those of clients that learn something do."""
    own = torch.stack([drawn("own", i) for i in range(clients)])
    return shared * drawn("shared") + math.sqrt(1 - shared**2) * own


def ways() -> list[torch.Tensor]:
    return [drawn("shared") + drawn("way", i) for i in range(2)]


def test_honest_updates_are_not_idle_even_of_a_client_like_nobody_else():
    delta = honest()
    delta[5] = -0.3 * drawn("shared") + drawn("rare")
    assert told(delta, STEPS, ways()) == {}
    delta[5] = drawn("way", 1)  # as noise to the others, and where the model went
    assert told(delta, STEPS, ways()) == {}


@pytest.mark.parametrize(
    ("factor", "found"), [(0.0, {2: "nothing"}), (0.04, {2: "nothing"}), (0.1, {})]
)
def test_next_to_nothing_is_nothing(factor, found):
    delta = honest()
    delta[2] *= factor
    assert told(delta, STEPS, ways()) == found
    assert told(delta, STEPS, []) == found, "in the first round, too"


def test_who_was_asked_for_fewer_steps_is_measured_by_them():
    delta, steps = honest(), STEPS.clone()
    delta[2] *= 0.04
    steps[2] /= 20
    assert told(delta, steps, ways()) == {}


def test_noise_points_nowhere():
    delta = honest()
    delta[1] = drawn("noise")
    assert told(delta, STEPS, ways()) == {1: "noise"}
    assert told(delta, STEPS, []) == {}, "in the first round it is too early to tell"
    assert told(delta[:, :800], STEPS, [way[:800] for way in ways()]) == {}, "too few parameters"
    alone = torch.stack([drawn("own", i) for i in range(6)])
    assert told(alone, STEPS, ways()) == {}, "where nobody agrees, nobody stands out"


def test_a_step_of_the_model_is_a_copy_however_long_and_with_some_noise():
    for i, way in enumerate(ways()):
        delta = honest()
        delta[3] = 0.2 * way / way.norm() * (delta[0].norm()) + 0.02 * drawn("noise")
        assert told(delta, STEPS, ways()) == {3: "copy"}, i


def test_where_all_go_on_as_before_nobody_copies():
    """With little noise honest updates are all but the last step: who is closest is no rider."""
    delta = honest(shared=0.95)
    way = drawn("shared")
    cosines = torch.nn.functional.cosine_similarity(delta, way[None])
    assert cosines.min() > 0.8
    assert told(delta, STEPS, [way]) == {}
    delta[4] = way
    assert told(delta, STEPS, [way]) == {4: "copy"}


def test_alikeness_by_hand():
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    # Of the others: (0.6, 1.8), (1.6, 0.8), (1, 1).
    wanted = [0.6 / math.hypot(0.6, 1.8), 0.8 / math.hypot(1.6, 0.8), 1.4 / math.sqrt(2)]
    assert alikeness(unit).tolist() == pytest.approx(wanted)


def reports(delta: torch.Tensor) -> Reports:
    figures = torch.ones(len(delta), dtype=torch.float64)
    names = tuple(f"c{i}" for i in range(len(delta)))
    return Reports(names, {"delta": delta}, figures, figures, figures, figures)


def plan(steps: tuple[int, ...] | None = None) -> RoundPlan:
    names = tuple(f"c{i}" for i in range(6))
    return RoundPlan(0, 6, names, LocalWork(lr=0.1, steps=4), steps=steps)


def test_the_last_step_is_known_from_one_round_to_the_next():
    past, before = Past(torch.zeros(P)), drawn("before")
    delta = honest()
    assert past.idle(reports(delta), plan(), {"params": torch.zeros(P)}) == {}
    past.idle(reports(delta), plan(), {"params": before})
    now = before + drawn("step")
    delta[0] = now - before
    delta[1] = now  # the whole way
    assert past.idle(reports(delta), plan(), {"params": now}) == {"c0": "copy", "c1": "copy"}


def test_who_made_no_step_is_not_idle_and_of_two_nobody_is():
    delta = honest()
    delta[0] = delta[1] = 0
    past = Past(torch.zeros(P))
    found = past.idle(reports(delta), plan((0, 4, 4, 4, 4, 4)), {"params": torch.zeros(P)})
    assert found == {"c1": "nothing"}
    assert past.idle(reports(delta[1:3]), plan(), {"params": torch.zeros(P)}) == {}
    packed = replace(reports(delta), tree_C={"delta.code": delta})
    assert past.idle(packed, plan(), {"params": torch.zeros(P)}) == {}


def record(n: int, *idle: str) -> RoundRecord:
    return RoundRecord(round=n, clients=("a", "b", "c"), idle=dict.fromkeys(idle, "noise"))


def test_a_rider_is_idle_again_and_most_of_the_time():
    assert riders([record(0, "a")]) == {}
    assert riders([record(0, "a"), record(1, "a", "b"), record(2, "a", "b")]) == {"a": 3, "b": 2}
    assert riders([record(0, "a"), record(1), record(2, "a"), record(3)]) == {}, "half is not most"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


@dataclass
class Lazy:
    """An engine one of whose clients sends the model's last step."""

    engine: Any
    before: torch.Tensor | None = None

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        found, now = self.engine.train(sent, plan), sent["params"]
        if self.before is not None:
            found.tree_C["delta"][0] = now - self.before
        self.before = now.clone()
        return found


def played(
    setup: Setup, writer: RunWriter, rounds: int, before: torch.Tensor | None = None
) -> Lazy:
    """Go on with a run for some rounds."""
    session = begin(setup, writer, Watch())
    lazy: Any = Lazy(session.engine, before)
    session.engine = lazy
    for _ in range(rounds):
        session.play()
    return lazy


@pytest.mark.parametrize("first", [1, 3])
def test_a_run_tells_who_copies_and_tells_the_same_when_it_goes_on(world, tmp_path, first):
    config = Config.from_toml(world.config, ["rounds=5", "engine.chunk=5", "cohort.size=5"])
    setup = set_up(config, None, world.folder / "cache")
    with RunWriter.create(tmp_path / "whole", config.model_dump_json()) as writer:
        played(setup, writer, 5)
    whole = [record.idle for record in Run.open(tmp_path / "whole").history.rounds.values()]
    copies = [record.clients[0] for record in Run.open(tmp_path / "whole").history.rounds.values()]
    assert whole[0] == {} and whole[1:] == [{client: "copy"} for client in copies[1:]]
    with RunWriter.create(tmp_path / "parts", config.model_dump_json()) as writer:
        lazy = played(setup, writer, first)
    with RunWriter.reopen(tmp_path / "parts") as writer:
        played(setup, writer, 5 - first, lazy.before)
    assert [x.idle for x in Run.open(tmp_path / "parts").history.rounds.values()] == whole


def test_under_noise_nothing_is_told_of_single_reports(world, tmp_path):
    private = ["upload.clip=1.0", "upload.noise=0.5"]
    config = Config.from_toml(world.config, ["rounds=3", "cohort.size=5", *private])
    setup = set_up(config, None, world.folder / "cache")
    with RunWriter.create(tmp_path / "run", config.model_dump_json()) as writer:
        played(setup, writer, 3)
    assert [x.idle for x in Run.open(tmp_path / "run").history.rounds.values()] == [{}] * 3
