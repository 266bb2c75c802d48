"""An adapter as the folder that PEFT writes: what PEFT, vLLM and every hub understand.

Knows PEFT's two files, a flat row of parameters and the layout that names its slices.  It does not
know runs, clients or where the parameters come from.

Shape suffixes: P flat parameters.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from federation.errors import ConfigError, CorruptError
from federation.runs import storage
from federation.runs.tree_files import check_finite, encode_tree
from federation.training.lora import LoRA, ends
from federation.tree import Params

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def save_adapter(folder: Path, params: Tensor, lora: LoRA, base_name: str) -> None:
    """Write an adapter so that ``peft.PeftModel.from_pretrained`` loads it.

    A new folder appears whole or not at all.  In an existing one the two files are replaced, each
    atomically, and any other file stays.

    Args:
        folder: where to; its parents are made.
        params: ``(P,)``, written in float32.
        lora: what was trained.
        base_name: path or hub id of the base model, for whoever loads the adapter.

    Raises:
        ConfigError: if ``folder`` is a file.
        StorageError: if the disk is full, failing or read-only.
    """
    views = {name: x.to(torch.float32) for name, x in lora.layout.views(params).items()}
    config = json.dumps(peft_config(lora, base_name), indent=2, sort_keys=True) + "\n"
    files = {CONFIG: config.encode(), WEIGHTS: encode_tree(views, {"format": "pt"})}
    if folder.is_dir():
        storage.atomic_write_many((folder / name, data) for name, data in files.items())
    elif folder.exists():
        raise ConfigError(f"{folder} is a file; name a folder for the adapter")
    else:
        _write_new(folder, files)


def _write_new(folder: Path, files: dict[str, bytes]) -> None:
    """Fill a hidden folder beside ``folder`` and give it its name at the end."""
    temporary = storage.temporary_name(folder)
    try:
        with storage.explained(folder):
            temporary.mkdir(parents=True, exist_ok=True)
        storage.atomic_write_many((temporary / name, data) for name, data in files.items())
        with storage.explained(folder):
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    storage.sync_directory(folder.parent)


def peft_config(lora: LoRA, base_name: str) -> dict[str, Any]:
    """Return what ``adapter_config.json`` holds for this adapter, every key that PEFT writes."""
    from peft import LoraConfig

    alpha = lora.spec.alpha
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        r=lora.spec.rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # pyright: ignore[reportArgumentType]
        use_rslora=lora.spec.rslora,
        target_modules=target_modules(lora),
        fan_in_fan_out=all(not isinstance(inner, nn.Linear) for inner in lora.inner.values()),
        bias="none",
        inference_mode=True,
    ).to_dict()
    # PEFT keeps the names as a set, whose order differs from process to process.
    return config | {"target_modules": sorted(config["target_modules"])}


def target_modules(lora: LoRA) -> list[str]:
    """Name the adapted modules so that PEFT finds exactly them, by short names where they do."""
    chosen = lora.spec.targets
    short = {name.rsplit(".", 1)[-1] for name in lora.targets} if chosen == "all-linear" else chosen
    matched = {name for name in lora.model_names if any(ends(name, target) for target in short)}
    return sorted(short if matched == set(lora.targets) else lora.targets)


def load_adapter(folder: Path, lora: LoRA) -> Tensor:
    """Read an adapter that PEFT or :func:`save_adapter` wrote, as a row ``(P,)`` in float32.

    Raises:
        ConfigError: if there is none, or it is an adapter of another rank, scale or set of modules.
        CorruptError: if a file is damaged or holds values that are not finite.
        StorageError: if a file cannot be read.
    """
    check_config(folder / CONFIG, lora)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        flat = lora.layout.flatten(tensors)
    except ValueError as error:
        raise ConfigError(f"{folder} holds an adapter of other modules: {error}") from error
    check_finite(tensors, folder / WEIGHTS)
    return flat


def check_config(path: Path, lora: LoRA) -> None:
    """Check that an adapter's configuration means what ``lora`` means by the same numbers."""
    if not path.is_file():
        raise ConfigError(f"{path.parent} holds no adapter (no {path.name} in it)")
    with storage.explained(path):
        data = path.read_bytes()
    try:
        got = {**json.loads(data)}
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{path} is damaged, or no JSON object: {error}") from error
    defaults = {"use_rslora": False, "use_dora": False, "alpha_pattern": {}}
    want = {**defaults, "r": lora.spec.rank, "lora_alpha": lora.spec.alpha}
    want["use_rslora"] = lora.spec.rslora
    for key, value in want.items():
        if (found := got.get(key, defaults.get(key))) != value:
            raise ConfigError(f"{path}: {key} is {found!r}, this adapter has {value!r}")


def read_tensors(path: Path) -> Params:
    """Read a safetensors file of floating-point tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise ConfigError(f"{path.parent} holds no adapter (no {path.name} in it)")
    with storage.explained(path):
        data = path.read_bytes()
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptError(f"{path} is damaged, or no safetensors file: {error}") from error
