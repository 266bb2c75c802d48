"""``fedpilot verify``: check that a run with its chats, or a study, is as it was written."""

from argparse import Namespace
from pathlib import Path

from agents.copilot import records
from agents.serving import records as serving
from agents.study import ledger
from federation.errors import CorruptError
from federation.runs.run import problems
from ui.tables import print_json


def main(args: Namespace) -> int:
    """Check every recorded hash.

    Raises:
        CorruptError: if something is not as it was written.
    """
    check = ledger.problems if ledger.is_study(args.directory) else of_run
    found = check(args.directory)
    if args.json:
        print_json({"path": str(args.directory), "ok": not found, "problems": list(found)})
    elif not found:
        print(f"{args.directory} is as it was written")
    elif len(found) > 1:
        print("\n".join(found))
    if len(found) > 1:
        raise CorruptError(f"{args.directory}: {len(found)} things are not as they were written")
    if found:
        raise CorruptError(found[0])
    return 0


def of_run(path: Path) -> list[str]:
    """Check a run, the chats about it and what was written of serving it."""
    return [*problems(path), *records.problems(path), *serving.problems(path)]
