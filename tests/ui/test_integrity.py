"""A run directory that is not as it was written: left by killed writers, changed by others."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from federation.runs import storage
from tests.tiny_worlds import World
from tests.ui.conftest import Call
from tests.ui.test_errors import shortened


def test_a_kill_while_the_adapter_is_written_costs_nothing(call: Call, copied: Path):
    weights = copied / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    shortened(copied)
    half = copied / ".adapter.1.tmp"
    shutil.move(copied / "adapter", half)
    (half / "adapter_model.safetensors").write_bytes(whole[:100])
    assert call("resume", copied).code == 0
    assert weights.read_bytes() == whole and not half.exists()


# --- The key of the privacy noise --------------------------------------------------------------


@pytest.fixture
def private(call: Call, world: World, tmp_path: Path) -> Path:
    """A run with privacy noise."""
    out = tmp_path / "private"
    noise = ["upload.clip=0.1", "upload.noise=1.0", "engine.chunk=2"]
    assert call("run", world.config, "--out", out, "--set", *noise).code == 0
    return out


def test_the_key_of_the_noise_is_its_owner_s_alone(private: Path):
    key = private / "noise.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32


def test_a_key_is_whole_or_absent_after_a_kill(
    call: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        """Stands for a process that is gone."""

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "noise.key":
            raise Killed
        real(source, target)

    real, out = os.replace, tmp_path / "run"
    monkeypatch.setattr(storage.os, "replace", killed)
    with pytest.raises(Killed):
        call("run", world.config, "--out", out, "--set", "upload.clip=0.1", "upload.noise=1.0")
    assert not (out / "noise.key").exists()
    monkeypatch.undo()
    assert call("resume", out).code == 0


@pytest.mark.parametrize("left", [None, b"", b"0123"])
def test_a_run_whose_key_is_lost_does_not_go_on_with_other_noise(
    left: bytes | None, call: Call, private: Path
):
    shortened(private)
    (private / "noise.key").unlink()
    if left is not None:
        (private / "noise.key").write_bytes(left)
    call("resume", private).refused(8, "noise.key")


def test_a_key_that_was_changed_is_noticed_before_other_noise_is_drawn(call: Call, private: Path):
    key = private / "noise.key"
    assert call("verify", private).code == 0
    digits = key.read_bytes()
    key.write_bytes((b"1" if digits[:1] == b"0" else b"0") + digits[1:])
    call("verify", private).refused(8, "noise.key is damaged")
    shortened(private)
    call("resume", private).refused(8, "noise.key is damaged")
    key.unlink()  # whoever is given a copy is not given the secret
    assert call("verify", private).code == 0


# --- What readers refuse -----------------------------------------------------------------------


def test_a_changed_configuration_is_noticed_by_all(call: Call, copied: Path, tmp_path: Path):
    config = copied / "config.json"
    config.write_text(config.read_text().replace('"lr": 0.01', '"lr": 0.02'))
    for command in ("show", "verify", "eval", "resume"):
        call(command, copied).refused(8, "config.json", "changed")
    call("export", copied, "--to", tmp_path / "out").refused(8, "config.json")


@pytest.mark.parametrize("text", ["null", "5", "[]", '"text"', "{"])
def test_a_configuration_that_is_no_table_is_damage(text: str, call: Call, copied: Path):
    (copied / "config.json").write_text(text)
    for command in ("show", "verify", "resume"):
        call(command, copied).refused(8, "config.json")
    listed = call("runs", copied.parent, "--json")
    assert listed.code == 0 and listed.json[0]["status"] == "damaged"


def test_a_folder_of_another_kind_is_no_run(call: Call, world: World, tmp_path: Path):
    for command in ("show", "verify", "resume", "eval"):
        call(command, world.base).refused(2, "not a run directory", "journal.jsonl")
    call("export", world.base, "--to", tmp_path / "out").refused(2, "not a run directory")
    assert call("runs", world.folder, "--json").json == []


@pytest.mark.parametrize("left", [None, b""])
def test_a_journal_that_is_gone_is_noticed(left: bytes | None, call: Call, copied: Path):
    (copied / "journal.jsonl").unlink()
    if left is not None:
        (copied / "journal.jsonl").write_bytes(left)
    call("verify", copied).refused(8, "journal.jsonl")


def test_a_changed_adapter_is_noticed_and_not_exported(call: Call, copied: Path, tmp_path: Path):
    weights = copied / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    call("verify", copied).refused(8, weights.name)
    call("export", copied, "--to", tmp_path / "out").refused(8, weights.name)
    weights.unlink()
    call("verify", copied).refused(8, weights.name, "missing")
    weights.write_bytes(whole)
    assert call("verify", copied).code == 0


def test_a_damaged_baseline_is_noticed(call: Call, copied: Path):
    journal = copied / "baselines" / "local" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"round":1', b'"round":2', 1))
    call("verify", copied).refused(8, "baselines/local/journal.jsonl")
