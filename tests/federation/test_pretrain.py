"""Federated pre-training: a run like any other, that can be killed and gone on with."""

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from federation.errors import ConfigError, DataError
from federation.experiment import resume
from federation.pretraining.pretrain import pretrain
from federation.pretraining.recipe import Recipe, recipe_of, texts_of
from federation.runs.records import DecisionRecord, Record, RoundRecord
from federation.runs.run import Run, problems
from federation.session import Watch

ROUNDS, WORKERS = 3, 2
RECIPE = {
    "rounds": ROUNDS,
    "workers": WORKERS,
    "block": 32,
    "epochs": {"tinystories": 1.5},
    "model": {
        "vocabulary": 320,
        "hidden": 16,
        "layers": 1,
        "heads": 2,
        "intermediate": 16,
        "context": 64,
    },
    "work": {"steps": 2, "batch_size": 2, "lr": 0.01, "keep_optimizer": True},
    "schedule": {"kind": "linear"},
}


class Killed(Exception):
    """Stands in for the end of the process: nothing catches it and nothing is written after it."""


def recipe(**changed: object) -> Recipe:
    return Recipe.from_table({**RECIPE, **changed}, "test")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "tinystories").mkdir()
    names = ("Ann", "Bob", "Cleo", "Dan")
    stories = (f"{names[i % 4]} had {i} cakes. {names[i % 3]} ate {i % 7}." for i in range(80))
    (folder / "tinystories" / "tiny_stories_944k.txt").write_text("\n".join(stories))
    return folder


@pytest.fixture(scope="module")
def undisturbed(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run.  Only to be read."""
    return pretrain(recipe(), texts, tmp_path_factory.mktemp("runs") / "whole")


def killed_at(kill: Callable[[Record], bool]) -> Watch:
    def record(record: Record) -> None:
        if kill(record):
            raise Killed

    return Watch(record=record)


def after_round(round: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, RoundRecord) and record.round == round


def weights(run: Run) -> str:
    return hashlib.sha256((run.path / "model" / "model.safetensors").read_bytes()).hexdigest()


def checkpoints(run: Run) -> list[str | None]:
    return [x.record.checkpoint_sha256 for x in run.rounds]


def test_every_round_is_in_the_journal(undisturbed: Run):
    assert undisturbed.status == "finished" and problems(undisturbed.path) == []
    assert len(undisturbed.rounds) == ROUNDS
    for x in undisturbed.rounds:
        record = x.record
        assert record.clients == ("worker-0", "worker-1") and record.missing == {}
        assert all(map(math.isfinite, record.loss.values())) and record.loss.keys() == set(
            record.clients
        )
        assert record.seconds > 0 and record.client_steps == 2 * WORKERS
        assert record.tokens == 2 * 2 * 31 * WORKERS  # the first token of a block is not predicted
        assert all(norm > 0 for norm in record.update_norms.values())
        assert record.bytes_up == record.bytes_down > 0
    first, last = (undisturbed.rounds[i].record.loss["worker-0"] for i in (0, -1))
    assert last < first


def test_the_decided_learning_rate_follows_the_schedule(undisturbed: Run):
    spec = recipe()
    for x in undisturbed.rounds:
        assert x.decision is not None and x.decision.clients == ("worker-0", "worker-1")
        assert x.decision.work["lr"] == 0.01 * spec.schedule.factor(x.round, ROUNDS)
    assert undisturbed.rounds[0].decision != undisturbed.rounds[1].decision


def test_the_model_is_a_folder_that_transformers_loads(undisturbed: Run):
    model = AutoModelForCausalLM.from_pretrained(undisturbed.path / "model")
    tokenizer = AutoTokenizer.from_pretrained(undisturbed.path / "model")
    assert model.config.vocab_size == 320 and tokenizer("Ann had")["input_ids"]


@pytest.mark.parametrize("round", [0, 1])
@pytest.mark.parametrize("command", ["pretrain", "resume"])
def test_a_killed_run_goes_on_to_the_same_bits(
    command: str, round: int, texts: Path, undisturbed: Run, tmp_path: Path
):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        pretrain(recipe(), texts, out, killed_at(after_round(round)))
    assert Run.open(out).status == "interrupted" and len(Run.open(out).rounds) == round + 1
    run = pretrain(recipe(), texts, out) if command == "pretrain" else resume(out)
    assert run.status == "finished"
    assert checkpoints(run) == checkpoints(undisturbed) and weights(run) == weights(undisturbed)


def test_a_run_killed_before_its_first_record_begins_anew(
    texts: Path, undisturbed: Run, tmp_path: Path
):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        pretrain(recipe(), texts, out, killed_at(lambda record: True))
    (out / "journal.jsonl").write_bytes(b"")
    assert weights(pretrain(recipe(), texts, out)) == weights(undisturbed)


def test_a_round_killed_after_its_decision_keeps_to_it(texts: Path, tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        pretrain(recipe(), texts, out, killed_at(lambda record: isinstance(record, DecisionRecord)))
    run = pretrain(recipe(), texts, out)
    decisions = [x for x in run.entries if isinstance(x.record, DecisionRecord)]
    assert len(decisions) == ROUNDS and run.status == "finished"


def test_ctrl_c_is_said_in_the_journal(texts: Path, tmp_path: Path):
    def stop(record: Record) -> None:
        if isinstance(record, RoundRecord):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe(), texts, tmp_path / "run", Watch(record=stop))
    assert Run.open(tmp_path / "run").status == "stopped"


def test_a_finished_run_is_left_as_it_is(texts: Path, undisturbed: Run, tmp_path: Path):
    before = (undisturbed.path / "journal.jsonl").read_bytes()
    assert pretrain(recipe(), tmp_path / "nowhere", undisturbed.path).status == "finished"
    assert (undisturbed.path / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rounds": 4}, ["rounds was 3 and is 4"]),
        ({"work": {**RECIPE["work"], "lr": 0.02}}, ["work.lr was 0.01 and is 0.02"]),
        ({"epochs": {"shakespeare": 1.0}}, ["epochs.tinystories was 1.5 and is None", "1 more"]),
        ({"seed": 5, "block": 64, "workers": 1}, ["seed was 0 and is 5", "2 more"]),
    ],
)
def test_another_recipe_is_refused(
    changed: dict[str, object], words: list[str], texts: Path, undisturbed: Run
):
    with pytest.raises(ConfigError) as refused:
        pretrain(recipe(**changed), texts, undisturbed.path)
    assert all(word in str(refused.value) for word in [*words, str(undisturbed.path), "--out"])


def test_other_texts_are_refused(texts: Path, tmp_path: Path):
    other = Path(shutil.copytree(texts, tmp_path / "texts"))
    with pytest.raises(Killed):
        pretrain(recipe(), other, tmp_path / "run", killed_at(after_round(0)))
    file = other / "tinystories" / "tiny_stories_944k.txt"
    file.write_text(file.read_text().replace("cakes", "kites"))
    with pytest.raises(ConfigError, match="data changed"):
        pretrain(recipe(), other, tmp_path / "run")


def test_a_run_of_another_kind_is_not_touched(texts: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(ConfigError, match="no pre-training"):
        pretrain(recipe(), texts, tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"
    assert (tmp_path / "journal.jsonl").read_text() == ""


def test_a_model_is_gone_on_with_from_any_folder(
    texts: Path, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(undisturbed.path)
    second = recipe(model={**RECIPE["model"], "init": "model"}, rounds=1, workers=1)
    run = pretrain(second, texts, tmp_path / "second")
    assert run.rounds[0].record.loss["worker-0"] < undisturbed.rounds[0].record.loss["worker-0"]
    kept = recipe_of(run)
    assert kept is not None and kept.model.init == str(undisturbed.path / "model")
    assert pretrain(second, texts, tmp_path / "second").status == "finished"


def test_what_is_missing_is_named_before_anything_is_written(texts: Path, tmp_path: Path):
    nowhere = recipe(model={**RECIPE["model"], "init": "nowhere"})
    with pytest.raises(ConfigError, match=r"model\.init: .*nowhere"):
        pretrain(nowhere, texts, tmp_path / "run")
    with pytest.raises(DataError, match="--data"):
        pretrain(recipe(), tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(DataError, match=r"roles\.jsonl"):
        pretrain(recipe(epochs={"shakespeare": 1.0}), texts, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_texts_for_the_workers(texts: Path, tmp_path: Path):
    with pytest.raises(DataError, match="too few for 1024 workers"):
        pretrain(recipe(workers=1024), texts, tmp_path / "run")


@pytest.mark.parametrize("epochs", [{}, {"tinystories": 0}, {"tinystories": -1}, {"novels": 1}])
def test_epochs_that_cannot_be_read(epochs: dict[str, float]):
    with pytest.raises(ConfigError, match="epochs"):
        recipe(epochs=epochs)


def test_a_run_that_does_not_say_where_its_texts_are(undisturbed: Run):
    silent = {key: value for key, value in undisturbed.config.items() if key != "texts"}
    with pytest.raises(ConfigError, match="fedpilot pretrain RECIPE --data FOLDER --out"):
        texts_of(replace(undisturbed, config=silent))
