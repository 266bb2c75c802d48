"""What is evaluated after a round: the global test, every client's test, unseen clients.

Knows which splits a run is judged on and how figures become journal records.  An algorithm whose
clients train models of their own is judged by those: each on its client's rows, and all of them
on the global test.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from federation.address import generator
from federation.data.partition import Clients
from federation.evaluation.evaluate import Evaluation, evaluate_own, evaluate_shared, subset
from federation.evaluation.scores import Report
from federation.plan import RoundPlan
from federation.runs.records import EvaluationRecord
from federation.training.local import fresh_memory
from federation.training.memory import ClientMemory
from federation.tree import Tree

if TYPE_CHECKING:
    from federation.config import Config
    from federation.data.dataset import FederatedData
    from federation.experiment import Setup

OWN_MODELS = 32  # most clients whose own models are judged
SHARED = 1000  # examples of a shared split that they read together; the same ones for each
SUBJECTS = ("local", "centralised")  # algorithms that are baselines; all others are "federated"


def assess(
    setup: "Setup", state: Tree | None, memory: ClientMemory, round: int | None
) -> Iterator[EvaluationRecord]:
    """Yield the evaluation records of one model, split by split.

    Args:
        setup: what is run.
        state: server state, or None for the base model without an adapter.
        memory: what clients keep.
        round: the round just committed, or None.
    """
    evaluation = Evaluation(
        setup.task, setup.data.corpus.examples, setup.data.form, setup.config.evaluation
    )
    name = setup.config.algorithm.name
    if state is not None and setup.algorithm.is_personal:
        reports = own_reports(setup, evaluation, state, memory)
    else:
        reports = shared_reports(setup, evaluation, None if state is None else state["params"])
    judged = "base" if state is None else subject(name)
    for split, metrics, per_client, rows in reports:
        yield EvaluationRecord(
            round=round,
            subject=judged,
            split=split,
            metrics=metrics,
            per_client=per_client,
            rows=rows,
        )


def subject(algorithm: str) -> str:
    """Return what the model of an algorithm is called in evaluations."""
    return algorithm if algorithm in SUBJECTS else "federated"


Named = tuple[str, dict[str, float], dict[str, dict[str, float]], int]
"""Split, figures, those of every client by metric, and how many rows were judged."""


def shared_reports(
    setup: "Setup", evaluation: Evaluation, params: Tensor | None
) -> Iterator[Named]:
    """Judge one model on every split; a row is read once, whoever holds it."""
    splits = setup.data.judged
    own_test = splits.set_aside.size == 0
    for split, clients in (("test", splits.test), ("unseen", splits.unseen)):
        rows_of = limited(setup, split, clients)
        if not rows_of:
            continue
        report, count = evaluate_shared(evaluation, params, rows_of), len(union(rows_of))
        if split == "unseen" or own_test:
            yield split, report.overall, {}, count
        yield "clients" if split == "test" else "unseen_clients", *summary(report), count
    if not own_test:
        rows = subset(splits.set_aside, most(setup), setup.config.data_seed, "set_aside")
        yield "test", evaluate_shared(evaluation, params, {"test": rows}).overall, {}, len(rows)
    validation = limited(setup, "validation", splits.validation)
    if validation:
        report = evaluate_shared(evaluation, params, validation)
        yield "validation", report.overall, {}, len(union(validation))


def global_rows(data: "FederatedData", config: "Config") -> np.ndarray:
    """Return the rows of the global test set on which a run is judged."""
    name = "set_aside" if data.judged.set_aside.size else "test"
    return subset(data.judged.global_test, config.evaluation.max_examples, config.data_seed, name)


def own_reports(
    setup: "Setup", evaluation: Evaluation, state: Tree, memory: ClientMemory
) -> Iterator[Named]:
    """Judge clients' own models: each on its client's test, and each on the tests of all."""
    splits = setup.data.judged
    names = some_clients(setup)
    params_C = own_models(setup, state, memory, names)
    rows_of = limited(setup, "test", splits.test)
    own = {name: rows_of.get(name, np.empty(0, np.int64)) for name in names}
    if any(len(rows) for rows in own.values()):
        yield "clients", *summary(evaluate_own(evaluation, params_C, own)), len(union(own))
    everyone = splits.set_aside if splits.set_aside.size else union(rows_of)
    for split, rows in (
        ("test", everyone),
        ("unseen", union(limited(setup, "unseen", splits.unseen))),
    ):
        rows = subset(rows, min(most(setup), SHARED // len(names)), setup.config.data_seed, split)
        if len(rows):
            report = evaluate_own(evaluation, params_C, dict.fromkeys(names, rows))
            yield split, report.mean | suffixed(report.std, "std"), by_metric(report), len(rows)


def own_models(setup: "Setup", state: Tree, memory: ClientMemory, names: tuple[str, ...]) -> Tensor:
    """Return the models of some clients, ``(C, P)``: where their next local work would begin."""
    sent = setup.algorithm.sent(state)
    plan = RoundPlan(0, len(setup.clients), names, setup.config.work)
    kept_C = memory.gather(names, fresh_memory(setup.algorithm, sent["params"], plan))
    return setup.algorithm.start(sent, kept_C, len(names))


def some_clients(setup: "Setup") -> tuple[str, ...]:
    """Choose the clients whose own models are judged: all, or as many as is affordable."""
    names = setup.clients
    if len(names) <= OWN_MODELS:
        return names
    chosen = generator(setup.config.data_seed, "evaluation", "own").choice(
        len(names), size=OWN_MODELS, replace=False
    )
    return tuple(names[i] for i in np.sort(chosen))


def most(setup: "Setup") -> int:
    """Return the most examples of a split that are evaluated."""
    return setup.config.evaluation.max_examples


def limited(setup: "Setup", split: str, clients: Clients) -> dict[str, np.ndarray]:
    """Choose at most the configured number of rows of a split; return those of each client."""
    chosen = subset(clients.order, most(setup), setup.config.data_seed, split)
    mine = np.isin(clients.order, chosen)
    owners = clients.owners[mine]
    rows = clients.order[mine]
    cuts = np.flatnonzero(np.diff(owners)) + 1
    parts = zip(np.split(owners, cuts), np.split(rows, cuts), strict=True)
    return {clients.names[owner[0]]: part for owner, part in parts if len(part)}


def union(rows_of: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the rows of all clients together."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *rows_of.values()]))


def summary(report: Report) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return mean, spread and worst decile over clients, and every client's figures by metric."""
    metrics = report.mean | suffixed(report.std, "std")
    return metrics | suffixed(report.worst_decile, "worst_decile"), by_metric(report)


def suffixed(figures: Mapping[str, float], suffix: str) -> dict[str, float]:
    """Name figures after what was made of them."""
    return {f"{name}_{suffix}": value for name, value in figures.items()}


def by_metric(report: Report) -> dict[str, dict[str, float]]:
    """Turn client -> metric -> value into metric -> client -> value."""
    clients = report.clients
    return {name: {c: clients[c][name] for c in clients} for name in report.mean}
