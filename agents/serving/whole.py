"""Serving where there is no vLLM: ``transformers serve``, one round, the adapter added to the base.

It changes no adapters, asks for no key, and takes any folder of this machine for a model's name;
it listens on this machine alone.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from agents.serving import health
from agents.serving.place import ADAPTERS, LOG, chat_template, place, until_ended
from agents.serving.records import ALIAS, BASE, Served, Started
from agents.serving.spec import ServeSpec
from agents.synthesis.make import ModelFailed
from federation import releases
from federation.errors import ConfigError
from federation.runs.run import Run
from llm_tools import LLMError, Server, ServerSpec, serve

MODELS = "models"


@dataclass(frozen=True)
class Whole:
    """A run that is served by ``transformers serve``: one round of it, and no other.

    Attributes:
        server: it knows ``base`` and ``fed``, and asks for no key.
        record: what is served.
    """

    server: Server
    record: Served


@contextmanager
def serving_whole(run: Run, spec: ServeSpec, round: int | None = None) -> Iterator[Whole]:
    """Serve a run without vLLM: its base model, and that model with the adapter added to it.

    Args:
        run: trains a global LoRA adapter.
        spec: how.
        round: from 0; the newest if omitted.

    Raises:
        ConfigError: the run cannot be served, or what ``transformers serve`` needs is missing.
        LockedError: another process serves the run.
        ModelFailed: the server did not start, or answers otherwise than the run's own model.
    """
    began = time.perf_counter()
    releases.check_servable(run)
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise ConfigError(
            f"transformers serve needs {missing[0]}: pip install transformers[serving]"
        )
    round = releases.newest(run) if round is None else round
    if round is None:
        raise ConfigError(f"{run.path} has no round yet")
    with ExitStack() as stack:
        there = stack.enter_context(place(run))
        source = releases.open_source(run, "float32")
        given = releases.release(source, round, there.path / ADAPTERS)
        models = (there.path / MODELS).absolute()
        for name, which in ((BASE, None), (ALIAS, given.params)):
            releases.whole_model(source, which, chat_template(source), models / name)
        server_spec = ServerSpec(
            kind="transformers",
            model=str(models),
            by_name=True,
            port=spec.port,
            start_s=spec.start,
            options=("--dtype", "float32", *spec.arguments),
        )
        try:
            server = stack.enter_context(serve(server_spec, there.path / LOG))
            texts = releases.texts(source, health.CONTINUED)
            for name, params in ((BASE, None), (ALIAS, given.params)):
                own = releases.continuations(source, params, texts, health.CONTINUED)
                health.check_texts(server, name, texts, own)
        except LLMError as error:
            raise ModelFailed(str(error)) from None
        stack.enter_context(until_ended(there))
        there.note(
            Started(
                engine="transformers",
                base=source.config.model.base,
                dtype="float32",
                url=server.url,
                tolerance=None,
            )
        )
        took = time.perf_counter() - began
        record = Served(
            round=round, folder=given.folder.name, sha256=given.sha256, distance=None, seconds=took
        )
        there.note(record)
        yield Whole(server, record)
