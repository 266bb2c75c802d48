"""Each algorithm beside its paper's loops: the same story is told to both and must end the same."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from federation.algorithms import catalogue
from federation.algorithms.algorithm import Algorithm, run_round
from federation.plan import RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree
from tests.laws import toy
from tests.papers import loops
from tests.papers.loops import Client, Story, Vector

TOLERANCE = 1e-10

ROUNDS = [  # partial participation, unequal steps, every client seen at least twice
    {"client-0": 3, "client-2": 1, "client-3": 5},
    {"client-1": 2, "client-2": 4},
    {"client-0": 1, "client-1": 3, "client-3": 2, "client-4": 6},
    {"client-4": 2, "client-0": 2},
]


def story(rounds: list[dict[str, int]] = ROUNDS, lr: float = 0.05, momentum: float = 0.0) -> Story:
    """Five quadratic clients that differ in everything."""
    problems = toy.quadratics(5)
    clients = {
        name: Client(problem.curvature.numpy(), problem.optimum.numpy(), problem.examples)
        for name, problem in problems.items()
    }
    return Story(clients, rounds, np.linspace(-1, 1, toy.P), lr, momentum)


def play(
    algorithm: Algorithm, told: Story, chunk: int = 2, first_round: int = 0
) -> tuple[Tree, toy.ToyEngine]:
    """Tell a story to our implementation; return the server's state and the engine."""
    problems = {
        name: toy.Quadratic(torch.from_numpy(c.H), torch.from_numpy(c.b), c.n)
        for name, c in told.clients.items()
    }
    engine = toy.ToyEngine(algorithm, problems, chunk, noise=0.0)
    state = algorithm.init(torch.from_numpy(told.start))
    work = LocalWork(lr=told.lr, momentum=told.momentum, optimizer="sgd")
    for number, cohort in enumerate(told.rounds):
        plan = RoundPlan(
            round=first_round + number,
            population=len(told.clients),
            clients=tuple(cohort),
            work=work,
            steps=tuple(cohort.values()),
        )
        state, _ = run_round(algorithm, engine, state, plan)
    return state, engine


def assert_close(got: torch.Tensor, wanted: Vector) -> None:
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=TOLERANCE)


@dataclass(frozen=True)
class Equation:
    """An algorithm and the loops that it must agree with."""

    ours: Callable[[], Algorithm]
    paper: Callable[[Story], Vector]
    momentum: float = 0.0


EQUATIONS: dict[str, Equation] = {
    "fedavg": Equation(lambda: catalogue.fedavg(), loops.fedavg),
    "fedprox": Equation(lambda: catalogue.fedprox(0.7), lambda s: loops.fedprox(s, 0.7)),
    "fedavgm": Equation(lambda: catalogue.fedavgm(0.8, 0.6), lambda s: loops.fedavgm(s, 0.8, 0.6)),
    "fedadagrad": Equation(
        lambda: catalogue.fedadagrad(0.3, 0.4, 0.05),
        lambda s: loops.fedopt(s, "adagrad", 0.3, 0.4, 0.0, 0.05),
    ),
    "fedyogi": Equation(
        lambda: catalogue.fedyogi(0.3, 0.8, 0.9, 0.05),
        lambda s: loops.fedopt(s, "yogi", 0.3, 0.8, 0.9, 0.05),
    ),
    "fedadam": Equation(
        lambda: catalogue.fedadam(0.3, 0.8, 0.9, 0.05),
        lambda s: loops.fedopt(s, "adam", 0.3, 0.8, 0.9, 0.05),
    ),
    "scaffold": Equation(lambda: catalogue.scaffold(0.9), lambda s: loops.scaffold(s, 0.9)[0]),
    "fednova": Equation(lambda: catalogue.fednova(), loops.fednova),
    "fednova, momentum": Equation(lambda: catalogue.fednova(), loops.fednova, momentum=0.8),
    "fednova, prox": Equation(lambda: catalogue.fednova(0.7), lambda s: loops.fednova(s, 0.7)),
    "fednova, both": Equation(
        lambda: catalogue.fednova(0.7), lambda s: loops.fednova(s, 0.7), momentum=0.8
    ),
    "diloco": Equation(lambda: catalogue.diloco(0.7, 0.9), lambda s: loops.diloco(s, 0.7, 0.9)),
}


def agrees(name: str) -> None:
    """The named algorithm ends where its paper's loops end."""
    equation = EQUATIONS[name]
    told = replace(story(), momentum=equation.momentum)
    state, _ = play(equation.ours(), told)
    assert_close(state["params"], equation.paper(told))


def scaffold_controls_agree() -> None:
    """Server and client controls are the paper's, and the server's is the mean of all clients'."""
    told = story()
    state, engine = play(catalogue.scaffold(0.9), told)
    _, c, c_i = loops.scaffold(told, 0.9)
    assert_close(state["control"], c)
    for name, kept in engine.memory.items():
        assert_close(kept["control"], c_i[name])
    own = [kept["control"] for kept in engine.memory.values()]
    np.testing.assert_allclose(state["control"], sum(own) / len(told.clients), atol=TOLERANCE)
