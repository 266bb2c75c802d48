"""Where the interface keeps what people bring and write: uploads, configurations, made-up sets.

All of it lies beside the runs, in folders whose names begin with a dot, written whole or not at
all.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.errors import ConfigError
from federation.runs import storage
from ui.web import jobs
from ui.web.jobs import Job
from ui.web.written import toml_text

UPLOADS, CONFIGS, DATA = ".uploads", ".configs", ".data"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SUFFIXES = ("jsonl", "ndjson", "json", "csv", "parquet", "txt")


def checked_name(name: str, taken: Sequence[str] = ()) -> str:
    """Return a name that a folder can have.

    Args:
        name: as it was typed.
        taken: names that are gone.

    Raises:
        ConfigError: if it cannot be used.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            "name: write letters, digits, '.', '_' and '-', the first one a letter or digit,"
            " 64 at most"
        )
    if name in taken:
        raise ConfigError(f"name: there is a {name} already; choose another")
    return name


def typed_path(text: str) -> Path:
    """Return the path of something that is there, as a person typed it.

    Raises:
        ConfigError: if there is nothing, or it can be no path.
    """
    try:
        path = Path(text.strip()).expanduser()
        path.stat()
    except (ValueError, RuntimeError) as error:  # with a null, of no user
        raise ConfigError(f"{text[:80]!r} is no path: {error}") from None
    except OSError as error:
        raise ConfigError(f"{text[:80]!r}: {error.strerror}; check the path") from None
    return path


def harmless(name: str) -> str:
    """Make a name that a folder can have of any text: letters that are harmless, 64 at most."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[-64:].strip("-_") or "data"


def keep_upload(runs: Path, name: str, data: bytes) -> Path:
    """Keep a file that was brought; the same content is kept once.

    Args:
        runs: folder of the runs.
        name: that it had; only its end and harmless letters of it are kept.
        data: its bytes.

    Raises:
        ConfigError: if its suffix is of no kind that can be read.
        StorageError: if it cannot be written.
    """
    stem, suffix = Path(name).stem, Path(name).suffix.lower()
    if suffix.removeprefix(".") not in SUFFIXES:
        raise ConfigError(f"{name}: bring a file that ends in {', '.join(SUFFIXES)}")
    safe = harmless(stem)[:40]
    digest = hashlib.sha256(data).hexdigest()[:12]
    path = runs / UPLOADS / f"{safe}-{digest}{suffix}"
    if not path.is_file():
        with storage.explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.atomic_write(path, data)
    return path.absolute()


def keep_config(runs: Path, name: str, table: Mapping[str, Any]) -> Path:
    """Write a configuration.

    Raises:
        ConfigError: if it cannot be written as TOML.
        StorageError: if the file cannot be written.
    """
    path = runs / CONFIGS / f"{name}.toml"
    with storage.explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    storage.atomic_write(path, toml_text(table).encode())
    return path


def start_run(runs: Path, name: str, table: Mapping[str, Any]) -> Job:
    """Write an experiment down and start it.

    Raises:
        ConfigError: if the name is taken or cannot be used.
        StorageError: if something cannot be written.
    """
    return started(runs, name, table, "run", name)


def start_study(runs: Path, name: str, table: Mapping[str, Any]) -> Job:
    """Write a study down and start it; it raises what :func:`start_run` does."""
    return started(runs, name, table, "study", f"the study {name}")


def started(runs: Path, name: str, table: Mapping[str, Any], command: str, title: str) -> Job:
    """Write a file of a new name and start the command that reads it."""
    taken = [path.name for path in runs.glob("*")]
    taken += [job.about for job in jobs.jobs(runs) if job.alive]
    config = keep_config(runs, checked_name(name, taken), table)
    return jobs.start(runs, title, [command, str(config), "--out", str(runs / name)], name)


def clients_job(runs: Path, table: Mapping[str, Any], stamp: str, *, start: bool) -> Job | None:
    """Find, or start, the job that says who would hold what.

    Args:
        runs: folder of the runs.
        table: what of the experiment decides that, and no more.
        stamp: state of its source; another state is another job.
        start: whether to start it if there is none; one that failed is started anew.
    """
    text = toml_text(table)
    name = f"clients-{hashlib.sha256(f'{text}{stamp}'.encode()).hexdigest()[:16]}"
    args = ("data", str(runs / CONFIGS / f"{name}.toml"), "--json")
    same = [job for job in jobs.jobs(runs, "") if job.args == args]
    found = max(same, key=lambda job: job.began, default=None)
    if not start or (found is not None and (found.alive or found.code == 0)):
        return found
    keep_config(runs, name, table)
    return jobs.start(runs, "a look at the clients", args)
