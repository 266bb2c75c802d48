"""``fedpilot steer``: pause, stop or lengthen a run that goes on, or answer what it asks.

A study that goes on can be stopped.
"""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from agents.study import stopping
from agents.study.ledger import RUNS, is_study
from federation.errors import ConfigError
from federation.runs.inbox import Command, MoreRounds, Pause, Stop, parse, post
from federation.runs.records import CommandRecord
from federation.runs.run import Run
from ui.tables import print_json

PATIENCE = 2.0
"""Seconds to wait for the acknowledgement: a run that trains gives it before its next round."""


def main(args: Namespace) -> int:
    """Give one command; say what came of it, if the run says so soon.

    Raises:
        ConfigError: if the run does not go on, the command is none, or the run refuses it.
    """
    if is_study(args.directory):
        return of_study(args)
    command = commanded(args)
    run = Run.open(args.directory)
    refuse_finished(run)
    refuse_unasked(run, command)
    post(run.path, command)
    run = acknowledged(run, command.id)
    record = run.history.commands.get(command.id)
    if args.json:
        print_json(listed(args.directory, command, record))
    elif record is None or record.accepted:
        came = "the run will follow before its next round" if record is None else done(run, command)
        print(f"{args.deed}: {came}{and_then(run, command)}")
    if record is not None and not record.accepted:
        raise ConfigError(f"{run.path} refused {args.deed}: {record.reason}")
    return 0


def done(run: Run, command: Command) -> str:
    """Say what has come of a command that was followed."""
    match command:
        case Pause():
            return f"it waits after {len(run.rounds)} of {run.rounds_planned} rounds"
        case MoreRounds():
            return f"it has {run.rounds_planned} rounds now"
        case _:
            return "done"


def and_then(run: Run, command: Command) -> str:
    """Say how to take a command back, if that is not plain."""
    match command:
        case Pause():
            return f"; let it go on with: fedpilot steer {run.path} resume"
        case Stop():
            return f"; go on with it later: fedpilot resume {run.path}"
        case _:
            return ""


def of_study(args: Namespace) -> int:
    """Stop a study: the one thing that it can be told.

    Raises:
        ConfigError: if it is something else, or the study does not go on.
    """
    if args.deed != "stop":
        raise ConfigError(
            f"{args.directory} is a study, which can be stopped and gone on with; to {args.deed}"
            f" is for one of its runs, in {args.directory / RUNS}"
        )
    stopping.stop(args.directory, args.by)
    if args.json:
        print_json({"path": str(args.directory), "command": args.deed, "accepted": None})
    else:
        print("stop: the study will follow after the round in flight")
    return 0


def commanded(args: Namespace) -> Command:
    """Read what was typed.

    Raises:
        ConfigError: if it is no command.
    """
    said: dict[str, Any] = {"command": args.deed.replace("-", "_"), "by": args.by}
    if "n" in args:
        said["n"] = args.n
    if "asked" in args:
        said |= {"command": "answer", "answer": args.deed, "asked": args.asked}
    if "values" in args:
        said["values"] = dict(map(value, args.values))
    return parse(said)


def value(text: str) -> tuple[str, float]:
    """Read ``KEY=VALUE``.

    Raises:
        ConfigError: if it is written otherwise.
    """
    name, sign, number = text.partition("=")
    try:
        if sign and name:
            return name, float(number)
    except ValueError:
        pass
    raise ConfigError(f"{text!r}: write KEY=VALUE, for example lr=0.01")


def refuse_finished(run: Run) -> None:
    """Refuse to steer a run that has nothing left to do.

    Raises:
        ConfigError: naming what adds rounds to it.
    """
    if run.status == "finished":
        last = run.history.last_round + 1
        raise ConfigError(
            f"{run.path} is finished; play further rounds in a copy: fedpilot fork {run.path}"
            f" --round {last} --rounds N --out NEW"
        )


def refuse_unasked(run: Run, command: Command) -> None:
    """Refuse an answer to what is not asked before the run has to.

    Raises:
        ConfigError: naming the question that waits.
    """
    if command.command == "answer" and run.status == "running":
        there = f"it asks {run.asking.id}" if run.asking else "it asks nothing now"
        if run.asking is None or run.asking.id != command.asked:
            raise ConfigError(f"{run.path} does not ask {command.asked}: {there}")


def acknowledged(run: Run, id: str) -> Run:
    """Wait a moment for the run to say something of a command; return it as it is then."""
    until = time.monotonic() + PATIENCE
    while id not in run.history.commands and time.monotonic() < until:
        time.sleep(0.05)
        run = run.refresh()
    return run


def listed(path: Path, command: Command, record: CommandRecord | None) -> dict[str, Any]:
    """Say for a script what was commanded and what came of it; null: nothing yet."""
    return {
        "path": str(path),
        "id": command.id,
        "command": command.command,
        "accepted": None if record is None else record.accepted,
        "reason": "" if record is None else record.reason,
    }
