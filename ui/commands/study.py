"""``fedpilot study``: answer a question by an experiment that keeps its error rate."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from federation.errors import ConfigError
from federation.runs.records import EvaluationRecord, Record
from ui import tables
from ui.commands.running import numbered
from ui.progress import watching

if TYPE_CHECKING:
    from agents.study.ledger import Study
    from agents.study.runs import StudyWatch
    from federation.session import Watch


def main(args: Namespace) -> int:
    """Conduct a study, go on with one, or write its report anew."""
    from agents.study import report
    from agents.study.ledger import Study

    study = Study.open(existing(args.study)) if args.report else conducted(args)
    written = report.write(study)
    if args.json:
        tables.print_json(report.as_json(study))
        return 0
    console = tables.out()
    if study.told.verdict:
        console.print(table(study))
    console.print(f"report   {written}", soft_wrap=True, markup=False)
    return 0


def conducted(args: Namespace) -> "Study":
    """Begin a study from its file, or go on with the one in a folder."""
    if args.study.is_dir():
        if args.directory is not None or args.overrides:
            raise ConfigError(
                f"{args.study} is a study already: what it asks is registered; leave"
                f" {'--set' if args.overrides else '--out'} away to go on with it"
            )
        args.directory = existing(args.study)
        from agents.study.conduct import resume_study

        return resume_study(args.study, watch=watch())
    from agents.study.spec import from_toml

    spec = from_toml(args.study, args.overrides)
    if args.directory is None:
        names = numbered(Path("studies"), args.study.stem)
        args.directory = next(path for path in names if not path.exists())
    from agents.study.conduct import run_study

    return run_study(spec, args.directory, watch=watch())


def existing(path: Path) -> Path:
    """Insist on the folder of a study.

    Raises:
        ConfigError: if it is none.
    """
    from agents.study.ledger import is_study

    if not is_study(path):
        raise ConfigError(f"{path} is not the folder of a study: it has no study.json")
    return path


def watch() -> "StudyWatch":
    """Say on stderr what goes on, and nothing of the test split."""
    from agents.study.runs import StudyWatch

    began = time.perf_counter()

    def say(words: str) -> None:
        print(f"{time.perf_counter() - began:7.1f} s  {words}", file=sys.stderr, flush=True)

    @contextmanager
    def during(name: str, rounds: int, done: int) -> Iterator["Watch"]:
        say(f"run {name}")
        with watching(rounds, done) as shown:

            def hidden(record: Record) -> None:
                if not isinstance(record, EvaluationRecord):
                    shown.record(record)

            quiet = replace(shown, record=hidden)
            # In a log a study says one line a run; a terminal has bars.
            yield quiet if sys.stderr.isatty() else replace(quiet, record=nothing, phase=nothing)

    return StudyWatch(say=say, during=during)


def nothing(said: object) -> None:
    """Say nothing."""


def table(study: "Study") -> Table:
    """Lay the verdicts out, a row for each arm."""
    from agents.study.report import between, signed

    spec, told = study.spec, study.told
    floor = told.floor.floor if told.floor else 0.0
    unit = f"{spec.metric.name} ({spec.metric.unit}), {spec.metric.direction} is better"
    laid = Table(
        title=spec.question,
        title_justify="left",
        caption=f"improvement over {spec.control}, test split, {unit}; noise floor {floor:.4g}",
        caption_justify="left",
    )
    laid.add_column("arm", no_wrap=True)
    laid.add_column("verdict", no_wrap=True)
    for heading in ("improvement", "interval", "pairs"):
        laid.add_column(heading, justify="right")
    laid.add_column("why")
    for name, judged in told.verdict.found.items() if told.verdict else ():
        shown = (signed(judged.mean), between(judged), str(judged.pairs), judged.why)
        laid.add_row(name, judged.verdict, *shown)
    return laid
