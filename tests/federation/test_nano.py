"""The built-in model is there, is what its card says, and reads."""

import numpy as np
import torch

from federation.data.tokens import Tokens
from federation.evaluation.likelihood import example_nll
from federation.training.base import NANO, load_base


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in NANO.iterdir()) <= 16_000_000
    assert "Data" in (NANO / "README.md").read_text(encoding="utf-8")


def test_it_is_what_its_card_says():
    base = load_base("nano", "float32")
    assert sum(p.numel() for p in base.model.parameters()) == 5_795_072
    assert base.model.config.max_position_embeddings == 1024
    assert len(base.tokenizer) == 4096
    assert base.plain_head and set(base.grafts) == {"attention", "norm", "mlp", "packing", "layer"}
    assert base.tokenizer.decode(base.tokenizer("Été, 12 + 3?").input_ids) == "Été, 12 + 3?"


def test_it_knows_english_from_noise():
    base = load_base("nano", "float32")
    english = base.tokenizer("The capital of France is a large city on the river.").input_ids
    noise = torch.randperm(len(english), generator=torch.Generator().manual_seed(0)).tolist()
    nats = []
    for ids in (english, [english[i] for i in noise]):
        nats.append(example_nll(base, whole(ids), whole(ids).prompt_len * 0)["nats"].item())
    assert nats[0] < 0.8 * nats[1]


def whole(ids: list[int]) -> Tokens:
    one = np.ones(1, dtype=np.int32)
    return Tokens(np.array(ids, dtype=np.int32), np.array([0, len(ids)], dtype=np.int64), one, one)
