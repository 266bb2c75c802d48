"""Serving a run by vLLM from beginning to end: find it, start it, test it, stop it."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from agents.serving import health
from agents.serving.bridge import Bridge
from agents.serving.place import (
    ADAPTERS,
    LOG,
    Place,
    chat_template,
    key_of,
    place,
    until_ended,
)
from agents.serving.records import BASE, Started
from agents.serving.spec import ServeSpec
from agents.synthesis.make import ModelFailed
from federation import releases
from federation.errors import ConfigError
from federation.releases import Source
from federation.runs import storage
from federation.runs.run import Run
from federation.training.base import Dtype, model_source, resolve_device, resolve_dtype
from llm_tools import LLMError, Server, ServerSpec, serve
from llm_tools.serving import LoRARank

CHAT = "chat.jinja"
PYTHON = "FEDPILOT_VLLM_PYTHON"
INSTALL = (
    "there is no vLLM here: install it into an environment of its own (python -m venv VENV &&"
    " VENV/bin/pip install vllm; without a GPU: make test-vllm makes one) and say"
    f" {PYTHON}=VENV/bin/python; or serve with --engine transformers"
)


def vllm_python() -> str:
    """Return the interpreter that has vLLM.

    Raises:
        ConfigError: there is none, saying how to get one.
    """
    named = os.environ.get(PYTHON, "")
    if named and not Path(named).is_file():
        raise ConfigError(f"{PYTHON}: there is no {named}")
    if not named and find_spec("vllm") is None:
        raise ConfigError(INSTALL)
    return named or sys.executable


@dataclass(frozen=True)
class Serving:
    """A run that is served.

    Attributes:
        bridge: its server and what is loaded.
        key_file: where the key lies; None: it is the environment's.
        dtype: that the server computes in.
    """

    bridge: Bridge
    key_file: Path | None
    dtype: str


@contextmanager
def serving(run: Run, spec: ServeSpec) -> Iterator[Serving]:
    """Serve a run by vLLM: its base model at first, and rounds as they are published.

    Args:
        run: trains a global LoRA adapter; it may be going on.
        spec: how.

    Raises:
        ConfigError: the run cannot be served, or there is no vLLM.
        LockedError: another process serves the run.
        ModelFailed: the server did not start, or serves another base model.
    """
    python = vllm_python()
    releases.check_servable(run)
    dtype = served_dtype(run)
    with ExitStack() as stack:
        there = stack.enter_context(place(run))
        source = releases.open_source(run, dtype)
        key, key_file = stack.enter_context(key_of(there))
        server_spec = as_server(source, spec, dtype, python, there.path)
        try:
            log = there.path / LOG
            server = stack.enter_context(serve(server_spec, log, key))
            bridge = connected(source, server, there, spec)
        except LLMError as error:
            raise ModelFailed(str(error)) from None
        stack.enter_context(until_ended(there))
        base, url = source.config.model.base, server.url
        started = Started(engine="vllm", base=base, dtype=dtype, url=url, tolerance=bridge.most)
        there.note(started)
        yield Serving(bridge, key_file, dtype)


def connected(source: Source, server: Server, place: Place, spec: ServeSpec) -> Bridge:
    """Test the server's base model and make the bridge.

    Raises:
        ServerError: it serves another model, or fails.
    """
    prompts = releases.probes(source)
    base = health.Known("the base model", releases.next_log_probs(source, None, prompts))
    return Bridge(
        source=source,
        server=server,
        folder=place.path / ADAPTERS,
        prompts=prompts,
        base=base,
        most=health.tolerance(server, BASE, base, prompts),
        note=place.note,
        keep=spec.keep,
    )


def served_dtype(run: Run) -> Dtype:
    """Return the dtype of a server for a run: the run's own, where servers have it."""
    asked: Dtype = releases.check_servable(run).model.dtype
    found = str(resolve_dtype(asked, resolve_device("auto"))).removeprefix("torch.")
    return "float32" if found == "float64" else "bfloat16" if found == "bfloat16" else "float32"


def as_server(
    source: Source, spec: ServeSpec, dtype: Dtype, python: str, folder: Path
) -> ServerSpec:
    """Describe the server of a run."""
    options = ["--dtype", dtype]
    if resolve_device("auto").type == "cpu":
        options.append("--enforce-eager")  # compiling takes minutes and changes the last digits
    if source.base.tokenizer.chat_template is None:
        template = folder / CHAT
        storage.atomic_write(template, chat_template(source).encode())
        options += ["--chat-template", str(template.absolute())]
    return ServerSpec(
        kind="vllm",
        model=model_source(source.config.model.base),
        python=python,
        port=spec.port,
        start_s=spec.start,
        max_loras=2,  # the new one and the old one
        max_cpu_loras=spec.keep + 3,  # and fed, and the one that is tested
        max_lora_rank=served_rank(source.lora.spec.rank),
        options=(*options, *spec.arguments),
    )


def served_rank(rank: int) -> LoRARank:
    """Return the least of vLLM's ranks in which a rank fits."""
    return next(most for most in get_args(LoRARank) if most >= rank)
