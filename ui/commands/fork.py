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

    parent, args.directory = args.directory, args.out  # what is written is what can be resumed
    planned = Run.open(parent).rounds_planned
    total = planned if args.rounds is None else args.round + args.rounds
    with watching(total, args.round) as watch:
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
