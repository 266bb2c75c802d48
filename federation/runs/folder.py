"""What stands in a run directory under which name, and whether it is one at all.

Knows names and files; what the records of a run mean together is run.py's.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue

from federation.errors import ConfigError, CorruptError
from federation.runs import storage
from federation.runs.keys import NOISE_KEY

CONFIG, JOURNAL, STATE, CLIENTS = "config.json", "journal.jsonl", "state", "clients"
INBOX = "inbox"
"""Folder of the commands that a run has not followed yet (inbox.py)."""
ADAPTER = "adapter"
"""Folder of the final global adapter, in PEFT's format."""
MADE_UP = "made-up"
"""Folder of what was made up before the run began: it may stand there when the run does."""
BASELINES = "baselines"
"""Folder that holds the runs of a run's baselines."""


def read_config(path: Path) -> dict[str, JsonValue]:
    """Read the configuration of a run directory.

    Raises:
        ConfigError: if ``path`` is no run directory.
        CorruptError: if it is no JSON object.
        StorageError: if it cannot be read.
    """
    if not is_run(path):
        if (path / MADE_UP).is_dir() and not (path / CONFIG).exists():
            again = f"repeat: fedpilot run CONFIG --out {path}"
            raise ConfigError(f"{path}: rows were being made up there and no run began; {again}")
        if not path.exists():
            raise ConfigError(f"{path}: there is no such folder; check the path")
        if path.is_dir() and any(map(is_run, path.iterdir())):
            raise ConfigError(
                f"{path} is a folder of runs: name one; fedpilot runs {path} has them"
            )
        lacks = JOURNAL if (path / CONFIG).exists() else CONFIG
        raise ConfigError(f"{path} is not a run directory: it has no {lacks}; check the path")
    with storage.explained(path / CONFIG):
        text = (path / CONFIG).read_bytes()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise CorruptError(f"{path / CONFIG} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise CorruptError(f"{path / CONFIG} is damaged: it holds no table of settings")
    return at_home(config, path)


def at_home(config: dict[str, JsonValue], path: Path) -> dict[str, JsonValue]:
    """Let a run that was moved or copied find what was made up for it: rows, or a first adapter."""
    here = {file.name: str(file) for file in (path.absolute() / MADE_UP).glob("*")}
    return with_made_up(config, lambda known: here.get(known.name, str(known)))


def as_asked(config: dict[str, JsonValue], path: Path) -> dict[str, JsonValue]:
    """Leave out what was made up for a run: one that is to be like it has its own made."""
    own = path.absolute() / MADE_UP
    return with_made_up(config, lambda known: None if known.parent == own else str(known))


def with_made_up(
    config: dict[str, JsonValue], change: Callable[[Path], str | None]
) -> dict[str, JsonValue]:
    """Change where in a configuration what was made up lies."""
    for table, key in (("data", "extra"), ("adapter", "start")):
        there = config.get(table)
        known = there.get(key) if isinstance(there, dict) else None
        if (
            isinstance(there, dict)
            and isinstance(known, str)
            and Path(known).parent.name == MADE_UP
        ):
            config = {**config, table: {**there, key: change(Path(known))}}
    return config


def is_run(path: Path) -> bool:
    """Tell whether a folder holds a run; a writer locks it before it writes anything else."""
    written = (path / CONFIG).is_file()
    return written and any((path / name).is_file() for name in (JOURNAL, storage.LOCK))


def check_config(path: Path, sha256: str | None) -> None:
    """Check that a run's configuration is the one it began with.

    Args:
        path: the run directory.
        sha256: its hash, as the journal has it; None if the run did not begin.

    Raises:
        CorruptError: if it was changed since.
    """
    file = path / CONFIG
    if sha256 and sha256 != storage.sha256_file(file):
        raise CorruptError(f"{file} was changed since the run began; restore it from a copy")


def check_given(path: Path, files: Mapping[str, str]) -> None:
    """Check that what stood in a run directory when the run began is what it was.

    Args:
        path: the run directory.
        files: sha256 of each, as the journal has it.

    Raises:
        CorruptError: naming the first that is gone or was changed.
    """
    for name, sha256 in files.items():
        if problem := damage(path / name, sha256):
            raise CorruptError(f"{problem}; restore it from a copy")


def check_end(path: Path, highest: int, checkpoints: Iterable[int]) -> None:
    """Check that a journal knows of the rounds that left checkpoints.

    Args:
        path: the run directory.
        highest: highest round that the journal ever committed; -1 if none.
        checkpoints: rounds of which there are checkpoint files.

    Raises:
        CorruptError: if it does not.
    """
    last = max(checkpoints, default=-1)
    # A kill leaves one checkpoint more than the journal names, never two.
    if last > highest + 1:
        lost = f"{path / JOURNAL} has lost its end: it names no round {last}"
        raise CorruptError(f"{lost}, {STATE}/ does; restore it from a copy, or start a new run")


def checkpoints_in(directory: Path) -> dict[int, Path]:
    """Map rounds to the checkpoint files that are there."""
    return numbered_in(directory, "round")


def updates_in(directory: Path) -> dict[int, Path]:
    """Map rounds to the files of their clients' updates that are there."""
    return numbered_in(directory, "updates")


def numbered_in(directory: Path, name: str) -> dict[int, Path]:
    """Map rounds to the files of a name that are there."""
    if not directory.exists():
        return {}
    with storage.explained(directory):
        paths = list(directory.iterdir())
    found = ((re.fullmatch(rf"{name}-(\d+)\.safetensors", path.name), path) for path in paths)
    return {int(match[1]): path for match, path in found if match}


def made(path: Path) -> dict[str, str]:
    """Hash what a run made for others: its adapter, file by file.

    Raises:
        StorageError: if a file cannot be read.
    """
    return hashes(path, (path / ADAPTER).glob("*"))


def given(path: Path) -> dict[str, str]:
    """Hash what stands in a run directory when it begins and decides its bits, file by file.

    That is what was made up before, and the secret of its noise.

    Raises:
        StorageError: if a file cannot be read.
    """
    return hashes(path, [*(path / MADE_UP).rglob("*"), path / NOISE_KEY])


def hashes(path: Path, files: Iterable[Path]) -> dict[str, str]:
    """Hash those files of a run directory that are there, by name."""
    there = sorted(file for file in files if file.is_file())
    return {str(file.relative_to(path)): storage.sha256_file(file) for file in there}


def damage(path: Path, sha256: str | None) -> str | None:
    """Say what is wrong with a file whose hash was recorded."""
    if not path.exists():
        return f"{path} is missing"
    if storage.sha256_file(path) != sha256:
        return f"{path} is damaged: its hash is not the recorded one"
    return None
