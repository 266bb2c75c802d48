"""Greedy continuations of many prompts at once.

Knows a model, its tokenizer and prompts as token ids; knows nothing of references or clients.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from federation.errors import ConfigError
from federation.evaluation.stacks import forward_attention
from federation.training.base import Base


@contextmanager
def greedy(base: Base) -> Iterator[None]:
    """Let a model decode plainly, whatever its files ask for; put its own configuration back after.

    A checkpoint may come with a generation configuration (sampling, penalties), which would turn
    greedy into something else.
    """
    from transformers import GenerationConfig

    asked = base.model.generation_config
    base.model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.model.generation_config = asked


def fit(base: Base, prompt: np.ndarray, max_new_tokens: int) -> np.ndarray:
    """Cut a prompt so that it and what is generated fit the model's context.

    It is cut as in training: on its left, its first token (the beginning of the sequence) kept.

    Raises:
        ConfigError: if the context is too short for any prompt.
    """
    context = getattr(base.model.config, "max_position_embeddings", None)
    room = len(prompt) if context is None else context - max_new_tokens
    if room < 2 and room < len(prompt):
        raise ConfigError(
            f"evaluation.max_new_tokens = {max_new_tokens}: leaves no room for a prompt in the "
            f"model's context of {context} tokens; lower it"
        )
    if len(prompt) <= room:
        return prompt
    return np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]])


def generate(
    base: Base, prompts: Sequence[np.ndarray], max_new_tokens: int, end: Sequence[int]
) -> list[str]:
    """Continue prompts greedily with whatever is bound, in one pass with padding on the left.

    A continuation ends at the end-of-sequence token or after ``max_new_tokens``.  With C models
    bound, equally many prompts belong to each, those of the first model first.

    Args:
        base: the model and its tokenizer.
        prompts: token ids of each prompt, at least one each; see :func:`fit`.
        max_new_tokens: longest continuation, tokens, its end included.
        end: token ids that close an answer, the end-of-sequence token last
            (:attr:`federation.data.tokens.SequenceFormat.end`).

    Returns:
        The text of each continuation, without its end.

    Raises:
        ConfigError: if the model's context leaves no room for a prompt.
    """
    rows = continued(base, prompts, max_new_tokens, end) if prompts else []
    return [decoded(base, row, list(end)) for row in rows]


@torch.no_grad()
def continued(
    base: Base,
    prompts: Sequence[np.ndarray],
    max_new_tokens: int,
    end: Sequence[int],
    seconds: float | None = None,
) -> list[list[int]]:
    """Return the token ids of continuations, the padding behind the shorter ones included.

    Args:
        base: as :func:`generate` has it, as are ``prompts``, ``max_new_tokens`` and ``end``.
        prompts: at least one.
        max_new_tokens: longest continuation.
        end: token ids that close an answer.
        seconds: after which what there is by then is returned; never if omitted.

    Raises:
        ConfigError: if the model's context leaves no room for a prompt.
    """
    ids, mask = pad_left([fit(base, prompt, max_new_tokens) for prompt in prompts])
    with forward_attention(base), greedy(base):
        output = base.model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            max_time=seconds,
            eos_token_id=end[-1],
            pad_token_id=end[-1],
        )
    return output[:, ids.shape[1] :].tolist()


def decoded(base: Base, ids: list[int], end: list[int]) -> str:
    """Turn ids into text up to their end, exactly: no spaces are cleaned up."""
    text = base.tokenizer.decode(
        without_end(ids, end), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)


def without_end(ids: list[int], end: list[int]) -> list[int]:
    """Return the ids before the first end of sequence and before what of ``end`` precedes it."""
    *tail, eos = end
    if eos not in ids:
        return ids
    answer = ids[: ids.index(eos)]
    return answer[: len(answer) - len(tail)] if tail and answer[-len(tail) :] == tail else answer


def pad_left(prompts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask ``(B, T)`` int64; the mask is 0 where there is no prompt."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
