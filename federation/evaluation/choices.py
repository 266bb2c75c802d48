"""Choice tasks by likelihood: every answer of an example as a sequence of its own.

Knows rendered examples and the format of a sequence; knows nothing of models or clients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from federation.data.templates import Example
from federation.data.tokens import Joined, SequenceFormat, Tokens, encode
from federation.errors import DataError
from federation.evaluation.scores import Columns

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
        """Return the sequence numbers of examples, ``(sum of their choices,)``."""
        pieces = [range(self.bounds[i], self.bounds[i + 1]) for i in places]
        return np.fromiter(chain.from_iterable(pieces), dtype=np.int64)

    def accuracy(self, places: np.ndarray, nats: np.ndarray) -> Columns:
        """Tell for each example whether its right answer is the likeliest.

        ``choice_accuracy`` compares the plain sum of log-likelihoods over an answer's tokens and
        the end of sequence: nothing is normalised.  ``choice_accuracy_per_byte`` divides that sum
        by the answer's bytes of UTF-8, so that long answers are not at a disadvantage (Brown et al.
        2020, arXiv:2005.14165, divide by tokens).  Of equally likely answers the first is given.

        Args:
            places: n examples.
            nats: negative log-likelihood of the sequences of those examples, in their order.

        Returns:
            Columns of 0 and 1, ``(n,)`` each.
        """
        size = np.maximum(self.tokens.response_bytes[self.sequences(places)], 1)
        return {
            "choice_accuracy": self._right(places, nats),
            "choice_accuracy_per_byte": self._right(places, nats / size),
        }

    def _right(self, places: np.ndarray, nats: np.ndarray) -> np.ndarray:
        counts = self.bounds[places + 1] - self.bounds[places]
        per_example = np.split(nats, np.cumsum(counts)[:-1]) if len(places) else []
        given = np.array([np.argmin(own) for own in per_example], dtype=np.int64)
        return (given == self.answer[places]).astype(np.float64)


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
