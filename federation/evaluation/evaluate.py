"""Evaluation of models on rows of a corpus: likelihood, greedy generations, choices by likelihood.

Knows how per-example values are computed with a model; what is made of them is in
:mod:`federation.evaluation.scores`.  Values per example are the primitive: a model reads every row
once, and figures of a client, of the unseen clients or of the whole are made of the values of their
rows.

Shape suffixes: C models (clients), P flat parameters, B examples of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from federation.address import generator
from federation.config import EvaluationSpec
from federation.data.templates import Example
from federation.data.tokens import SequenceFormat
from federation.errors import DataError
from federation.evaluation import scores
from federation.evaluation.choices import choice_sequences
from federation.evaluation.generation import generate
from federation.evaluation.likelihood import counted, reading
from federation.evaluation.prefixes import choosing
from federation.evaluation.scores import Columns, Report
from federation.evaluation.stacks import DEFAULT_LIMITS, Limits, with_each
from federation.training.local import Task


@dataclass(frozen=True)
class Evaluation:
    """What is measured, by which base model, on which corpus.

    Attributes:
        task: the base, what is trained on it, and the tokens.
        examples: the text behind the tokens, row by row.
        form: the format of their sequences.
        spec: metrics and lengths.
        limits: how much goes into one pass; never changes what is measured beyond rounding.
    """

    task: Task
    examples: Sequence[Example]
    form: SequenceFormat
    spec: EvaluationSpec
    limits: Limits = DEFAULT_LIMITS


def subset(rows: np.ndarray, most: int, seed: int, name: str) -> np.ndarray:
    """Choose at most ``most`` of the rows, uniformly, the same ones every time.

    Args:
        rows: row numbers, in any order.
        most: how many at most.
        seed: data seed.
        name: of the set, such as "test"; part of the address.

    Returns:
        Row numbers, ascending.
    """
    rows = np.unique(rows)
    if len(rows) <= most:
        return rows
    chosen = generator(seed, "evaluation", name).choice(len(rows), size=most, replace=False)
    return rows[np.sort(chosen)]


def evaluate(evaluation: Evaluation, params: Tensor | None, rows: np.ndarray) -> dict[str, float]:
    """Measure one model on one set.

    Args:
        evaluation: what is measured.
        params: ``(P,)``, or None for the base model.
        rows: row numbers.

    Returns:
        Metrics by name, see :mod:`federation.evaluation.scores` for units.

    Raises:
        DataError: if there is no row, or a row has no choices and ``choice`` is asked for.
        ConfigError: if the model's context leaves no room for generation.
    """
    return scores.metrics(_score_one(evaluation, params, rows))


def evaluate_shared(
    evaluation: Evaluation, params: Tensor | None, rows_of: Mapping[str, np.ndarray]
) -> Report:
    """Measure one model on the rows of every client: each row is read once, whoever has it.

    Args:
        evaluation: what is measured.
        params: ``(P,)``, or None for the base model.
        rows_of: row numbers of each client; a client without rows is left out.

    Raises:
        DataError: as :func:`evaluate`.
        ConfigError: as :func:`evaluate`.
    """
    rows_of = {client: rows for client, rows in rows_of.items() if len(rows)}
    union = np.unique(np.concatenate([np.empty(0, np.int64), *rows_of.values()]))
    columns = _score_one(evaluation, params, union)
    by_client = {
        client: scores.take(columns, np.searchsorted(union, rows))
        for client, rows in rows_of.items()
    }
    return scores.report(columns, by_client)


def evaluate_own(
    evaluation: Evaluation, params_C: Tensor, rows_of: Mapping[str, np.ndarray]
) -> Report:
    """Measure each client's own model on that client's rows, several clients a pass.

    Args:
        evaluation: what is measured.
        params_C: ``(C, P)``, in the order of ``rows_of``.
        rows_of: row numbers of each client; a client without rows is left out.

    Raises:
        DataError: as :func:`evaluate`.
        ConfigError: as :func:`evaluate`.
    """
    values_C = score(evaluation, params_C, list(rows_of.values()))
    named = zip(rows_of, values_C, strict=True)
    by_client = {client: columns for client, columns in named if len(rows_of[client])}
    return scores.report(scores.join(list(by_client.values()) or values_C), by_client)


def score(
    evaluation: Evaluation, params_C: Tensor | None, rows_C: Sequence[np.ndarray]
) -> list[Columns]:
    """Compute per-example values of C models, each on its own rows.

    Args:
        evaluation: what is measured.
        params_C: ``(C, P)``, or None for the base model, which then is the only one.
        rows_C: row numbers of each model.

    Returns:
        For each model its columns, values in the order of its rows.

    Raises:
        DataError: if a row has no choices and ``choice`` is asked for.
        ConfigError: if the model's context leaves no room to generate.
    """
    asked = set(evaluation.spec.metrics)
    parts: list[list[Columns]] = []
    if "nll" in asked:
        parts.append(_likelihoods(evaluation, params_C, rows_C))
    if asked & {"exact_match", "rouge_l"}:
        parts.append(_generations(evaluation, params_C, rows_C))
    if "choice" in asked:
        parts.append(_choices(evaluation, params_C, rows_C))
    return [{k: x for part in mine for k, x in part.items()} for mine in zip(*parts, strict=True)]


def _score_one(evaluation: Evaluation, params: Tensor | None, rows: np.ndarray) -> Columns:
    if not len(rows):
        raise DataError("evaluation: there is no example to evaluate; raise data.split.test")
    return score(evaluation, None if params is None else params[None], [rows])[0]


def _likelihoods(
    evaluation: Evaluation, params_C: Tensor | None, rows_C: Sequence[np.ndarray]
) -> list[Columns]:
    task, tokens = evaluation.task, evaluation.task.tokens
    work = reading(task.base, tokens)
    nats_C = with_each(task, params_C, rows_C, tokens.lengths, work, evaluation.limits)
    return [counted(tokens, rows, nats) for rows, nats in zip(rows_C, nats_C, strict=True)]


def _generations(
    evaluation: Evaluation, params_C: Tensor | None, rows_C: Sequence[np.ndarray]
) -> list[Columns]:
    """Compare greedy answers with the whole responses, also those that were cut for training."""
    task, spec, examples = evaluation.task, evaluation.spec, evaluation.examples
    tokens, end = task.tokens, evaluation.form.end

    def work(rows_CB: np.ndarray) -> np.ndarray:
        prompts = [tokens.row(row)[: tokens.prompt_len[row]] for row in rows_CB.flat]
        answers = generate(task.base, prompts, spec.max_new_tokens, end)
        return np.array(answers, dtype=object).reshape(rows_CB.shape)

    cost = tokens.prompt_len + spec.max_new_tokens
    answers_C = with_each(task, params_C, rows_C, cost, work, evaluation.limits, alone=True)
    return [
        _compared([examples[int(row)].response for row in rows], answers, spec)
        for rows, answers in zip(rows_C, answers_C, strict=True)
    ]


def _compared(references: list[str], answers: np.ndarray, spec: EvaluationSpec) -> Columns:
    measures = {"exact_match": scores.exact_match, "rouge_l": scores.rouge_l}
    pairs = list(zip(answers, references, strict=True))
    return {
        name: np.array([measure(answer, reference) for answer, reference in pairs])
        for name, measure in measures.items()
        if name in spec.metrics
    }


def _choices(
    evaluation: Evaluation, params_C: Tensor | None, rows_C: Sequence[np.ndarray]
) -> list[Columns]:
    task = evaluation.task
    union = np.unique(np.concatenate(rows_C))
    examples = [evaluation.examples[int(row)] for row in union]
    choices = choice_sequences(examples, evaluation.form, task.base.tokenizer)  # pyright: ignore[reportArgumentType]
    places_C = [np.searchsorted(union, rows) for rows in rows_C]
    work = choosing(task.base, choices)
    nats_C = with_each(task, params_C, places_C, choices.cost, work, evaluation.limits)
    return [choices.accuracy(p, nats) for p, nats in zip(places_C, nats_C, strict=True)]
