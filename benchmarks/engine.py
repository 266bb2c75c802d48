"""``fedpilot bench engine``: our local engine against a plain sequential PEFT loop."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from benchmarks.settings import Setting, full, quick

DESCRIPTION = """Compare the local engine with a sequential PEFT loop on this machine, one process
after another, on the same adapters and batches.  Times count only where results are the same."""
OTHER_WORK = 1
REPEATS = 3


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser("fedpilot bench engine", description=DESCRIPTION)
    size = parser.add_mutually_exclusive_group()
    help = "a small model, batches of 1 and 4, real lengths: a few minutes (default)"
    size.add_argument("--quick", action="store_true", help=help)
    help = "two models, batches of 1, 4, 8, two kinds of lengths and of adapters: hours"
    size.add_argument("--full", action="store_true", help=help)
    help = "only settings whose name contains this, e.g. 'batch 4, real'"
    parser.add_argument("--only", metavar="TEXT", default="", help=help)
    help = f"timed rounds of every system (default: {REPEATS})"
    parser.add_argument("--repeats", metavar="N", type=int, default=REPEATS, help=help)
    help = "CPU threads of every system (default: as many as torch finds)"
    parser.add_argument("--threads", metavar="N", type=int, default=0, help=help)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.threads < 0:
        parser.error("--repeats must be at least 1, --threads at least 0")
    return args


def chosen(args: Namespace) -> list[Setting]:
    """Return the settings that were asked for.

    Raises:
        ConfigError: if there is none.
    """
    from federation.errors import ConfigError

    settings = full() if args.full else quick()
    found = [setting for setting in settings if args.only in setting.name]
    if not found:
        names = "; ".join(setting.name for setting in settings)
        raise ConfigError(f"--only {args.only!r} matches no setting; there are: {names}")
    return found


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return 1 if two sides did not do the same work anywhere."""
    args = parse(argv)
    return report(chosen(args), args.repeats, args.threads, args.json)


def report(settings: Sequence[Setting], repeats: int, threads: int, file: Path | None) -> int:
    """Measure settings and print what they came to."""
    import torch
    from rich.console import Console

    from benchmarks import report as reports
    from benchmarks.compare import compare

    threads = threads or torch.get_num_threads()
    facts = reports.machine(threads)
    console = Console(width=None if sys.stdout.isatty() else reports.WIDTH, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), soft_wrap=True)
    done = []
    for setting in settings:
        done.append(compare(setting, repeats, threads, say=progress))
        console.print(reports.table(done[-1]))
        if file:  # after every setting, so that an interrupted benchmark leaves what it measured
            content = {"machine": facts, "settings": [c.as_json() for c in done]}
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    reports.print_summary(console, done)
    return OTHER_WORK if any(comparison.failure for comparison in done) else 0


def progress(line: str) -> None:
    """Say on stderr what is going on."""
    print(line, file=sys.stderr)
