"""``fedpilot serve``: serve a run's base model and adapter, and follow its rounds."""

import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agents.serving.records import Kept, Served
from agents.synthesis.make import ModelFailed
from federation.errors import ConfigError
from federation.runs.run import Run
from llm_tools.specs import KEY_ENV
from ui import tables

if TYPE_CHECKING:
    from agents.serving.bridge import Bridge
    from agents.serving.opening import Serving

POLL = 2.0  # seconds between looks at the run and the server


def main(args: Namespace) -> int:
    """Serve until Ctrl-C, or until the server dies."""
    run = Run.open(args.directory)
    if args.follow and args.round is not None:
        raise ConfigError("--follow serves the newest round, --round one: drop either")
    if args.round is not None and args.round < 1:
        raise ConfigError(f"--round {args.round}: rounds count from 1")
    from agents.serving.opening import ServeSpec, serving

    options = tuple(args.option)
    spec = ServeSpec.of(engine=args.engine, port=args.port, options=options)
    tables.out().print(f"starting {spec.engine} for {run.path}", soft_wrap=True)
    with serving(run, spec) as served:
        first(served.bridge, args)
        introduce(served)
        answer(served.bridge, args.ask)
        while True:
            time.sleep(POLL)
            served.bridge.alive()
            if args.follow and (record := served.bridge.catch_up()):
                tell(record)
                answer(served.bridge, args.ask if isinstance(record, Served) else ())


def first(bridge: "Bridge", args: Namespace) -> None:
    """Serve the round that was asked for, or the newest; without any yet, wait if it is to come.

    Raises:
        ModelFailed: it cannot be served.
        ConfigError: the run has none.
    """
    record = bridge.catch_up() if args.round is None else bridge.publish(args.round - 1)
    if record is None and not args.follow:
        raise ConfigError(f"{bridge.source.run.path} has no round yet; wait for it with --follow")
    if record is None:
        return
    tell(record)
    if isinstance(record, Kept) and not args.follow:
        raise ModelFailed(f"round {record.round + 1} cannot be served: {record.reason}")


def tell(record: Served | Kept) -> None:
    """Say what became of a round."""
    say = tables.out().print
    if isinstance(record, Served):
        off = f"{record.distance:.2g} nats off the run's own model"
        text = f"fed is round {record.round + 1} ({record.folder}), {off}"
    else:
        still = "no adapter" if record.serving is None else f"still round {record.serving + 1}"
        text = f"round {record.round + 1} is not served, fed is {still}: {record.reason}"
    say(f"{text}  [{record.seconds:.1f} s]", soft_wrap=True)


def introduce(served: "Serving") -> None:
    """Print address, names, where the key lies, and a line to try."""
    bridge = served.bridge
    where = f'"$(cat {shlex.quote(str(served.key_file))})"' if served.key_file else f'"${KEY_ENV}"'
    models = [
        "base",
        *(["fed"] if bridge.current else []),
        *(x.name for x in bridge.loaded.values()),
    ]
    lines = {
        "address": bridge.server.url,
        "models": f"{', '.join(models)} ({bridge.source.config.model.base}, {served.dtype})",
        "key": f"in {served.key_file}" if served.key_file else f"that of {KEY_ENV}",
        "log": str(bridge.server.log),
        "try": f"curl -s {bridge.server.url}/completions -H 'Content-Type: application/json'"
        f' -H "Authorization: Bearer "{where}'
        """ -d '{"model": "fed", "prompt": "Hello", "max_tokens": 40}'""",
        "stop": "Ctrl-C",
    }
    for name, text in lines.items():
        tables.out().print(f"{name:<8} {text}", soft_wrap=True)


def answer(bridge: "Bridge", texts: Sequence[str]) -> None:
    """Print how the base model and ``fed`` continue texts, one under the other."""
    for text in texts:
        print(f"> {text}")
        for name, said in bridge.side_by_side(text).items():
            print(f"{name:<8} {' '.join(said.split())}")
