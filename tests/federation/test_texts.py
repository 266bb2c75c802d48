"""The texts of pre-training: clean, and without anything that models are judged on."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.errors import DataError
from federation.pretraining import texts

HERE = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FEDPILOT_TEST_DATA", HERE.parent / "shared")) / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the public texts are absent; FEDPILOT_TEST_DATA names their folder"
)
PUBLIC = [name for name in texts.SOURCES if name != "generated"]


def letters(text: str) -> str:
    return re.sub("[^a-z]", "", text.lower())


def rows(*parts: str) -> Iterator[dict[str, Any]]:
    with DATA.joinpath(*parts).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.fixture(scope="module")
def documents() -> dict[str, list[str]]:
    return {name: list(texts.SOURCES[name](DATA)) for name in PUBLIC}


def found(fragments: set[str], documents: dict[str, list[str]], length: int) -> set[str]:
    """Fragments that occur in a document, compared letter by letter."""
    everything = "|".join(letters(text) for group in documents.values() for text in group)
    wanted = {letters(fragment) for fragment in fragments}
    return {text for text in wanted if len(text) >= length and text in everything}


@needs_data
def test_no_response_or_context_of_dollys_global_test_is_trained_on(documents):
    test = [row for row in rows("dolly", "dolly15k_fedit10.jsonl") if row["client"] == -1]
    assert len(test) == 80
    fragments = {row[field] for row in test for field in ("response", "context")}
    assert found(fragments, documents, length=30) == set()


@needs_data
def test_all_other_dolly_rows_but_the_six_that_repeat_it_are_there(documents):
    assert len(documents["dolly"]) == 15_011 - 80 - 6


@needs_data
def test_no_long_speech_of_the_last_tenth_of_a_role_is_trained_on(documents):
    last = {
        line
        for row in rows("shakespeare", "roles.jsonl")
        if row["play"] != "r_and_j"
        for speech in row["text"][len(row["text"]) * 9 // 10 :]
        for line in speech.split("\n")
    }
    # Eight of 2,900 stand elsewhere in Shakespeare, too (a message read twice): no leak.
    assert len(found(last, documents, length=30)) <= 8


@needs_data
def test_gsm8k_is_its_training_set_without_the_calculator(documents):
    test = {row["question"] for row in rows("gsm8k", "test.jsonl")}
    assert found(test, documents, length=60) == set()
    assert len(documents["gsm8k"]) == 7_473
    assert not any("<<" in text for text in documents["gsm8k"])


@needs_data
def test_books_are_prose_without_the_words_of_their_distributor(documents):
    books = "\n".join(documents["gutenberg"])
    assert "Project Gutenberg" not in books
    assert "[Emma by Jane Austen" not in books
    assert "``" not in books and " n't" not in books
    assert "Emma Woodhouse, handsome, clever, and rich, with a comfortable home" in books


@needs_data
def test_a_story_is_a_document(documents):
    assert len(documents["tinystories"]) > 1_000
    assert documents["tinystories"][1].startswith(
        "Once upon a time, there was a little car named Beep"
    )


@pytest.mark.parametrize(
    ("apart", "printed"),
    [
        ("`` Oh , no ! '' said he .", '"Oh, no!" said he.'),
        ("I do n't ; she 'll not .", "I don't; she'll not."),
        ("( The path . )", "(The path.)"),
        ("there is no _ true _ beauty", "there is no true beauty"),
    ],
)
def test_signs_set_apart_are_put_back(apart: str, printed: str):
    assert texts.untokenised(apart) == printed


def test_pages_keep_every_paragraph_in_order():
    paragraphs = [f"paragraph {i} " + "x" * (i % 7) for i in range(50)]
    made = list(texts.pages(paragraphs, characters=100))
    assert "\n\n".join(made).split("\n\n") == paragraphs
    assert len(made) > 5 and max(map(len, made)) < 150


@pytest.mark.parametrize("source", ["dolly", "gsm8k", "gutenberg", "presidents", "shakespeare"])
def test_a_missing_file_is_named(source: str, tmp_path: Path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path / source)) + ".*--data"):
        list(texts.SOURCES[source](tmp_path))
