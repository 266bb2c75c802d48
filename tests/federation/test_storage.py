"""Files are whole or not there, disks fail in one line, one writes, trees are distrusted."""

import errno
import fcntl
import json
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from threading import Timer

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import CorruptError, LockedError, StorageError
from federation.runs import storage, tree_files

OLD, NEW = b"old", b"new and longer"


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def in_child(work) -> int:
    """Run in a forked process; return its exit code (0: it ended well, 1: it raised)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_file_is_written_by_bytes_or_by_a_function(tmp_path):
    storage.atomic_write(tmp_path / "a", NEW)
    storage.atomic_write(tmp_path / "b", lambda file: file.write(NEW))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == NEW
    assert names(tmp_path) == {"a", "b"}


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    storage.atomic_write(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, ["need 42 MiB in", "free; make room"]),
        (errno.EIO, ["input/output error; check the disk"]),
        (errno.EACCES, ["permission denied; make it writable"]),
    ],
)
def test_a_failing_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, name, code, words):
    path = tmp_path / "state"
    path.write_bytes(OLD)

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(StorageError) as failed:
            storage.atomic_write(path, bytes(42 << 20))
    assert all(word in str(failed.value) for word in [*words, str(path)])
    assert "\n" not in str(failed.value) and failed.value.exit_code == 6
    assert path.read_bytes() == OLD and names(tmp_path) == {"state"}


def test_a_real_limit_on_file_size_is_a_full_disk(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(OLD)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(StorageError, match=r"need 97\.7 KiB in .*, .* free; make room"):
            storage.atomic_write(path, bytes(100_000))

    assert in_child(work) == 0
    assert path.read_bytes() == OLD and names(tmp_path) == {"state"}


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(StorageError, match="no such file or directory; check the path"):
        storage.atomic_write(tmp_path / "no" / "a", NEW)


def test_a_failed_append_is_cut_off_again(tmp_path, monkeypatch):
    path = tmp_path / "log"
    fd = storage.open_append(path)
    storage.append(fd, path, OLD, 0)
    write = os.write

    def half_then_full(fd, data):
        if len(data) < len(NEW):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data)[:4])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_then_full)
        with pytest.raises(StorageError, match="make room"):
            storage.append(fd, path, NEW, len(OLD))
    assert path.read_bytes() == OLD
    storage.append(fd, path, NEW, len(OLD))
    os.close(fd)
    assert path.read_bytes() == OLD + NEW


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (42 << 20, "42 MiB"), (3 << 40, "3 TiB")],
)
def test_sizes_are_read_by_people(size, text):
    assert storage.size_text(size) == text


def test_set_aside_never_overwrites(tmp_path):
    for content in (OLD, NEW):
        (tmp_path / "x").write_bytes(content)
        storage.set_aside(tmp_path / "x")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x.bad-1": OLD, "x.bad-2": NEW}


# --- The lock ----------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_writes(tmp_path):
    held = storage.lock(tmp_path)
    assert storage.is_locked(tmp_path)

    def second() -> None:
        with pytest.raises(
            LockedError, match=rf"written by process {os.getppid()} since \d\d:\d\d"
        ):
            storage.lock(tmp_path, patience=0)

    assert in_child(second) == 0
    with pytest.raises(LockedError) as error:
        storage.lock(tmp_path, patience=0)
    assert error.value.exit_code == 7 and "wait for it, or stop it" in str(error.value)
    held.release()
    assert not storage.is_locked(tmp_path)
    storage.lock(tmp_path).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    def killed() -> None:
        storage.lock(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(killed) == -signal.SIGKILL
    assert not storage.is_locked(tmp_path)
    storage.lock(tmp_path).release()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_asking_does_not_keep_a_writer_out(tmp_path):
    storage.lock(tmp_path).release()
    with open(tmp_path / "lock", "rb") as file:
        assert storage._flock(file.fileno(), fcntl.LOCK_SH)
        reader = Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
        reader.start()
        storage.lock(tmp_path, patience=5).release()
        reader.join()


# --- Trees -------------------------------------------------------------------------------------

TREE = {
    "params": torch.arange(6, dtype=torch.float32),
    "moment": torch.linspace(0, 1, 6, dtype=torch.float64),
    "base": torch.ones(3, dtype=torch.bfloat16),
    "steps": torch.tensor(7),
}


def test_a_tree_comes_back_as_it_was(tmp_path):
    sha256 = tree_files.save_tree(tmp_path / "t", TREE, {"round": "3"})
    back = tree_files.load_tree(tmp_path / "t", sha256)
    tree_files.check_tree(back, TREE, "t")
    assert all(torch.equal(back[name], x) for name, x in TREE.items())


def test_equal_trees_are_equal_bytes():
    notes = {letter: letter for letter in "abcdefgh"}
    matrix = torch.stack([TREE["params"], TREE["params"]])
    trees = [TREE, dict(reversed(TREE.items())), {**TREE, "params": matrix[1]}]
    assert len({tree_files.encode_tree(tree, notes) for tree in trees for _ in range(5)}) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": TREE["steps"]}, "lacks group 'base'"),
        ({**TREE, "../../x": TREE["steps"]}, r"unexpected group '\.\./\.\./x'"),
        ({**TREE, "base": torch.ones(3)}, r"'base' is float32\(3,\), expected bfloat16\(3,\)"),
        ({**TREE, "params": torch.ones(1)}, r"'params' is float32\(1,\), expected float32\(6,\)"),
    ],
)
def test_a_tree_that_is_not_like_the_expected_one_is_refused(wrong, words):
    with pytest.raises(CorruptError, match=words):
        tree_files.check_tree(wrong, TREE, "upload")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_counted(value):
    tree_files.check_finite(TREE, "upload")
    with pytest.raises(CorruptError, match="'params' has 1 non-finite values"):
        tree_files.check_finite({"params": torch.tensor([0, value])}, "upload")


@pytest.mark.parametrize("size", [0, 1, 8, 20, -1])
def test_a_cut_file_is_damaged(size):
    with pytest.raises(CorruptError, match="upload is damaged"):
        tree_files.decode_tree(tree_files.encode_tree(TREE)[:size], "upload")


def test_a_header_of_very_many_tensors_is_refused_unread():
    many = tree_files.encode_tree({f"group{n}": torch.zeros(0) for n in range(20_000)})
    with pytest.raises(CorruptError, match="header exceeds 1 MiB"):
        tree_files.decode_tree(many, "upload")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_is_damage_or_a_tree(data):
    """Whatever a stranger sends: a tree or a CorruptError, never anything else."""
    sent = bytearray(tree_files.encode_tree(TREE, {"round": "3"}))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    with suppress(CorruptError):
        tree_files.decode_tree(bytes(sent), "upload")


def test_a_recorded_hash_finds_every_flipped_bit(tmp_path):
    path = tmp_path / "t"
    sha256 = tree_files.save_tree(path, {"params": TREE["params"]})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptError):
            tree_files.load_tree(path, sha256)


def test_a_full_disk_is_one_line_when_safetensors_writes(tmp_path):
    """The library has an error of its own, of the system's it keeps the number."""
    from safetensors.torch import save_file

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        full = pytest.raises(
            StorageError, match=r"model: file too large: need space in .*make room"
        )
        with full, tree_files.saving(tmp_path / "model"):
            save_file({"x": torch.zeros(100_000)}, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
