"""Federated pre-training of a small base model: full parameters, local AdamW, outer Nesterov.

DiLoCo, Douillard et al. 2023, arXiv:2311.08105: every worker holds a shard of the texts, takes
many AdamW steps of its own whose moments stay with it, and only the change of the parameters
travels.  The session is the one that fine-tunes adapters; only what is trained and the data differ.

A recipe is a TOML file; its result is a folder that ``transformers`` loads.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from federation.address import generator, torch_generator
from federation.algorithms.catalogue import diloco
from federation.bits import start_record
from federation.cohort.planner import RulePlanner
from federation.data.tokens import Tokens
from federation.errors import ConfigError, DataError
from federation.pretraining.recipe import Architecture, Recipe, kept, refuse_other
from federation.pretraining.texts import SOURCES
from federation.pretraining.vocabulary import END, train_tokenizer
from federation.runs.folder import CONFIG
from federation.runs.run import Run
from federation.runs.tree_files import saving
from federation.runs.writer import RunWriter
from federation.session import Session, Watch, ending
from federation.training.base import CPU, prepare, resolve_device, resolve_dtype
from federation.training.engine import LocalEngine
from federation.training.full import FullParameters
from federation.training.local import Task, Trainable
from federation.tree import Layout, nbytes

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast


MODEL = "model"  # folder of a run directory that transformers loads
NOTHING = np.empty(0, dtype=np.int32)


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
    flat = np.concatenate([NOTHING, *(np.array(pieces[i], dtype=np.int32) for i in order)])
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
    """Read the texts, learn or load the vocabulary, and make or load the first model.

    Raises:
        ConfigError: if the model to go on from is not there.
        DataError: if a text is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --data names the folder of public texts")
    if recipe.model.init is not None and not Path(recipe.model.init).is_dir():
        raise ConfigError(f"model.init: {recipe.model.init} is no folder; name a model's folder")
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


def moved(model: "PreTrainedModel", dtype: torch.dtype, device: torch.device) -> "PreTrainedModel":
    """Convert a model in place, and take it to a device."""
    torch.nn.Module.to(model, device, dtype)
    return model


def shards(count: int, recipe: Recipe) -> dict[str, np.ndarray]:
    """Deal blocks to workers.

    Raises:
        DataError: if a worker would get none.
    """
    if count < recipe.workers:
        raise DataError(
            f"the texts make {count} blocks of {recipe.block} tokens, too few for"
            f" {recipe.workers} workers; raise epochs, or lower block or workers"
        )
    order = generator(recipe.seed, "shards").permutation(count)
    parts = np.array_split(order, recipe.workers)
    return {f"worker-{i}": np.sort(part) for i, part in enumerate(parts)}


def save(layout: Layout, params: Tensor, materials: Materials, out: Path) -> None:
    """Write a folder that transformers loads: bfloat16 weights and the tokenizer.

    Raises:
        StorageError: if it cannot be written.
    """
    model = materials.model
    model.load_state_dict(layout.views(params), strict=False)
    with saving(out):
        moved(model, torch.bfloat16, CPU).save_pretrained(out)
        materials.tokenizer.save_pretrained(out)


def pretrain(recipe: Recipe, texts: Path, out: Path, watch: Watch | None = None) -> Run:
    """Run a recipe into a run directory, or go on with it; its model is in ``out/model``.

    Args:
        recipe: what to do.
        texts: folder of the public texts.
        out: run directory; one that holds this recipe's run is gone on with, to the same bits.
        watch: who is told of progress.

    Returns:
        The finished run, opened for reading.

    Raises:
        ConfigError: if ``out`` is in use or was begun by another recipe, or its data changed.
        DataError: if a text is missing, or they are too few.
        CorruptError: if the records of ``out`` were changed, or no checkpoint is whole.
        LockedError: if another process is writing it.
        StorageError: if the disk is full; what was committed stays.
    """
    recipe, watch = recipe.resolved(), watch or Watch()
    there = (out / CONFIG).exists()
    if there:
        run = Run.open(out)
        refuse_other(run, recipe)
        if run.status == "finished":
            return run
    watch.phase("reading the texts and making the vocabulary")
    materials = gather(recipe, texts)
    opened = RunWriter.reopen(out) if there else RunWriter.create(out, kept(recipe, texts))
    with opened as writer:
        finish(begin(recipe, materials, writer, watch), materials)
    return Run.open(out)


def begin(recipe: Recipe, materials: Materials, writer: RunWriter, watch: Watch) -> Session:
    """Open a session on a new or reopened run directory."""
    device = resolve_device(recipe.model.device)
    model = moved(materials.model, resolve_dtype("auto", device), device)
    base = prepare("pretrain", model, materials.tokenizer)
    algorithm = diloco(recipe.outer.lr, recipe.outer.momentum)
    task = Task(base, FullParameters(base), algorithm, materials.tokens)
    rows_of = shards(len(materials.tokens), recipe)
    state = writer.load() or algorithm.init(first_params(recipe, task.trainable))
    sizes = np.array([len(rows) for rows in rows_of.values()])
    traffic = 2 * nbytes(algorithm.sent(state))
    session = Session(
        algorithm=algorithm,
        writer=writer,
        engine=LocalEngine(task, rows_of.__getitem__, writer.memory, 1, watch.trained),
        planner=RulePlanner(recipe.federation(), tuple(rows_of), sizes, traffic),
        state=state,
        rounds=recipe.rounds,
        watch=watch,
    )
    data = hashlib.sha256(materials.tokens.ids.tobytes()).hexdigest()
    if writer.history.start is None:
        session.append(start_record(writer, base, seed=recipe.seed, chunk=1, data=data))
    session.go_on(base, data)
    return session


def first_params(recipe: Recipe, trainable: Trainable) -> Tensor:
    """Return the first parameters ``(P,)``: those of the model to go on from, or drawn ones."""
    if recipe.model.init is not None:
        return trainable.initial(recipe.seed)
    return initial_weights(trainable.layout, recipe.model.layers, recipe.seed)


def finish(session: Session, materials: Materials) -> None:
    """Play what is left, write the model, and say how it ended."""
    with ending(session):
        session.play_all()
        layout = session.engine.task.trainable.layout
        save(layout, session.state["params"], materials, session.writer.path / MODEL)
