"""The toy engine as a world under the laws, and the algorithms that are put to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from federation.address import generator
from federation.algorithms import catalogue, transforms
from federation.algorithms.algorithm import Algorithm
from federation.plan import Engine, RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree
from tests.laws import toy
from tests.laws.laws import World

WORK = LocalWork(lr=0.05, steps=2, optimizer="sgd")
SECRET = "a key that only the server knows"


def toy_world(noise: float = 0.1, problems: dict[str, toy.Quadratic] | None = None) -> World:
    """Return five quadratic clients as a world; ``noise`` is that of their gradients."""
    clients = problems or toy.quadratics(5)
    first = next(iter(clients))

    def build(algorithm: Algorithm, chunk: int) -> Engine:
        return toy.ToyEngine(algorithm, clients, chunk, noise)

    def plain(client: str, params: Tensor, plan: RoundPlan) -> Tensor:
        problem, params = clients[client], params.clone()
        for step in range(plan.steps_C[0]):
            rng = generator(plan.seed, plan.round, client, "batch", step)
            drawn = torch.from_numpy(rng.standard_normal(len(params)))
            grad = problem.curvature @ (params - problem.optimum) + noise * drawn
            params = params - plan.work.lr * grad
        return params

    return World(
        build=build,
        clients=tuple(clients),
        params=torch.from_numpy(generator("toy", "start").standard_normal(toy.P)),
        work=WORK,
        recall=lambda engine, client: cast(toy.ToyEngine, engine).memory.get(client),
        remember=remember,
        plain=plain,
        split=lambda: toy_world(noise, toy.clone(clients, first)),
    )


def remember(engine: Engine, client: str, kept: Tree) -> None:
    cast(toy.ToyEngine, engine).memory[client] = kept


@dataclass(frozen=True)
class Case:
    """An algorithm under the laws.

    Attributes:
        make: builds it.
        weighted: clients count by their examples, and draw nothing of their own.
        plain: a first round with one client is ordinary training.
        still: without local steps the global parameters stay.
    """

    make: Callable[[], Algorithm]
    weighted: bool = True
    plain: bool = False
    still: bool = True


CASES: dict[str, Case] = {
    "fedavg": Case(lambda: catalogue.fedavg(), plain=True),
    "fedprox": Case(lambda: catalogue.fedprox(mu=0.3)),
    "fedprox(0)": Case(lambda: catalogue.fedprox(mu=0.0), plain=True),
    "fedavgm": Case(lambda: catalogue.fedavgm(), plain=True),
    "fedadagrad": Case(lambda: catalogue.fedadagrad()),
    "fedyogi": Case(lambda: catalogue.fedyogi()),
    "fedadam": Case(lambda: catalogue.fedadam()),
    "fedadam(flower)": Case(lambda: catalogue.fedadam(v0=0.0, bias_correction="flower")),
    "scaffold": Case(lambda: catalogue.scaffold(), weighted=False, plain=True),
    "fednova": Case(lambda: catalogue.fednova(), plain=True),
    "fednova(prox)": Case(lambda: catalogue.fednova(mu=0.3)),
    "diloco": Case(lambda: catalogue.diloco()),
    "diloco(1, 0)": Case(lambda: catalogue.diloco(server_lr=1.0, momentum=0.0), plain=True),
    "median": Case(lambda: catalogue.median(), weighted=False, plain=True),
    "trimmedmean": Case(lambda: catalogue.trimmedmean(trim=0.3), weighted=False, plain=True),
    "krum": Case(lambda: catalogue.krum(byzantine=0), weighted=False),
    "multikrum": Case(lambda: catalogue.multikrum(byzantine=0, selected=2), weighted=False),
    "int8(top_k(clip(median)))": Case(
        lambda: transforms.quantize(
            transforms.top_k(transforms.clip_updates(catalogue.median(), 0.5), 0.4), 8
        ),
        weighted=False,
    ),
    "local": Case(lambda: catalogue.local(), plain=True),
    "clip": Case(lambda: transforms.clip_updates(catalogue.fedavg(), 0.5)),
    "clip(scaffold)": Case(
        lambda: transforms.clip_updates(catalogue.scaffold(), 0.5), weighted=False
    ),
    "clip(wide)": Case(lambda: transforms.clip_updates(catalogue.fedavg(), 1e6), plain=True),
    "noise": Case(
        lambda: transforms.add_noise(catalogue.fedadam(), 0.5, 0.3, 3.0, SECRET),
        weighted=False,
        still=False,
    ),
    "top_k": Case(lambda: transforms.top_k(catalogue.fedavg(), 0.4)),
    "top_k(1)": Case(lambda: transforms.top_k(catalogue.fedavg(), 1.0), plain=True),
    "top_k(scaffold)": Case(lambda: transforms.top_k(catalogue.scaffold(), 0.4), weighted=False),
    "top_k(local)": Case(lambda: transforms.top_k(catalogue.local(), 0.4), plain=True),
    "int8": Case(lambda: transforms.quantize(catalogue.fednova(), 8), weighted=False),
    "int4(top_k(clip))": Case(
        lambda: transforms.quantize(
            transforms.top_k(transforms.clip_updates(catalogue.fedavg(), 0.5), 0.4), 4
        ),
        weighted=False,
    ),
    "int8(noise)": Case(
        lambda: transforms.quantize(
            transforms.add_noise(catalogue.fedavg(), 0.5, 0.3, 3.0, SECRET), 8
        ),
        weighted=False,
        still=False,
    ),
}
