"""A study is stopped as a run is: by a command in its inbox.

Whoever conducts it looks before every run, and passes the command on to the run that goes on, which
ends after the round in flight.  What was done is kept and can be gone on with.
"""

from contextlib import suppress
from pathlib import Path

from agents.study.ledger import RUNS, is_study
from federation.errors import ConfigError, StoppedError
from federation.runs import inbox, storage
from federation.runs.folder import is_run
from federation.runs.inbox import Stop

GO_ON = "fedpilot study"
"""The command that goes on with a study."""


def stop(path: Path, by: str = "person") -> None:
    """Let a study that goes on end after the round in flight; asked for twice, it is asked once.

    Args:
        path: its directory.
        by: who says so.

    Raises:
        ConfigError: if there is no study at ``path``, or nobody conducts it.
        StorageError: if the command cannot be written.
    """
    if not is_study(path):
        raise ConfigError(f"{path} is not a study; check the path")
    if not storage.is_locked(path):
        raise ConfigError(
            f"{path} does not go on, so there is nothing to stop; go on with it by: {GO_ON} {path}"
        )
    inbox.put(path, told(path) or inbox.parse({"command": "stop", "by": by}))
    if (run := in_flight(path)) is not None:
        pass_on(path, run)


def told(path: Path) -> Stop | None:
    """Return the command by which a study is to stop; None if there is none."""
    found = (inbox.read(file) for file in inbox.files(path) if not stale(path, file))
    return next((command for command in found if isinstance(command, Stop)), None)


def forget(path: Path) -> None:
    """Take out what an earlier conductor was told."""
    storage.remove([file for file in inbox.files(path) if stale(path, file)])


def stale(path: Path, file: Path) -> bool:
    """Tell whether a command is older than the lock of who conducts the study, or gone by now."""
    try:
        return file.stat().st_mtime_ns < (path / storage.LOCK).stat().st_mtime_ns
    except FileNotFoundError:
        return True


def heed(path: Path) -> None:
    """Go on unless the study is to stop.

    Raises:
        StoppedError: if it is.
    """
    if (command := told(path)) is not None:
        raise StoppedError(path, f"stopped by {command.by}", GO_ON)


def pass_on(path: Path, run: Path) -> None:
    """Tell a run of a study to stop if the study is to."""
    if (command := told(path)) is not None:
        with suppress(ConfigError):  # it has ended by now
            inbox.post(run, command)


def in_flight(path: Path) -> Path | None:
    """Return the run that a study makes at this moment."""
    made = (run for run in (path / RUNS).glob("*") if is_run(run))
    return next((run for run in made if storage.is_locked(run)), None)
