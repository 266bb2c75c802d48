"""What clients keep: rows in, rows out, the cohort's files only, nothing of a lost round."""

from pathlib import Path

import pytest
import torch

from federation.errors import CorruptError
from federation.runs import storage
from federation.training.memory import DiskMemory, RamMemory

FRESH = {"control": torch.zeros(3), "moment": torch.full((2, 2), 5.0, dtype=torch.float64)}


def rows(*values: float) -> dict[str, torch.Tensor]:
    return {group: torch.stack([x + value for value in values]) for group, x in FRESH.items()}


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[g], right[g]) for g in left)


def files(directory: Path) -> int:
    return len(list(directory.iterdir()))


@pytest.fixture(params=["ram", "disk"])
def memory(request, tmp_path):
    return RamMemory() if request.param == "ram" else DiskMemory(tmp_path)


def test_rows_come_back_in_the_order_asked_for(memory):
    memory.scatter(["a", "b", "c"], rows(1, 2, 3))
    assert same(memory.gather(["c", "new", "a"], FRESH), rows(3, 0, 1))
    assert same(memory.gather([], FRESH), {g: x[:0] for g, x in rows(0).items()})


def test_a_client_keeps_its_latest_row(memory):
    memory.scatter(["a", "b"], rows(1, 2))
    memory.scatter(["b"], rows(4))
    assert same(memory.gather(["a", "b"], FRESH), rows(1, 4))


def test_what_was_scattered_and_gathered_is_nobody_elses(memory):
    mine = rows(1, 2)
    memory.scatter(["a", "b"], mine)
    mine["control"].zero_()
    memory.gather(["a"], FRESH)["control"].zero_()
    memory.gather(["new"], FRESH)["control"].fill_(9)
    assert same(memory.gather(["a", "new"], FRESH), rows(1, 0))


def test_an_algorithm_without_memory_costs_nothing(memory, tmp_path):
    memory.scatter(["a", "b"], {})
    assert memory.gather(["a", "b"], {}) == {} and files(tmp_path) == 0


def test_ids_that_are_no_file_names_are_kept_apart(tmp_path):
    clients = ["a/b", "a-b", "..", ".", "", "ä", "A", "x" * 300, "x" * 301, "a\nb", "a b"]
    memory = DiskMemory(tmp_path / "clients")
    memory.directory.mkdir()
    memory.scatter(clients, rows(*range(len(clients))))
    assert same(memory.gather(clients, FRESH), rows(*range(len(clients))))
    assert files(tmp_path) == 1 and files(memory.directory) == len(clients)


def committed(directory: Path, *rounds: dict[str, float], oldest: int | None = None):
    """Run rounds, each scattering a value per client; return memory and what the journal says."""
    memory, kept = DiskMemory(directory), []
    for number, values in enumerate(rounds):
        memory.scatter(list(values), rows(*values.values()))
        kept.append((number, dict(memory.written)))
        memory.commit()
        if oldest is not None:
            memory.forget(oldest)
    return memory, kept


def test_a_round_that_did_not_commit_never_was(tmp_path):
    memory, kept = committed(tmp_path, {"a": 1, "b": 1})
    memory.scatter(["a", "c"], rows(2, 2))
    assert same(memory.gather(["a", "b", "c"], FRESH), rows(2, 1, 2))

    restarted = DiskMemory.restored(tmp_path, kept)
    assert same(restarted.gather(["a", "b", "c"], FRESH), rows(1, 1, 0))
    assert restarted.round == 1 and files(tmp_path) == 4
    restarted.sweep()
    assert files(tmp_path) == 2
    assert same(restarted.gather(["a", "b", "c"], FRESH), rows(1, 1, 0))


def test_every_round_that_may_be_gone_back_to_is_whole(tmp_path):
    rounds = [{"a": 1}, {"a": 2, "b": 2}, {"c": 3}, {"a": 4}, {"b": 5, "c": 5}]
    oldest = 2
    _, kept = committed(tmp_path, *rounds, oldest=oldest)
    now: dict[str, float] = {}
    for number, values in enumerate(rounds):
        now |= values
        if number >= oldest:
            then = DiskMemory.restored(tmp_path, kept[: number + 1])
            assert then.missing() == []
            assert same(then.gather(list(now), FRESH), rows(*now.values()))
    assert DiskMemory.restored(tmp_path, kept[:1]).missing() != []


def test_versions_that_nobody_needs_are_deleted(tmp_path):
    memory, kept = committed(tmp_path, *[{"a": n, "b": n} for n in range(6)])
    assert files(tmp_path) == 12
    memory.scatter(["a"], rows(6))
    kept.append((6, dict(memory.written)))
    memory.commit()
    memory.forget(5)
    assert files(tmp_path) == 2 + 1
    restored = DiskMemory.restored(tmp_path, kept)
    restored.sweep()
    assert files(tmp_path) == 2 + 1
    restored.scatter(["b"], rows(7))
    restored.commit()
    restored.forget(7)
    assert files(tmp_path) == 2


def test_only_the_clients_asked_for_are_touched(tmp_path, monkeypatch):
    everybody = [f"client {n}" for n in range(10_000)]
    kept = dict.fromkeys(everybody, "0" * 64)
    memory = DiskMemory.restored(tmp_path, [(0, kept)])
    touched = []
    explained = storage.explained
    monkeypatch.setattr(storage, "explained", lambda *a: touched.append(a[0]) or explained(*a))
    cohort = ["new 1", "new 2"]
    memory.scatter(cohort, rows(1, 2))
    assert same(memory.gather(cohort, FRESH), rows(1, 2))
    memory.commit()
    memory.forget(0)
    assert {path.name.split("-")[0] for path in touched if path != tmp_path} == {"new"}


@pytest.mark.parametrize("damage", ["flip", "delete", "other"])
def test_damage_is_found_when_the_client_is_asked_for(tmp_path, damage):
    memory, kept = committed(tmp_path, {"a": 1}, {"a": 2, "b": 2})
    (path,) = (
        path for path in tmp_path.iterdir() if path.name.startswith("a-") and "r0001" in path.name
    )
    if damage == "delete":
        path.unlink()
    else:
        whole = path.read_bytes()
        other = next(p for p in tmp_path.iterdir() if p.name.startswith("b-")).read_bytes()
        path.write_bytes(other if damage == "other" else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert same(memory.gather(["b"], FRESH), rows(2))
    with pytest.raises(CorruptError, match=r"a-\w+\.r0001\.safetensors.*; resume the run"):
        memory.gather(["a", "b"], FRESH)
    assert (tmp_path / f"{path.name}.bad-1").exists() == (damage != "delete")
    assert len(DiskMemory.restored(tmp_path, kept).missing()) == 1
    assert DiskMemory.restored(tmp_path, kept[:1]).missing() == []


def test_memory_of_another_shape_is_refused(tmp_path):
    memory, _ = committed(tmp_path, {"a": 1})
    with pytest.raises(CorruptError, match=r"'control' is float32\(3,\), expected float32\(4,\)"):
        memory.gather(["a"], {**FRESH, "control": torch.zeros(4)})
    assert same(memory.gather(["a"], FRESH), rows(1))
