"""Every format gives the same rows, and every complaint names the file and the row."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.config import Config
from federation.data.corpus import tokenise
from federation.data.dataset import resolved
from federation.data.sources import _text_units, read_records
from federation.data.templates import parse_templates
from federation.errors import DataError
from federation.training.base import load_tokenizer

ROWS = [{"q": "one, two", "a": "ü\nx"}, {"q": '"', "a": ""}, {"q": "3", "a": "drei"}]


def rows_of(source: str, folder: Path, **options) -> list[dict]:
    return [dict(row) for _, row in read_records(source, folder, **options)]


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "rows.csv").write_bytes(
        'q,a\r\n"one, two","ü\nx"\r\n"""",\r\n3,drei\r\n'.encode("utf-8-sig")
    )
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "saved"])
def test_every_format_gives_the_same_rows_and_origins(folder: Path, source: str):
    records = read_records(source, folder)
    assert [dict(row) for _, row in records] == ROWS
    assert [origin for origin, _ in records] == [f"{source} row {n}" for n in (1, 2, 3)]
    assert records.fields() == ("q", "a")


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "saved"])
def test_the_digest_follows_the_content(folder: Path, source: str):
    records = read_records(source, folder)
    before = records.digest()
    assert read_records(source, folder).digest() == before
    path = next((folder / source).glob("*.arrow")) if source == "saved" else folder / source
    path.write_bytes(path.read_bytes() + b" ")
    assert records.digest() != before


def test_a_glob_reads_its_files_in_the_order_of_their_names(tmp_path: Path):
    for name in ("b", "a", "c"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"x": name}])
    assert [row["x"] for row in rows_of("*.jsonl", tmp_path)] == ["a", "b", "c"]
    assert next(iter(read_records("*.jsonl", tmp_path)))[0] == "a.jsonl row 1"


def test_reading_is_lazy(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 2}\nrubbish\n')
    rows = iter(read_records("x.jsonl", tmp_path))
    assert [next(rows)[1]["a"], next(rows)[1]["a"]] == [1, 2]
    with pytest.raises(DataError, match=r"x\.jsonl row 3: bad JSON"):
        next(rows)


def test_byte_order_mark_windows_line_ends_and_blank_lines(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(read_records("x.jsonl", tmp_path)) == [
        ("x.jsonl row 1", {"a": 1}),
        ("x.jsonl row 3", {"a": 2}),
    ]


TEXT = "one\r\n two \n\n\nthree\n"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("line", [(1, "one"), (2, " two "), (5, "three")]),
        ("paragraph", [(1, "one\n two "), (5, "three")]),
        ("document", [(1, "one\n two \n\n\nthree")]),
    ],
)
def test_text_units(tmp_path: Path, unit, expected):
    (tmp_path / "x.txt").write_bytes(TEXT.encode())
    got = [(o, row["text"]) for o, row in read_records("x.txt", tmp_path, text=unit)]
    assert got == [(f"x.txt row {number}", text) for number, text in expected]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["", " ", "a", "b c"]), max_size=12),
    st.sampled_from(["line", "paragraph", "document"]),
)
def test_no_text_is_lost_and_numbers_point_at_it(lines, unit):
    units = list(_text_units(enumerate((f"{line}\n" for line in lines), start=1), unit))
    kept = [line for _, text in units for line in text.split("\n") if line.strip()]
    assert kept == [line for line in lines if line.strip()]
    assert all(text.split("\n")[0] == lines[number - 1] for number, text in units)


BAD = {
    "missing.jsonl": (None, r"missing\.jsonl: no such file in"),
    "notes.md": (None, r"notes\.md: no such file in"),
    "no*.jsonl": (None, r"no\*\.jsonl: no file in .* matches"),
    "empty.jsonl": (b"", r"empty\.jsonl: is empty"),
    "blank.jsonl": (b"\n\n", r"blank\.jsonl: has no rows"),
    "header.csv": (b"a,b\n", r"header\.csv: has no rows"),
    "json.jsonl": (b'{"a": 1}\n{"a": \n', r"json\.jsonl row 2: bad JSON: Expecting value"),
    "deep.jsonl": (b"[" * 100_000, r"deep\.jsonl row 1: bad JSON"),
    "list.jsonl": (b'{"a": 1}\n[1]\n', r"list\.jsonl row 2: must be an object .* got list"),
    "utf8.jsonl": (b'{"a": 1}\n{"a": "\xff"}\n', r"utf8\.jsonl row 2: invalid UTF-8 at byte 7"),
    "object.json": (b'{"a": 1}', r"object\.json: must hold an array"),
    "broken.json": (b'[{"a": 1},\n {"a"}]', r"broken\.json: bad JSON: .* at line 2 column"),
    "number.json": (b'[{"a": 1}, 2]', r"number\.json row 2: must be an object"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3\n", r"ragged\.csv row 2 \(line 3\): has 3 cells, .* 2"),
    "short.csv": (b"a,b\n1\n", r"short\.csv row 1 \(line 2\): has 1 cells"),
    "quote.csv": (b'a,b\n1,2\n"1,2\n3,4\n', r"quote\.csv row 2 \(line 4\): bad CSV"),
    "twice.csv": (b"a,a\n1,2\n", r"twice\.csv: column names must be present and differ"),
    "rows.xml": (b"<a/>", r"rows\.xml: unknown suffix '\.xml'"),
    "bad.parquet": (b"PAR1 no", r"bad\.parquet after row 0: cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_file_and_row(tmp_path: Path, name: str):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_records(name, tmp_path))
    assert "\n" not in str(caught.value)


def test_long_cells_are_read(tmp_path: Path):
    (tmp_path / "long.csv").write_text("a\n" + "x" * 300_000 + "\n")
    assert len(rows_of("long.csv", tmp_path)[0]["a"]) == 300_000


def test_a_folder_of_files_points_to_a_glob(tmp_path: Path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data: is a folder .* data/\*\.jsonl"):
        read_records("data", tmp_path)


def test_a_mistyped_path_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="data/dolly: no such file"):
        read_records("data/dolly", tmp_path)


def test_saved_splits(tmp_path: Path):
    table = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=table).save_to_disk(str(tmp_path / "dict"))
    assert rows_of("dict", tmp_path) == ROWS
    datasets.DatasetDict(dev=table).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(DataError, match=r"other: has no split 'train'.* dev"):
        read_records("other", tmp_path)


def test_a_hub_name_reaches_the_library(tmp_path: Path, monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert rows_of("openai/gsm8k:main:test", tmp_path) == ROWS
    assert rows_of("databricks/databricks-dolly-15k", tmp_path) == ROWS
    assert asked == [
        ("openai/gsm8k", "main", "test"),
        ("databricks/databricks-dolly-15k", None, "train"),
    ]


def test_an_unreachable_hub_is_one_line(tmp_path: Path, monkeypatch):
    def load_dataset(name, config, split):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"a/b: is no file in .*Couldn't reach") as caught:
        read_records("a/b", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [("{bad", "x.jsonl row 2: bad JSON"), ('{"b": 1}', "x.jsonl row 2: has no field 'a'")],
)
def test_bad_rows_are_named_together(line: str, words: str, tmp_path: Path):
    good = '{"a": "text"}'
    (tmp_path / "x.jsonl").write_text("\n".join([good, *[line, good] * 7]) + "\n")
    templates = parse_templates(text="{a}")
    tokenizer = load_tokenizer("nano")
    with pytest.raises(DataError) as refused:
        records = read_records("x.jsonl", tmp_path)
        tokenise(records, templates, tokenizer, max_tokens=8, cache=tmp_path / "cache")
    said = str(refused.value)
    assert words in said and "\n" not in said
    rows = ", ".join(f"x.jsonl row {n}" for n in (4, 6, 8, 10))
    assert said.endswith(f"7 rows in all cannot be used, also {rows}, ...")


@pytest.mark.parametrize("source", ["~nobody-has-this-name/x.jsonl", "x" * 5000])
def test_what_no_system_takes_for_a_path_is_refused(source: str, tmp_path: Path):
    with pytest.raises(DataError, match="; check --data") as refused:
        read_records(source, tmp_path, asked="--data")
    assert len(str(refused.value)) < 200
    config = Config.from_table({"data": {"source": source, "text": "{text}"}})
    with pytest.raises(DataError, match=r"; check data\.source"):
        resolved(config, tmp_path)


@pytest.mark.parametrize("source", ["none.jsonl", "none*.jsonl", "folder.jsonl", "empty.jsonl"])
def test_a_complaint_names_what_was_asked(source: str, tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    os.mkfifo(tmp_path / "folder.jsonl")
    with pytest.raises(DataError, match="--data"):
        read_records(source, tmp_path, asked="--data")
