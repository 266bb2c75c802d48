"""Negative log-likelihood of each example, with the models that are bound.

Knows a causal language model and packed sequences; knows nothing of clients' data or of metrics.
Every supervised token counts, the end of sequence included.

Shape suffixes: C models (clients), B examples of each, T tokens, S supervised positions.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from federation.data.tokens import Tokens
from federation.evaluation.scores import BYTES, NATS, TOKENS, Columns
from federation.evaluation.stacks import DEFAULT_LIMITS, Work, forward_attention, in_passes
from federation.training.base import Base
from federation.training.batches import Batch, collate
from federation.training.kernels import slice_size


@torch.no_grad()
def example_nll(
    base: Base, tokens: Tokens, rows: np.ndarray, max_batch_tokens: int = DEFAULT_LIMITS.tokens
) -> Columns:
    """Read rows with the one model that is bound, or with the base if nothing is.

    Args:
        base: the base model.
        tokens: the packed sequences.
        rows: row numbers.
        max_batch_tokens: most tokens of a pass, padding included.

    Returns:
        As :func:`counted`; :func:`federation.evaluation.scores.metrics` makes figures of it.
    """
    nats = np.empty(len(rows))
    work = reading(base, tokens)
    with forward_attention(base):
        for places_CB, rows_CB in in_passes([rows], tokens.lengths, max_batch_tokens):
            nats[places_CB[0]] = work(rows_CB)[0]
    return counted(tokens, rows, nats)


def counted(tokens: Tokens, rows: np.ndarray, nats: np.ndarray) -> Columns:
    """Put what nats are divided by beside them.

    Returns:
        ``nats`` summed over each example's supervised tokens, how many ``tokens`` these are, and
        the ``bytes`` of UTF-8 of their text (the end of sequence has none), ``(n,)`` float64 each.
    """
    return {
        NATS: nats,
        TOKENS: (tokens.lengths[rows] - tokens.prompt_len[rows]).astype(np.float64),
        BYTES: tokens.response_bytes[rows].astype(np.float64),
    }


def reading(base: Base, tokens: Tokens) -> Work:
    """Return what computes the nats of rows with the models that are bound."""
    return lambda rows_CB: row_nats(base, collate(tokens, rows_CB).to(base.device))


def row_nats(base: Base, batch: Batch, **known: Any) -> np.ndarray:
    """Sum the negative log-likelihood of every example of a batch: nats, ``(C, B)`` float64."""
    C, B, T = batch.ids_CBT.shape
    total = torch.zeros(C * B, dtype=torch.float64)
    total.index_add_(0, batch.where.cpu() // T, supervised_nll(base, batch, **known).cpu())
    return total.view(C, B).numpy()


def supervised_nll(base: Base, batch: Batch, **known: Any) -> Tensor:
    """Return the negative log-likelihood at every supervised position, nats, ``(S,)`` float64.

    Where the model allows, logits exist only at supervised positions, and only a slice at a time.

    Args:
        base: the base model.
        batch: sequences, or what they go on with.
        known: of what was read before, as the model takes it.
    """
    # Padding is on the right and attention is causal: no real position ever sees a padded one.
    asked = {"input_ids": batch.ids_CBT.flatten(0, 1), "use_cache": False, **known}
    if base.plain_head:
        states = base.model.base_model(**asked).last_hidden_state
    else:
        states = base.model(**asked).logits
    states = states.flatten(0, 1).index_select(0, batch.where)
    size = slice_size(states.device)
    slices = zip(states.split(size), batch.target.split(size), strict=True)
    return torch.cat([token_nll(base, some, target) for some, target in slices])


def token_nll(base: Base, states: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of targets from hidden states, or else from logits."""
    logits = base.head(states) if base.plain_head else states
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide), target, reduction="none").double()
