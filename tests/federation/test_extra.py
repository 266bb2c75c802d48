"""Rows that are only trained on, and training that starts from an adapter."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from federation.config import Config
from federation.data.dataset import FederatedData, load_data
from federation.data.splits import left_out
from federation.errors import ConfigError, DataError
from federation.experiment import resume, run_experiment, set_up
from federation.runs.peft_files import load_adapter
from federation.runs.records import StartRecord
from federation.session import Watch
from federation.training.base import load_tokenizer
from tests.tiny_worlds import World, tiny_world, write_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return tiny_world(tmp_path_factory.mktemp("extra"))


def row(client: str, number: int) -> dict[str, str]:
    return {
        "client": client,
        "kind": "odd",
        "question": f"made up {number}",
        "answer": str(number),
    }


def configured(world: World, *more: str) -> Config:
    return Config.from_toml(world.config, more)


def load(world: World, tmp_path: Path, *more: str) -> FederatedData:
    tokenizer = load_tokenizer(str(world.base))
    return load_data(configured(world, *more), tokenizer, Path.cwd(), tmp_path / "cache")


def texts(data: FederatedData, rows: np.ndarray) -> list[str]:
    return [data.corpus.examples[int(i)].prompt for i in rows]


def test_extra_rows_are_trained_on_by_those_they_name_and_tested_on_by_nobody(world, tmp_path):
    rows = [row("client-9", 1), row("client-2", 2), row("client-10", 3), row("client-9", 4)]
    extra = write_rows(tmp_path / "made.jsonl", rows)
    unseen = "data.clients.unseen=1"
    before = load(world, tmp_path, unseen)
    after = load(world, tmp_path, unseen, f"data.extra={extra}")
    for name in ("validation", "test", "unseen"):
        old, new = getattr(before.splits, name), getattr(after.splits, name)
        assert all((old.rows(c) == new.rows(c)).all() for c in old.names)
        assert len(old.order) == len(new.order)
    assert (before.splits.global_test == after.splits.global_test).all()
    train = after.splits.train
    assert train.names == (*before.splits.train.names, "client-9", "client-10")
    assert texts(after, train.rows("client-9")) == ["made up 1", "made up 4"]
    assert texts(after, train.rows("client-2"))[-1] == "made up 2"
    old = texts(before, before.splits.train.rows("client-2"))
    assert texts(after, train.rows("client-2"))[:-1] == old
    assert after.splits.test.names == after.splits.validation.names == train.names
    assert after.splits.brought == ("client-9", "client-10") and not after.splits.untested
    (said,) = left_out(after.judged)
    assert said.startswith("2 clients have rows of data.extra alone") and "'client-10'" in said
    assert left_out(before.judged) == []
    assert len(after.clients.order) == 54 and len(set(after.clients.order.tolist())) == 54


def test_extra_rows_are_read_under_the_names_of_the_data(world, tmp_path):
    plain = [row("client-2", 1), row("client-9", 2)]
    theirs = {"client": "owner", "question": "ask", "answer": "say"}
    other = [{theirs.get(name, name): value for name, value in x.items()} for x in plain]

    def load_one(rows: list[dict[str, str]], *more: str) -> FederatedData:
        made = write_rows(tmp_path / "made.jsonl", rows)
        return load(world, tmp_path, f"data.extra={made}", *more)

    named = "data.extra_fields={" + ", ".join(f'{k} = "{v}"' for k, v in theirs.items()) + "}"
    same, renamed = load_one(plain), load_one(other, named)
    for client in ("client-2", "client-9"):
        ours, rows = same.splits.train.rows(client), renamed.splits.train.rows(client)
        assert texts(renamed, rows) == texts(same, ours)
    with pytest.raises(DataError, match=r"has no 'client'.*data\.extra_fields"):
        load_one(other)
    with pytest.raises(DataError, match="'question'"):  # a name that nothing has is no empty text
        load_one(other, named.replace('"ask"', '"asks"'))


@pytest.mark.parametrize(
    ("rows", "more", "error", "words"),
    [
        ([row("client-0", 1)], ["data.clients.test_key=client-0"], DataError, "only tested"),
        ([row("", 1)], [], DataError, "has no 'client'"),
        ([row("x", 1)], ['data.clients={by="iid",count=2}'], ConfigError, "data.clients.by is"),
    ],
)
def test_extra_rows_that_cannot_be_given_to_anyone_are_refused(
    world, tmp_path, rows, more, error, words
):
    extra = write_rows(tmp_path / "made.jsonl", rows)
    with pytest.raises(error, match=words):
        load(world, tmp_path, f"data.extra={extra}", *more)


def test_extra_rows_of_a_client_that_is_held_out_are_refused(world, tmp_path):
    out = load(world, tmp_path, "data.clients.unseen=1").splits.unseen.names[0]
    extra = write_rows(tmp_path / "made.jsonl", [row(out, 1)])
    with pytest.raises(DataError, match=f"rows of '{out}'"):
        load(world, tmp_path, "data.clients.unseen=1", f"data.extra={extra}")


def test_a_run_with_extra_rows_judges_as_one_without(world, tmp_path):
    extra = write_rows(tmp_path / "made.jsonl", [row("new", i) for i in range(4)])
    run = run_experiment(
        configured(world, f"data.extra={extra}", "cohort.size=6", "rounds=1"),
        tmp_path / "run",
        cache=tmp_path / "cache",
    )
    assert "new" in run.rounds[0].record.clients
    (clients,) = (x for x in run.rounds[0].evaluations if x.split == "clients")
    assert "new" not in clients.per_client


def test_training_starts_from_an_adapter(world, tmp_path):
    warm = run_experiment(configured(world), tmp_path / "warm", cache=tmp_path / "cache")
    adapter = warm.export(tmp_path / "adapter")
    setup = set_up(configured(world, f"adapter.start={adapter}"), cache=tmp_path / "cache")
    assert torch.equal(setup.params, load_adapter(adapter, setup.task.trainable))
    assert not torch.equal(setup.params, set_up(configured(world), cache=tmp_path / "cache").params)
    on = run_experiment(
        configured(world, f"adapter.start={adapter}", "work.lr=1e-9"),
        tmp_path / "on",
        cache=tmp_path / "cache",
    )
    old, new = (run.evaluation["federated"]["nll"] for run in (warm, on))
    assert new == pytest.approx(old, abs=1e-4)


@pytest.mark.parametrize("more", [["adapter.start=nowhere"], ["adapter.rank=4"]])
def test_an_adapter_that_does_not_fit_is_refused(world, tmp_path, more):
    run = run_experiment(configured(world, "rounds=1"), tmp_path / "r", cache=tmp_path / "cache")
    start = f"adapter.start={run.path / 'adapter'}"
    with pytest.raises(ConfigError, match=r"nowhere|r is 2"):
        set_up(configured(world, start, *more), cache=tmp_path / "cache")


def interrupted(world: World, path: Path, cache: Path, *more: str) -> None:
    """Begin a run that stops before its first round."""

    class Stop(Exception):
        pass

    def record(record: object) -> None:
        if isinstance(record, StartRecord):
            raise Stop

    with pytest.raises(Stop):
        run_experiment(configured(world, *more), path, cache=cache, watch=Watch(record=record))


@pytest.mark.parametrize("what", ["adapter", "base model"])
def test_a_run_does_not_go_on_from_another_beginning(world, tmp_path, what):
    cache, base = tmp_path / "cache", shutil.copytree(world.base, tmp_path / "base")
    warm = run_experiment(configured(world, "rounds=1"), tmp_path / "warm", cache=cache)
    adapter = warm.export(tmp_path / "adapter")
    path = tmp_path / "run"
    interrupted(world, path, cache, f"adapter.start={adapter}", f"model.base={base}")
    weights = {"adapter": adapter / "adapter_model.safetensors"}
    file = weights.get(what, base / "model.safetensors")
    before, tensors = file.read_bytes(), load_file(file)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 0.01}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=f"the {what}.* changed since this run began"):
        resume(path, cache=cache)
    file.write_bytes(before)
    assert resume(path, cache=cache).status == "finished"
