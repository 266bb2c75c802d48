"""Loading a base model, and its loss on a batch of several clients."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from federation.address import generator
from federation.data.tokens import Tokens
from federation.errors import ConfigError
from federation.training.base import (
    client_loss,
    has_plain_head,
    load_base,
    model_source,
    prepare,
    resolve_device,
)
from federation.training.batches import collate
from tests.tiny_models import VOCABULARY, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a tokenizer in Hugging Face's format."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny("Llama", torch.float32).save_pretrained(path)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    import shutil

    return shutil.copytree(folder, tmp_path / "model")


def test_folder_is_loaded_frozen(folder: Path) -> None:
    base = load_base(str(folder), "float32")
    assert base.grafts == ("attention", "norm", "mlp", "packing", "layer")
    assert base.plain_head
    assert base.dtype == torch.float32
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    ids = torch.arange(12)[None]
    want = tiny("Llama", torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(base.model(input_ids=ids).logits, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtype_is_as_asked(folder: Path, dtype: str) -> None:
    assert load_base(str(folder), dtype).dtype == getattr(torch, dtype)


def assert_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_base(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.base: ")


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert_refused(str(tmp_path), "holds no model")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing/at/all", "a/b/c"])
def test_folder_that_is_not_there_is_refused(name: str) -> None:
    assert_refused(name, "there is no folder")


def test_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert_refused("model.bin", "there is no folder")


def test_hub_id_is_left_to_the_hub() -> None:
    assert model_source("someone/something") == "someone/something"


def test_hub_id_without_a_network_is_refused() -> None:
    assert_refused("someone/something-that-is-nowhere", "cannot load 'someone/something")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{ not json"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "no-such-type"}'),
        ("config.json", b"{}"),
        ("model.safetensors", b"torn"),
        ("model.safetensors", None),
        ("tokenizer.json", b"{ not json"),
    ],
)
def test_damaged_model_is_refused(copy: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    assert_refused(str(copy), "cannot load")


def test_missing_weights_are_refused(copy: Path) -> None:
    """transformers would make them up."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert_refused(str(copy), "1 weights are missing, model.layers.1.mlp.up_proj.weight first")


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = (copy / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 16')
    (copy / "config.json").write_text(config)
    assert_refused(str(copy), "cannot load")


def test_dropout_is_off() -> None:
    model = tiny("GPT2", attn_pdrop=0.5, embd_pdrop=0.5).train()
    base, ids = prepare("tiny", model, None), torch.arange(12)[None]
    assert torch.equal(base.model(input_ids=ids).logits, base.model(input_ids=ids).logits)


# --- The loss ----------------------------------------------------------------------------------


def some_tokens() -> Tokens:
    lengths = np.array([5, 9, 3, 7, 12])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = generator("base").integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    return Tokens(ids, offsets, np.array([2, 4, 1, 6, 3], np.int32), np.full(5, 9, np.int32))


@pytest.mark.parametrize(
    ("kind", "plain_head"),
    [("Llama", True), ("Phi", True), ("GPT2", True), ("Gemma2", False), ("Bloom", True)],
)
def test_loss_is_the_mean_over_each_clients_supervised_tokens(kind: str, plain_head: bool) -> None:
    """Whatever the padding, with a bias on the output embedding, and with capped logits."""
    tokens, model = some_tokens(), tiny(kind)
    base = prepare(kind, tiny(kind), None)
    assert base.plain_head == plain_head
    cohort = [[0, 1], [2, -1], [4, 3]]
    got_C = client_loss(base, collate(tokens, np.array(cohort)))
    for c, rows in enumerate(cohort):
        nll = []
        for row in (row for row in rows if row >= 0):
            ids = torch.from_numpy(tokens.row(row).astype(np.int64))
            first = int(tokens.prompt_len[row])
            logits = model(input_ids=ids[None]).logits[0, first - 1 : -1]
            nll.append(F.cross_entropy(logits, ids[first:], reduction="none"))
        # transformers computes norms in float32, whatever the model's dtype
        assert got_C[c].item() == pytest.approx(torch.cat(nll).mean().item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
def test_client_without_supervised_tokens_has_no_loss(kind: str) -> None:
    tokens = some_tokens()
    silent = Tokens(tokens.ids, tokens.offsets, tokens.lengths.astype(np.int32), tokens.prompt_len)
    base = prepare(kind, tiny(kind), None)
    assert client_loss(base, collate(silent, np.array([[0], [1]]))).tolist() == [0, 0]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"model\.device: torch finds no CUDA GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda" and resolve_device("cpu").type == "cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="says so to glibc")
def test_freed_memory_is_used_again() -> None:
    prepare("tiny", tiny("Llama"), None)  # pyright: ignore[reportArgumentType]
    torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000  # of 16384 pages


def test_a_model_whose_states_are_wider_than_its_weights_gives_its_own_logits():
    model = tiny("Llama", torch.float32)
    model.lm_head.to(torch.bfloat16)
    assert not has_plain_head(model)
