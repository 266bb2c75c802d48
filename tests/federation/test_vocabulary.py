"""The vocabulary: every text is read back, and boundaries fall where they should."""

import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from federation.pretraining.vocabulary import END, train_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.",
    "What is 12 + 345? It is 357.\n\nWhy?\nBecause 345 + 12 = 357.",
    "Naïve café owners said: “We're open!”",
    "Why?\nWho?\nWhere?\nWhen?\n",
] * 20
SIZE = 320


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, size=SIZE)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_every_text_is_read_back_byte_for_byte(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text


@settings(max_examples=150, deadline=None)
@given(prompt=TEXT, response=TEXT)
@example(prompt="Why?", response="Because")
def test_prompt_newline_response_tokenise_alike_together_and_apart(tokenizer, prompt, response):
    """So documents of pre-training and sequences of fine-tuning are the same tokens."""
    prompt, response = prompt.strip(), response.strip()
    apart = ids(tokenizer, prompt + "\n") + ids(tokenizer, response)
    assert ids(tokenizer, f"{prompt}\n{response}") == apart


def test_digits_stand_alone(tokenizer):
    assert "|".join(tokenizer.decode([i]) for i in ids(tokenizer, "12 345")) == "1|2| |3|4|5"


def test_ids_run_from_nought_to_the_size_asked_for(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(SIZE))
    assert tokenizer.convert_tokens_to_ids(END) == tokenizer.eos_token_id == 0


def test_nothing_is_added_to_a_text(tokenizer):
    assert tokenizer("fox")["input_ids"] == ids(tokenizer, "fox")


def test_training_twice_gives_the_same_vocabulary(tokenizer):
    again = train_tokenizer(iter(TEXTS), size=SIZE)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_the_same_beside_a_llama_without_a_warning(
    tokenizer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """transformers must not rebuild it as the Llama tokenizer that the model's type suggests."""
    LlamaConfig(vocab_size=SIZE).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert capfd.readouterr().err == ""
    for text in [*TEXTS, " two  spaces ", "\n\n1984\t"]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(ids(loaded, text)) == text
    assert (loaded.eos_token_id, loaded.pad_token_id) == (0, tokenizer.pad_token_id)
    assert loaded.model_max_length == 1024
