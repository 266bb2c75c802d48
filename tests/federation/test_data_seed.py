"""The data seed holds a federation still while the run seed goes on drawing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from federation.cohort.planner import RulePlanner
from federation.config import Config
from federation.data.dataset import FederatedData, load_data
from federation.evaluation.assess import limited, most
from federation.experiment import Setup, set_up
from federation.training.base import load_tokenizer
from federation.training.engine import LocalEngine
from federation.training.memory import RamMemory
from tests.tiny_worlds import World, tiny_world

BUILT_IN = 'data={source="organisations",count=4,examples=60,max_tokens=192}'
PARTITIONS = {
    "key": ('data.clients={by="key",key="client",unseen=1}',),
    "iid": ('data.clients={by="iid",count=4,unseen=1}',),
    "dirichlet": ('data.clients={by="dirichlet",label="kind",alpha=0.5,count=4}',),
    "quantity": ('data.clients={by="quantity",alpha=0.5,count=4}',),
    "shards": ('data.clients={by="shards",label="kind",count=4}',),
    "topic": ('data.clients={by="topic",count=3}',),
    "built in": (BUILT_IN,),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return tiny_world(tmp_path_factory.mktemp("data-seed"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def told(data: FederatedData) -> Iterator[object]:
    """Yield everything that a federation is."""
    yield data.corpus.digest
    yield [(e.prompt, e.response) for e in data.corpus.examples]
    for part in (data.clients, *(getattr(data.splits, n) for n in SPLITS)):
        yield part.names, part.order.tolist(), part.bounds.tolist()
    yield data.splits.global_test.tolist()


SPLITS = ("train", "validation", "test", "unseen")


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_data_seed_alone_decides_who_holds_what(world: World, cache: Path, name: str):
    tokenizer = load_tokenizer(str(world.base))

    def federation(*seeds: str) -> list[object]:
        config = Config.from_toml(world.config, [*PARTITIONS[name], *seeds])
        fresh = cache / name / "-".join(seeds)  # what was read before would hide another reading
        return list(told(load_data(config, tokenizer, Path.cwd(), fresh)))

    first = federation("seed=1", "data.seed=7")
    assert federation("seed=2", "data.seed=7") == first
    assert federation("seed=7") == first  # omitted, it is the run's
    assert federation("seed=1") != first
    assert federation("seed=1", "data.seed=8") != first


def played(world: World, cache: Path, *seeds: str) -> tuple[Setup, RulePlanner, LocalEngine]:
    more = ['data.clients={by="iid",count=5}', "cohort.size=2", "evaluation.max_examples=3"]
    config = Config.from_toml(world.config, [*more, *seeds])
    setup = set_up(config, None, cache)
    planner = RulePlanner(config, setup.clients, setup.data.splits.train.sizes, 1000)
    return setup, planner, LocalEngine(setup.task, setup.data.train_rows, RamMemory())


def test_the_run_seed_goes_on_deciding_how_it_trains(world: World, cache: Path):
    one, two = (played(world, cache, f"seed={seed}", "data.seed=7") for seed in (1, 2))
    assert not torch.equal(one[0].params, two[0].params)
    cohorts = [[x[1].decide(n).clients for n in range(8)] for x in (one, two)]
    assert cohorts[0] != cohorts[1]
    plan = one[1].plan(one[1].decide(0))[0]
    plans = plan, replace(plan, seed=two[1].plan(two[1].decide(0))[0].seed)
    batches = [x[2].schedules(p) for x, p in zip((one, two), plans, strict=True)]
    assert not all(np.array_equal(a, b) for a, b in zip(*batches, strict=True))
    judged = [limited(x[0], "test", x[0].data.judged.test) for x in (one, two)]
    assert sum(map(len, judged[0].values())) == most(one[0]) == 3
    assert {k: v.tolist() for k, v in judged[0].items()} == {
        k: v.tolist() for k, v in judged[1].items()
    }


def test_another_data_seed_leaves_the_first_adapter_as_it_is(world: World, cache: Path):
    one, two = (played(world, cache, "seed=1", f"data.seed={n}") for n in (7, 8))
    assert torch.equal(one[0].params, two[0].params)
    cohorts = [[x[1].decide(n).clients for n in range(8)] for x in (one, two)]
    assert cohorts[0] == cohorts[1]


def test_a_run_under_another_seed_is_of_the_same_federation():
    config = Config.from_table({"seed": 3})
    assert (config.under(5).seed, config.under(5).data_seed) == (5, 3)
    assert config.under(5).under(6).data_seed == 3
    held = Config.from_table({"seed": 3, "data": {"seed": 9}})
    assert held.under(5).data_seed == 9
