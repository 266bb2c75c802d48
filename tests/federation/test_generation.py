"""Batched greedy generation against one model call per token."""

import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from federation.address import generator, torch_generator
from federation.errors import ConfigError
from federation.evaluation.generation import fit, generate, pad_left, without_end
from federation.evaluation.stacks import bound
from federation.specs import LoRASpec
from federation.training import kernels
from federation.training.base import Base, prepare
from federation.training.local import Task
from federation.training.lora import LoRA
from tests.tiny_models import byte_tokenizer, tiny

NEVER = 0  # the token that begins a text, which a random model hardly ever writes


def llama(context: int = 128) -> PreTrainedModel:
    """Build a model of wide weights: next tokens differ and are no near ties."""
    model = tiny("Llama", torch.float32, vocab_size=258, max_position_embeddings=context)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(2)
    return model


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    return llama()


@pytest.fixture
def base(plain) -> Base:
    return prepare("small", copy.deepcopy(plain), byte_tokenizer())


def prompts(n: int = 9, longest: int = 30) -> list[np.ndarray]:
    rng = generator("prompts", n)
    return [rng.integers(2, 258, rng.integers(1, longest)).astype(np.int32) for _ in range(n)]


@torch.no_grad()
def one_by_one(model, prompt: np.ndarray, steps: int) -> list[int]:
    """Greedy by definition: the whole sequence once more for every token."""
    ids = prompt.tolist()
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def text(ids: list[int]) -> str:
    return byte_tokenizer().decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def test_a_padded_batch_says_what_each_prompt_says_alone(base, plain):
    assert "attention" in base.grafts
    expected = [text(one_by_one(plain, prompt, 12)) for prompt in prompts()]
    assert len(set(expected)) > 5  # the prompts matter
    assert generate(base, prompts(), 12, [NEVER]) == expected
    assert [generate(base, [prompt], 12, [NEVER])[0] for prompt in prompts()] == expected


def test_it_stops_before_the_end_of_sequence(base, plain):
    said = [one_by_one(plain, prompt, 12) for prompt in prompts()]
    eos = said[0][3]
    expected = [ids[: ids.index(eos)] if eos in ids else ids for ids in said]
    assert len(expected[0]) <= 3 and max(map(len, expected)) == 12
    assert generate(base, prompts(), 12, [eos]) == [text(ids) for ids in expected]


def test_what_closes_an_answer_is_taken_off():
    assert without_end([5, 6, 7, 8, 9], [7, 8]) == [5, 6]
    assert without_end([5, 6, 8, 7, 8], [7, 8]) == [5, 6]  # the first end counts
    assert without_end([5, 6, 7], [7, 8]) == [5, 6, 7]  # no end was reached
    assert without_end([5, 8, 8], [8]) == [5]
    assert without_end([8], [7, 8]) == []


def test_white_space_survives_a_tokenizer_that_cleans_up(base):
    base.tokenizer.clean_up_tokenization_spaces = True
    base.tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    ids = byte_tokenizer(bos=False)("a , b  .")["input_ids"]
    assert text(ids) == "a , b  ."
    base.model.generate = lambda input_ids, **_: torch.tensor([[*input_ids[0].tolist(), *ids]])
    assert generate(base, prompts(1), 9, [NEVER]) == ["a , b  ."]


def test_the_files_of_a_model_cannot_make_it_sample_or_penalise(base):
    expected = generate(base, prompts(), 12, [NEVER])
    base.model.generation_config.update(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, no_repeat_ngram_size=1
    )
    asked = base.model.generation_config
    assert generate(base, prompts(), 12, [NEVER]) == expected
    assert base.model.generation_config is asked


def test_the_attention_of_training_is_back_afterwards_even_after_an_error(base):
    generate(base, prompts(2), 2, [NEVER])
    assert base.model.config._attn_implementation == kernels.ATTENTION

    def broken(**_):
        raise RuntimeError("stop")

    base.model.generate = broken
    with pytest.raises(RuntimeError, match="stop"):
        generate(base, prompts(2), 2, [NEVER])
    assert base.model.config._attn_implementation == kernels.ATTENTION


def test_stacked_clients_say_what_each_says_alone(base):
    lora = LoRA(base, LoRASpec(rank=4, targets=("q_proj", "v_proj", "down_proj")))
    task = Task(base, lora, None, None)  # pyright: ignore[reportArgumentType]
    params_C = torch.randn(3, lora.layout.size, generator=torch_generator("adapters")) * 0.3
    with bound(task, params_C):
        together = generate(base, prompts(), 10, [NEVER])
    alone = []
    for c in range(3):
        with bound(task, params_C[c : c + 1]):
            alone += generate(base, prompts()[3 * c : 3 * c + 3], 10, [NEVER])
    assert together == alone
    assert together != generate(base, prompts(), 10, [NEVER])


def test_a_prompt_is_cut_to_the_context_on_its_left_behind_its_first_token(plain):
    base = prepare("short", llama(context=16), byte_tokenizer())
    prompt = np.arange(40, 60)
    assert fit(base, prompt, 6).tolist() == [40, *range(51, 60)]
    assert fit(base, prompt[:10], 6).tolist() == list(range(40, 50))
    expected = text(one_by_one(plain, fit(base, prompt, 6), 6))
    assert generate(base, [prompt], 6, [NEVER]) == [expected]
    with pytest.raises(ConfigError, match=r"max_new_tokens = 15: .* 16 tokens; lower it"):
        generate(base, [prompt], 15, [NEVER])


def test_padding_is_on_the_left_and_masked():
    ids, mask = pad_left([np.array([5, 6, 7]), np.array([8])])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_no_prompt_no_text(base):
    assert generate(base, [], 5, [NEVER]) == []
