"""Federated pre-training of a small base model: full parameters, local AdamW, outer Nesterov.

DiLoCo, Douillard et al. 2023, arXiv:2311.08105: every worker holds a shard of the texts, takes
many AdamW steps of its own whose moments stay with it, and only the change of the parameters
travels.  The loop is the one that fine-tunes adapters; only what is trained and the data differ.

A recipe is a TOML file; its result is a folder that ``transformers`` loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from federation.address import generator, torch_generator
from federation.algorithms.catalogue import Algorithm, run_round
from federation.config import describe, read_toml
from federation.data.tokens import Tokens
from federation.errors import ConfigError
from federation.plan import RoundPlan
from federation.pretraining.texts import SOURCES
from federation.pretraining.vocabulary import END, train_tokenizer
from federation.runs.records import RoundRecord, StartRecord
from federation.runs.writer import RunWriter
from federation.specs import LocalWork, ScheduleSpec, Spec
from federation.training.base import Base, prepare, resolve_dtype
from federation.training.engine import LocalEngine
from federation.training.full import FullParameters
from federation.training.local import Task
from federation.tree import Layout, nbytes

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast


class Architecture(Spec):
    """Shape of a Llama."""

    vocabulary: int = Field(default=4096, ge=300, le=200_000, description="tokens")
    hidden: int = Field(default=256, ge=16, le=8192, description="width of the residual stream")
    layers: int = Field(default=6, ge=1, le=200, description="decoder layers")
    heads: int = Field(default=4, ge=1, le=256, description="attention heads")
    intermediate: int = Field(default=688, ge=16, le=65_536, description="width of the MLP")
    context: int = Field(
        default=1024, ge=64, le=1_000_000, description="longest sequence in tokens"
    )
    init: str | None = Field(default=None, description="folder of a model to go on from")


class OuterSpec(Spec):
    """The server's optimizer."""

    lr: float = Field(default=0.7, gt=0, le=10, description="outer learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="outer Nesterov momentum")


class Recipe(Spec):
    """Everything that decides a pre-training run."""

    seed: int = Field(default=0, ge=0, description="first part of every random address")
    rounds: int = Field(default=50, ge=1, description="outer steps")
    workers: int = Field(
        default=2, ge=1, le=1024, description="shards of the texts, one worker each"
    )
    block: int = Field(default=256, ge=16, description="tokens of a training sequence")
    epochs: dict[str, float] = Field(description="source -> how often it is read (0.5: half of it)")
    model: Architecture = Field(default_factory=lambda: Architecture.model_validate({}))
    work: LocalWork = Field(default_factory=lambda: LocalWork.model_validate({}))
    schedule: ScheduleSpec = Field(default_factory=lambda: ScheduleSpec.model_validate({}))
    outer: OuterSpec = Field(default_factory=lambda: OuterSpec.model_validate({}))

    @classmethod
    def from_toml(cls, path: Path) -> "Recipe":
        """Read a recipe.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        try:
            recipe = cls.model_validate(read_toml(path))
        except ValidationError as error:
            raise ConfigError(f"{path}: {describe(error, cls)}") from None
        unknown = sorted(recipe.epochs.keys() - SOURCES.keys())
        if unknown:
            raise ConfigError(f"{path}: epochs.{unknown[0]}: sources are {', '.join(SOURCES)}")
        return recipe


def llama_config(spec: Architecture) -> "LlamaConfig":
    """Turn an architecture into transformers' configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        intermediate_size=spec.intermediate,
        max_position_embeddings=spec.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )


def initial_weights(layout: Layout, layers: int, seed: int) -> Tensor:
    """Draw the first weights: normal of 0.02, what writes to the residual stream narrower by depth.

    Radford et al. 2019 (GPT-2): the output projections are scaled by 1/sqrt(2 layers).
    """
    flat = torch.ones(layout.size)
    for name, view in layout.views(flat).items():
        if view.dim() > 1:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 * ((2 * layers) ** -0.5 if writes else 1)
            view.normal_(0, std, generator=torch_generator(seed, "init", name))
    return flat


def pack(texts: Mapping[str, list[list[int]]], recipe: Recipe) -> np.ndarray:
    """Lay token lists of every source end to end, as often as the recipe reads them, in blocks.

    Returns:
        ``(n, block)`` int32; documents are separated by the end of sequence, in an addressed order.
    """
    pieces = []
    for source, epochs in recipe.epochs.items():
        documents = texts[source]
        for epoch in range(int(np.ceil(epochs))):
            order = generator(recipe.seed, source, epoch).permutation(len(documents))
            share = min(1.0, epochs - epoch)
            pieces += [documents[i] for i in order[: round(share * len(documents))]]
    order = generator(recipe.seed, "documents").permutation(len(pieces))
    flat = np.concatenate([np.array(pieces[i], dtype=np.int32) for i in order])
    count = len(flat) // recipe.block
    return flat[: count * recipe.block].reshape(count, recipe.block)


def as_tokens(blocks: np.ndarray) -> Tokens:
    """See blocks as sequences of which everything is learnt."""
    count, length = blocks.shape
    ones = np.ones(count, dtype=np.int32)
    return Tokens(blocks.reshape(-1), np.arange(count + 1, dtype=np.int64) * length, ones, ones)


@dataclass(frozen=True)
class Materials:
    """What a recipe is made of: a tokenizer, a model to start from, and blocks of tokens."""

    tokenizer: "PreTrainedTokenizerFast"
    model: "PreTrainedModel"
    tokens: Tokens


def gather(recipe: Recipe, folder: Path) -> Materials:
    """Read the texts, learn or load the vocabulary, and make or load the first model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    texts = {name: list(SOURCES[name](folder)) for name in recipe.epochs}
    if recipe.model.init is not None:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model.init)
        model = AutoModelForCausalLM.from_pretrained(recipe.model.init, dtype=torch.float32)
    else:
        everything = (text for documents in texts.values() for text in documents)
        tokenizer = train_tokenizer(everything, recipe.model.vocabulary, recipe.model.context)
        model = LlamaForCausalLM(llama_config(recipe.model))
    end: list[int] = tokenizer.encode(END, add_special_tokens=False)
    encoded = {name: encode(tokenizer, documents, end) for name, documents in texts.items()}
    return Materials(tokenizer, model, as_tokens(pack(encoded, recipe)))


def encode(
    tokenizer: "PreTrainedTokenizerFast", documents: list[str], end: list[int]
) -> list[list[int]]:
    """Turn documents into token ids, each with its end."""
    encoded = tokenizer(documents, add_special_tokens=False, verbose=False)
    return [list(ids) + end for ids in encoded["input_ids"]]


def in_dtype(model: "PreTrainedModel", dtype: torch.dtype) -> "PreTrainedModel":
    """Convert a model in place."""
    torch.nn.Module.to(model, dtype)
    return model


def shards(count: int, recipe: Recipe) -> dict[str, np.ndarray]:
    """Deal blocks to workers."""
    order = generator(recipe.seed, "shards").permutation(count)
    parts = np.array_split(order, recipe.workers)
    return {f"worker-{i}": np.sort(part) for i, part in enumerate(parts)}


def save(layout: Layout, params: Tensor, materials: Materials, out: Path) -> None:
    """Write a folder that transformers loads: bfloat16 weights and the tokenizer."""
    model = materials.model
    model.load_state_dict(layout.views(params), strict=False)
    in_dtype(model, torch.bfloat16).save_pretrained(out)
    materials.tokenizer.save_pretrained(out)


def pretrain(recipe: Recipe, folder: Path, out: Path, algorithm: Algorithm, say: Any) -> None:
    """Run a recipe into a run directory; its model is in ``out/model``.

    Args:
        recipe: what to do.
        folder: the public texts.
        out: run directory, new or to be resumed.
        algorithm: DiLoCo, or any other that sends ``params``.
        say: called with a line after every round.
    """
    materials = gather(recipe, folder)
    model = in_dtype(materials.model, resolve_dtype("auto"))
    base: Base = prepare("pretrain", model, materials.tokenizer)
    full = FullParameters(base)
    task = Task(base, full, algorithm, materials.tokens)
    rows_of = shards(len(materials.tokens), recipe)
    first = (
        full.initial(recipe.seed)
        if recipe.model.init
        else initial_weights(full.layout, recipe.model.layers, recipe.seed)
    )
    new = not (out / "config.json").exists()
    opened = RunWriter.create(out, recipe.model_dump_json()) if new else RunWriter.reopen(out)
    with opened as writer:
        engine = LocalEngine(task, rows_of.__getitem__, writer.memory, chunk=1)
        state = writer.load() or algorithm.init(first)
        if new:
            writer.append(
                StartRecord(
                    seed=recipe.seed,
                    chunk_size=1,
                    threads=torch.get_num_threads(),
                    dtype=str(base.dtype),
                    versions={"torch": torch.__version__},
                    config_sha256=writer.config_sha256,
                )
            )
        for round in range(writer.next_round, recipe.rounds):
            factor = recipe.schedule.factor(round, recipe.rounds)
            work = recipe.work.model_copy(update={"lr": recipe.work.lr * factor})
            plan = RoundPlan(round, recipe.workers, tuple(rows_of), work, seed=recipe.seed)
            sent = algorithm.sent(state)
            state, reports = run_round(algorithm, engine, state, plan)
            saved = writer.checkpoint(round, state)
            writer.append(
                RoundRecord(
                    round=round,
                    clients=reports.clients,
                    loss=dict(zip(reports.clients, reports.loss_C.tolist(), strict=True)),
                    bytes_down=nbytes(sent) * recipe.workers,
                    bytes_up=nbytes(reports.tree_C),
                    tokens=int(reports.tokens_C.sum()),
                    client_steps=sum(plan.steps_C),
                    **saved._asdict(),
                )
            )
            say(f"round {round}: loss {reports.loss_C.mean():.4f} nats per token, lr {work.lr:.2e}")
        save(full.layout, state["params"], materials, out / "model")
