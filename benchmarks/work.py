"""The work of a setting, drawn once and stored in a folder: every system reads it from there.

Shape suffixes: C clients, P flat parameters.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.settings import PROMPT_SHARE, QUANTILES, SHAPES, Setting
from federation.address import generator, torch_generator
from federation.data.tokens import Tokens
from federation.plan import RoundPlan
from federation.pretraining.pretrain import Architecture, initial_weights, llama_config
from federation.specs import LocalWork
from federation.training.base import load_base
from federation.training.batches import draw
from federation.training.lora import LoRA
from federation.tree import Layout

SEED = 0
MODEL = "model"


@dataclass(frozen=True)
class Work:
    """What every system is given.

    Attributes:
        setting: what the work is.
        model: folder of the base model, float32 weights.
        tokens: the examples.
        rows: row numbers of each client's examples.
        schedules: rows of every step of each client, ``(steps, batch)``.
        adapter: the adapter all clients start from, by PEFT's names.
    """

    setting: Setting
    model: Path
    tokens: Tokens
    rows: dict[str, np.ndarray]
    schedules: dict[str, np.ndarray]
    adapter: dict[str, Tensor]

    @property
    def layout(self) -> Layout:
        """How results are laid out: tensors in the order of their names."""
        return Layout({name: tuple(self.adapter[name].shape) for name in sorted(self.adapter)})

    @property
    def plan(self) -> RoundPlan:
        """The round as the engine is asked for it."""
        s = self.setting
        work = LocalWork(lr=s.lr, eps=s.eps, steps=s.steps, batch_size=s.batch)
        return RoundPlan(0, s.clients, tuple(self.rows), work, SEED)

    @property
    def useful_tokens(self) -> int:
        """Tokens of a round, padding not counted."""
        return int(sum(self.tokens.lengths[rows].sum() for rows in self.schedules.values()))


def write_work(setting: Setting, folder: Path) -> Work:
    """Draw the work of a setting and store it in a folder."""
    save_model(setting, folder / MODEL)
    per_client = setting.steps * setting.batch
    tokens = random_tokens(setting, setting.clients * per_client)
    save_arrays(folder / "tokens.npz", asdict(tokens))
    schedules = {
        client: draw(rows, tokens.lengths, SEED, 0, client, setting.steps, setting.batch)
        for client, rows in rows_of(setting, tokens).items()
    }
    save_arrays(folder / "schedules.npz", schedules)
    save_file(initial_adapter(setting, folder / MODEL), folder / "adapter.safetensors")
    (folder / "setting.json").write_text(setting.model_dump_json(), encoding="utf-8")
    return read_work(folder)


def save_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Store arrays by name."""
    np.savez(file, allow_pickle=False, **arrays)


def read_work(folder: Path) -> Work:
    """Read what :func:`write_work` stored."""
    setting = Setting.model_validate(json.loads((folder / "setting.json").read_text("utf-8")))
    tokens = Tokens(**np.load(folder / "tokens.npz"))
    return Work(
        setting=setting,
        model=folder / MODEL,
        tokens=tokens,
        rows=rows_of(setting, tokens),
        schedules=dict(np.load(folder / "schedules.npz")),
        adapter=load_file(folder / "adapter.safetensors"),
    )


def rows_of(setting: Setting, tokens: Tokens) -> dict[str, np.ndarray]:
    """Deal the examples to the clients."""
    parts = np.array_split(np.arange(len(tokens)), setting.clients)
    return {f"client-{i:02d}": rows for i, rows in enumerate(parts)}


def save_model(setting: Setting, folder: Path) -> None:
    """Store a Llama with random weights, and the least tokenizer that goes with it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, layers, heads, intermediate, vocabulary = SHAPES[setting.shape]
    shape = Architecture.model_construct(
        vocabulary=vocabulary, hidden=hidden, layers=layers, heads=heads, intermediate=intermediate
    )
    with torch.random.fork_rng():  # weights are replaced below
        model = LlamaForCausalLM(llama_config(shape))
    parameters = dict(model.named_parameters())
    layout = Layout({name: tuple(p.shape) for name, p in parameters.items()})
    weights = layout.views(initial_weights(layout, layers, SEED))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({"<eos>": 0}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>").save_pretrained(folder)


def random_tokens(setting: Setting, examples: int) -> Tokens:
    """Draw examples: lengths as the setting says, ids at random."""
    rng = generator(SEED, "examples")
    if setting.lengths == "real":
        shares, lengths = zip(*QUANTILES, strict=True)
        length = np.interp(rng.uniform(size=examples), shares, lengths).astype(np.int64)
    else:
        length = np.full(examples, int(setting.lengths))
    offsets = np.concatenate([[0], np.cumsum(length)])
    prompt = np.clip(length * rng.uniform(*PROMPT_SHARE, size=examples), 1, None).astype(np.int32)
    vocabulary = SHAPES[setting.shape][-1]
    ids = rng.integers(vocabulary, size=offsets[-1], dtype=np.int32)
    return Tokens(ids, offsets, prompt, np.ones(examples, dtype=np.int32))


def initial_adapter(setting: Setting, model: Path) -> dict[str, Tensor]:
    """Draw an adapter as it is in the middle of a run: where B is zero, A has no gradient."""
    layout = LoRA(load_base(str(model), "float32", fast=False), setting.lora).layout
    flat = torch.empty(layout.size)
    views = layout.views(flat)
    for name, view in views.items():
        bound = 0.02 if ".lora_B." in name else view.shape[-1] ** -0.5
        view.uniform_(-bound, bound, generator=torch_generator(SEED, "adapter", name))
    return {name: view.clone() for name, view in views.items()}
