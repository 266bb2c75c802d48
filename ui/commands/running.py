"""What ``run``, ``demo`` and ``resume`` share: play a run, then say what it came to."""

from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from agents.made_up import made_up_of
from agents.resting import questions
from federation.config import Config
from federation.data.heterogeneity import counted
from federation.runs.folder import MADE_UP
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
    for line in piloting(run):
        console.print(line, soft_wrap=True, markup=False)


def piloting(run: Run) -> list[str]:
    """Say what a pilot decided, what it cost, and how often a model it asked was of no use."""
    decisions = run.history.decisions
    if not run.config.get("pilot"):
        return []
    cost = sum(x.seconds for x in decisions.values())
    share = cost / run.seconds if run.seconds else 0.0
    sources = ", ".join(sorted({x.source for x in decisions.values()}))
    number = counted(len(decisions), "decision")
    told = (
        f"pilot    {number} ({sources}) in {cost:.2f} s: {share:.2%} of the time that rounds took"
    )
    return [*made_up(run), told, *unanswered(run), f"why      fedpilot explain {run.path}"]


def unanswered(run: Run) -> list[str]:
    """Say how often a model that was asked gave nothing that can be used, and what came last."""
    traces = {n: x.details.get("trace") for n, x in run.history.decisions.items()}
    asked = list(questions(traces))
    failed = [n for n, how in asked if how]
    if not failed:
        return []
    last = traces[failed[0]]
    why = last.get("adviser") or last["failure"] if isinstance(last, dict) else ""
    return [
        f"         no usable answer of the model in {len(failed)} of {len(asked)}; newest: {why}"
    ]


def made_up(run: Run) -> list[str]:
    """Say what was decided on made-up rows, and where they lie."""
    found = made_up_of(run.path)
    if found is None:
        return []
    where = [f"         {run.path / MADE_UP}"] if found.asked else []
    return [f"made up  {found.words}", *where]


def numbered(folder: Path, name: str, first: int = 1) -> Iterator[Path]:
    """Yield ``folder/name-1``, ``folder/name-2``, ..."""
    return (folder / f"{name}-{number}" for number in count(first))
