"""The local engine: a cohort on one machine, several clients a pass.

How many share a pass is chosen for speed and memory, never for meaning: ``train`` over a union of
clients is the concatenation of ``train`` over its parts.

Shape suffixes: C clients, P flat parameters.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from federation.plan import Reports, RoundPlan
from federation.training.batches import Batch, draw
from federation.training.local import (
    GradientPass,
    Task,
    Trained,
    batch_at,
    fresh_memory,
    train_stack,
)
from federation.training.memory import ClientMemory
from federation.tree import Tree, finite_rows, rows

CANDIDATES = (1, 2, 4, 8, 16, 32, 64)


class LocalEngine:
    """Trains a cohort in stacks of at most ``chunk`` clients over one frozen base.

    Attributes:
        task: what is trained, on what, by which algorithm.
        chunk: clients a pass.
        done: called after every stack with how many clients it held (progress bars).
    """

    def __init__(
        self,
        task: Task,
        rows_of: Callable[[str], np.ndarray],
        memory: ClientMemory,
        chunk: int = 8,
        done: Callable[[int], None] = lambda clients: None,
    ) -> None:
        """Build an engine.

        Args:
            task: what is trained, on what, by which algorithm.
            rows_of: row numbers of a client's training examples.
            memory: what clients keep between rounds.
            chunk: clients a pass.
            done: called after every stack with how many clients it held.
        """
        self.task = task
        self.chunk = min(chunk, task.trainable.rows_per_pass or chunk)
        self.done = done
        self._rows_of = rows_of
        self._memory = memory

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let every client of the plan do its local work from what was sent."""
        steps = dict(zip(plan.clients, plan.steps_C, strict=True))
        # Most steps first, so that the clients still at work are always the first rows of a stack.
        order = sorted(plan.clients, key=lambda client: (-steps[client], client))
        parts = []
        for is_first in (True, False):
            group = [client for client in order if (client in plan.first) == is_first]
            for start in range(0, len(group), self.chunk):
                part = plan.only(group[start : start + self.chunk])
                parts.append(self._train_stack(sent, part))
                self.done(len(part.clients))
        return Reports.concat(parts).only(plan.clients)

    def _train_stack(self, sent: Tree, plan: RoundPlan) -> Reports:
        fresh = fresh_memory(self.task.algorithm, sent["params"], plan)
        kept_C = self._memory.gather(plan.clients, fresh)
        trained: Trained = train_stack(self.task, sent, kept_C, plan, self.schedules(plan))
        weights = [len(self._rows_of(client)) for client in plan.clients]
        everything = Reports(
            clients=plan.clients,
            tree_C=trained.report_C,
            weight_C=torch.tensor(weights, dtype=torch.float64),
            loss_C=trained.loss_C,
            tokens_C=trained.tokens_C,
            norm_C=trained.norm_C,
        )
        return self._keep_finite(everything, trained.kept_C)

    def _keep_finite(self, reports: Reports, kept_C: Tree) -> Reports:
        """Let clients keep what they keep; set aside whoever diverged, as if it had not trained."""
        fine_C = finite_rows(reports.tree_C | kept_C, len(reports.clients))
        index = [c for c, fine in enumerate(fine_C) if fine]
        clients = [reports.clients[c] for c in index]
        if kept_C and clients:
            self._memory.scatter(clients, rows(kept_C, index))
        diverged = sorted(set(reports.clients) - set(clients))
        rejected = dict.fromkeys(diverged, "diverged: its update is not finite")
        return replace(reports.only(clients), rejected=rejected)

    def schedules(self, plan: RoundPlan) -> list[np.ndarray]:
        """Draw the rows of every step of every client of the plan."""
        lengths = self.task.tokens.lengths
        wanted = zip(plan.clients, plan.steps_C, plan.batch_sizes_C, strict=True)
        return [
            draw(self._rows_of(client), lengths, plan.seed, plan.round, client, steps, batch_size)
            for client, steps, batch_size in wanted
        ]


def measure_chunk(engine: LocalEngine, params: Tensor, plan: RoundPlan, token_budget: int) -> int:
    """Find how many clients a pass are fastest here, by one real step of each size.

    Larger is not always faster: beyond some size activations fall out of the processor's cache.

    Args:
        engine: the engine to be measured; its clients' memory is not touched.
        params: initial parameters ``(P,)``.
        plan: a real plan of the run.
        token_budget: most tokens (padding included) that may be in memory in one pass.
    """
    most = min(len(plan.clients), engine.task.trainable.rows_per_pass or len(plan.clients))
    best, best_speed = 1, 0.0
    for chunk in (c for c in CANDIDATES if c <= most):
        part = plan.only(plan.clients[:chunk])
        batch = batch_at(engine.task.tokens, engine.schedules(part), 0)
        if chunk > 1 and batch.ids_CBT.numel() > token_budget:
            break
        speed = chunk / seconds_per_step(engine.task, params, batch)
        if speed <= best_speed * 1.03:  # no faster: larger only needs more memory
            break
        best, best_speed = chunk, speed
    return best


def seconds_per_step(task: Task, params: Tensor, batch: Batch, repeats: int = 1) -> float:
    """Return the fastest of a few gradient passes after one to warm up."""
    device = task.base.device
    batch, params_C = batch.to(device), params.to(device).expand(len(batch.count_C), -1).clone()
    gradient = GradientPass(task, params_C)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        _, grad_C = gradient(batch)
        grad_C[0, 0].item()  # a GPU answers when it is done
        seconds.append(time.perf_counter() - start)
    gradient.close()
    return min(seconds[1:])
