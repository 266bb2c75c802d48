"""The runs of a folder, as pages read them: one copy for all tabs, which grows at its end.

Reads; the only things it writes beside the journals are tags and, when a person says so, the end of
a run directory.
"""

import json
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from federation.errors import ConfigError, FedpilotError, LockedError, StorageError
from federation.runs import storage
from federation.runs.folder import is_run
from federation.runs.run import Run, problems

TAGS = "tags.json"
STUDY = "study.json"


@dataclass(frozen=True)
class Opened:
    """A run as it can be read.

    Attributes:
        run: what is readable of it.
        damage: what is wrong with it, in a line; empty if nothing is.
    """

    run: Run
    damage: str = ""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run.path.name

    @property
    def status(self) -> str:
        """One of :data:`ui.web.language.STATUSES`."""
        return "damaged" if self.damage else self.run.status

    @property
    def state(self) -> str:
        """A name of what stands in the journal: the same as long as nothing is appended."""
        run = self.run
        newest = run.entries[-1].time if run.entries else ""
        return f"{run.path}|{run.history.config_sha256}|{len(run.entries)}|{newest}|{self.damage}"


class Shelf:
    """All runs of a folder; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not be there yet."""
        self.folder = folder
        self._opened: dict[str, Opened] = {}
        self._guard = threading.Lock()

    def names(self) -> list[str]:
        """List the runs, the newest first."""
        found = [path for path in self.folder.glob("[!.]*") if is_run(path)]
        return [path.name for path in sorted(found, key=began, reverse=True)]

    def studies(self) -> list[str]:
        """List the studies, the newest first."""
        found = [path.parent for path in self.folder.glob(f"[!.]*/{STUDY}")]
        return [path.name for path in sorted(found, key=began, reverse=True)]

    def path(self, name: str) -> Path:
        """Return the directory of a run or study of this folder.

        Raises:
            ConfigError: if there is none; a name never leads out of the folder.
            StorageError: if there can be none of that name.
        """
        path = self.folder / name
        inside = name[:1] not in ("", ".") and "/" not in name and "\0" not in name
        with storage.explained(path):
            if not inside or not (is_run(path) or (path / STUDY).is_file()):
                raise ConfigError(f"there is no run {name!r} in {self.folder}")
        return path

    def open(self, name: str) -> Opened:
        """Return a run as it stands now, reading only what was appended since the last time.

        Raises:
            ConfigError: if there is no such run.
        """
        path = self.path(name)
        with self._guard:
            known = self._opened.get(name)
            try:
                fresh = known is None or known.damage or not same(known.run, path)
                run = Run.open(path) if fresh or known is None else known.run.refresh()
                opened = Opened(run)
            except ConfigError:
                raise
            except FedpilotError as error:
                run, _ = Run.readable(path)
                opened = Opened(run, str(error))
            self._opened[name] = opened
        return opened

    def opened(self) -> list[Opened]:
        """Return all runs, the newest first; one that vanishes or cannot be read is left out."""
        found = []
        for name in self.names():
            try:
                found.append(self.open(name))
            except FedpilotError:
                continue
        return found

    def delete(self, name: str) -> None:
        """Delete a run, if nobody is writing it.

        Raises:
            ConfigError: if there is no such run.
            LockedError: if it is being written.
            StorageError: if it cannot be deleted.
        """
        path = self.path(name)
        if path.is_symlink():
            with storage.explained(path):
                path.unlink()  # what it leads to lies elsewhere, and stays
        else:
            erase(path)
        with self._guard:
            self._opened.pop(name, None)

    def take_in(self, source: Path) -> str:
        """Copy a run directory from elsewhere into this folder.

        Returns:
            Its name here.

        Raises:
            ConfigError: if it is no run, is being written, holds what is no file, or its name is
                taken.
            CorruptError: if it is damaged.
            StorageError: if it cannot be copied; nothing half is left behind.
        """
        with storage.explained(source):
            if not is_run(source):
                raise ConfigError(f"{source} is not a run directory; check the path")
            source = source.resolve()
        if storage.is_locked(source):
            raise ConfigError(f"{source} is being written; import it when it has ended")
        if source.name.startswith("."):
            raise ConfigError(f"{source.name} begins with a dot; rename it first")
        if self.folder.resolve().is_relative_to(source):
            raise ConfigError(f"{source} holds the runs of this server; import another")
        target = self.folder / source.name
        if target.exists():
            raise ConfigError(f"there is a {target.name} here already; rename one of them")
        if foreign := next((path for path in source.rglob("*") if not own(path)), None):
            raise ConfigError(f"{foreign} is a link, or no file: put a copy in its place")
        if found := problems(source):
            raise ConfigError(f"{source} is damaged: {found[0]}")
        temporary = storage.temporary_name(target)
        with storage.explained(target):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copytree(source, temporary)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return target.name


def erase(path: Path) -> None:
    """Delete a run directory that nobody writes: first its name, so that none is left half.

    Raises:
        ConfigError: if it is gone already.
        LockedError: if it is being written.
        StorageError: if it cannot be deleted.
    """
    gone = storage.temporary_name(path)
    try:
        held = storage.lock(path)
    except LockedError:
        raise LockedError(f"{path.name} is being written; stop it first") from None
    except StorageError:
        if path.exists():
            raise
        raise ConfigError(f"{path.name} is deleted already") from None
    try:
        with storage.explained(path):
            path.rename(gone)
            shutil.rmtree(gone)
    finally:
        held.release()


def own(path: Path) -> bool:
    """Tell whether a path holds its own bytes: a file or folder, and no link to another."""
    return not path.is_symlink() and (path.is_file() or path.is_dir())


def same(run: Run, path: Path) -> bool:
    """Tell whether a directory still holds the run that was read: not another of the same name."""
    start = run.history.start
    return start is None or start.config_sha256 == storage.sha256_file(path / "config.json")


def began(path: Path) -> float:
    """Return when a run or study was begun: its configuration is written once."""
    for name in ("config.json", STUDY):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def tags(path: Path) -> tuple[str, ...]:
    """Return the tags that people gave a run; those of a file that is none are none."""
    try:
        found = json.loads((path / TAGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(x for x in found if isinstance(x, str)) if isinstance(found, list) else ()


def tag(path: Path, words: Iterable[str]) -> None:
    """Give a run its tags.

    Raises:
        StorageError: if they cannot be written.
    """
    kept = sorted({word.strip()[:40] for word in words} - {""})
    storage.atomic_write(path / TAGS, json.dumps(kept).encode())


def differences(configs: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Return the keys in which configurations differ: dotted key -> run -> value.

    Args:
        configs: run -> its configuration, nested.
    """
    flat = {name: dict(flattened(config)) for name, config in configs.items()}
    keys = sorted({key for values in flat.values() for key in values})
    rows = {key: {name: values.get(key) for name, values in flat.items()} for key in keys}
    return {key: row for key, row in rows.items() if len({repr(v) for v in row.values()}) > 1}


def flattened(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Yield dotted keys and values of nested tables."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
