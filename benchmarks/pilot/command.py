"""The command line of the pilot's benchmark.  Light: nothing here imports torch."""

import json
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pilot.parts import QUICK, Effort, Part

if TYPE_CHECKING:
    from benchmarks.pilot.table import Table

DESCRIPTION = """Score those who steer a federation, offline: searches on a table of runs, live
schedules, selection, diagnosis, experiments, synthetic sets, models that answer badly."""
TRACKS = ("tune", "online", "select", "diagnose", "experiment", "synthesis", "robust")
TABULAR = ("tune", "experiment")


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser("fedpilot bench pilot", description=DESCRIPTION)
    help = "write the report there, Markdown (default: print it)"
    parser.add_argument("--out", metavar="FILE", type=Path, help=help)
    help = "with --out: also write every figure beside it, as .json; else print JSON"
    parser.add_argument("--json", action="store_true", help=help)
    help = "under a minute: shows that everything works, the figures mean nothing"
    parser.add_argument("--quick", action="store_true", help=help)
    help = "one track; may be repeated (default: all)"
    parser.add_argument("--track", choices=TRACKS, action="append", default=[], help=help)
    help = "take tracks that are not chosen over from a report's figures, .json"
    parser.add_argument("--take", metavar="FILE", type=Path, help=help)
    help = "a language model to score: 'openai:MODEL@URL' or 'scripted:FILE'; may be repeated"
    parser.add_argument("--model", metavar="SPEC", action="append", default=[], help=help)
    return parser.parse_args(argv)


def command(args: Namespace) -> str:
    """Write the command that repeats a report."""
    words = ["fedpilot", "bench", "pilot"]
    words += [word for name in args.track for word in ("--track", name)]
    words += [word for spec in args.model for word in ("--model", spec)]
    words += ["--take", str(args.take)] if args.take else []
    words += ["--quick"] if args.quick else []
    words += ["--out", str(Path("docs", args.out.name))] if args.out else []
    return shlex.join(words + (["--json"] if args.json else []))


def main(argv: Sequence[str]) -> int:
    """Play the tracks and write the report.

    Raises:
        FedpilotError: if the table or a model cannot be used, or the report cannot be written.
    """
    from benchmarks.pilot import report
    from federation.runs.storage import explained

    args = parse(argv)
    effort = replace(QUICK if args.quick else Effort(), models=tuple(args.model))
    chosen = [name for name in TRACKS if name in args.track or not args.track]
    check_models(effort)
    found = taken(args.take) if args.take else {}
    found |= {name: played(name, effort) for name in chosen}
    parts = [found[name] for name in TRACKS if name in found]
    label = the_table().label if found.keys() & set(TABULAR) else None
    text = report.document(parts, effort, command(args), label)
    figures = report.as_json(parts, command(args), label)
    if args.out is None:
        print(figures if args.json else text, end="")
        return 0
    with explained(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
        if args.json:
            args.out.with_suffix(".json").write_text(figures, encoding="utf-8")
    print(f"wrote {args.out}")
    return 0


def taken(file: Path) -> dict[str, Part]:
    """Read the tracks of a report.

    Raises:
        ConfigError: if it is none.
    """
    from federation.errors import ConfigError

    try:
        tracks = json.loads(file.read_text(encoding="utf-8"))["tracks"]
        return {name: Part.of(name, values) for name, values in tracks.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--take: {file} holds no figures of a report: {error!r}") from None


def check_models(effort: Effort) -> None:
    """Refuse a model that cannot be used before anything is played.

    Raises:
        ConfigError: saying why.
    """
    if effort.models:
        from benchmarks.pilot.searchers import asking

        for spec in effort.models:
            asking(spec)


def the_table() -> "Table":
    """Read the table of runs."""
    from benchmarks.pilot.table import read

    return read()


def played(name: str, effort: Effort) -> Part:
    """Play a track and say how long it took."""
    began = time.perf_counter()
    part = track(name)(effort)
    print(f"{part.heading}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return part


def track(name: str) -> Callable[[Effort], Part]:
    """Return what plays a track."""
    from benchmarks.pilot import admit, choose, diagnose, online, robust, trials, tune

    tabular = {"tune": tune.run, "experiment": trials.run}
    if name in tabular:
        return lambda effort: tabular[name](the_table(), effort)
    from benchmarks.pilot.base import base_model, folder

    live = {
        "online": online.run,
        "select": choose.run,
        "diagnose": diagnose.run,
        "synthesis": admit.run,
        "robust": robust.run,
    }
    return lambda effort: live[name](base_model(), folder(), effort)
