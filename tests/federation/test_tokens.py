"""Sequences are exact, nothing is lost unreported, and a stored corpus is found by its content."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import federation.data.corpus
from federation.data.corpus import tokenise
from federation.data.sources import Records, read_records
from federation.data.templates import ChatFormat, parse_templates
from federation.data.tokens import SequenceFormat
from federation.errors import ConfigError, DataError, StorageError
from tests.tiny_models import byte_tokenizer

PAIR = parse_templates(prompt="{q}", response="{a}", key="who", label="kind")
TEXT = parse_templates(text="{a}")
ROWS = [
    {"q": "ä?", "a": "yes", "who": "x", "kind": 1},
    {"q": "", "a": "nö", "who": "y", "kind": 2},
    {"q": "b?", "a": " ", "who": "z", "kind": 2},
    {"q": "c?", "a": "no", "who": "x", "kind": 2},
]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    lines = [json.dumps(row) + "\n" for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    return read_records("rows.jsonl", tmp_path)


def store(records, tmp_path, templates=PAIR, tokenizer=None, max_tokens=64, **options):
    tokenizer = tokenizer or byte_tokenizer()
    return tokenise(
        records, templates, tokenizer, max_tokens=max_tokens, cache=tmp_path / "cache", **options
    )


def decoded(corpus, tokenizer=None) -> list[str]:
    tokenizer = tokenizer or byte_tokenizer()
    return [tokenizer.decode(corpus.tokens.row(i)) for i in range(len(corpus.tokens))]


def test_a_sequence_is_bos_prompt_separator_response_eos(records, tmp_path):
    corpus = store(records, tmp_path)
    tokens = corpus.tokens
    assert decoded(corpus) == ["<s>ä?\nyes</s>", "<s>\nnö</s>", "<s>c?\nno</s>"]
    assert tokens.prompt_len.tolist() == [1 + 3 + 1, 1 + 1, 1 + 2 + 1]
    assert tokens.response_bytes.tolist() == [3, 3, 2]
    assert tokens.lengths.tolist() == [5 + 3 + 1, 2 + 3 + 1, 4 + 2 + 1]
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.int32, np.int64)
    assert (tokens.prompt_len.dtype, tokens.response_bytes.dtype) == (np.int32, np.int32)


def test_rows_keep_their_client_class_and_text(records, tmp_path):
    corpus = store(records, tmp_path)
    assert corpus.keys is not None and corpus.labels is not None
    assert [corpus.keys.names[code] for code in corpus.keys.codes] == ["x", "y", "x"]
    assert [corpus.labels.names[code] for code in corpus.labels.codes] == ["1", "2", "2"]
    assert [e.origin for e in corpus.examples] == [f"rows.jsonl row {n}" for n in (1, 2, 4)]
    expected = [PAIR.render(row, origin) for origin, row in records if row["a"] != " "]
    assert list(corpus.examples) == expected
    assert corpus.examples[-1] == expected[-1]


def test_what_is_dropped_is_reported(records, tmp_path):
    report = store(records, tmp_path).report
    assert (report.n, report.truncated) == (3, 0)
    assert report.dropped == {"with an empty response": 1}


@pytest.mark.parametrize(("bos", "prompt_len"), [(True, [1, 1, 1]), (False, [1, 1, 1])])
def test_plain_text_is_supervised_from_its_first_predictable_token(
    records, tmp_path, bos, prompt_len
):
    tokenizer = byte_tokenizer(bos)
    corpus = store(records, tmp_path, TEXT, tokenizer)
    begin = "<s>" if bos else ""
    assert decoded(corpus, tokenizer) == [f"{begin}{text}</s>" for text in ("yes", "nö", "no")]
    assert corpus.tokens.prompt_len.tolist() == prompt_len
    learnt = corpus.tokens.lengths - corpus.tokens.prompt_len - 1
    assert corpus.tokens.response_bytes.tolist() == learnt.tolist()  # one byte a token
    assert corpus.keys is None and corpus.labels is None


def test_the_separator_belongs_to_the_prompt(records, tmp_path):
    corpus = store(records, tmp_path, separator=" => ")
    assert decoded(corpus)[0] == "<s>ä? => yes</s>"
    assert corpus.tokens.prompt_len[0] == 1 + 3 + 4


def test_a_chat_format_replaces_bos_and_separator(records, tmp_path):
    chat = ChatFormat(lambda message: f"U{message}A", "#", "source")
    templates = parse_templates(prompt="{q}", response="{a}", chat=chat)
    corpus = store(records, tmp_path, templates)
    assert decoded(corpus)[0] == "Uä?Ayes#</s>"
    assert corpus.tokens.prompt_len[0] == 5


TOKEN_LISTS = st.lists(st.integers(10, 99), max_size=40)


@settings(deadline=None)
@given(TOKEN_LISTS, TOKEN_LISTS.filter(bool), st.integers(4, 50), st.booleans())
def test_cutting_spares_the_response_and_never_loses_its_end(prompt, response, most, bos):
    form = SequenceFormat((1,) if bos else (), (2,), "", most)
    joined = form.join(prompt, response)
    ids, room = joined.ids, most - bos - 1
    head, body = ids[: joined.prompt_len], ids[joined.prompt_len : -1]
    assert len(ids) <= most
    assert ids[-1] == 2
    assert body == response[: joined.kept] and joined.kept >= 1
    kept = head[1:] if bos else head
    assert kept == prompt[len(prompt) - len(kept) :]
    assert head[:1] == [1] or not bos
    whole = len(prompt) + len(response) <= room
    assert joined.truncated == (not whole)
    assert len(ids) == most or whole
    # The response is cut only once the prompt is down to a quarter of the room.
    assert joined.kept == len(response) or len(kept) == min(len(prompt), room // 4)


def test_what_is_cut_is_reported_and_its_bytes_are_not_counted(tmp_path):
    lines = [json.dumps({"q": "q" * q, "a": "a" * a}) for q, a in ((4, 4), (40, 4), (4, 40))]
    (tmp_path / "long.jsonl").write_text("\n".join(lines))
    templates = parse_templates(prompt="{q}", response="{a}")
    corpus = store(read_records("long.jsonl", tmp_path), tmp_path, templates, max_tokens=22)
    assert (corpus.report.truncated, corpus.report.cut_responses) == (2, 1)
    assert corpus.tokens.lengths.tolist() == [11, 22, 22]
    assert corpus.tokens.response_bytes.tolist() == [4, 4, 15]


def test_a_hit_reads_no_row(records, tmp_path):
    first = store(records, tmp_path)

    def read():
        pytest.fail("read the source again")

    again = store(Records(records.name, read, records.digest), tmp_path)
    assert again.digest == first.digest
    assert again.report == first.report
    assert np.array_equal(again.tokens.ids, first.tokens.ids)
    assert isinstance(again.tokens.ids, np.memmap)


def test_whatever_decides_the_content_decides_the_digest(records, tmp_path):
    other = parse_templates(prompt="{q}!", response="{a}", key="who", label="kind")
    (tmp_path / "more.jsonl").write_text(json.dumps(ROWS[0]))
    taught = byte_tokenizer()
    taught.add_tokens(["yes"])
    digests = [
        store(records, tmp_path).digest,
        store(records, tmp_path, max_tokens=65).digest,
        store(records, tmp_path, separator=" ").digest,
        store(records, tmp_path, other).digest,
        store(records, tmp_path, tokenizer=byte_tokenizer(bos=False)).digest,
        store(records, tmp_path, tokenizer=taught).digest,
        store(read_records("more.jsonl", tmp_path), tmp_path).digest,
    ]
    assert len(set(digests)) == len(digests)


def test_the_last_use_of_a_tokenizer_does_not_change_the_digest(records, tmp_path):
    tokenizer = byte_tokenizer(pad_token="</s>")
    before = store(records, tmp_path, tokenizer=tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    after = store(records, tmp_path, tokenizer=tokenizer)
    assert after.digest == before.digest


def test_blocks_join_seamlessly(records, tmp_path, monkeypatch):
    whole = store(records, tmp_path)
    monkeypatch.setattr(federation.data.corpus, "_BLOCK", 2)
    shutil.rmtree(tmp_path / "cache")
    blocks = store(records, tmp_path)
    assert np.array_equal(whole.tokens.ids, blocks.tokens.ids)
    assert list(whole.examples) == list(blocks.examples)


@pytest.mark.parametrize("damage", ["torn", "a bit flipped"])
@pytest.mark.parametrize(
    "name", ["ids.bin", "meta.json", "examples.jsonl", "keys.npy", "hashes.json"]
)
def test_a_damaged_entry_is_built_anew(records, tmp_path, name, damage):
    first = store(records, tmp_path)
    expected = np.array(first.tokens.ids), list(first.examples)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(whole[:-1] if damage == "torn" else flipped)
    again = store(records, tmp_path)
    assert path.read_bytes() == whole
    assert np.array_equal(again.tokens.ids, expected[0])
    assert list(again.examples) == expected[1]


def test_a_failure_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"q": "a", "a": "b"}\n{"q": "a"}\n')
    bad = read_records("bad.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"bad\.jsonl row 2: has no field 'a'"):
        store(bad, tmp_path, parse_templates(prompt="{q}", response="{a}"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unknown_field_is_found_before_any_row_is_tokenised(records, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.response: no row has a field 'anwser'"):
        store(records, tmp_path, parse_templates(prompt="{q}", response="{anwser}"))


def test_no_usable_row(tmp_path):
    (tmp_path / "mute.jsonl").write_text('{"q": "a", "a": ""}\n')
    mute = read_records("mute.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"mute\.jsonl: no row can be used \(1 with an empty"):
        store(mute, tmp_path, parse_templates(prompt="{q}", response="{a}"))


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(records, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="cannot store tokens: No space left") as caught:
        store(records, tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_too_few_tokens_for_any_text(records, tmp_path):
    with pytest.raises(ConfigError, match="max_tokens = 3"):
        store(records, tmp_path, max_tokens=3)


def test_dolly_with_a_real_tokenizer_comes_back(shared, tmp_path):
    data, model = shared("data/dolly/dolly15k_fedit10.jsonl"), shared("models/stories260K")
    with data.open() as whole, (tmp_path / "dolly.jsonl").open("w") as part:
        part.writelines(line for i, line in enumerate(whole) if i % 60 == 0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    templates = parse_templates(
        prompt="{instruction}\n{context}", response="{response}", key="client", label="category"
    )
    records = read_records("dolly.jsonl", tmp_path)
    corpus = store(records, tmp_path, templates, tokenizer, max_tokens=100_000)
    assert corpus.report.n == len(corpus.tokens) == 251
    assert corpus.labels is not None and len(corpus.labels.names) == 8
    for i, example in enumerate(corpus.examples):
        ids, bar = corpus.tokens.row(i), corpus.tokens.prompt_len[i]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids[1:bar]) == example.prompt + "\n"
        assert tokenizer.decode(ids[bar:-1]) == example.response
        assert corpus.tokens.response_bytes[i] == len(example.response.encode())
