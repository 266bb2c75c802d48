"""Laws that hold for every algorithm on every engine, as functions that assert.

An engine under test is a :class:`World`: how to build it for an algorithm and with how many clients
a pass, and what its clients are.  The laws know nothing else of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from federation.algorithms.algorithm import Algorithm, run_round
from federation.plan import Engine, Reports, RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree, concat


class Build(Protocol):
    """Builds a fresh engine; its clients remember nothing yet."""

    def __call__(self, algorithm: Algorithm, chunk: int) -> Engine: ...


@dataclass(frozen=True)
class World:
    """An engine under test.

    Attributes:
        build: ``(algorithm, chunk) -> engine``; ``chunk`` 0 means all clients in one pass.
        clients: ids of the population, at least four.
        params: initial global parameters ``(P,)``.
        work: local work under which every algorithm can be tested: plain SGD, at least two steps.
        recall: ``(engine, client) -> kept`` of that client, the very tensors or None if unknown.
        remember: ``(engine, client, kept)``; overwrites what a client keeps.
        plain: ``(client, params, plan) -> params`` after ordinary training on that client's data.
        split: the same world with its first client replaced by two clones of half its examples
            each.
        atol: tolerance on parameters; 0 asks for equal bits.
    """

    build: Build
    clients: tuple[str, ...]
    params: Tensor
    work: LocalWork
    recall: Callable[[Engine, str], Tree | None]
    remember: Callable[[Engine, str, Tree], None]
    plain: Callable[[str, Tensor, RoundPlan], Tensor]
    split: "Callable[[], World] | None" = None
    atol: float = 1e-12

    def plan(
        self, round: int, clients: Sequence[str], steps: Sequence[int] | None = None
    ) -> RoundPlan:
        """Plan a round; clients make unequal numbers of steps, clones as many as their original."""
        uneven = [self.work.steps + ord(name.partition("/")[0][-1]) % 2 for name in clients]
        return RoundPlan(
            round=round,
            population=len(self.clients),
            clients=tuple(clients),
            work=self.work,
            seed=7,
            steps=tuple(uneven if steps is None else steps),
        )

    def cohorts(self) -> list[tuple[str, ...]]:
        """Return three partial cohorts that overlap."""
        names = self.clients
        return [names[:3], names[1:], names[:1] + names[2:]]


def play(
    world: World,
    algorithm: Algorithm,
    chunk: int,
    cohorts: Sequence[Sequence[str]],
    engine: Engine | None = None,
) -> tuple[Tree, list[Reports]]:
    """Play a round per cohort from the initial parameters; return last state and all reports."""
    engine = engine or world.build(algorithm, chunk)
    state, reports = algorithm.init(world.params), []
    for round, clients in enumerate(cohorts):
        state, report = run_round(algorithm, engine, state, world.plan(round, clients))
        reports.append(report)
    return state, reports


def assert_same(got: Tree, wanted: Tree, atol: float) -> None:
    assert got.keys() == wanted.keys()
    for group in wanted:
        torch.testing.assert_close(
            got[group], wanted[group], rtol=0, atol=atol, equal_nan=True, msg=f"group {group!r}"
        )


def assert_same_reports(got: Reports, wanted: Reports, atol: float) -> None:
    assert got.clients == wanted.clients
    assert_same(got.tree_C, wanted.tree_C, atol)
    rest = ("weight_C", "loss_C", "tokens_C", "norm_C")
    assert_same({n: getattr(got, n) for n in rest}, {n: getattr(wanted, n) for n in rest}, atol)


def union_is_concatenation(world: World, algorithm: Algorithm, chunk: int) -> None:
    """Training S and T together is training S, training T, and joining what they report."""
    together, apart = world.build(algorithm, chunk), world.build(algorithm, chunk)
    sent = algorithm.sent(algorithm.init(world.params))
    for round in range(2):  # the second round sees what the first has left in memory
        plan = world.plan(round, world.clients)
        wanted = Reports.concat(
            [apart.train(sent, plan.only(part)) for part in (plan.clients[:2], plan.clients[2:])]
        )
        assert_same_reports(together.train(sent, plan), wanted, world.atol)


def grouping_is_irrelevant(world: World, algorithm: Algorithm, chunk: int) -> None:
    """How many clients share a pass changes nothing, over rounds of partial participation."""
    state, reports = play(world, algorithm, chunk, world.cohorts())
    wanted, singly = play(world, algorithm, 1, world.cohorts())
    assert_same(state, wanted, world.atol)
    for got, alone in zip(reports, singly, strict=True):
        assert_same_reports(got, alone, world.atol)


def order_is_irrelevant(world: World, algorithm: Algorithm, chunk: int) -> None:
    """Naming the cohort in another order changes nothing."""
    shuffled = [[*cohort[1:], cohort[0]][::-1] for cohort in world.cohorts()]
    state, reports = play(world, algorithm, chunk, world.cohorts())
    other, permuted = play(world, algorithm, chunk, shuffled)
    assert_same(other, state, world.atol)
    for got, wanted in zip(permuted, reports, strict=True):
        assert_same_reports(got.only(wanted.clients), wanted, world.atol)


def null_round_changes_nothing(world: World, algorithm: Algorithm, chunk: int) -> None:
    """Clients that make no step leave the fresh state and each other's memory as they were."""
    engine = world.build(algorithm, chunk)
    first = algorithm.init(world.params)
    plan = world.plan(0, world.clients, steps=[0] * len(world.clients))
    state, _ = run_round(algorithm, engine, first, plan)
    assert_same({"params": state["params"]}, {"params": world.params}, 0)
    for client in world.clients:
        kept = world.recall(engine, client) or {}
        fresh = algorithm.memory(world.params)
        assert_same({group: kept.get(group, fresh[group]) for group in fresh}, fresh, 0)


def clients_own_their_memory(world: World, algorithm: Algorithm, chunk: int) -> None:
    """What a client keeps reaches nobody else: poisoned with NaN, it spoils no other report."""
    victim, poisoned = world.clients[1], world.build(algorithm, chunk)
    healthy = world.build(algorithm, chunk)
    sent = algorithm.sent(algorithm.init(world.params))
    for engine in (healthy, poisoned):
        engine.train(sent, world.plan(0, world.clients))
    kept = world.recall(poisoned, victim) or {}
    world.remember(poisoned, victim, {g: torch.full_like(x, torch.nan) for g, x in kept.items()})
    plan = world.plan(1, world.clients)
    others = [client for client in world.clients if client != victim]
    got = poisoned.train(sent, plan).only(others)
    assert_same_reports(got, healthy.train(sent, plan).only(others), world.atol)
    for client in others:
        got, wanted = world.recall(poisoned, client), world.recall(healthy, client)
        assert_same(got or {}, wanted or {}, world.atol)


def arguments_stay_as_they_are(world: World, algorithm: Algorithm, chunk: int) -> None:
    """State in, state out: a round writes into nothing that it was given."""
    engine = world.build(algorithm, chunk)
    state = algorithm.init(world.params.clone())
    for round, clients in enumerate(world.cohorts()):
        before = {group: x.clone() for group, x in state.items()}
        following, _ = run_round(algorithm, engine, state, world.plan(round, clients))
        assert_same(state, before, 0)
        state = following


def one_client_is_plain_training(world: World, algorithm: Algorithm, chunk: int) -> None:
    """A federation of one client is ordinary training.

    For algorithms that change neither the local gradient nor the size of a first server step.
    """
    client = world.clients[0]
    plan = replace(world.plan(0, [client]), population=1)
    engine = world.build(algorithm, chunk)
    state, _ = run_round(algorithm, engine, algorithm.init(world.params), plan)
    kept_C = concat([{g: x[None] for g, x in (world.recall(engine, client) or {}).items()}])
    model = algorithm.start(algorithm.sent(state), kept_C, 1)[0]
    wanted = world.plain(client, world.params, plan)
    assert_same({"params": model}, {"params": wanted}, world.atol)


def clones_count_once(world: World, algorithm: Algorithm, chunk: int) -> None:
    """A client split into two clones of half its examples changes nothing.

    For algorithms that weigh clients by their examples, in worlds whose gradients are not random.
    """
    assert world.split is not None
    cloned = world.split()
    client = world.clients[0]
    whole = [client, *world.clients[2:]]
    parts = [*(name for name in cloned.clients if name.startswith(client + "/")), *whole[1:]]
    wanted, _ = play(world, algorithm, chunk, [whole, whole])
    state, _ = play(cloned, algorithm, chunk, [parts, parts])
    assert_same(state, wanted, world.atol)


Law = Callable[[World, Algorithm, int], None]

ALWAYS: tuple[Law, ...] = (
    union_is_concatenation,
    grouping_is_irrelevant,
    order_is_irrelevant,
    clients_own_their_memory,
    arguments_stay_as_they_are,
)
