"""Token sequences: how prompt and response become one, and how many lie packed in one array.

This module knows tokenizers and the format of a sequence.  It does not know files, clients, batches
or models.  A sequence is

    [bos] prompt separator | response eos

where the part after the bar is supervised.  Prompt and response are tokenised apart, so the bar
falls exactly between two tokens.

Units: ids and lengths in tokens, ``response_bytes`` in bytes of UTF-8.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from federation.data.templates import Templates
from federation.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Tokens:
    """n token sequences, one after another in one array.

    Attributes:
        ids: token ids of all sequences, ``(total,)`` int32.
        offsets: where each sequence starts, and where the last ends, ``(n + 1,)`` int64.
        prompt_len: leading tokens of each sequence that are not supervised, ``(n,)`` int32, >= 1.
        response_bytes: bytes of UTF-8 of the supervised text, ``(n,)`` int32; the end-of-sequence
            token has none.  Of a response that was cut, the bytes of what was kept.
    """

    ids: np.ndarray
    offsets: np.ndarray
    prompt_len: np.ndarray
    response_bytes: np.ndarray

    def __len__(self) -> int:
        """Count the sequences."""
        return len(self.prompt_len)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, ``(n,)`` int64."""
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        """View the token ids of sequence ``i``, ``(length,)`` int32."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]


@dataclass(frozen=True)
class SequenceFormat:
    """How token ids of prompt and response become one sequence.

    Attributes:
        bos: ids before the prompt.
        end: ids after the response; supervised and never cut.
        separator: text between prompt and response, part of the prompt.
        max_tokens: longest sequence.
    """

    bos: tuple[int, ...]
    end: tuple[int, ...]
    separator: str
    max_tokens: int

    def join(self, prompt: list[int], response: list[int]) -> "Joined":
        """Join prompt and response, cutting what does not fit.

        The prompt is cut first, on its left, down to a quarter of the room; only then the response,
        on its right.
        """
        room = self.max_tokens - len(self.bos) - len(self.end)
        kept_prompt = min(len(prompt), max(room - len(response), room // 4))
        kept = min(len(response), room - kept_prompt)
        head = [*self.bos, *prompt[len(prompt) - kept_prompt :]]
        return Joined(
            ids=[*head, *response[:kept], *self.end],
            prompt_len=len(head),
            kept=kept,
            truncated=kept_prompt < len(prompt) or kept < len(response),
        )


@dataclass(frozen=True)
class Joined:
    """One sequence.

    Attributes:
        ids: its token ids.
        prompt_len: how many of them belong to bos, prompt and separator.
        kept: how many of them belong to the response, its end not counted.
        truncated: whether prompt or response lost tokens.
    """

    ids: list[int]
    prompt_len: int
    kept: int
    truncated: bool


def sequence_format(
    tokenizer: "PreTrainedTokenizerFast", templates: Templates, max_tokens: int, separator: str
) -> SequenceFormat:
    """Read the format of a sequence off a tokenizer.

    Raises:
        ConfigError: if it has no end-of-sequence token or ``max_tokens`` leaves no room for text.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise ConfigError("model: the tokenizer has no end-of-sequence token; set its eos_token")
    # A chat template writes its own beginning.
    first = [] if templates.chat else list(tokenizer("a")["input_ids"])[:1]
    bos = tuple(first) if first == [tokenizer.bos_token_id] else ()
    tail = encode(tokenizer, [templates.chat.tail])[0] if templates.chat else []
    end = (*tail, eos)
    if max_tokens < len(bos) + len(end) + 2:
        raise ConfigError(f"data.max_tokens = {max_tokens}: too few for any text; raise it")
    inside = "" if templates.chat or templates.prompt is None else separator
    return SequenceFormat(bos, end, inside, max_tokens)


def encode(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    """Tokenise texts without special tokens around them."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return list(encoded["input_ids"])
