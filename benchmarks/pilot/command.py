"""The command line of the pilot's benchmark.  Light: nothing here imports torch."""

import json
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pilot.parts import ANSWER_TOKENS, QUICK, Effort, Part

if TYPE_CHECKING:
    from benchmarks.pilot.table import Table

DESCRIPTION = """Score those who steer a federation, offline: searches on a table of runs, live
schedules, selection, diagnosis, experiments, synthetic sets, models that answer badly, canary
rounds."""
TRACKS = ("tune", "online", "select", "diagnose", "experiment", "synthesis", "robust", "canary")
TABULAR = ("tune", "experiment")


def positive(text: str) -> int:
    """Read a count of at least one.

    Raises:
        ValueError: if it is none.
    """
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser("fedpilot bench pilot", description=DESCRIPTION)
    help = "write the report there, Markdown (default: print it)"
    parser.add_argument("--out", metavar="FILE", type=Path, help=help)
    help = "with --out: also write every figure beside it, as .json; else print JSON"
    parser.add_argument("--json", action="store_true", help=help)
    help = "under a minute: shows that everything works, the figures mean nothing"
    parser.add_argument("--quick", action="store_true", help=help)
    help = "one track; may be repeated (default: all that are not taken over)"
    parser.add_argument("--track", choices=TRACKS, action="append", default=[], help=help)
    help = (
        "take tracks that are not played over from a report's figures, .json; may be repeated, the"
    )
    help += " last that has a track holds"
    parser.add_argument("--take", metavar="FILE", type=Path, action="append", default=[], help=help)
    help = "a language model to score: 'openai:MODEL@URL' or 'scripted:FILE'; may be repeated"
    parser.add_argument("--model", metavar="SPEC", action="append", default=[], help=help)
    help = "most requests to a model now; what it said is kept, the same command goes on from there"
    parser.add_argument("--calls", metavar="N", type=positive, help=help)
    help = f"most tokens of one answer of a model (default: {ANSWER_TOKENS})"
    parser.add_argument("--tokens", metavar="N", type=positive, default=ANSWER_TOKENS, help=help)
    help = "seeds of every scenario of the table that a model searches (default: 1)"
    parser.add_argument("--cells", metavar="N", type=positive, default=Effort.cells, help=help)
    help = "a line for the end of the report: how a model was served"
    parser.add_argument("--note", metavar="TEXT", default="", help=help)
    return parser.parse_args(argv)


def command(args: Namespace) -> str:
    """Write the command that makes a report."""
    words = [word for file in args.take for word in ("--take", file.name)]
    words += ["--out", str(Path("docs", args.out.name))] if args.out else []
    words += ["--json"] if args.json else []
    return " ".join([repeats(args, args.track), shlex.join(words)]).strip()


def repeats(args: Namespace, tracks: Sequence[str]) -> str:
    """Write the command that repeats some tracks."""
    words = ["fedpilot", "bench", "pilot"]
    words += [word for name in tracks for word in ("--track", name)]
    words += [word for spec in args.model for word in ("--model", spec)]
    words += ["--tokens", str(args.tokens)] if args.tokens != ANSWER_TOKENS else []
    words += ["--cells", str(args.cells)] if args.cells != Effort.cells else []
    return shlex.join(words + (["--quick"] if args.quick else []))


def main(argv: Sequence[str]) -> int:
    """Play the tracks and write the report.

    Raises:
        FedpilotError: if the table or a model cannot be used, or the report cannot be written.
    """
    from benchmarks.pilot import report
    from federation.runs.storage import explained

    args = parse(argv)
    models = asked_models(args)
    effort = QUICK if args.quick else Effort()
    effort = replace(effort, models=models, tokens=args.tokens, cells=args.cells)
    found = {name: part for file in args.take for name, part in taken(file).items()}
    missing = [name for name in TRACKS if name not in found]
    chosen = [name for name in TRACKS if name in (args.track or missing)]
    found |= {name: played(name, effort, repeats(args, [name])) for name in chosen}
    parts = [found[name] for name in TRACKS if name in found]
    label = the_table().label if found.keys() & set(TABULAR) else None
    text = report.document(parts, effort, command(args), label, args.note)
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


def asked_models(args: Namespace) -> dict[str, Any]:
    """Make the models that are scored, before anything is played.

    Raises:
        ConfigError: if one of them cannot be used.
    """
    if not args.model:
        return {}
    from benchmarks.pilot.asked import asked
    from federation.experiment import default_cache

    kept = default_cache() / "bench-pilot" / "said"
    return {spec: asked(spec, kept, args.calls, args.tokens) for spec in args.model}


def the_table() -> "Table":
    """Read the table of runs."""
    from benchmarks.pilot.table import read

    return read()


def played(name: str, effort: Effort, command: str) -> Part:
    """Play a track and say how long it took."""
    began = time.perf_counter()
    part = replace(track(name)(effort), command=command)
    print(f"{part.heading}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return part


def track(name: str) -> Callable[[Effort], Part]:
    """Return what plays a track."""
    from benchmarks.pilot import admit, choose, diagnose, online, robust, trials, trying, tune

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
        "canary": trying.run,
    }
    return lambda effort: live[name](base_model(), folder(), effort)
