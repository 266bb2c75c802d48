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
