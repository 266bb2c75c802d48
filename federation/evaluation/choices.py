"""Choice tasks by likelihood: every answer of an example as a sequence of its own.

Knows rendered examples and the format of a sequence; knows nothing of models or clients.

Shape suffixes: C models (clients), B examples of each, K answers of an example, as many as the
example with most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from federation.data.templates import Example
from federation.data.tokens import Joined, SequenceFormat, Tokens, encode
from federation.errors import DataError
from federation.evaluation.scores import Columns
from federation.training.batches import ABSENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Choices:
    """The answers of n examples as m sequences.

    Attributes:
        tokens: the sequences, those of example 0 first.
        bounds: example i has sequences ``bounds[i]`` to ``bounds[i + 1]``, ``(n + 1,)`` int64.
        answer: which of its sequences is each example's right one, ``(n,)`` int64.
    """

    tokens: Tokens
    bounds: np.ndarray
    answer: np.ndarray

    def sequences(self, places: np.ndarray) -> np.ndarray:
        """Number the sequences of examples' answers, ``(..., K)``; -1 where there is none."""
        count = np.diff(self.bounds)
        which = np.arange(count.max(initial=1))
        there = which < count[places][..., None]
        return np.where(there, self.bounds[places][..., None] + which, ABSENT)

    @property
    def cost(self) -> np.ndarray:
        """Tokens of each example's sequences together, ``(n,)`` int64."""
        return np.add.reduceat(self.tokens.lengths, self.bounds[:-1])

    def accuracy(self, places: np.ndarray, nats: np.ndarray) -> Columns:
        """Tell for each example whether its right answer is the likeliest.

        ``choice_accuracy`` compares the plain sum of log-likelihoods over an answer's tokens and
        the end of sequence: nothing is normalised.  ``choice_accuracy_per_byte`` divides that sum
        by the answer's bytes of UTF-8, so that long answers are not at a disadvantage (Brown et al.
        2020, arXiv:2005.14165, divide by tokens).  Of equally likely answers the first is given.

        Args:
            places: B examples.
            nats: negative log-likelihood of their answers, ``(B, K)``, infinite where none is.

        Returns:
            Columns of 0 and 1, ``(B,)`` each.
        """
        rows_BK, answer = self.sequences(places), self.answer[places]
        nats_BK = nats.reshape(rows_BK.shape)
        size_BK = np.maximum(self.tokens.response_bytes[rows_BK], 1)
        right = {
            "choice_accuracy": nats_BK.argmin(axis=1) == answer,
            "choice_accuracy_per_byte": (nats_BK / size_BK).argmin(axis=1) == answer,
        }
        return {name: values.astype(np.float64) for name, values in right.items()}

    def parted(self) -> tuple[Tokens, Tokens]:
        """Part sequences where the answers of an example begin to differ.

        Returns:
            What an example's sequences begin with, a row an example, and what each goes on with, a
            row a sequence.  The prompt's last token begins the latter: it predicts the first token
            of the answer.
        """
        tokens, first = self.tokens, self.bounds[:-1]
        shared = tokens.prompt_len - 1
        begin, end = tokens.offsets[:-1], tokens.offsets[1:]
        heads = _cut(tokens.ids, begin[first], begin[first] + shared[first])
        tails = _cut(tokens.ids, begin + shared, end)
        return heads, tails


def _cut(ids: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Tokens:
    """Take pieces of ids as sequences whose first token is not supervised."""
    pieces = [ids[a:b] for a, b in zip(begin, end, strict=True)]
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *pieces]),
        offsets=np.cumsum([0, *map(len, pieces)]),
        prompt_len=np.ones(len(pieces), dtype=np.int32),
        response_bytes=np.zeros(len(pieces), dtype=np.int32),
    )


def choice_sequences(
    examples: Sequence[Example], form: SequenceFormat, tokenizer: "PreTrainedTokenizerFast"
) -> Choices:
    """Join every answer of every example with the example's prompt, in the format of training.

    The prompt is the same before all answers of an example, cut so that the longest of them fits.

    Raises:
        DataError: naming the first example without choices.
    """
    for example in examples:
        if not example.choices:
            raise DataError(
                f"{example.origin}: has no choices; set data.choices or drop the metric 'choice'"
            )
    texts = list(dict.fromkeys(choice for example in examples for choice in example.choices))
    ids_of = dict(zip(texts, encode(tokenizer, texts), strict=True)) if texts else {}
    prompts = encode(tokenizer, [example.prompt + form.separator for example in examples])
    joined = [
        one
        for example, prompt in zip(examples, prompts, strict=True)
        for one in _join(prompt, [ids_of[choice] for choice in example.choices], form)
    ]
    return Choices(
        tokens=_pack(joined, [choice for example in examples for choice in example.choices]),
        bounds=np.cumsum([0, *(len(example.choices) for example in examples)]),
        answer=np.array([e.choices.index(e.response) for e in examples], dtype=np.int64),
    )


def _join(prompt: list[int], answers: list[list[int]], form: SequenceFormat) -> Iterator[Joined]:
    longest = form.join(prompt, max(answers, key=len))
    shared = prompt[len(prompt) - (longest.prompt_len - len(form.bos)) :]
    for answer in answers:
        yield form.join(shared, answer[: longest.kept])


def _pack(joined: list[Joined], answers: list[str]) -> Tokens:
    ids = [np.array(one.ids, dtype=np.int32) for one in joined]
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *ids]),
        offsets=np.cumsum([0, *map(len, ids)]),
        # Nothing predicts the first token of a sequence, so it is never supervised.
        prompt_len=np.array([max(one.prompt_len, 1) for one in joined], dtype=np.int32),
        response_bytes=np.array([len(answer.encode()) for answer in answers], dtype=np.int32),
    )
