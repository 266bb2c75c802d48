"""Local training of a stack of clients: the inner loop of everything.

Three rules keep client code row-wise.  (1) The loss of a pass is summed over clients, never
averaged. (2) Every norm, clip and scale is per row.  (3) Nothing draws from a random stream that
has no address. Clients are ordered by their number of steps, so those still at work are always
the first rows, and a client that has finished costs nothing.

Shape suffixes: C clients, P flat parameters, S steps, B batch rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from federation.algorithms.catalogue import Algorithm
from federation.data.tokens import Tokens
from federation.plan import RoundPlan
from federation.training.base import CPU, Base, client_loss
from federation.training.batches import Batch, collate
from federation.training.optim import OPTIMIZERS, clip_rows
from federation.tree import Layout, Params, Tree

OPTIMIZER = "optimizer/"  # prefix of the groups of optimizer state that a client keeps


class Trainable(Protocol):
    """What is trained on a base: a source of gradients for rows of flat parameters."""

    layout: Layout
    rows_per_pass: int | None

    def initial(self, seed: int) -> Tensor:
        """Return the first parameters, ``(P,)``."""
        ...

    def bind(self, views: Params | None) -> Params:
        """Let the model use rows of parameters; return the leaves, in layout order.

        Where clients share the base, what is bound is bound for this thread alone.
        """
        ...


@dataclass(frozen=True)
class Task:
    """What is trained, on what, by which algorithm."""

    base: Base
    trainable: Trainable
    algorithm: Algorithm
    tokens: Tokens


@dataclass(frozen=True)
class Trained:
    """What a stack of clients has after its local work.

    Attributes:
        report_C: what the clients report.
        kept_C: what they keep.
        loss_C: mean training loss over the steps made, nats per token, NaN where no step was made.
        tokens_C: supervised tokens trained on.
        norm_C: L2 norm of the change of the parameters.
    """

    report_C: Tree
    kept_C: Tree
    loss_C: Tensor
    tokens_C: Tensor
    norm_C: Tensor


class GivenUp(Exception):
    """Nobody waits for this training any more."""


class GradientPass:
    """Gradients of the first rows of a parameter matrix, in the base's own dtype.

    Parameters and optimizer stay in float32 (or float64); where the base computes in bfloat16 the
    pass works on a bfloat16 copy, refreshed every step.
    """

    def __init__(self, task: Task, params_C: Tensor) -> None:
        """Prepare buffers for the rows of ``params_C``, which is read at every call."""
        self._task = task
        self._params_C = params_C
        same = params_C.dtype == task.base.dtype
        self._low_C = params_C if same else torch.empty_like(params_C, dtype=task.base.dtype)
        self._leaves: list[Tensor] = []
        self._bound = 0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (loss_C, grad_C) of the clients of ``batch``, which are the first rows."""
        clients = len(batch.count_C)
        if clients != self._bound:
            views = self._task.trainable.layout.views(self._low_C[:clients])
            self._leaves = list(self._task.trainable.bind(views).values())
            self._bound = clients
        if self._low_C is not self._params_C:
            self._low_C[:clients].copy_(self._params_C[:clients])
        with torch.enable_grad():
            loss_C = client_loss(self._task.base, batch.to(self._task.base.device))
            grads = torch.autograd.grad(loss_C.sum(), self._leaves, materialize_grads=True)
        grad_C = torch.cat([grad.reshape(clients, -1) for grad in grads], dim=1)
        return loss_C.detach(), grad_C.to(self._params_C.dtype)

    def close(self) -> None:
        """Leave the base as it was."""
        self._task.trainable.bind(None)


def batch_at(tokens: Tokens, schedules: list[np.ndarray], step: int) -> Batch:
    """Collate step ``step`` of every client that has one; ``-1`` marks an absent row."""
    rows = [schedule[step] for schedule in schedules if len(schedule) > step]
    rows_CB = np.full((len(rows), max(len(row) for row in rows)), -1, dtype=np.int64)
    for c, row in enumerate(rows):
        rows_CB[c, : len(row)] = row
    return collate(tokens, rows_CB)


def on(device: torch.device, tree: Tree) -> Tree:
    """Return a tree on a device; what is there already is not copied."""
    return {group: x.to(device) for group, x in tree.items()}


def head(tree_C: Tree, clients: int) -> Tree:
    """View the first rows of every group."""
    return {group: x_C[:clients] for group, x_C in tree_C.items()}


@torch.no_grad()
def train_stack(
    task: Task,
    sent: Tree,
    kept_C: Tree,
    plan: RoundPlan,
    schedules: list[np.ndarray],
    given_up: Callable[[], bool] = lambda: False,
) -> Trained:
    """Let a stack of clients do its local work together, where the base lies.

    What comes in and goes out lies in main memory.

    Args:
        task: what is trained, on what, by which algorithm.
        sent: what the server sent, no C.
        kept_C: what each client kept, rows aligned with ``plan.clients``.
        plan: a plan over these clients, ordered by decreasing number of steps.
        schedules: rows of every step of each client, ``(S_c, B_c)``.
        given_up: asked before every step whether nobody waits for the result any more.

    Raises:
        GivenUp: if nobody does.
    """
    algorithm, work, C = task.algorithm, plan.work, len(plan.clients)
    device = task.base.device
    sent, kept_C = on(device, sent), on(device, kept_C)
    start_C = algorithm.start(sent, kept_C, C)
    params_C = start_C.clone()
    optimizer = OPTIMIZERS[work.optimizer]
    remembered = {
        g.removeprefix(OPTIMIZER): x for g, x in kept_C.items() if g.startswith(OPTIMIZER)
    }
    moments = remembered if work.keep_optimizer else optimizer.init(params_C)
    loss_C = torch.zeros(C, dtype=torch.float64, device=device)
    tokens_C = torch.zeros(C, dtype=torch.int64)
    gradient = GradientPass(task, params_C)
    for step in range(max(len(schedule) for schedule in schedules)):
        if given_up():
            raise GivenUp
        batch = batch_at(task.tokens, schedules, step)
        active = len(batch.count_C)
        step_loss_C, grad_C = gradient(batch)
        grad_C = algorithm.correct(grad_C, params_C[:active], sent, head(kept_C, active))
        if work.max_grad_norm is not None:
            grad_C = clip_rows(grad_C, work.max_grad_norm)
        optimizer.update(params_C[:active], grad_C, head(moments, active), work)
        loss_C[:active] += step_loss_C
        tokens_C[:active] += batch.count_C
    gradient.close()
    delta_C = params_C.sub_(start_C)
    norm_C = torch.linalg.vector_norm(delta_C, dim=1, dtype=torch.float64)
    report_C, kept_C = algorithm.report(delta_C, sent, kept_C, plan)
    if work.keep_optimizer:
        kept_C = {**kept_C, **{OPTIMIZER + g: x for g, x in moments.items()}}
    steps_C = torch.tensor([len(schedule) for schedule in schedules], dtype=torch.float64)
    return Trained(
        on(CPU, report_C), on(CPU, kept_C), loss_C.to(CPU) / steps_C, tokens_C, norm_C.to(CPU)
    )


def fresh_memory(algorithm: Algorithm, params: Tensor, plan: RoundPlan) -> Tree:
    """What one client remembers before its first round, without C."""
    kept = algorithm.memory(params)
    if plan.work.keep_optimizer:
        moments = OPTIMIZERS[plan.work.optimizer].init(params[None])
        kept |= {OPTIMIZER + group: x[0] for group, x in moments.items()}
    return kept
