"""What a large population costs: ``python -m benchmarks.population``.

The same experiment, on the same rows and with cohorts of ten, is run with few and with many
registered clients, each time in a process of its own.  The rows are tokenised beforehand.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.processes import ROOT, environment

DESCRIPTION = """Run one experiment with few and with many registered clients, over the same rows,
and compare start, memory, seconds a round and bytes on disk."""
START_LIMIT = 10.0  # seconds from the start of the process to the first round, tokens being there
MEMORY_LIMIT = 300 * 2**20  # bytes of peak memory more than with few clients
BROKEN = 1
COHORT = 10
CHUNK = 5  # clients a pass
HEADINGS = (
    "start s",
    "of that CPU s",
    "peak MiB",
    "s a round",
    "run KiB",
    "journal KiB",
    "clients trained",
)
WIDTH = 140


@dataclass(frozen=True)
class Variant:
    """What is run: an algorithm, its local optimizer, the rule by which cohorts are chosen."""

    algorithm: str = "fedavg"
    optimizer: str = "adamw"
    rule: str = "uniform"

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.algorithm}, {self.rule}"


VARIANTS = (
    Variant(),
    Variant(algorithm="scaffold", optimizer="sgd"),
    Variant(rule="oort"),
    Variant(rule="power_of_choice"),
)


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        variant: what was run.
        clients: how many were registered.
        start_seconds: wall time from the start of the process to the first round.
        start_cpu_seconds: processor time until then; what else the machine does matters less.
        phases: when the phases of the start began, seconds of wall time.
        peak_bytes: most memory that was resident.
        round_seconds: of every round, evaluation excluded.
        run_bytes: size of the run directory.
        journal_bytes: size of its journal.
        clients_trained: how many different clients trained.
        test_nll: loss of the final model on the global test set, nats per token.
    """

    variant: Variant
    clients: int
    start_seconds: float
    start_cpu_seconds: float
    phases: dict[str, float]
    peak_bytes: int
    round_seconds: list[float]
    run_bytes: int
    journal_bytes: int
    clients_trained: int
    test_nll: float


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser("python -m benchmarks.population", description=DESCRIPTION)
    parser.add_argument("--many", metavar="N", type=int, default=10_000, help="(default: 10,000)")
    parser.add_argument("--few", metavar="N", type=int, default=100, help="(default: 100)")
    help = "rows of both runs (default: four for each of the many clients)"
    parser.add_argument("--rows", metavar="N", type=int, help=help)
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="(default: 5)")
    help = "also scaffold, whose clients keep state, and the rules oort and power_of_choice"
    parser.add_argument("--all", action="store_true", help=help)
    help = "CPU threads (default: as many as there are processors)"
    parser.add_argument("--threads", metavar="N", type=int, default=os.cpu_count() or 1, help=help)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    args = parser.parse_args(argv)
    args.rows = args.rows or 4 * args.many
    if not COHORT <= args.few <= args.many <= args.rows:
        parser.error(f"it must be {COHORT} <= --few <= --many <= --rows")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return args


def configuration(variant: Variant, clients: int, args: Namespace) -> dict[str, Any]:
    """Return the tables of a run: the rows are the same however many clients hold them."""
    return {
        "rounds": args.rounds,
        "data": {
            "examples": args.rows,
            "prompt": "{instruction}\n{context}",
            "response": "{response}",
            "max_tokens": 128,
            "clients": {"by": "iid", "count": clients},
        },
        "algorithm": {"name": variant.algorithm},
        # Two examples a step: every client holds so many, so that a round is the same work.
        "work": {"steps": 4, "batch_size": 2, "optimizer": variant.optimizer},
        "cohort": {"size": COHORT, "rule": variant.rule},
        "evaluation": {"every": args.rounds, "max_examples": 64},
        # Measuring which number is fastest leaves it to chance, and memory follows it.
        "engine": {"chunk": CHUNK},
    }


def child(tables: dict[str, Any], out: str, cache: Path, threads: int) -> str:
    """Run or tokenise in a process of its own; return what it says.

    Raises:
        RuntimeError: if it fails.
    """
    words = [json.dumps(tables), out, str(cache), repr(time.time())]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.one_run", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(threads),
    )
    if done.returncode:
        raise RuntimeError(f"the run ended with code {done.returncode}; see its error above")
    return done.stdout


def measure(args: Namespace, folder: Path) -> Iterator[Cost]:
    """Tokenise once, then run every variant with few and with many clients."""
    variants = VARIANTS if args.all else VARIANTS[:1]
    cache = folder / "cache"
    progress(f"tokenising {args.rows:,} rows")
    child(configuration(variants[0], args.few, args), "-", cache, args.threads)
    for variant in variants:
        for clients in (args.few, args.many):
            progress(f"{variant.name}, {clients:,} clients")
            out = folder / f"{variant.algorithm}-{variant.rule}-{clients}"
            tables = configuration(variant, clients, args)
            figures = json.loads(child(tables, str(out), cache, args.threads))
            yield Cost(variant, clients, **figures)


def broken(costs: Sequence[Cost]) -> list[str]:
    """Say which limits are broken; costs come in pairs, few clients before many."""
    found = []
    for few, many in zip(costs[::2], costs[1::2], strict=True):
        name = f"{many.variant.name}, {many.clients:,} clients"
        if many.start_seconds > START_LIMIT:
            busy = f"{many.start_cpu_seconds:.1f} s of them on the processor"
            limit = f"limit {START_LIMIT:.0f} s"
            found.append(f"{name}: {many.start_seconds:.1f} s to start, {busy}; {limit}")
        more = many.peak_bytes - few.peak_bytes
        if more > MEMORY_LIMIT:
            limit = f"limit {MEMORY_LIMIT >> 20} MiB"
            found.append(
                f"{name}: {more >> 20} MiB more than with {few.clients:,} clients, {limit}"
            )
    return found


def table(costs: Sequence[Cost], rows: int) -> Table:
    """Put runs side by side."""
    title = f"{rows:,} rows, cohorts of {COHORT}"
    shown = Table(title=title, title_justify="left")
    shown.add_column("algorithm, rule")
    for heading in ("clients", *HEADINGS):
        shown.add_column(heading, justify="right")
    for cost in costs:
        shown.add_row(cost.variant.name, *cells(cost))
    return shown


def cells(cost: Cost) -> list[str]:
    """Write the figures of one run."""
    return [
        f"{cost.clients:,}",
        f"{cost.start_seconds:.1f}",
        f"{cost.start_cpu_seconds:.1f}",
        f"{cost.peak_bytes / 2**20:,.0f}",
        f"{median(cost.round_seconds):.2f}",
        f"{cost.run_bytes / 2**10:,.0f}",
        f"{cost.journal_bytes / 2**10:,.0f}",
        f"{cost.clients_trained:,}",
    ]


def progress(line: str) -> None:
    """Say on stderr what is going on."""
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Measure, print a table; return 1 if a limit is broken."""
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="population-") as folder:
        costs = list(measure(args, Path(folder)))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(costs, args.rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    found = broken(costs)
    print("\n".join(found) if found else "within every limit")
    return BROKEN if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
