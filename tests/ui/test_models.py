"""Base models and tokenizers that do not go with the configuration: one line, no training."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.tiny_models import tiny
from tests.tiny_worlds import World, rows, write_rows
from tests.ui.conftest import Call

CONTEXT = 64


def base(world: World, folder: Path, kind: str = "GPT2", chat: str = "", more: int = 0) -> Path:
    """Write a model whose positions end at ``CONTEXT``, with a tokenizer of ``more`` tokens."""
    tokenizer = AutoTokenizer.from_pretrained(world.base)
    size = len(tokenizer)
    tokenizer.add_tokens([f"<{i}>" for i in range(more)])
    tokenizer.chat_template = chat or None
    tokenizer.save_pretrained(folder)
    tiny(kind, torch.float32, vocab_size=size, max_position_embeddings=CONTEXT).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("kind", ["GPT2", "OPT", "Llama"])
def test_examples_longer_than_the_context(kind: str, call: Call, world: World, tmp_path: Path):
    long = [{**row, "question": row["question"] * 40} for row in rows()]
    data = write_rows(tmp_path / "long.jsonl", long)
    settings = [f"model.base={base(world, tmp_path / 'base', kind)}", f"data.source={data}"]
    command = ["run", world.config, "--out", tmp_path / "run", "--set", "rounds=1", *settings]
    call(*command, "data.max_tokens=100").refused(2, "data.max_tokens", "100 tokens", "64")
    assert call(*command, "data.max_tokens=64").code == 0


def test_tokens_that_the_model_does_not_know(call: Call, world: World, tmp_path: Path):
    settings = [
        f"model.base={base(world, tmp_path / 'base', more=5)}",
        "data.prompt=<3> {question}",
    ]
    said = call("run", world.config, "--out", tmp_path / "run", "--set", *settings)
    said.refused(2, "model.base", "tokenizer")


@pytest.mark.parametrize("chat", ["{{ raise_exception('no') }}", "{{ messages[0].content"])
def test_a_chat_template_that_fails(chat: str, call: Call, world: World, tmp_path: Path):
    settings = [f"model.base={base(world, tmp_path / 'base', chat=chat)}", "data.chat=true"]
    said = call("run", world.config, "--out", tmp_path / "run", "--set", *settings)
    said.refused(2, "data.chat", "template fails")
