"""Rounds given out as folders, and what a server that loads them should answer."""

import json
from pathlib import Path

import pytest
import torch

from federation import experiment, releases
from federation.config import Config
from federation.errors import ConfigError, CorruptError
from federation.releases import Source
from federation.runs.run import Run
from tests.tiny_worlds import World, tiny_world

PEFT_ASKS_TRANSFORMERS = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def source(world: World) -> Source:
    config = Config.from_toml(world.config, ["rounds=4", "work.lr=0.1"])
    run = experiment.run_experiment(config, world.folder / "run", cache=world.folder / "cache")
    return releases.open_source(run, "float32")


def test_a_release_is_named_by_its_round_and_its_content(source, tmp_path):
    one, other = (releases.release(source, round, tmp_path) for round in (1, 2))
    assert one.folder.name == f"r0002-{one.sha256[:8]}"
    assert (one.name, other.name) == ("fed@r2", "fed@r3")
    assert one.sha256 != other.sha256
    config = json.loads((one.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == source.config.model.base
    assert releases.release(source, 1, tmp_path).folder == one.folder
    assert len(list(tmp_path.iterdir())) == 2


def test_the_last_round_is_what_the_run_exports(source, tmp_path):
    release = releases.release(source, 3, tmp_path)
    exported = source.run.path / "adapter" / "adapter_model.safetensors"
    assert (release.folder / "adapter_model.safetensors").read_bytes() == exported.read_bytes()
    assert releases.newest(source.run) == 3


@pytest.mark.filterwarnings(PEFT_ASKS_TRANSFORMERS)
def test_peft_answers_as_was_foretold(source, tmp_path):
    """PEFT in a plain model, and the weights added up: the same log-probabilities."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    prompts = releases.probes(source)
    release = releases.release(source, 3, tmp_path)
    wanted = releases.next_log_probs(source, release.params, prompts)
    assert (wanted - releases.next_log_probs(source, None, prompts)).abs().max() > 0.1
    plain = AutoModelForCausalLM.from_pretrained(source.config.model.base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(release.folder))
    releases.whole_model(source, release.params, "a template", tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    for other in (model, whole):
        with torch.no_grad():
            logits = other(input_ids=torch.tensor(prompts)).logits[:, -1]
        torch.testing.assert_close(logits.log_softmax(-1), wanted, atol=1e-4, rtol=0)


def test_an_export_is_whole_or_not_there(source, tmp_path, monkeypatch):
    out = tmp_path / "deep" / "model"

    def torn(source: Source, params: object, template: str, folder: Path) -> None:
        folder.mkdir()
        raise RuntimeError("killed")

    monkeypatch.setattr(releases, "whole_model", torn)
    with pytest.raises(RuntimeError):
        releases.export(source, 3, out, "a template")
    assert list(out.parent.iterdir()) == []
    releases.export(source, 1, out)
    release = releases.release(source, 1, tmp_path)
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (release.folder / name).read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        releases.export(source, 2, out)


def test_prompts_are_equally_long_different_and_fit(source):
    prompts = releases.probes(source)
    assert {len(prompt) for prompt in prompts} == {96 - releases.ROOM}
    assert len({tuple(prompt) for prompt in prompts}) == len(releases.TEXTS)


def test_a_round_without_checkpoint_is_told(source, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no checkpoint of round 1; rounds that have one: 2, 3, 4"
    ):
        releases.release(source, 0, tmp_path)


def test_a_release_that_was_exchanged_is_found_out(source, tmp_path):
    one, other = (releases.release(source, round, tmp_path) for round in (1, 2))
    name = "adapter_model.safetensors"
    (one.folder / name).write_bytes((other.folder / name).read_bytes())
    with pytest.raises(CorruptError, match="is not the adapter it is named after"):
        releases.release(source, 1, tmp_path)


def test_nothing_is_left_bound(source, tmp_path):
    prompts = releases.probes(source)
    before = releases.next_log_probs(source, None, prompts)
    params = releases.release(source, 2, tmp_path).params
    releases.next_log_probs(source, params, prompts)
    texts = releases.texts(source, 4)
    assert all(len(source.base.tokenizer(text)["input_ids"]) <= 92 for text in texts)
    assert len(releases.continuations(source, params, texts, 4)) == len(releases.TEXTS)
    assert torch.equal(releases.next_log_probs(source, None, prompts), before)


def test_a_run_that_pretrains_is_pointed_to_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr("federation.releases.recipe_of", lambda run: object())
    run = Run(Path("runs/x"), {}, (), None, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"serve the folder runs/x/model"):
        releases.check_servable(run)
