"""``fedpilot serve``: serve a run's base model and adapter, and follow its rounds."""

import json
import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agents.serving.health import side_by_side
from agents.serving.records import ALIAS, BASE, SERVING, Kept, Served
from agents.serving.spec import ServeSpec
from agents.synthesis.make import ModelFailed
from federation.errors import ConfigError
from federation.runs.run import Run
from llm_tools import LLMError
from llm_tools.specs import KEY_ENV
from ui import tables

if TYPE_CHECKING:
    from agents.serving.bridge import Bridge
    from agents.serving.opening import Serving
    from llm_tools import Server

POLL = 2.0  # seconds between looks at the run and the server


def main(args: Namespace) -> int:
    """Serve until Ctrl-C, or until the server dies."""
    run = Run.open(args.directory)
    if args.follow and args.round is not None:
        raise ConfigError("--follow serves the newest round, --round one: drop either")
    if args.round is not None and args.round < 1:
        raise ConfigError(f"--round {args.round}: rounds count from 1")
    spec = ServeSpec.of(engine=args.engine, port=args.port, options=tuple(args.option))
    refuse_what_is_not_there(run, args)
    tables.out().print(f"starting {spec.engine} for {run.path}", soft_wrap=True)
    return by_vllm(run, spec, args) if spec.engine == "vllm" else by_transformers(run, spec, args)


def refuse_what_is_not_there(run: Run, args: Namespace) -> None:
    """Refuse rounds that cannot be served before a server is looked for and started.

    Raises:
        ConfigError: saying which rounds there are.
    """
    from agents.serving.place import ADAPTERS
    from federation import releases

    if args.round is not None:
        releases.check_round(run, args.round - 1, run.path / SERVING / ADAPTERS)
    elif not args.follow and releases.newest(run) is None:
        later = "; wait for it with --follow" if args.engine == "vllm" else ""
        raise ConfigError(f"{run.path} has no round yet{later}")


def by_vllm(run: Run, spec: ServeSpec, args: Namespace) -> int:
    """Serve rounds one after the other, as they come."""
    from agents.serving.opening import serving

    with serving(run, spec) as served:
        first(served.bridge, args)
        introduce(served)
        answer(served.bridge.server, args.ask, served.bridge.current is not None)
        while True:
            time.sleep(POLL)
            served.bridge.alive()
            if args.follow and (record := served.bridge.catch_up()):
                tell(record)
                answer(served.bridge.server, args.ask if isinstance(record, Served) else ())


def by_transformers(run: Run, spec: ServeSpec, args: Namespace) -> int:
    """Serve one round, in a server that knows no adapters."""
    from agents.serving.whole import serving_whole

    if args.follow:
        raise ConfigError("transformers serve cannot change what it serves: drop --follow")
    with serving_whole(run, spec, args.round and args.round - 1) as whole:
        tell(whole.record)
        server = whole.server
        lines({"address": server.url, "models": f"{BASE}, {ALIAS} (float32)", "key": "none"})
        lines({"log": str(server.log), "try": curl(server, ""), "stop": "Ctrl-C"})
        answer(server, args.ask)
        while True:
            time.sleep(POLL)
            try:
                server.check()
            except LLMError as error:
                raise ModelFailed(str(error)) from None


def first(bridge: "Bridge", args: Namespace) -> None:
    """Serve the round that was asked for, or the newest; without any yet, it is to come.

    Raises:
        ModelFailed: it cannot be served.
    """
    record = bridge.catch_up() if args.round is None else bridge.publish(args.round - 1)
    if record is None:
        return
    tell(record)
    if isinstance(record, Kept) and not args.follow:
        raise ModelFailed(f"round {record.round + 1} cannot be served: {record.reason}")


def tell(record: Served | Kept) -> None:
    """Say what became of a round."""
    say = tables.out().print
    if isinstance(record, Served):
        off = "answers as the run's own model does"
        if record.distance is not None:
            off = f"{record.distance:.2g} nats off the run's own model"
        text = f"fed is round {record.round + 1} ({record.folder}), {off}"
    else:
        still = "no adapter" if record.serving is None else f"still round {record.serving + 1}"
        text = f"round {record.round + 1} is not served, fed is {still}: {record.reason}"
    say(f"{text}  [{record.seconds:.1f} s]", soft_wrap=True)


def introduce(served: "Serving") -> None:
    """Print address, names, where the key lies, and a line to try."""
    bridge, file = served.bridge, served.key_file
    base = bridge.source.config.model.base
    key = f'"$(cat {shlex.quote(str(file))})"' if file else f'"${KEY_ENV}"'
    lines(
        {
            "address": bridge.server.url,
            "models": f"{', '.join(bridge.names)} ({base}, {served.dtype})",
            "key": f"in {file}" if file else f"that of {KEY_ENV}",
            "log": str(bridge.server.log),
            "try": curl(bridge.server, f' -H "Authorization: Bearer "{key}'),
            "stop": "Ctrl-C",
        }
    )


def curl(server: "Server", key: str) -> str:
    """Write a command that asks for a continuation."""
    body = json.dumps({"model": ALIAS, "prompt": "Hello", "max_tokens": 40})
    return f"curl -s {server.url}/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def lines(facts: dict[str, str]) -> None:
    """Print names and what they are."""
    for name, text in facts.items():
        tables.out().print(f"{name:<8} {text}", soft_wrap=True)


def answer(server: "Server", texts: Sequence[str], fed: bool = True) -> None:
    """Print how the base model and ``fed`` continue texts, one under the other."""
    for text in texts:
        print(f"> {text}")
        for name, said in side_by_side(server, text, [BASE, ALIAS] if fed else [BASE]).items():
            print(f"{name:<8} {' '.join(said.split())}")
