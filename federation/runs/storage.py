"""Files that are whole or not there: atomic writes, appends, and the lock of a directory.

Knows files, not runs.  Whoever calls it says where; every failing of the disk becomes one line that
names the path and what to do (:class:`StorageError`), and leaves what was there before as it was.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from federation.errors import LockedError, StorageError

Data = bytes | Callable[[BinaryIO], object]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LOCK = "lock"
"""The file that a writer locks."""
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# --- Files -------------------------------------------------------------------------------------


def atomic_write(path: Path, data: Data, mode: int = 0o666) -> None:
    """Write a file so that it is, after any crash, either as before or as it shall be.

    Args:
        path: the file; its directory must exist.
        data: its bytes, or a function that writes them to a binary file.
        mode: who may read and write it, before the process's umask.

    Raises:
        StorageError: if the disk is full, failing or read-only; ``path`` is then as it was before.
    """
    _replace(path, data, mode)
    sync_directory(path.parent)


def atomic_write_many(files: Iterable[tuple[Path, bytes]]) -> None:
    """Write files as :func:`atomic_write` does, but wait only once for each directory.

    Raises:
        StorageError: as :func:`atomic_write`; files before the failing one may have been written.
    """
    directories: dict[Path, None] = {}
    for path, data in files:
        _replace(path, data)
        directories[path.parent] = None
    for directory in directories:
        sync_directory(directory)


def _replace(path: Path, data: Data, mode: int = 0o666) -> None:
    """Write beside ``path``, wait for the disk, rename over it."""
    temporary = temporary_name(path)
    with explained(path, len(data) if isinstance(data, bytes) else None):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                _fill(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _fill(fd: int, data: Data) -> None:
    """Write all of the data to an open file."""
    if isinstance(data, bytes):
        _write_all(fd, data)
        return
    with open(fd, "wb", closefd=False) as file:
        data(file)


def _write_all(fd: int, data: bytes) -> None:
    """Write all bytes, however many the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def temporary_name(path: Path) -> Path:
    """Name the temporary file that becomes ``path``: hidden, in the same directory, a thread's."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one of :func:`temporary_name`, left by a crash."""
    return name.startswith(".") and name.endswith(".tmp")


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk.

    Raises:
        StorageError: if the disk fails.
    """
    with explained(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def open_append(path: Path) -> int:
    """Open a file for appending and make its name durable.

    Returns:
        The file descriptor, for :func:`append`.

    Raises:
        StorageError: if it cannot be opened for writing.
    """
    with explained(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    sync_directory(path.parent)
    return fd


def append(fd: int, path: Path, data: bytes, size: int) -> None:
    """Append and wait for the disk; on failure cut the file back to ``size``, its length before.

    Raises:
        StorageError: if the disk is full or failing.
    """
    with explained(path, len(data)):
        try:
            _write_all(fd, data)
            os.fsync(fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, size)
            raise


def truncate(fd: int, path: Path, size: int) -> None:
    """Cut a file and wait for the disk.

    Raises:
        StorageError: if the disk fails.
    """
    with explained(path):
        os.ftruncate(fd, size)
        os.fsync(fd)


def remove(paths: Iterable[Path]) -> None:
    """Delete files that may already be gone.

    Raises:
        StorageError: if one cannot be deleted.
    """
    for path in paths:
        with explained(path), suppress(FileNotFoundError):
            os.unlink(path)


def sweep(directory: Path) -> None:
    """Delete what killed writers left in a directory: files and folders under temporary names.

    Raises:
        StorageError: if one cannot be deleted.
    """
    with explained(directory):
        left = [path for path in directory.iterdir() if is_temporary(path.name)]
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free ``<name>.bad-<n>``, so that it is lost to nobody.

    Raises:
        StorageError: if it cannot be renamed.
    """
    aside = free_name(path.with_name(f"{path.name}.bad"))
    with explained(path):
        os.replace(path, aside)
    sync_directory(path.parent)
    return aside


def free_name(path: Path) -> Path:
    """Return the first of ``<path>-1``, ``<path>-2``, ... that is not taken."""
    n = 1
    while (free := path.with_name(f"{path.name}-{n}")).exists():
        n += 1
    return free


def sha256_file(path: Path) -> str:
    """Hash a file.

    Raises:
        StorageError: if it cannot be read.
    """
    with explained(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Errors ------------------------------------------------------------------------------------


@contextmanager
def explained(path: Path, need: int | None = None) -> Iterator[None]:
    """Turn an error of the operating system into one line for a person.

    Args:
        path: what was being read or written.
        need: bytes that were to be written, if known.

    Raises:
        StorageError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(_explain(path, need, error)) from error


def _explain(path: Path, need: int | None, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        wanted = "space" if need is None else size_text(need)
        free = size_text(shutil.disk_usage(path.parent).free)
        full = f"{path}: {reason}: need {wanted} in {path.parent}, {free} free"
        return f"{full}; make room, then resume or repeat it"
    if error.errno in DENIED:
        return f"{path}: {reason}; make it writable for this user, or choose another place"
    if error.errno == errno.ENOENT:
        return f"{path}: no such file or directory; check the path"
    return f"{path}: {reason}; check the disk"


def size_text(size: int) -> str:
    """Write a number of bytes for a person, in the largest binary unit that leaves it above 1."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    scale = min(max(size.bit_length() - 1, 0) // 10, len(units) - 1)
    value = size / (1 << 10 * scale)
    return f"{value:.0f} {units[scale]}" if value >= 100 else f"{value:.3g} {units[scale]}"


# --- The lock ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lock:
    """The right to write in a directory, held until released or until the process is gone."""

    fd: int

    def release(self) -> None:
        """Let others write.  The file stays: deleting it would let two processes hold two locks."""
        os.close(self.fd)


def lock(directory: Path, patience: float = 0.2) -> Lock:
    """Become the one writer of a directory.

    The lock is an ``flock`` on the file ``lock``, which the kernel drops with its process, so that
    no stale one is ever left.  The file says who holds it, for people.

    Args:
        directory: an existing directory.
        patience: seconds to keep trying, because :func:`is_locked` holds the lock for an instant.

    Raises:
        LockedError: if another process writes there.
        StorageError: if the file cannot be written.
    """
    path = directory / LOCK
    with explained(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _flock_within(fd, patience):
                raise LockedError(f"{directory} is being written by {_holder(path)}")
            os.ftruncate(fd, 0)
            _write_all(fd, json.dumps(_this_process()).encode())
        except BaseException:
            os.close(fd)
            raise
    return Lock(fd)


def is_locked(directory: Path) -> bool:
    """Whether a process is writing in the directory now.

    Raises:
        StorageError: if the lock file cannot be read.
    """
    path = directory / LOCK
    if not path.exists():
        return False
    with explained(path), open(path, "rb") as file:
        return not _flock(file.fileno(), fcntl.LOCK_SH)


def _flock(fd: int, how: int) -> bool:
    """Take a lock if it is free; whether it was."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock_within(fd: int, seconds: float) -> bool:
    """Take the exclusive lock as soon as it is free, within some seconds; whether it was."""
    until = time.monotonic() + seconds
    while not (taken := _flock(fd, fcntl.LOCK_EX)) and time.monotonic() < until:
        time.sleep(0.01)
    return taken


def _this_process() -> dict[str, str | int]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "pid": os.getpid(),
        "boot_id": boot.read_text().strip() if boot.exists() else "",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(path: Path) -> str:
    """Say who holds a lock, since when, and what to do."""
    todo = "wait for it, or stop it"
    try:
        holder = json.loads(path.read_bytes())
        since = datetime.fromisoformat(holder["since"]).astimezone()
    except (ValueError, KeyError):
        return f"another process that just started; {todo}"
    day = "" if since.date() == datetime.now(since.tzinfo).date() else f"{since:%Y-%m-%d} "
    return f"process {holder['pid']} since {day}{since:%H:%M}; {todo}"
