"""A federation so small that a whole run takes a second: a base model, data and a configuration."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from federation.pretraining.vocabulary import train_tokenizer
from tests.tiny_models import tiny

CONTEXT = 96
CONFIG = """\
seed = 3
rounds = 3
[model]
base = "{base}"
dtype = "float32"
[adapter]
rank = 2
targets = "all-linear"
[data]
source = "{data}"
prompt = "{{question}}"
response = "{{answer}}"
max_tokens = 48
[data.clients]
by = "key"
key = "client"
label = "kind"
[work]
steps = 2
batch_size = 2
lr = 0.01
[cohort]
size = 3
[evaluation]
every = 2
max_examples = 12
max_new_tokens = 4
"""


@dataclass(frozen=True)
class World:
    """Where its parts are."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def data(self) -> Path:
        return self.folder / "data.jsonl"

    @property
    def config(self) -> Path:
        return self.folder / "tiny.toml"


def rows(clients: int = 5, each: int = 10) -> list[dict[str, str]]:
    """Make up small sums, a client's in its own words."""
    words = ("sum", "total", "add", "plus", "count")
    return [
        {
            "client": f"client-{c}",
            "kind": "even" if (c + i) % 2 == 0 else "odd",
            "question": f"{words[c % len(words)]} {c} and {i}",
            "answer": str(c + i),
        }
        for c in range(clients)
        for i in range(each)
    ]


def write_rows(path: Path, values: list[dict[str, str]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in values))
    return path


def tiny_world(folder: Path) -> World:
    """Write a base model, data and a configuration into a folder."""
    world = World(folder)
    write_rows(world.data, rows())
    texts = (f"{row['question']} {row['answer']}" for row in rows())
    tokenizer = train_tokenizer(texts, 300, CONTEXT)
    tokenizer.save_pretrained(world.base)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, **ends}
    tiny("Llama", torch.float32, **size).save_pretrained(world.base)
    world.config.write_text(CONFIG.format(base=world.base, data=world.data))
    return world
