"""``fedpilot resume``: go on with a run that was stopped or killed."""

from argparse import Namespace

from federation.errors import LockedError
from federation.runs.run import Run
from ui.commands.running import report
from ui.progress import watching
from ui.results import asked


def main(args: Namespace) -> int:
    """Go on where the last committed round left off.

    Raises:
        LockedError: if it goes on already, or its process waits to be told so.
    """
    run = Run.open(args.directory)
    if run.paused:
        raise LockedError(
            f"{run.path} is paused by a process that waits; let it go on with: fedpilot steer"
            f" {run.path} resume"
        )
    wanted = asked(run)
    if run.status != "finished":
        from agents.experiment import resume

        with watching(wanted.rounds, len(run.history.rounds)) as watch:
            run = resume(args.directory, watch=watch)
    report(run)
    return 0
