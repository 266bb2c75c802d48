"""``fedpilot fork``: run on from a round of a run, with something otherwise."""

from argparse import Namespace

from federation.runs.run import Run
from federation.runs.writer import refuse_used
from ui.commands.running import report
from ui.progress import watching


def main(args: Namespace) -> int:
    """Begin a run where another one stood after a round."""
    refuse_used(args.out)
    from agents.experiment import fork
    from federation.forks import forked

    parent, args.directory = args.directory, args.out  # what is written is what can be resumed
    planned = forked(Run.open(parent), args.round - 1, args.overrides, args.rounds).rounds
    with watching(planned, args.round) as watch:
        run = fork(
            parent,
            args.out,
            args.round - 1,
            overrides=args.overrides,
            rounds=args.rounds,
            watch=watch,
        )
    report(run)
    return 0
