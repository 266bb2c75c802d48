"""Federated fine-tuning on real data, written to a document by one command.

python -m benchmarks.results --data FOLDER --out docs/results.md
"""

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.results_runs import Place, carry_out
from benchmarks.results_studies import STUDIES, named, quick
from federation.errors import FedpilotError

RUNS = Path("runs/results")
SEEDS = 3


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    names = [study.name for study in STUDIES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description="Compare federated training with each client alone and with pooled data, on "
        "real data; finished runs are taken over, unfinished ones resumed.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--out", type=Path, required=True, help="the document, Markdown")
    help = "folder of the run directories (default: %(default)s)"
    parser.add_argument("--runs", type=Path, default=RUNS, help=help)
    help = "one study, and a document of it alone; may be repeated"
    parser.add_argument("--only", choices=names, action="append", default=[], help=help)
    help = "seeds of every arm (default: %(default)s)"
    parser.add_argument("--seeds", type=int, default=SEEDS, help=help)
    help = "two rounds, one seed: shows that it works, its figures mean nothing"
    parser.add_argument("--quick", action="store_true", help=help)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    return arguments


def command(arguments: argparse.Namespace) -> str:
    """Write the command that repeats a document; folders of this machine are named, not told."""
    words = ["python", "-m", "benchmarks.results", "--data", "FOLDER", "--out", arguments.out.name]
    words[-1] = str(Path("docs", arguments.out.name))
    words += [word for name in arguments.only for word in ("--only", name)]
    words += [] if arguments.seeds == SEEDS else ["--seeds", str(arguments.seeds)]
    return shlex.join(words + (["--quick"] if arguments.quick else []))


def main(argv: list[str]) -> int:
    """Run what is missing and write the document."""
    from benchmarks.results_report import document
    from federation.experiment import default_cache
    from federation.runs.storage import explained

    arguments = parse(argv)
    place = Place(arguments.data, default_cache() / "results", arguments.runs)
    studies = [quick(s) if arguments.quick else s for s in named(arguments.only)]
    seeds = 1 if arguments.quick else arguments.seeds
    try:
        done = [carry_out(study, place, seeds) for study in studies]
        text = document(done, command(arguments), str(RUNS), arguments.quick)
        with explained(arguments.out):
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(text, encoding="utf-8")
    except FedpilotError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
