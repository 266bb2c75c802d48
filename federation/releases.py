"""What a run has learnt by a round, given out: PEFT folders that never change, and what to expect.

A release is named by its round and by its content, ``r0012-3f9a1c07``.  Servers keep what they have
computed under the name of a folder, and map its files: another adapter needs another folder, and
files that were given out are never written again.  What a server that has loaded one should answer
is computed here, by the model that trained it.  Rounds count from 0 in code and from 1 in names.

Shape suffixes: B prompts, T tokens, V vocabulary, P flat parameters.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from federation.config import Config
from federation.errors import ConfigError, CorruptError
from federation.evaluation.generation import generate
from federation.evaluation.stacks import forward_attention
from federation.pretraining.recipe import recipe_of
from federation.runs import storage
from federation.runs.peft_files import load_adapter, peft_config, save_adapter
from federation.runs.run import Run
from federation.runs.tree_files import saving
from federation.training.base import Base, Dtype, load_base, load_tokenizer, loading, model_source
from federation.training.build import build_algorithm, build_trainable
from federation.training.lora import LoRA, peft_name

TEXTS = (
    "The two sisters opened the old shop every morning at seven. One of them swept the floor while"
    " the other counted what was left on the shelves and wrote it into a narrow green book. ",
    "A bridge carries its load to the ground. Water that freezes in its joints opens them a little"
    " every winter, so engineers look for cracks in spring and measure how far they have grown. ",
    "Question: which of these numbers is the largest, 17, 48, 31 or 22? Answer: the largest of them"
    " is 48. Question: what is the capital of France? Answer: the capital of France is Paris. ",
)
"""What servers are tested with, as often as it takes."""
PROBE_TOKENS = 300  # more than two of the longest blocks by which servers keep prompts (128)
ROOM = 8  # tokens of the context that a prompt leaves free


@dataclass(frozen=True, eq=False)
class Source:
    """A run whose rounds can be given out.

    Attributes:
        run: as it was last read.
        config: its configuration.
        base: the model that it adapts, on the processor: a GPU belongs to the server.
        lora: what it trains.
    """

    run: Run
    config: Config
    base: Base
    lora: LoRA

    def refresh(self) -> "Source":
        """Return the same with the run as it stands now."""
        return Source(self.run.refresh(), self.config, self.base, self.lora)


@dataclass(frozen=True, eq=False)
class Release:
    """The adapter of a round as files.

    Attributes:
        round: from 0.
        folder: PEFT's two files.
        sha256: of its parameters and configuration; begins as the name of the folder ends.
        params: ``(P,)`` float32.
    """

    round: int
    folder: Path
    sha256: str
    params: Tensor

    @property
    def name(self) -> str:
        """What servers call it: ``fed@r12`` for the twelfth round."""
        return f"fed@r{self.round + 1}"


def open_source(run: Run, dtype: Dtype) -> Source:
    """Load what is needed to give out rounds of a run.

    Args:
        run: it may be going on.
        dtype: that a server computes in.

    Raises:
        ConfigError: if it trains no global LoRA adapter, or its base model cannot be loaded.
    """
    config = check_servable(run)
    base = load_base(config.model.base, dtype, fast=False, device="cpu")
    lora = build_trainable(config, base)
    assert isinstance(lora, LoRA)
    return Source(run, config, base, lora)


def check_servable(run: Run) -> Config:
    """Refuse runs that have no adapter which a server could load; light.

    Returns:
        The run's configuration.

    Raises:
        ConfigError: saying why, and what to do instead.
    """
    if recipe_of(run) is not None:
        raise ConfigError(f"{run.path} pre-trained a model: serve the folder {run.path}/model")
    config = Config.from_table(run.config, str(run.path / "config.json"))
    if config.adapter.kind != "lora":
        raise ConfigError(f"{run.path} trains all weights, no adapter that a server could load")
    if build_algorithm(config).is_personal:
        name = config.algorithm.name
        raise ConfigError(f"{run.path} has no global model: with {name} each client has its own")
    return config


def newest(run: Run) -> int | None:
    """Return the newest round whose adapter can be given out, from 0; None before the first."""
    records = run.history.newest_checkpoints(1)
    return records[0].round if records else None


def check_round(run: Run, round: int, folder: Path) -> None:
    """Refuse a round that :func:`release` would find nothing of; light.

    Args:
        run: it may be going on.
        round: from 0.
        folder: that holds releases; need not be there.

    Raises:
        ConfigError: if there is neither a checkpoint nor an earlier release of it.
    """
    if not releases_of(round, folder):  # old checkpoints are deleted as a run goes on
        run.checkpoint(round)


def releases_of(round: int, folder: Path) -> list[Path]:
    """List the releases of a round that a folder holds, oldest first."""
    return sorted(folder.glob(f"r{round + 1:04d}-*"), key=lambda path: path.stat().st_mtime)


def release(source: Source, round: int, folder: Path) -> Release:
    """Write the adapter of a round into a folder of its own; one that is there already is checked.

    Args:
        source: the run.
        round: from 0; its checkpoint must be there, or an earlier release of it.
        folder: that holds releases; made if it is not there.

    Raises:
        ConfigError: if there is neither.
        CorruptError: if the checkpoint, or the release that is there, is not as it was written.
        StorageError: if it cannot be written.
    """
    earlier = releases_of(round, folder)
    try:
        params = params_after(source, round)
    except ConfigError:  # old checkpoints are deleted as a run goes on
        if not earlier:
            raise
        return checked(source, round, earlier[-1])
    digest = fingerprint(source, params)
    path = folder / f"r{round + 1:04d}-{digest[:8]}"
    if path in earlier:
        return checked(source, round, path)
    save_adapter(path, params, source.lora, base_path(source))
    return Release(round, path, digest, params)


def params_after(source: Source, round: int) -> Tensor:
    """Return the adapter after a round, from 0, as a row ``(P,)`` in float32."""
    return source.run.state(round)["params"].to(torch.float32)


def export(source: Source, round: int, path: Path, template: str | None = None) -> None:
    """Write what a run had learnt by a round to a new folder: its adapter, or all weights.

    Args:
        source: the run.
        round: from 0; its checkpoint must be there.
        path: a folder that does not exist; its parents are made.
        template: for all weights, as :func:`whole_model` writes them; None: the adapter, for PEFT.

    Raises:
        ConfigError: if ``path`` exists, or there is no checkpoint of the round.
        CorruptError: if the checkpoint is not as it was written.
        StorageError: if it cannot be written; no half of it is left behind.
    """
    if path.exists():
        raise ConfigError(f"{path} exists; name a folder that does not")
    params = params_after(source, round)
    if template is None:
        save_adapter(path, params, source.lora, base_path(source))
        return
    temporary = storage.temporary_name(path)
    with storage.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        whole_model(source, params, template, temporary)
        with storage.explained(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    storage.sync_directory(path.parent)


def whole_model(source: Source, params: Tensor | None, template: str, folder: Path) -> None:
    """Write the base model, or what it becomes with an adapter, as a folder that needs no PEFT.

    Weights are those of the base in float32, with the adapter added to them.

    Args:
        source: the run.
        params: ``(P,)``; None for the base model as it is.
        template: of chats, if the tokenizer has none.
        folder: that is made; one that is there is replaced.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    with loading(source.config.model.base):
        model = AutoModelForCausalLM.from_pretrained(base_path(source), dtype=torch.float32)
        tokenizer = load_tokenizer(source.config.model.base)
    if params is not None:
        add_adapter(model, source.lora, params)
    tokenizer.chat_template = tokenizer.chat_template or template
    logging.disable_progress_bar()
    with saving(folder):
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@torch.no_grad()
def add_adapter(model: nn.Module, lora: LoRA, params: Tensor) -> None:
    """Add an adapter ``(P,)`` to the weights it belongs to: ``W + s B A``."""
    views = lora.layout.views(params)
    for name, inner in lora.inner.items():
        A, B = (views[f"{peft_name(name)}.lora_{x}.weight"] for x in "AB")
        change = lora.spec.scale * B @ A
        weight = model.get_submodule(name).get_parameter("weight")
        weight += change if isinstance(inner, nn.Linear) else change.T  # Conv1D has (in, out)


def checked(source: Source, round: int, path: Path) -> Release:
    """Read a release and check that it is what its name says.

    Raises:
        ConfigError: if it is an adapter of another shape.
        CorruptError: if it is not.
    """
    params = load_adapter(path, source.lora)
    digest = fingerprint(source, params)
    if path.name != f"r{round + 1:04d}-{digest[:8]}":
        raise CorruptError(f"{path} is not the adapter it is named after; delete it")
    return Release(round, path, digest, params)


def fingerprint(source: Source, params: Tensor) -> str:
    """Hash parameters ``(P,)`` in float32 and what PEFT is told about them."""
    config = json.dumps(peft_config(source.lora, base_path(source)), sort_keys=True)
    return sha256(config.encode() + params.numpy().tobytes()).hexdigest()


def base_path(source: Source) -> str:
    """Say where the base model is, for whoever loads a release."""
    return model_source(source.config.model.base)


def probes(source: Source) -> list[list[int]]:
    """Return prompts to test a server with, as token ids, equally long.

    They are longer than the blocks by which servers keep what they computed, if the model's context
    is, so that a server that mixes up adapters is found out when it is asked again.
    """
    context = getattr(source.base.model.config, "max_position_embeddings", None)
    length = min(PROBE_TOKENS, (context or PROBE_TOKENS + ROOM) - ROOM)
    texts = [source.base.tokenizer(text)["input_ids"] for text in TEXTS]
    return [[int(token) for token in islice(cycle(ids), length)] for ids in texts]


def texts(source: Source, max_new_tokens: int) -> list[str]:
    """Return :data:`TEXTS`, or as many words of each as leave room for new tokens."""
    context = getattr(source.base.model.config, "max_position_embeddings", PROBE_TOKENS)
    return [beginning(source, text.split(" "), context - max_new_tokens) for text in TEXTS]


def beginning(source: Source, words: Sequence[str], room: int) -> str:
    """Return as many words as fit into so many tokens, one at least."""
    counts = range(len(words), 0, -1)
    some = (" ".join(words[:count]) for count in counts)
    fits = (text for text in some if len(source.base.tokenizer(text)["input_ids"]) <= room)
    return next(fits, words[0])


def continuations(
    source: Source, params: Tensor | None, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Continue texts greedily.

    Args:
        source: the run.
        params: ``(P,)``, or None for the base model.
        prompts: the texts.
        max_new_tokens: longest continuation.
    """
    base, lora = source.base, source.lora
    try:
        if params is not None:
            lora.bind(lora.layout.views(params[None].to(base.dtype)))
        # One at a time: padding would change the last digits.
        ids = (np.array(base.tokenizer(text)["input_ids"]) for text in prompts)
        end = [int(str(base.tokenizer.eos_token_id))]
        return [generate(base, [prompt], max_new_tokens, end)[0] for prompt in ids]
    finally:
        lora.bind(None)


@torch.no_grad()
def next_log_probs(source: Source, params: Tensor | None, prompts: list[list[int]]) -> Tensor:
    """Return the log-probability of every next token after each prompt.

    Args:
        source: the run.
        params: ``(P,)``, or None for the base model.
        prompts: token ids, equally many each.

    Returns:
        ``(B, V)`` float32, nats.
    """
    base, lora = source.base, source.lora
    try:
        if params is not None:
            lora.bind(lora.layout.views(params[None].to(base.dtype)))
        with forward_attention(base):
            logits = base.model(input_ids=torch.tensor(prompts), use_cache=False).logits[:, -1]
    finally:
        lora.bind(None)
    return logits.float().log_softmax(-1)
