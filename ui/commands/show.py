"""``fedpilot show``: what a run came to."""

from argparse import Namespace

from rich.console import Console

from federation.runs.run import Run
from ui import tables
from ui.results import as_json, asked, question, tokens


def main(args: Namespace) -> int:
    """Show a run, as tables or as JSON; also one that is being written."""
    run = Run.open(args.directory)
    if args.json:
        tables.print_json(as_json(run))
        return 0
    console = tables.out()
    lines(run, console)
    if run.evaluations:
        console.print(tables.results(run))
    if run.rounds:
        console.print(tables.rounds(run))
    return 0


def lines(run: Run, console: Console) -> None:
    """Print what does not fit into a table."""
    wanted = asked(run)
    facts = {
        "run": str(run.path),
        "status": status(run),
        "base": wanted.base,
        "data": wanted.data,
        "algorithm": wanted.algorithm,
        "rounds": f"{len(run.history.rounds)} of {wanted.rounds}, {tokens(run):,} tokens",
    }
    if run.asking is not None and run.status == "running":
        facts["asks"] = question(run.asking)
        facts["or"] = f"fedpilot steer {run.path} edit {run.asking.id} KEY=VALUE, or reject"
    if run.status in ("stopped", "interrupted", "failed"):
        facts["go on"] = f"fedpilot resume {run.path}"
    elif (run.path / wanted.makes).is_dir():
        facts[wanted.makes] = str(run.path / wanted.makes)
    facts |= {f"warning {i}": w.text for i, w in enumerate(run.history.warnings, start=1)}
    for name, text in facts.items():
        console.print(f"{name:<10} {text}", soft_wrap=True, markup=False)


def status(run: Run) -> str:
    """Say what a run does and what it waits for, or how it ended."""
    if run.status == "running" and run.asking is not None:
        return f"running, waits for an answer: fedpilot steer {run.path} approve {run.asking.id}"
    if run.paused:
        return "running, paused"
    reason = run.history.ended.reason if run.history.ended else ""
    if not reason or reason.startswith(run.status):
        return reason or run.status
    return f"{run.status}: {reason}"
