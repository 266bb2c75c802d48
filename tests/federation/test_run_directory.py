"""The run directory: damaged, full, shared, gone back in, read: nothing that counted is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from federation.errors import ConfigError, CorruptError, LockedError, StorageError
from federation.runs import journal, run, storage, tree_files
from federation.runs.records import (
    ContributionsRecord,
    EndRecord,
    ExplanationRecord,
    RoundRecord,
)
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.tiny_runs import (
    CONFIG_JSON,
    FRESH,
    ROUNDS,
    P,
    damage,
    drawn,
    newest_checkpoint,
    one_round,
    operations_of,
    outcome,
    start,
    train,
)

# --- Damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 2])
def test_damaged_checkpoints_are_set_aside_and_an_older_one_used(copy, undisturbed, bad):
    for _ in range(bad):
        damage(newest_checkpoint(copy))
        newest_checkpoint(copy).rename(newest_checkpoint(copy).with_suffix(".hidden"))
    for hidden in (copy / "state").glob("*.hidden"):
        hidden.rename(hidden.with_suffix(".safetensors"))
    assert len(run.problems(copy)) == bad
    with RunWriter.reopen(copy) as writer:
        assert writer.next_round == ROUNDS - bad
        assert not list((copy / "clients").glob("*.r0004.*"))
        assert len(writer.history.warnings) == bad
        assert "round-0004.safetensors is damaged, kept as round-0004.safetensors.bad-1" in (
            writer.history.warnings[0].text
        )
    view = Run.open(copy)
    assert view.status == "interrupted" and len(view.rounds) == len(view.evaluations) == 5 - bad
    train(copy)
    assert outcome(copy) == undisturbed
    assert len(list((copy / "state").glob("*.bad-1"))) == bad


def test_if_every_checkpoint_is_damaged_it_stops(copy):
    for path in (copy / "state").iterdir():
        damage(path)
    for _ in range(2):
        with pytest.raises(
            CorruptError, match=r"no checkpoint is whole \(rounds 4, 3, 2\)"
        ) as error:
            RunWriter.reopen(copy)
        assert error.value.exit_code == 8 and not storage.is_locked(copy)
    assert len(list((copy / "state").glob("*.bad-1"))) == 3


def test_a_damaged_memory_is_gone_back_behind(copy, undisturbed):
    last = Run.open(copy).rounds[-1].record
    path = next(path for path in (copy / "clients").iterdir() if ".r0004." in path.name)
    damage(path)
    assert run.problems(copy) == [f"{path} is damaged: its hash is not the recorded one"]
    with RunWriter.reopen(copy) as writer, pytest.raises(CorruptError, match="resume the run"):
        writer.memory.gather(last.clients, FRESH)
    with RunWriter.reopen(copy) as writer:
        assert writer.next_round < ROUNDS
        assert "needs 1 missing files" in writer.history.warnings[-1].text
    train(copy)
    assert outcome(copy) == undisturbed


def test_a_damaged_memory_that_only_older_checkpoints_need_is_named_too(copy):
    history = Run.open(copy).history
    now = run.memory_after(copy, history, history.last_round).files()
    old = min(set((copy / "clients").iterdir()) - now.keys())
    damage(old)
    assert run.problems(copy) == [f"{old} is damaged: its hash is not the recorded one"]
    old.unlink()  # as a run does once nothing needs it
    assert run.problems(copy) == []


def test_a_changed_journal_stops_everything_and_changes_nothing(copy):
    path = copy / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"bytes_up":10', b'"bytes_up":11', 1))
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "lock"}
    for reading in (Run.open, RunWriter.reopen):
        with pytest.raises(CorruptError, match=r"journal\.jsonl record 3 was changed") as error:
            reading(copy)
        assert error.value.exit_code == 8
    assert "record 3 was changed" in run.problems(copy)[0]
    assert before == {p: p.read_bytes() for p in before}


def test_a_journal_that_lost_its_end_does_not_cost_the_checkpoints(copy):
    path = copy / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    states = sorted((copy / "state").iterdir())
    with pytest.raises(CorruptError, match="has lost its end: it names no round 4"):
        RunWriter.reopen(copy)
    assert sorted((copy / "state").iterdir()) == states


def test_a_changed_configuration_is_refused(copy):
    (copy / "config.json").write_text('{"seed": 2}')
    with pytest.raises(CorruptError, match=r"config\.json was changed since the run began"):
        RunWriter.reopen(copy)


def test_a_full_disk_loses_nothing_and_the_run_goes_on(tmp_path, undisturbed, monkeypatch):
    total, write = operations_of(lambda: train(tmp_path / "count")), os.write
    for n in range(2, total // 4, 3):
        path, left = tmp_path / f"{n}", iter(range(n))

        def full(fd, data, left=left):
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            return write(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            try:
                train(path)
            except StorageError as error:
                assert "need " in str(error) and " free; make room" in str(error)
        assert not [p for p in path.rglob("*") if storage.is_temporary(p.name)]
        train(path)
        assert outcome(path) == undisturbed


# --- One writer --------------------------------------------------------------------------------


def test_two_writers_are_one_too_many(tmp_path):
    path = tmp_path / "run"
    with RunWriter.create(path, CONFIG_JSON):
        assert Run.open(path).status == "running"
        with pytest.raises(LockedError, match=rf"{path} is being written by process {os.getpid()}"):
            RunWriter.reopen(path)
        with pytest.raises(ConfigError, match="holds a run"):
            RunWriter.create(path, CONFIG_JSON)
    assert Run.open(path).status == "interrupted"


def test_an_occupied_place_is_refused_untouched(tmp_path, copy):
    with pytest.raises(ConfigError, match=f"choose another --out, or: fedpilot resume {copy}"):
        RunWriter.create(copy, CONFIG_JSON)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and holds no run; choose another --out"):
        RunWriter.create(tmp_path / "mine", CONFIG_JSON)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        RunWriter.create(tmp_path / "mine" / "thesis.txt", CONFIG_JSON)
    for opening in (Run.open, RunWriter.reopen):
        with pytest.raises(ConfigError, match="is not a run directory"):
            opening(tmp_path / "mine")


def test_rounds_commit_in_order_and_name_what_clients_keep(tmp_path):
    with RunWriter.create(tmp_path / "run", CONFIG_JSON) as writer:
        with pytest.raises(ValueError, match="round 1 cannot be committed: round 0 is next"):
            writer.append(RoundRecord(round=1, clients=()))
        with pytest.raises(ValueError, match="round 3 cannot be committed"):
            writer.checkpoint(3, {})
        writer.memory.scatter(["a"], {"kept": torch.ones(1, P)})
        with pytest.raises(ValueError, match="kept is not what the clients' memory wrote"):
            writer.append(RoundRecord(round=0, clients=("a",)))
        assert [entry.record.kind for entry in journal.read(tmp_path / "run/journal.jsonl")] == []


# --- What stays and what is read ---------------------------------------------------------------


def test_three_checkpoints_and_the_pinned_stay(tmp_path):
    with RunWriter.create(tmp_path / "run", CONFIG_JSON) as writer:
        writer.append(start(writer))
        writer.pinned.add(1)
        state = {"params": torch.ones(P), "momentum": torch.zeros(P)}
        for number in range(7):
            state = one_round(writer, number, state, drawn)
    there = sorted(path.name for path in (tmp_path / "run" / "state").iterdir())
    assert there == [f"round-{n:04d}.safetensors" for n in (1, 4, 5, 6)]
    assert run.problems(tmp_path / "run") == []


@pytest.mark.parametrize(("keep", "states"), [(1, (4, 5, 6)), (5, (1, 2, 3, 4, 5, 6))])
def test_the_updates_of_the_newest_rounds_stay_and_the_states_before_them(keep, states, tmp_path):
    path = tmp_path / "run"
    with RunWriter.create(path, CONFIG_JSON) as writer:
        writer.append(start(writer))
        writer.keep_updates = keep
        state = {"params": torch.ones(P), "momentum": torch.zeros(P)}
        for number in range(7):
            state = one_round(writer, number, state, drawn)
    there = sorted(file.name for file in (path / "state").iterdir())
    wanted = [f"round-{n:04d}.safetensors" for n in states]
    assert there == wanted + [f"updates-{n:04d}.safetensors" for n in range(7 - keep, 7)]
    assert run.problems(path) == []
    first = run.updates_files(path, Run.open(path).history)[7 - keep]
    damage(first)
    assert run.problems(path) == [f"{first} is damaged: its hash is not the recorded one"]


def test_what_is_found_out_later_changes_nothing_of_a_run(copy, undisturbed):
    found = ContributionsRecord(
        round=4, was=(1.0,), effects={}, updates="kept", reproduced=True, seconds=2.0
    )
    with RunWriter.amend(copy) as writer:
        writer.append(found)
        with pytest.raises(LockedError, match="is being written by"):
            RunWriter.amend(copy)
    assert outcome(copy) == undisturbed
    assert Run.open(copy).history.contributions == [found]
    train(copy, ROUNDS)  # reopens it
    assert Run.open(copy).history.contributions == [found]
    assert outcome(copy) == undisturbed
    damage(newest_checkpoint(copy))
    train(copy, ROUNDS)
    assert Run.open(copy).history.contributions == [], "its round was run again since"
    assert outcome(copy) == undisturbed


def test_what_was_decided_is_not_decided_again(copy):
    def never(number: int) -> list[int]:
        raise AssertionError(f"round {number} was decided before")

    damage(newest_checkpoint(copy))
    train(copy, policy=never)


def test_rounds_without_a_checkpoint_are_run_again(tmp_path):
    path = tmp_path / "run"
    with RunWriter.create(path, CONFIG_JSON) as writer:
        writer.append(start(writer))
        saved = writer.checkpoint(0, {"params": torch.ones(P)})
        writer.append(RoundRecord(round=0, clients=(), **saved._asdict()))
        writer.append(RoundRecord(round=1, clients=()))
        writer.append(ExplanationRecord(round=1, source="rule", text="void"))
        writer.append(ExplanationRecord(round=0, source="rule", text="stays"))
    assert len(Run.open(path).rounds) == 2
    RunWriter.reopen(path).close()
    assert [one.round for one in Run.open(path).rounds] == [0]
    assert [x.text for x in Run.open(path).history.explanations] == ["stays"]


def test_a_run_is_read_as_the_readme_reads_it(copy):
    view = Run.open(copy)
    assert view.config == json.loads(CONFIG_JSON)
    assert (
        view.rounds[-1].evaluation
        == view.evaluation
        == {"federated": {"loss": pytest.approx(float(view.state()["params"].square().sum()))}}
    )
    assert (view.bytes_up, view.bytes_down) == (10 * ROUNDS, 20 * ROUNDS)
    assert view.rounds[2].decision.clients == view.rounds[2].record.clients
    assert view.rounds[0].figures("unseen") == {}
    with pytest.raises(
        ConfigError, match=r"no checkpoint of round 1; rounds that have one: 3, 4, 5"
    ):
        view.state(0)
    tree_files.check_tree(view.state(3), view.state(4), "state")


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_status_follows_the_last_end_that_was_not_resumed(tmp_path, status):
    with RunWriter.create(tmp_path / "run", CONFIG_JSON) as writer:
        writer.append(start(writer))
        writer.append(EndRecord(status=status))
        assert Run.open(tmp_path / "run").status == "running"
    assert Run.open(tmp_path / "run").status == status
    with RunWriter.reopen(tmp_path / "run"):
        pass
    assert Run.open(tmp_path / "run").status == "interrupted"


def test_a_view_grows_with_the_run(tmp_path):
    with RunWriter.create(tmp_path / "run", CONFIG_JSON) as writer:
        view = Run.open(tmp_path / "run")
        writer.append(start(writer))
        state = {"params": torch.ones(P), "momentum": torch.zeros(P)}
        for number in range(2):
            state = one_round(writer, number, state, drawn)
            view = view.refresh()
            assert len(view.rounds) == number + 1
    assert view.entries == Run.open(tmp_path / "run").entries


def test_a_run_is_read_without_torch(copy):
    code = (
        "import sys; from federation.runs.run import Run, problems; run = Run.open(sys.argv[1]);"
        "print(len(run.rounds), run.status, problems(sys.argv[1]));"
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    root = Path(run.__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    assert out.stdout == "5 finished []\n"
