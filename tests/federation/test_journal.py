"""The journal: what is written is read, what is changed is found, what is torn is kept aside."""

import json
import math
import os
import zlib
from hashlib import sha256

import pytest
from pydantic import ValidationError

from federation.errors import CorruptError, StorageError
from federation.runs import journal, records
from federation.runs.journal import Cursor, Journal
from federation.runs.records import (
    KINDS,
    SCHEMA,
    AskedRecord,
    CommandRecord,
    ContributionsRecord,
    Effect,
    EndRecord,
    EvaluationRecord,
    ForkRecord,
    RollbackRecord,
    RoundRecord,
    StartRecord,
    UnknownRecord,
    WarningRecord,
    WhatIfRecord,
)

START = StartRecord(
    seed=7,
    chunk_size=4,
    threads=1,
    dtype="bfloat16",
    versions={"torch": "2.13.0"},
    config_sha256="0" * 64,
)
RECORDS = [
    START,
    RoundRecord(round=0, clients=("a", "b"), missing={"ç": "lost"}, loss={"a": 1 / 3}, seconds=2.5),
    EvaluationRecord(round=0, subject="federated", metrics={"loss": 0.1}),
    WarningRecord(about="client", text='line\nbreak, "quote", \u2028, \U0001f600'),
    WhatIfRecord(
        round=0,
        rounds=1,
        change={"drop": ["ç"]},
        was=(0.1, 0.2),
        would_be=(0.1, math.inf),
        effect=Effect(mean=math.inf, values=(0.0, math.inf)),
        updates="retrained",
        reproduced=True,
        same=False,
    ),
    ContributionsRecord(
        round=0,
        was=(0.1,),
        effects={"a": Effect(mean=0.1, values=(0.1,))},
        updates="kept",
        reproduced=True,
    ),
    CommandRecord(
        id="a", command="more_rounds", arguments={"n": 2}, by="é", accepted=True, round=1
    ),
    AskedRecord(
        id="round-2",
        round=1,
        policy="plateau@1",
        proposal={"values": {"lr": 0.1}},
        values={"lr": 0.2},
        bounds={"lr": {"low": 0.1, "high": 0.4}},
        values_schema={"type": "object"},
        since="2026-01-01T00:00:00+00:00",
    ),
    RollbackRecord(round=1, to=None, loss=math.inf, limit=None, reason="it diverged"),
    ForkRecord(
        parent="runs/a", round=0, state_sha256="0" * 64, config_sha256="1" * 64, memory=True
    ),
    EndRecord(status="finished"),
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as written:
        for record in RECORDS:
            written.append(record)
    return path


def recorded(entries):
    return [entry.record for entry in entries]


def forged(line: bytes, **changes) -> bytes:
    """Change fields of a line and make its checksum right again."""
    envelope = json.loads(line) | changes
    del envelope["crc"]
    text = json.dumps(envelope, separators=(",", ":")).encode()
    return text[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(text)


def test_what_is_appended_is_read(path):
    assert recorded(journal.read(path)) == RECORDS
    assert journal.verify(path) == (len(RECORDS), 0, None)


def test_lines_are_json_chained_by_the_hash_of_the_bytes_before(path):
    lines = path.read_bytes().splitlines(keepends=True)
    prev = "0" * 64
    for seq, line in enumerate(lines):
        envelope = json.loads(line)
        assert (envelope["seq"], envelope["prev"], envelope["schema"]) == (seq, prev, SCHEMA)
        prev = sha256(line).hexdigest()


def test_a_journal_goes_on_where_it_stopped(path):
    with Journal(path) as again:
        assert recorded(again.entries) == RECORDS
        again.append(RECORDS[1])
    assert recorded(journal.read(path)) == [*RECORDS, RECORDS[1]]


def test_every_line_is_on_the_disk_when_append_returns(path, monkeypatch):
    done = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: done.append("write") or write(fd, data))
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("fsync") or fsync(fd))
    with Journal(path) as again:
        done.clear()
        again.append(RECORDS[1])
    assert done == ["write", "fsync"]


def test_infinite_figures_survive_json(path):
    with Journal(path) as again:
        again.append(RoundRecord(round=1, clients=(), loss={"a": math.nan, "b": math.inf}))
    loss = journal.read(path)[-1].record.loss
    assert math.isnan(loss["a"]) and loss["b"] == math.inf
    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


# --- Torn lines --------------------------------------------------------------------------------


def test_a_line_torn_at_any_byte_is_dropped_and_kept_aside(path, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = len(whole) - len(lines[-1])
    for size in range(1, len(lines[-1])):
        torn = tmp_path / str(size) / "journal.jsonl"
        torn.parent.mkdir()
        torn.write_bytes(whole[: before + size])
        assert recorded(journal.read(torn)) == RECORDS[:-1]
        assert journal.verify(torn) == (len(RECORDS) - 1, size, None)
        with Journal(torn) as again:
            assert again.entries[-1].record.about == "journal"
            again.append(RECORDS[-1])
        after = recorded(journal.read(torn))
        assert after[: len(RECORDS) - 1] == RECORDS[:-1] and after[-1] == RECORDS[-1]
        assert (torn.parent / "journal.torn-1").read_bytes() == lines[-1][:size]


def test_two_torn_lines_are_both_kept(path):
    for _ in range(2):
        with open(path, "ab") as file:
            file.write(b'{"seq":')
        Journal(path).close()
    assert {p.name for p in path.parent.glob("*torn*")} == {"journal.torn-1", "journal.torn-2"}
    text = f"recovered {len(RECORDS) + 1} records; 1 torn line saved as journal.torn-2"
    assert journal.read(path)[-1].record.text == text


def test_a_last_line_that_a_power_cut_left_as_zeros_is_torn(path):
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.write(bytes(100) + b'"crc":"00000000"}\n')
    assert recorded(journal.read(path)) == RECORDS
    Journal(path).close()
    assert path.read_bytes().startswith(whole) and b"\0" not in path.read_bytes()


def test_a_line_that_did_not_fit_leaves_the_journal_as_it_was(path, monkeypatch):
    whole = path.read_bytes()
    with Journal(path) as again:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space")))
            with pytest.raises(StorageError, match=r"no space: need .* free; make room"):
                again.append(RECORDS[1])
        assert path.read_bytes() == whole
        again.append(RECORDS[1])
    assert recorded(journal.read(path)) == [*RECORDS, RECORDS[1]]


# --- Changed lines -----------------------------------------------------------------------------


def test_any_changed_byte_is_found_or_only_tears_the_end(path):
    """No byte flip is ever read as other data: either an error, or the last line is not counted."""
    whole = path.read_bytes()
    newlines = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for at in sorted({*newlines, *range(0, len(whole), 5)}):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        records, torn, fault = journal.verify(path)
        assert fault is not None or (records == len(RECORDS) - 1 and torn > 0), at
        assert records <= whole[:at].count(b"\n")


@pytest.mark.parametrize("at", range(len(RECORDS)))
def test_an_edited_line_is_named(path, at):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(b'"body":{', b'"body":{ ')
    path.write_bytes(b"".join(lines))
    assert journal.verify(path).fault.seq == at
    with pytest.raises(CorruptError, match=rf"journal.jsonl record {at} was changed") as error:
        journal.read(path)
    assert error.value.exit_code == 8 and "\n" not in str(error.value)
    with pytest.raises(CorruptError):
        Journal(path)
    assert path.read_bytes() == b"".join(lines)


def test_an_edited_line_with_a_right_checksum_is_named(path):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = forged(lines[2], time="2020-01-01T00:00:00.000+00:00")
    path.write_bytes(b"".join(lines))
    assert str(journal.verify(path).fault).startswith("record 2 was changed")


def test_deleted_and_reordered_lines_are_named(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert str(journal.verify(path).fault) == "record 2 is missing: record 3 stands in its place"
    path.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    assert journal.verify(path).fault.seq == 1


# --- Reading while it grows --------------------------------------------------------------------


def test_a_tail_reads_whole_lines_once(path, tmp_path):
    whole = path.read_bytes()
    growing = tmp_path / "growing"
    cursor, seen = Cursor(), []
    for size in range(0, len(whole) + 1, 13):
        growing.write_bytes(whole[:size])
        new, cursor = journal.tail(growing, cursor)
        seen += new
        assert len(seen) == whole[:size].count(b"\n")
    growing.write_bytes(whole)
    seen += journal.tail(growing, cursor)[0]
    assert recorded(seen) == RECORDS


def test_a_tail_notices_that_the_file_was_cut_or_changed_behind_it(path):
    whole = path.read_bytes()
    cursor = journal.tail(path)[1]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptError, match="the file was cut"):
        journal.tail(path, cursor)
    path.write_bytes(whole + whole.splitlines(keepends=True)[0])
    with pytest.raises(CorruptError, match=f"record {len(RECORDS)} is missing"):
        journal.tail(path, cursor)


# --- Records of other versions -----------------------------------------------------------------


def append_line(path, **changes):
    cursor = journal.tail(path)[1]
    line = path.read_bytes().splitlines(keepends=True)[-1]
    with open(path, "ab") as file:
        file.write(forged(line, seq=cursor.seq, prev=cursor.prev, **changes))


def test_an_unknown_kind_is_read_as_it_is(path):
    append_line(path, kind="dance", body={"steps": [1, 2]})
    assert journal.read(path)[-1].record == UnknownRecord(kind="dance", body={"steps": [1, 2]})
    Journal(path).close()


def test_an_unknown_field_of_this_schema_is_refused(path):
    append_line(path, body={"status": "finished", "mood": "good"})
    fault = journal.verify(path).fault
    assert fault.seq == len(RECORDS) and "mood" in fault.why


def test_a_newer_schema_is_read_but_not_written(path):
    body = {"status": "finished", "mood": "good"}
    append_line(path, schema=SCHEMA + 1, body=body)
    append_line(path, schema=SCHEMA + 1, body={"status": 3})
    assert recorded(journal.read(path))[-2:] == [
        EndRecord(status="finished"),
        UnknownRecord(kind="end", body={"status": 3}),
    ]
    with pytest.raises(CorruptError, match=f"schema {SCHEMA + 1}, .* upgrade fedpilot"):
        Journal(path)


def test_records_are_frozen_and_refuse_unknown_fields():
    with pytest.raises(ValidationError):
        START.seed = 3
    with pytest.raises(ValidationError):
        EndRecord(status="finished", mood="good")
    assert set(KINDS) == {record.kind for record in RECORDS} | {"decision", "explanation", "resume"}


def test_measured_figures_are_no_part_of_a_comparison():
    again = RECORDS[1].model_copy(update={"seconds": 9.0})
    assert again != RECORDS[1] and records.computed(again) == records.computed(RECORDS[1])
