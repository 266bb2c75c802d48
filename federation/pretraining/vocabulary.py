"""A byte-level BPE vocabulary of our own.

Sennrich et al. 2016, arXiv:1508.07909, over bytes (Radford et al. 2019), so every text can be
written and read back.  Digits stand alone, which lets a small model learn arithmetic.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|end|>"  # ends a sequence
PAD = "<|pad|>"  # a token of its own, so that who masks padding does not mask ends
# Letters with the space before them, single digits, runs of other signs, runs of white space.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(
    texts: Iterable[str], size: int = 4096, context: int = 1024
) -> "PreTrainedTokenizerFast":
    """Learn a vocabulary.

    Args:
        texts: what it is learnt from.
        size: tokens in all, the 256 bytes and the end of sequence included.
        context: longest sequence of the model it is for, in tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
