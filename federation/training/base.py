"""The frozen base model: loading it from the package, a folder or a hub, and its loss on a batch.

Knows Hugging Face causal language models; knows nothing of adapters, clients or algorithms.

Shape suffixes: C clients, B batch rows, T tokens, N supervised positions, D width.
"""

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from federation.errors import ConfigError
from federation.training import grafts, kernels
from federation.training.packing import multiple_for, pack, read

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from federation.data.tokens import Tokens
    from federation.training.batches import Batch

NANO = Path(__file__).parents[1] / "nano"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
Dtype = Literal["auto", "float32", "bfloat16", "float64"]
Device = Literal["auto", "cpu", "cuda"]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Base:
    """A causal language model and its tokenizer.

    Attributes:
        name: as the configuration says it: ``"nano"``, a path or a hub id.
        model: in evaluation mode, no parameter requires a gradient.
        tokenizer: its own tokenizer.
        grafts: names of the faster parts it was given (see :mod:`federation.training.grafts`).
        plain_head: whether its logits are its output embedding applied to its last hidden state, so
            that logits can be computed only where a target is supervised.
    """

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    grafts: tuple[str, ...]
    plain_head: bool

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of weights and activations."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where it computes; parameters and rows are taken there for a pass, and back after it."""
        return next(self.model.parameters()).device

    @cached_property
    def digest(self) -> str:
        """Hash of the frozen weights, in any order: adapters and faster parts rename them."""
        hashes = sorted(map(hash_of, self.model.parameters()))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def head(self) -> nn.Linear:
        """The output embedding."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        return head


def hash_of(x: Tensor) -> str:
    """Return the sha256 of a tensor's shape and bytes."""
    digest = hashlib.sha256(str(tuple(x.shape)).encode())
    digest.update(x.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively (AVX-512-BF16, CUDA), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def resolve_dtype(dtype: Dtype, device: torch.device = CPU) -> torch.dtype:
    """Turn a configured dtype into torch's."""
    return native_dtype(device) if dtype == "auto" else DTYPES[dtype]


def resolve_device(device: Device) -> torch.device:
    """Turn a configured device into torch's.

    Raises:
        ConfigError: if a GPU is asked for and there is none that torch can use.
    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ConfigError(
            "model.device: torch finds no CUDA GPU here; set model.device = 'cpu' or 'auto',"
            " or install a CUDA build of torch"
        )
    return torch.device("cuda" if found and device != "cpu" else "cpu")


def model_source(name: str) -> str:
    """Return where ``name`` is loaded from: the package's own folder, a folder, or a hub id.

    Raises:
        ConfigError: if it names a folder that holds no model, or no base model at all.
    """
    if name == "nano":
        return str(NANO)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model.base: {path} holds no model (no config.json in it)")
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise ConfigError(
            f"model.base: there is no folder {path}; give 'nano', a folder or a hub id"
        )
    return name


def load_base(name: str, dtype: Dtype = "auto", fast: bool = True, device: Device = "auto") -> Base:
    """Load a causal language model and its tokenizer, frozen.

    Args:
        name: ``"nano"`` (ships with fedpilot), a folder in Hugging Face's format, or a hub id.
        dtype: of weights and activations; "auto" takes bfloat16 where the machine multiplies it
            natively.
        fast: whether to give the model the faster parts of :mod:`federation.training.grafts`.
        device: where it computes; "auto" takes a CUDA GPU where there is one.

    Raises:
        ConfigError: if it cannot be loaded, in one line.
    """
    from transformers import AutoModelForCausalLM

    keep_freed_memory()  # before threads that load weights have heaps of their own
    place = resolve_device(device)
    source, tokenizer = model_source(name), load_tokenizer(name)
    with loading(name):
        model, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            source,
            dtype=resolve_dtype(dtype, place),
            use_safetensors=True,
            output_loading_info=True,
        )
    if info["missing_keys"]:  # transformers would fill them with random numbers
        missing = sorted(info["missing_keys"])
        what = f"{len(missing)} weights are missing, {missing[0]} first"
        raise ConfigError(f"model.base: cannot load {name!r}: {what}")
    return prepare(name, model.to(place), tokenizer, fast)


def load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a base model alone.

    Raises:
        ConfigError: if it cannot be loaded, in one line.
    """
    from transformers import AutoTokenizer

    source = model_source(name)
    with loading(name):
        return AutoTokenizer.from_pretrained(source)


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn what libraries say about a model that cannot be loaded into one line.

    Raises:
        ConfigError: with the first line of it.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # loading a small model is no event
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(" :.")
        todo = "give 'nano', the folder of a causal language model, or a hub id within reach"
        raise ConfigError(f"model.base: cannot load {name!r}: {reason}; {todo}") from error
    finally:
        if shown:
            logging.enable_progress_bar()


def prepare(
    name: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", fast: bool = True
) -> Base:
    """Freeze a model, give it its faster parts and find out how to compute its loss."""
    keep_freed_memory()
    model.eval().requires_grad_(False)
    return Base(
        name=name,
        model=model,
        tokenizer=tokenizer,
        grafts=grafts.graft(model) if fast else (),
        plain_head=has_plain_head(model),
    )


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory instead of giving it back to the system, where it can.

    A pass frees and takes the same large blocks again and again; the system would have to fill
    each with zeros every time, about a twentieth of all the processor does.  And let threads share
    one heap: each with its own would keep as much for itself.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc's; its numbers stand in malloc.h
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_ARENA_MAX, 1)


@torch.no_grad()
def has_plain_head(model: "PreTrainedModel") -> bool:
    """Tell whether logits are the output embedding of the last hidden state, nothing more."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    ids = torch.arange(16, device=model.device).remainder_(model.config.vocab_size)[None]
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    if hidden.shape[-1] != head.in_features or hidden.dtype != head.weight.dtype:
        return False
    return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)


def check_sequences(base: Base, tokens: "Tokens") -> None:
    """Refuse sequences that the model cannot read.

    Raises:
        ConfigError: if one is longer than its context, or holds a token that it does not know.
    """
    context = getattr(base.model.config, "max_position_embeddings", None)
    longest, highest = int(tokens.lengths.max(initial=0)), int(tokens.ids.max(initial=0))
    if context is not None and longest > context:
        raise ConfigError(
            f"data.max_tokens: the longest example has {longest} tokens, the context of"
            f" {base.name!r} {context}; set data.max_tokens = {context} or less"
        )
    size = len(base.model.get_input_embeddings().weight)  # pyright: ignore[reportArgumentType]
    if highest >= size:
        raise ConfigError(
            f"model.base: the tokenizer of {base.name!r} makes token {highest}, its model knows"
            f" {size} tokens; give a model and its own tokenizer"
        )


def client_loss(base: Base, batch: "Batch") -> Tensor:
    """Mean negative log-likelihood of each client's supervised tokens, nats, ``(C,)``.

    Sum it over clients before differentiating: rows are independent, so the sum gives each client
    exactly its own gradient, and a mean would divide it by C.

    The batch lies where the base does.
    """
    C = len(batch.count_C)
    states = supervised_states(base, batch)
    if not base.plain_head:
        wide = torch.promote_types(states.dtype, torch.float32)
        nll = F.cross_entropy(states.to(wide), batch.target, reduction="none")
        return nll.new_zeros(C).index_add(0, batch.client, nll) / batch.count_C.clamp(min=1)
    scale = 1.0 / batch.count_C.clamp(min=1).to(torch.promote_types(base.dtype, torch.float32))
    return kernels.LinearNLL.apply(
        states,
        base.head.weight,
        base.head.bias,
        batch.target,
        scale[batch.client],
        batch.client,
        C,
    )


def supervised_states(base: Base, batch: "Batch") -> Tensor:
    """Return hidden states (or else logits) at predicting positions, ``(S, ...)``."""
    if "packing" in base.grafts:
        how = pack(batch, multiple_for(base.dtype))
        return read(base.model, how, logits=not base.plain_head)
    ids = batch.ids_CBT.flatten(0, 1)
    # Padding is on the right and attention is causal: no real position ever sees a padded one.
    if base.plain_head:
        states = base.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    else:
        states = base.model(input_ids=ids, use_cache=False).logits
    return states.flatten(0, 1).index_select(0, batch.where)
