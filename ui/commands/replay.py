"""``fedpilot replay``: repeat a finished run from its journal and compare the bits."""

from argparse import Namespace

from federation.errors import CorruptError
from federation.runs.run import Run
from federation.runs.writer import refuse_used
from ui import tables
from ui.progress import watching


def main(args: Namespace) -> int:
    """Repeat a run without asking the policy that decided it.

    Raises:
        CorruptError: if the repetition came to other bits.
    """
    run = Run.open(args.run)
    refuse_used(args.directory)
    from agents.experiment import replay

    with watching(len(run.history.rounds)) as watch:
        again = replay(args.run, args.directory, watch=watch)
    other = [
        n
        for n, record in run.history.rounds.items()
        if record.checkpoint_sha256 != again.history.rounds[n].checkpoint_sha256
    ]
    if other:
        raise CorruptError(
            f"{again.path} differs from {run.path} from round {other[0] + 1} on: another machine,"
            " another version of a library, or a record that was changed"
        )
    words = (
        f"{again.path} has the bits of {run.path} in each of its {len(run.history.rounds)} rounds"
    )
    tables.out().print(words, soft_wrap=True, markup=False)
    return 0
