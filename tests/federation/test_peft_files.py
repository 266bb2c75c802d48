"""What is exported is what PEFT loads, and what is loaded is checked."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from federation.address import torch_generator
from federation.errors import ConfigError, CorruptError, StorageError
from federation.runs import storage
from federation.runs.peft_files import CONFIG, WEIGHTS, load_adapter, save_adapter
from federation.specs import LoRASpec
from federation.training.base import prepare
from federation.training.lora import LoRA
from tests.tiny_models import tiny

IDS = torch.arange(3, 3 + 2 * 11).view(2, 11)
CASES = {
    "Llama, grouped queries": ("Llama", LoRASpec(rank=4, alpha=4, targets=("q_proj", "v_proj"))),
    "Llama, all-linear": ("Llama", LoRASpec(rank=3, alpha=12, targets="all-linear")),
    "Llama, rsLoRA": ("Llama", LoRASpec(rank=4, alpha=6.5, rslora=True, targets=("down_proj",))),
    "Llama, one layer": ("Llama", LoRASpec(rank=2, targets=("model.layers.1.mlp.up_proj",))),
    "GPT2, Conv1D": ("GPT2", LoRASpec(rank=4, alpha=10, targets=("attn.c_attn", "mlp.c_fc"))),
    "GPT2, all-linear": ("GPT2", LoRASpec(rank=4, alpha=10, rslora=True, targets="all-linear")),
    "OPT, biases": ("OPT", LoRASpec(rank=4, alpha=10, targets="all-linear")),
    "GPTNeoX, fused": ("GPTNeoX", LoRASpec(rank=4, alpha=10, targets=("query_key_value",))),
    "Phi, biases": ("Phi", LoRASpec(rank=5, alpha=7, targets=("fc1", "dense"))),
}
PEFT_ASKS_TRANSFORMERS = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


def lora_on(kind: str, spec: LoRASpec) -> LoRA:
    return LoRA(prepare(kind, tiny(kind, torch.float32), None), spec)


def adapter_of(lora: LoRA) -> Tensor:
    return 0.1 * torch.randn(lora.layout.size, generator=torch_generator("peft"))


@pytest.mark.filterwarnings(PEFT_ASKS_TRANSFORMERS)
@pytest.mark.parametrize(("kind", "spec"), CASES.values(), ids=CASES)
def test_peft_computes_the_same(kind: str, spec: LoRASpec, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny(kind, torch.float32)
    lora = LoRA(prepare(kind, model, None), spec)
    params = adapter_of(lora)
    save_adapter(tmp_path / "adapter", params, lora, kind)
    with torch.no_grad():
        base = model(input_ids=IDS).logits
        lora.bind(lora.layout.views(params[None]))
        want = model(input_ids=IDS).logits
        lora.bind(None)
        loaded = PeftModel.from_pretrained(tiny(kind, torch.float32), str(tmp_path / "adapter"))
        torch.testing.assert_close(loaded(input_ids=IDS).logits, want, rtol=0, atol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=IDS).logits, want, rtol=0, atol=1e-5)
    assert (want - base).abs().max() > 0.01, "the adapter does nothing"
    assert torch.equal(load_adapter(tmp_path / "adapter", lora), params)


@pytest.mark.filterwarnings(PEFT_ASKS_TRANSFORMERS)
def test_adapter_that_peft_wrote_is_read(tmp_path: Path) -> None:
    import peft

    config = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=["q_proj", "fc1"], task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        model = peft.get_peft_model(tiny("OPT", torch.float32), config)
    named = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.normal_(generator=torch_generator("peft", name))
    model.save_pretrained(tmp_path)
    lora = lora_on("OPT", LoRASpec(rank=4, alpha=10, targets=("q_proj", "fc1")))
    read = lora.layout.views(load_adapter(tmp_path, lora))
    assert read.keys() == named.keys()
    assert all(torch.equal(read[name], parameter) for name, parameter in named.items())


@pytest.fixture
def lora() -> LoRA:
    return lora_on("Llama", LoRASpec(rank=4, alpha=8, targets=("q_proj", "v_proj")))


def test_files_are_what_vllm_accepts(lora: LoRA, tmp_path: Path) -> None:
    """Its rules: float tensors named base_model.model.<module>.lora_[AB].weight, plain settings."""
    from safetensors.torch import load_file

    save_adapter(tmp_path / "adapter", adapter_of(lora), lora, "nano")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {WEIGHTS, CONFIG}
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    assert len(tensors) == 8
    for name, x in tensors.items():
        assert x.dtype == torch.float32
        assert name.startswith("base_model.model.model.layers.")
        assert name.endswith(("lora_A.weight", "lora_B.weight"))
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    wanted = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "base_model_name_or_path": "nano",
    }
    assert {key: config[key] for key in wanted} == wanted
    assert isinstance(config["lora_alpha"], int)  # vLLM reads it as one


def test_same_adapter_is_the_same_bytes(lora: LoRA, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_adapter(tmp_path / name, adapter_of(lora), lora, "nano")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_existing_folder_keeps_its_other_files(lora: LoRA, tmp_path: Path) -> None:
    save_adapter(tmp_path, torch.zeros(lora.layout.size), lora, "nano")
    (tmp_path / "README.md").write_text("mine")
    save_adapter(tmp_path, adapter_of(lora), lora, "nano")
    assert torch.equal(load_adapter(tmp_path, lora), adapter_of(lora))
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", WEIGHTS, CONFIG}


@pytest.mark.parametrize("exists", [False, True])
def test_full_disk_leaves_what_was_there(
    exists: bool, lora: LoRA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapter"
    if exists:
        save_adapter(folder, adapter_of(lora), lora, "nano")

    def full(fd: int, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_fill", full)
    with pytest.raises(StorageError, match="make room"):
        save_adapter(folder, torch.zeros(lora.layout.size), lora, "nano")
    monkeypatch.undo()
    assert folder.exists() == exists
    assert {path.name for path in tmp_path.iterdir()} == ({"adapter"} if exists else set())
    if exists:
        assert torch.equal(load_adapter(folder, lora), adapter_of(lora))


def test_file_in_place_of_a_folder_is_refused(lora: LoRA, tmp_path: Path) -> None:
    (tmp_path / "adapter").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        save_adapter(tmp_path / "adapter", adapter_of(lora), lora, "nano")
    assert (tmp_path / "adapter").read_text() == "mine"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def change(key: str, value: object, path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


BAD = {
    "no weights": (WEIGHTS, Path.unlink, ConfigError, "holds no adapter"),
    "no config": (CONFIG, Path.unlink, ConfigError, "holds no adapter"),
    "torn weights": (WEIGHTS, damage, CorruptError, "damaged"),
    "torn config": (CONFIG, damage, CorruptError, "damaged"),
    "config is a list": (CONFIG, lambda p: p.write_text("[1]"), CorruptError, "no JSON object"),
    "other rank": (CONFIG, lambda p: change("r", 2, p), ConfigError, "r is 2"),
    "other alpha": (CONFIG, lambda p: change("lora_alpha", 99, p), ConfigError, "lora_alpha is 99"),
    "rsLoRA": (CONFIG, lambda p: change("use_rslora", True, p), ConfigError, "use_rslora is True"),
    "DoRA": (CONFIG, lambda p: change("use_dora", True, p), ConfigError, "use_dora is True"),
}


@pytest.mark.parametrize(("name", "spoil", "error", "said"), BAD.values(), ids=BAD)
def test_bad_adapter_is_refused_in_one_line(
    name: str, spoil, error, said: str, lora: LoRA, tmp_path: Path
) -> None:
    save_adapter(tmp_path, adapter_of(lora), lora, "nano")
    spoil(tmp_path / name)
    with pytest.raises(error, match=said) as caught:
        load_adapter(tmp_path, lora)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_values_that_are_not_finite_are_refused(lora: LoRA, tmp_path: Path) -> None:
    params = adapter_of(lora)
    params[3] = torch.nan
    save_adapter(tmp_path, params, lora, "nano")
    with pytest.raises(CorruptError, match="1 non-finite"):
        load_adapter(tmp_path, lora)


def test_adapter_of_other_modules_is_refused(lora: LoRA, tmp_path: Path) -> None:
    save_adapter(tmp_path, adapter_of(lora), lora, "nano")
    other = lora_on("Llama", LoRASpec(rank=4, alpha=8, targets=("q_proj", "k_proj")))
    with pytest.raises(ConfigError, match="other modules"):
        load_adapter(tmp_path, other)
