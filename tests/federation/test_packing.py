"""Packed rows: what is kept, and that a model computes with them what it computes with padding."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from federation.address import torch_generator
from federation.specs import LoRASpec
from federation.training import base as bases
from federation.training import packing
from federation.training.base import Base, client_loss, prepare
from federation.training.batches import Batch
from federation.training.full import FullParameters
from federation.training.lora import LoRA
from federation.training.packing import PackedAttention, grouped, pack
from tests.tiny_models import VOCABULARY, tiny

LENGTHS = [[5, 0, 9], [1, 4, 9], [0, 0, 0], [8, 3, 0]]  # client 2 has no example


def batch_of(lengths: list[list[int]], prompt: int = 2) -> Batch:
    """Random sequences, all but the first tokens supervised."""
    size = (len(lengths), len(lengths[0]), max(map(max, lengths)))
    generator = torch_generator("packing", "ids")
    ids_CBT = torch.randint(1, VOCABULARY, size, generator=generator)
    place, length = torch.arange(size[2]), torch.tensor(lengths)[..., None]
    where = ((place + 1 >= prompt) & (place + 1 < length)).flatten().nonzero().squeeze(1)
    client = where // (size[1] * size[2])
    count_C = client.bincount(minlength=size[0])
    return Batch(ids_CBT, where, ids_CBT.flatten()[where + 1], client, count_C)


def draw(*shape: int, purpose: str) -> Tensor:
    return torch.randn(shape, generator=torch_generator("packing", purpose, *shape)).double()


def test_sequences_are_kept_up_to_the_last_prediction() -> None:
    """The last token of a sequence predicts nothing, and padding neither."""
    batch = batch_of(LENGTHS)
    how = pack(batch)
    kept = [max(length - 1, 0) for row in LENGTHS for length in row]
    rows = batch.ids_CBT.flatten(0, 1)
    assert how.ids[0].tolist() == [x for row, n in zip(rows, kept, strict=True) for x in row[:n]]
    assert how.position[0].tolist() == [t for n in kept for t in range(n)]
    assert how.rows_C == (12, 11, 0, 9)
    assert torch.equal(how.ids[0, how.where], batch.ids_CBT.flatten()[batch.where])
    assert torch.equal(how.last, how.where)
    assert how.last_C == tuple(batch.count_C.tolist())


@pytest.mark.parametrize("multiple", [2, 4, 16])
def test_numbers_of_rows_are_multiples(multiple: int) -> None:
    """What is kept and asked stays the same; the other rows are the client's own."""
    batch = batch_of(LENGTHS, prompt=4)
    plain, how = pack(batch), pack(batch, multiple)
    for got, least in ((how.rows_C, plain.rows_C), (how.last_C, plain.last_C)):
        assert got == tuple(-(-n // multiple) * multiple for n in least)
    assert all(group.length % multiple == 0 for group in how.groups)
    for x, was in ((how.ids, plain.ids), (how.position, plain.position)):
        assert torch.equal(x[0, how.where], was[0, plain.where])
    assert torch.equal(how.last[how.among], how.where)
    assert len(how.last.unique()) == sum(how.last_C)
    client = torch.arange(4).repeat_interleave(torch.tensor(how.rows_C))
    assert client[how.last].bincount(minlength=4).tolist() == list(how.last_C)
    assert how.position.max() < batch.ids_CBT.shape[2]  # no model has to know more


def test_every_token_stands_in_one_group() -> None:
    groups, collect = grouped(torch.tensor([4, 0, 9, 3, 8, 1]))
    assert [(group.count, group.length) for group in groups] == [(2, 9), (2, 4), (1, 1)]
    assert torch.equal(torch.cat([group.rows for group in groups])[collect], torch.arange(25))
    filled = torch.cat([group.rows for group in groups]).bincount() - 1
    assert filled.nonzero().squeeze(1).tolist() == [15, 23]  # the last rows of those of 3 and 8


def plain_attention(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """One sequence at a time, ``(N, H, d)``."""
    groups = len(query) // len(key)
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    parts = zip(*(x.split(lengths, 1) for x in (query, key, value)), strict=True)
    mixed = [
        nn.functional.scaled_dot_product_attention(*qkv, is_causal=True, scale=0.7) for qkv in parts
    ]
    return torch.cat(mixed, 1).transpose(0, 1)


@pytest.mark.parametrize("piece", [2, 3, 128])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention(key_heads: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PIECE", piece)
    monkeypatch.setattr(packing, "WIDTH", 4)
    how = pack(batch_of(LENGTHS))
    lengths = [length - 1 for row in LENGTHS for length in row if length > 1]
    N = sum(lengths)
    query = draw(4, N, 3, purpose="query").requires_grad_()
    key, value = (draw(key_heads, N, 3, purpose=x).requires_grad_() for x in ("key", "value"))
    got = PackedAttention.apply(query, key, value, 0.7, how)
    want = plain_attention(query, key, value, lengths)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    weight = draw(*got.shape, purpose="out")
    for leaves in ((query, key, value), (query,), (key,), (value,)):
        outs = [(y * weight).sum() for y in (got, want)]
        grads = [torch.autograd.grad(out, leaves, retain_graph=True) for out in outs]
        torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", range(3))
def test_attention_differentiates_one_argument_alone(leaf: int) -> None:
    how, N = pack(batch_of(LENGTHS)), 32
    arguments = [draw(2, N, 3, purpose=str(i)).requires_grad_(i == leaf) for i in range(3)]
    weight, grads = draw(N, 2, 3, purpose="out"), []
    lengths = [length - 1 for row in LENGTHS for length in row if length > 1]
    for out in (
        PackedAttention.apply(*arguments, 0.7, how),
        plain_attention(*arguments, lengths),
    ):
        grads.append(torch.autograd.grad((out * weight).sum(), arguments[leaf])[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("multiple", "ends"), [(1, [0, 12, 23, 32]), (16, [0, 16, 32, 48])])
def test_a_client_that_diverged_touches_nobody(multiple: int, ends: list[int]) -> None:
    how = pack(batch_of(LENGTHS), multiple)
    rows = [slice(*pair) for pair in pairwise(ends)]
    for bad in rows:
        arguments = [draw(2, ends[-1], 3, purpose=name) for name in "qkv"]
        for x in arguments:
            x[:, bad] = math.nan
            x.requires_grad_()
        out = PackedAttention.apply(*arguments, 0.7, how)
        for x in (out.transpose(0, 1), *torch.autograd.grad(out.sum(), arguments)):
            for part in rows:
                assert bool(x[:, part].isnan().any()) == (part == bad)


# --- Whole models ------------------------------------------------------------------------------

TARGETS = {
    "Llama": ("q_proj", "v_proj", "down_proj"),
    "Qwen2": "all-linear",  # its projections have biases
    "Qwen3": ("q_proj", "o_proj"),
    "Gemma": ("q_proj", "up_proj"),
    "Phi3": ("qkv_proj",),
    "GPT2": ("c_attn", "c_fc"),
    "OPT": ("q_proj", "fc1"),
    "GPTNeoX": ("query_key_value",),
}


def gradients(base: Base, lora: LoRA, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of all clients, whose adapters differ."""
    flat = draw(len(batch.count_C), lora.layout.size, purpose="adapters") * 0.1
    leaves = list(lora.bind(lora.layout.views(flat)).values())
    loss_C = client_loss(base, batch)
    grads = torch.autograd.grad(loss_C.sum(), leaves, materialize_grads=True)
    lora.bind(None)
    return loss_C.detach(), [*grads]


@pytest.fixture
def multiple(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Numbers of rows are multiples of this, whatever the dtype."""
    monkeypatch.setattr(bases, "multiple_for", lambda dtype: request.param)
    return request.param


@pytest.mark.parametrize("multiple", [1, 4, 16], indirect=True)
@pytest.mark.parametrize("kind", TARGETS)
def test_packed_model_computes_what_the_padded_one_does(kind: str, multiple: int) -> None:
    base = prepare("tiny", tiny(kind), None)  # pyright: ignore[reportArgumentType]
    assert "packing" in base.grafts
    lora = LoRA(base, LoRASpec(rank=3, alpha=5, targets=TARGETS[kind]))
    batch = batch_of(LENGTHS)
    got_C, got = gradients(base, lora, batch)
    without = tuple(name for name in base.grafts if name not in ("packing", "layer"))
    want_C, want = gradients(replace(base, grafts=without), lora, batch)
    # transformers computes norms (and some softmaxes) in float32, whatever the model's dtype
    torch.testing.assert_close(got_C, want_C, rtol=0, atol=1e-6)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all(grad[2].abs().max() == 0 for grad in got)  # it has no example


@pytest.mark.parametrize("multiple", [1, 16], indirect=True)
@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_a_step_that_supervises_nothing(kind: str, multiple: int) -> None:
    base = prepare("tiny", tiny(kind), None)  # pyright: ignore[reportArgumentType]
    lora = LoRA(base, LoRASpec(rank=2, targets="all-linear"))
    loss_C, grads = gradients(base, lora, batch_of([[1, 1], [0, 1]]))
    assert loss_C.tolist() == [0, 0]
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("multiple", [1, 16], indirect=True)
def test_all_parameters_of_a_packed_model_are_trained(multiple: int) -> None:
    batch, found = batch_of([[5, 9, 0, 7]]), []
    for fast in (True, False):
        base = prepare("tiny", tiny("Llama"), None, fast)  # pyright: ignore[reportArgumentType]
        full = FullParameters(base)
        leaves = full.bind(full.layout.views(full.initial(0)[None])).values()
        found.append(torch.autograd.grad(client_loss(base, batch).sum(), list(leaves)))
        assert ("layer" in base.grafts) == fast
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
