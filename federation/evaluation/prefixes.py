"""The likelihood of an example's answers after one reading of the prompt that they share.

Knows a causal language model with a cache of keys and values; knows nothing of clients' data.

Shape suffixes: C models (clients), B examples of each, K answers of an example, T tokens, H of
them in front of the answers.
"""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from federation.data.tokens import Tokens
from federation.evaluation.choices import Choices
from federation.evaluation.likelihood import row_nats
from federation.evaluation.stacks import Work
from federation.training.base import Base
from federation.training.batches import ABSENT, collate


def choosing(base: Base, choices: Choices) -> Work:
    """Return what computes the nats of examples' answers with the models that are bound.

    Prompts are read once for all their answers where the model's cache allows; otherwise every
    answer is read behind a prompt of its own.  Both come to the same, up to rounding.

    Returns:
        Examples ``(C, B)`` -> nats ``(C, B, K)``, infinite where there is no answer.
    """
    heads, tails = choices.parted()
    shares = keeps_all(base)

    def work(places_CB: np.ndarray) -> np.ndarray:
        rows_CBK = choices.sequences(places_CB)
        clients, _, K = rows_CBK.shape
        rows_CR = rows_CBK.reshape(clients, -1)  # R = B x K
        batch = collate(tails if shares else choices.tokens, rows_CR).to(base.device)
        known = read_once(base, heads, places_CB, K, batch.ids_CBT.shape[-1]) if shares else {}
        nats_CBK = row_nats(base, batch, **known).reshape(rows_CBK.shape)
        return np.where(rows_CBK == ABSENT, np.inf, nats_CBK)

    return work


def keeps_all(base: Base) -> bool:
    """Tell whether a model's cache holds every key and value, at positions that can be named."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    named = "position_ids" in inspect.signature(base.model.base_model.forward).parameters
    layers = DynamicCache(config=base.model.config).layers
    whole = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    # GPT-Neo keeps everything and looks through a window, which padding would take places of.
    return named and whole and "local" not in getattr(base.model.config, "attention_layers", ())


def read_once(base: Base, heads: Tokens, places_CB: np.ndarray, K: int, T: int) -> dict[str, Any]:
    """Read what stands in front of answers, for K answers of T tokens behind each.

    Returns:
        What the model is to know of it when it reads the answers; none of it where nothing stands
        in front.
    """
    read = collate(heads, places_CB).to(base.device)
    length_N = torch.from_numpy(heads.lengths[places_CB.reshape(-1)]).to(base.device)
    if not int(length_N.max()):
        return {}
    # Padding stands between a prompt and its answers; it is masked and has no position.
    cache = base.model.base_model(input_ids=read.ids_CBT.flatten(0, 1), use_cache=True)
    cache.past_key_values.batch_repeat_interleave(K)
    length_R = length_N.repeat_interleave(K)[:, None]
    here_H = torch.arange(read.ids_CBT.shape[-1], device=base.device)
    there_T = torch.arange(T, device=base.device)
    seen: Tensor = (here_H < length_R).long()
    return {
        "past_key_values": cache.past_key_values,
        "use_cache": True,
        "attention_mask": torch.cat([seen, seen.new_ones(len(seen), T)], dim=1),
        "position_ids": length_R + there_T,
    }
