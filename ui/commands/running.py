"""What ``run``, ``demo`` and ``resume`` share: play a run, then say what it came to."""

from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from federation.config import Config
from federation.runs.run import Run
from federation.runs.writer import refuse_used
from ui import tables
from ui.progress import watching
from ui.results import asked


def start(config: Config, args: Namespace, names: Iterator[Path]) -> int:
    """Run an experiment into ``args.directory``, or into the first free of ``names``."""
    if args.directory is None:
        args.directory = next(path for path in names if not path.exists())
    refuse_used(args.directory)  # before seconds go into imports
    from agents.experiment import run_experiment

    with watching(config.rounds) as watch:
        run = run_experiment(config, args.directory, watch=watch)
    report(run)
    return 0


def report(run: Run) -> None:
    """Print the table, save the picture, and say where more is to be seen."""
    from ui.plots import plot

    console = tables.out()
    console.print(tables.results(run) if run.evaluations else tables.rounds(run))
    console.print(f"plot     {plot(run)}", soft_wrap=True, markup=False)
    makes = asked(run).makes
    if (run.path / makes).is_dir():
        console.print(f"{makes:<8} {run.path / makes}", soft_wrap=True, markup=False)
    console.print(f"more     fedpilot show {run.path}", soft_wrap=True, markup=False)


def numbered(folder: Path, name: str, first: int = 1) -> Iterator[Path]:
    """Yield ``folder/name-1``, ``folder/name-2``, ..."""
    return (folder / f"{name}-{number}" for number in count(first))
