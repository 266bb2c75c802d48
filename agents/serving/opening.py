"""Serving a run from beginning to end: find an engine, start it, write down what happens, stop it.

In ``DIR/serving`` lie a journal, the server's log, the key, and a folder for every adapter that
was loaded.  The run's own files are only read.
"""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from agents.serving import health
from agents.serving.bridge import Bridge
from agents.serving.records import BASE, JOURNAL, SERVING, Ended, ServingRecord, Started, sealed
from agents.synthesis.make import ModelFailed
from federation import releases
from federation.config import describe
from federation.errors import ConfigError
from federation.releases import Source
from federation.runs import storage
from federation.runs.journal import Journal
from federation.runs.run import Run
from federation.specs import Spec
from federation.training.base import Dtype, model_source, resolve_device, resolve_dtype
from llm_tools import LLMError, Server, ServerSpec, serve
from llm_tools.serving import LoRARank
from llm_tools.specs import KEY_ENV

ADAPTERS, LOG, KEY, CHAT = "adapters", "server.log", "key", "chat.jinja"
PYTHON = "FEDPILOT_VLLM_PYTHON"
INSTALL = (
    "there is no vLLM here: install it into an environment of its own (python -m venv VENV &&"
    " VENV/bin/pip install vllm; without a GPU: make test-vllm makes one) and say"
    f" {PYTHON}=VENV/bin/python; or serve with --engine transformers"
)


class ServeSpec(Spec):
    """How a run is served."""

    engine: Literal["vllm", "transformers"] = Field(default="vllm", description="which server")
    port: int = Field(default=0, ge=0, le=65535, description="where it listens (0: any free one)")
    keep: int = Field(
        default=2, ge=0, le=32, description="earlier rounds that stay loaded beside the one served"
    )
    start: float = Field(default=600.0, gt=0, le=7200, description="seconds until it answers")
    options: tuple[str, ...] = Field(
        default=(), description="further options of the server, as 'max-model-len=4096'"
    )

    @classmethod
    def of(cls, **values: object) -> "ServeSpec":
        """Read from values.

        Raises:
            ConfigError: naming what cannot be used.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"serve: {describe(error, cls)}") from None

    @property
    def arguments(self) -> list[str]:
        """The further options as arguments.

        Raises:
            ConfigError: if one is empty.
        """
        found: list[str] = []
        for option in self.options:
            name, sign, value = option.removeprefix("--").partition("=")
            if not name:
                raise ConfigError(f"--option {option!r}: write NAME or NAME=VALUE")
            found += [f"--{name}", value] if sign else [f"--{name}"]
        return found


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


@dataclass
class Place:
    """The folder ``serving`` of a run while a server runs.

    Attributes:
        path: the folder.
        journal: what happened.
        told: who else is told.
    """

    path: Path
    journal: Journal

    def note(self, record: ServingRecord) -> None:
        """Write a record down."""
        self.journal.append(sealed(record))


@contextmanager
def place(run: Run) -> Iterator[Place]:
    """Take the folder in which what belongs to serving a run lies; one server at a time.

    Raises:
        LockedError: another process serves the run.
        StorageError: it cannot be written.
    """
    path = run.path / SERVING
    with storage.explained(path):
        path.mkdir(exist_ok=True)
    lock = storage.lock(path)
    try:
        storage.sweep(path)
        with Journal(path / JOURNAL) as journal:
            yield Place(path, journal)
    finally:
        lock.release()


@contextmanager
def key_of(place: Place) -> Iterator[tuple[str, Path | None]]:
    """Yield the key: the environment's, or a new one in a file that its owner alone can read."""
    given = os.environ.get(KEY_ENV, "").strip()
    if given:
        yield given, None
        return
    key, file = secrets.token_urlsafe(24), place.path / KEY
    storage.atomic_write(file, key.encode(), mode=0o600)
    try:
        yield key, file
    finally:
        storage.remove([file])


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


@contextmanager
def until_ended(place: Place) -> Iterator[None]:
    """Write down why it ended."""
    reason = "stopped"
    try:
        yield
    except ModelFailed as error:
        reason = str(error)
        raise
    finally:
        place.note(Ended(reason=reason))


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


def chat_template(source: Source) -> str:
    """Write a chat as the run wrote its prompts: for tokenizers that have no template of their own.

    All that was said, one after the other, each followed by the run's separator.
    """
    tokenizer, data = source.base.tokenizer, source.config.data
    first = list(tokenizer("a")["input_ids"])[:1]
    bos = tokenizer.bos_token if first == [tokenizer.bos_token_id] else ""
    separator = "" if data.text is not None else data.separator
    said = "{% for m in messages %}{{ m['content'] + " + json.dumps(separator) + " }}{% endfor %}"
    return "{{ " + json.dumps(bos) + " }}" + said
