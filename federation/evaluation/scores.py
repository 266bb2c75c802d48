"""What the metrics are: from a few numbers per example to figures of sets and federations.

This module knows numbers and strings.  It does not know models, tokens or who holds what.

Units: ``nll`` nats per token, ``nll_per_byte`` nats per byte of UTF-8, ``bits_per_byte`` bits per
byte, ``perplexity`` none; ``exact_match``, ``rouge_l`` and choice accuracies are in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from federation.errors import DataError

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Columns = dict[str, np.ndarray]  # one value per example, ``(n,)`` float64, by name
NATS, TOKENS, BYTES = "nats", "tokens", "bytes"  # the columns that likelihood metrics are made of
HIGHER_IS_BETTER = frozenset(
    {"exact_match", "rouge_l", "choice_accuracy", "choice_accuracy_per_byte"}
)


def exact_match(prediction: str, reference: str) -> float:
    """Tell (1 or 0) whether two texts are the same but for white space around them.

    Nothing else is normalised: case, punctuation and inner white space count.
    """
    return float(prediction.strip() == reference.strip())


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin 2004), in [0, 1].

    Words are what the ``rouge-score`` package takes for words, without stemming: runs of a-z and
    0-9 after lower-casing.  Text in other scripts therefore has no words and scores 0.
    """
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


@cache
def _rouge_scorer() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def metrics(columns: Columns) -> dict[str, float]:
    """Turn per-example values into the metrics of the set.

    Likelihoods are pooled over the set, sum of nats by sum of tokens, not averaged over examples;
    the end-of-sequence token counts as a token and has no bytes.  Others are means over examples.

    Returns:
        Metrics by name.  Per byte they are NaN where no example has a byte; perplexity is infinite
        from about 709 nats per token on.

    Raises:
        DataError: if there is no example.
    """
    if not columns or not len(next(iter(columns.values()))):
        raise DataError("evaluation: there is no example to evaluate; raise data.split.test")
    plain = {name: float(x.mean()) for name, x in columns.items() if name in HIGHER_IS_BETTER}
    return (_likelihood(columns) if NATS in columns else {}) | plain


def _likelihood(columns: Columns) -> dict[str, float]:
    nats, tokens, size = (float(columns[name].sum()) for name in (NATS, TOKENS, BYTES))
    nll = nats / tokens
    per_byte = nats / size if size else math.nan
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(nll))
    return {
        "nll": nll,
        "nll_per_byte": per_byte,
        "bits_per_byte": per_byte / math.log(2),
        "perplexity": perplexity,
    }


@dataclass(frozen=True)
class Report:
    """Metrics of a federation.

    Attributes:
        overall: of all examples of all clients together, each counted once.
        clients: of each client that has examples.
        mean: over those clients, every client counting the same.
        std: standard deviation over those clients, a population's (divided by their number).
        worst_decile: mean over the worst tenth of those clients, see :func:`worst_decile`.
    """

    overall: dict[str, float]
    clients: dict[str, dict[str, float]]
    mean: dict[str, float]
    std: dict[str, float]
    worst_decile: dict[str, float]


def report(overall: Columns, by_client: Mapping[str, Columns]) -> Report:
    """Summarise per-example values of the whole and of its clients.

    Args:
        overall: values of all examples.
        by_client: values of each client's examples; every client has one at least.

    Raises:
        DataError: if there is no example.
    """
    clients = {client: metrics(columns) for client, columns in by_client.items()}
    whole = metrics(overall)
    values = {name: np.array([figures[name] for figures in clients.values()]) for name in whole}
    return Report(
        overall=whole,
        clients=clients,
        mean={name: float(x.mean()) for name, x in values.items()},
        std={name: deviation(x) for name, x in values.items()},
        worst_decile={name: worst_decile(name, x) for name, x in values.items()},
    )


def deviation(values: np.ndarray) -> float:
    """Return the population standard deviation of ``(n,)`` values; NaN if one is not finite."""
    return float(values.std()) if np.isfinite(values).all() else math.nan


def worst_decile(metric: str, values: np.ndarray) -> float:
    """Return the mean over the worst tenth of ``(n,)`` clients: one of 1 to 10, two of 11 to 20.

    Worst is lowest where higher is better (accuracies, ROUGE-L), else highest.  NaN if one is NaN.
    """
    if np.isnan(values).any():
        return math.nan
    worst_first = np.sort(values) if metric in HIGHER_IS_BETTER else np.sort(values)[::-1]
    return float(worst_first[: -(-len(values) // 10)].mean())


def join(parts: Sequence[Columns]) -> Columns:
    """Concatenate the examples of parts that have the same columns."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def take(columns: Columns, index: np.ndarray) -> Columns:
    """Select examples by position."""
    return {name: x[index] for name, x in columns.items()}
