"""A tiny engine: clients with quadratic losses and plain SGD.

Client k minimises ``1/2 (w - b)^T H (w - b)``; every gradient carries noise drawn at the client's
own address, as a batch of real data would.  It exists to test algorithms and laws, and to be
broken by
mutants: each thing that an engine can do wrong is a small function of this module.

Shape suffixes: C clients, P parameters.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from federation.address import generator
from federation.algorithms.algorithm import Algorithm
from federation.plan import Reports, RoundPlan
from federation.tree import Tree, concat

P = 6


@dataclass(frozen=True)
class Quadratic:
    """One client: its curvature ``(P, P)``, its optimum ``(P,)``, its number of examples."""

    curvature: Tensor
    optimum: Tensor
    examples: float


def quadratics(count: int, seed: int = 0, size: int = P) -> dict[str, Quadratic]:
    """Draw clients that differ in curvature, optimum and size."""
    clients = {}
    for number in range(count):
        rng = generator("toy", seed, number)
        root = torch.from_numpy(rng.standard_normal((size, size)))
        curvature = root @ root.T / size + 0.3 * torch.eye(size, dtype=torch.float64)
        optimum = torch.from_numpy(rng.standard_normal(size) * 3)
        clients[f"client-{number}"] = Quadratic(curvature, optimum, float(rng.integers(1, 40)))
    return clients


@dataclass
class ToyEngine:
    """Trains quadratic clients in stacks of ``chunk``; all in one stack if it is 0."""

    algorithm: Algorithm
    problems: dict[str, Quadratic]
    chunk: int = 0
    noise: float = 0.1
    memory: dict[str, Tree] = field(default_factory=dict)

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        size = self.chunk or len(plan.clients)
        stacks = [plan.clients[i : i + size] for i in range(0, len(plan.clients), size)]
        return Reports.concat([self._stack(sent, plan.only(stack)) for stack in stacks])

    def _stack(self, sent: Tree, plan: RoundPlan) -> Reports:
        problems = [self.problems[client] for client in plan.clients]
        kept_C = self._recall(sent, plan)
        start_C = self.algorithm.start(sent, kept_C, len(problems))
        params_C, loss_C = self._descend(start_C, sent, kept_C, problems, plan)
        delta_C = params_C - start_C
        report_C, kept_C = self.algorithm.report(delta_C, sent, kept_C, plan)
        for c, client in enumerate(plan.clients):
            self.memory[memory_key(client, c)] = {g: x_C[c] for g, x_C in kept_C.items()}
        steps_C = torch.tensor(plan.steps_C, dtype=torch.float64)
        return Reports(
            clients=plan.clients,
            tree_C=report_C,
            weight_C=torch.tensor([p.examples for p in problems], dtype=torch.float64),
            loss_C=loss_C / steps_C,
            tokens_C=torch.tensor(plan.steps_C),
            norm_C=delta_C.norm(dim=1),
        )

    def _recall(self, sent: Tree, plan: RoundPlan) -> Tree:
        fresh = self.algorithm.memory(sent["params"])
        kept = [self.memory.get(memory_key(name, c), fresh) for c, name in enumerate(plan.clients)]
        return concat([{group: x[None] for group, x in tree.items()} for tree in kept])

    def _descend(
        self, start_C: Tensor, sent: Tree, kept_C: Tree, problems: list[Quadratic], plan: RoundPlan
    ) -> tuple[Tensor, Tensor]:
        params_C, velocity_C = start_C.clone(), torch.zeros_like(start_C)
        loss_C = torch.zeros(len(problems), dtype=torch.float64)
        for step in range(max(plan.steps_C)):
            active_C = still_active(plan, step)[:, None]
            step_loss_C, grad_C = gradient(params_C, problems)
            grad_C = grad_C + self.noise * draw(plan, step, params_C)
            grad_C = self.algorithm.correct(grad_C, params_C, sent, kept_C)
            velocity_C = plan.work.momentum * velocity_C + grad_C
            params_C = torch.where(active_C, params_C - plan.work.lr * velocity_C, params_C)
            loss_C = loss_C + step_loss_C * active_C[:, 0]
        return params_C, loss_C


def gradient(params_C: Tensor, problems: list[Quadratic]) -> tuple[Tensor, Tensor]:
    """Return (loss_C, grad_C), by autograd of the sum of the clients' losses."""
    curvature_C = torch.stack([p.curvature for p in problems])
    away_C = (params_C.detach() - torch.stack([p.optimum for p in problems])).requires_grad_()
    loss_C = 0.5 * torch.einsum("cp,cpq,cq->c", away_C, curvature_C, away_C)
    (grad_C,) = torch.autograd.grad(total(loss_C), away_C)
    return loss_C.detach(), grad_C


def total(loss_C: Tensor) -> Tensor:
    """Join the clients' losses: the sum gives each client exactly its own gradient."""
    return loss_C.sum()


def draw(plan: RoundPlan, step: int, like_C: Tensor) -> Tensor:
    """Draw the gradient noise of every client at its own address."""
    drawn = [
        generator(*noise_address(plan, client, c), step).standard_normal(like_C.shape[1])
        for c, client in enumerate(plan.clients)
    ]
    return torch.stack([torch.from_numpy(one) for one in drawn])


def noise_address(plan: RoundPlan, client: str, position: int) -> tuple[int | str, ...]:
    """Say where a client's randomness lives: its position in the stack plays no part."""
    return plan.seed, plan.round, client, "batch"


def memory_key(client: str, position: int) -> str:
    """Say under which key a client's memory lives: its position in the stack plays no part."""
    return client


def still_active(plan: RoundPlan, step: int) -> Tensor:
    """Mark the clients that have not made all their steps, ``(C,)``."""
    return torch.tensor(plan.steps_C) > step


def clone(problems: dict[str, Quadratic], client: str) -> dict[str, Quadratic]:
    """Replace a client by two clones of half its examples each."""
    half = replace(problems[client], examples=problems[client].examples / 2)
    others = {name: problem for name, problem in problems.items() if name != client}
    return {**others, f"{client}/a": half, f"{client}/b": half}
