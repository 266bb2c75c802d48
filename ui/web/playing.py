"""Whose models of a run can be asked, by rounds and clients that there are; imports no torch."""

from typing import NamedTuple

from federation.errors import FedpilotError
from federation.runs.folder import BASELINES, is_run
from federation.runs.run import Run, checkpoint_files


class There(NamedTuple):
    """What there is to ask.

    Attributes:
        rounds: of the run's own model whose checkpoint is on the disk, from 0.
        clients: that trained alone and kept their model.
        centralised: whether one model was trained on everybody's data.
    """

    rounds: list[int]
    clients: list[str]
    centralised: bool

    @property
    def subjects(self) -> list[str]:
        """Whose models there are, as the one visual language names them."""
        found = ["base"]
        found += ["local"] if self.clients else []
        found += ["federated"] if self.rounds else []
        return found + (["centralised"] if self.centralised else [])


def there(run: Run) -> There:
    """Look at what lies in a run directory."""
    files = checkpoint_files(run.path, run.history)
    rounds = [n for n, file in files.items() if file.exists()]
    return There(rounds, clients_alone(run), bool(baseline(run, "centralised")))


def baseline(run: Run, name: str) -> Run | None:
    """Open a baseline; None if there is none, none with a checkpoint, or it is damaged."""
    path = run.path / BASELINES / name
    try:
        found = Run.open(path) if is_run(path) else None
    except FedpilotError:
        return None
    return found if found and found.history.newest_checkpoints(1) else None


def clients_alone(run: Run) -> list[str]:
    """List the clients that have a model of their own."""
    found = baseline(run, "local")
    rounds = found.history.rounds.values() if found else ()
    return sorted({name for record in rounds for name in record.kept})
