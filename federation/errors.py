"""Errors a user can mend: what is wrong, where, what to do; one line, a stable exit code."""


class FedpilotError(Exception):
    """Something the user can mend.  ``str(error)`` is one line; ``exit_code`` is stable."""

    exit_code = 1


class ConfigError(FedpilotError):
    """A configuration, option or name that cannot be used."""

    exit_code = 2


class DataError(FedpilotError):
    """Data that is missing, malformed or too small."""

    exit_code = 3


class PortError(FedpilotError):
    """A network port that cannot be used."""

    exit_code = 4


class StorageError(FedpilotError):
    """A disk that is full, read-only or failing."""

    exit_code = 6


class LockedError(FedpilotError):
    """A run directory that another process is writing."""

    exit_code = 7


class CorruptError(FedpilotError):
    """Saved state that does not match its recorded hash."""

    exit_code = 8


class QuorumError(FedpilotError):
    """Too few clients answered for a round to count."""

    exit_code = 9


class StoppedError(FedpilotError):
    """A run or study that ended early because somebody told it to; it can be gone on with."""

    exit_code = 130

    def __init__(self, path: object, why: str, go_on: str = "fedpilot resume") -> None:
        """Say what to do.

        Args:
            path: its directory.
            why: who stopped it.
            go_on: the command that goes on with it.
        """
        super().__init__(f"{path}: {why}; go on with: {go_on} {path}")
        self.why = why
