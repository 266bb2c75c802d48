"""The local engine: a cohort on one machine, several clients a pass, several passes at a time.

How many share a pass is chosen for speed and memory, never for meaning: ``train`` over a union of
clients is the concatenation of ``train`` over its parts.

Shape suffixes: C clients, P flat parameters.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

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
from federation.training.workers import side_by_side, workers
from federation.tree import Tree, finite_rows, rows

CANDIDATES = (1, 2, 4, 8, 16, 32, 64)


class LocalEngine:
    """Trains a cohort in stacks of at most ``chunk`` clients over one frozen base.

    Stacks are trained side by side on a processor's cores, each on its share of torch's threads;
    which stack runs when changes nothing.

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
        stacks = stacked(plan, self.chunk)
        given_up = threading.Event()  # what is still trained when a round is given up ends early
        calls = (self._call(sent, part, given_up.is_set) for part in stacks)
        parts = []
        count = passes_at_once(self.task, len(stacks))
        with closing(side_by_side(calls, count, given_up.set)) as results:
            for part, trained in zip(stacks, results, strict=True):
                parts.append(self._received(part, trained))
                self.done(len(part.clients))
        return Reports.concat(parts).only(plan.clients)

    def _call(
        self, sent: Tree, plan: RoundPlan, given_up: Callable[[], bool]
    ) -> Callable[[], Trained]:
        """Prepare the work of a stack: all of it that reads what clients keep."""
        fresh = fresh_memory(self.task.algorithm, sent["params"], plan)
        kept_C = self._memory.gather(plan.clients, fresh)
        return lambda: train_stack(self.task, sent, kept_C, plan, self.schedules(plan), given_up)

    def _received(self, plan: RoundPlan, trained: Trained) -> Reports:
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


def stacked(plan: RoundPlan, chunk: int) -> list[RoundPlan]:
    """Split a plan into stacks of about equally many clients, at most ``chunk``.

    Clients that share no pass with the rest come first.  Most steps first, so that clients still at
    work are always the first rows of a stack.
    """
    steps = dict(zip(plan.clients, plan.steps_C, strict=True))
    order = sorted(plan.clients, key=lambda client: (-steps[client], client))
    stacks = []
    for is_first in (True, False):
        group = [client for client in order if (client in plan.first) == is_first]
        count = math.ceil(len(group) / chunk)
        ends = [len(group) * i // count for i in range(count + 1)] if count else []
        stacks += [plan.only(group[start:end]) for start, end in pairwise(ends)]
    return stacks


def passes_at_once(task: Task, stacks: int) -> int:
    """Return how many stacks are trained side by side.

    One on a GPU, one where clients do not share the base, and one where a model has state of its
    own: rotary angles that follow the longest sequence it reads.
    """
    rope = getattr(task.base.model.config, "rope_parameters", None) or {}
    moves = any(word in str(rope.get("rope_type")) for word in ("dynamic", "longrope"))
    alone = moves or task.base.device.type != "cpu" or task.trainable.rows_per_pass is not None
    return 1 if alone else workers(stacks)


def measure_chunk(engine: LocalEngine, params: Tensor, plan: RoundPlan, token_budget: int) -> int:
    """Find how many clients a pass are fastest here, by one real step of each size.

    Larger is not always faster: beyond some size activations fall out of the processor's cache, and
    too few passes leave cores idle.

    Args:
        engine: the engine to be measured; its clients' memory is not touched.
        params: initial parameters ``(P,)``.
        plan: a real plan of the run.
        token_budget: most tokens (padding included) that may be in memory at once.
    """
    clients = len(plan.clients)
    most = min(clients, engine.task.trainable.rows_per_pass or clients)
    best, best_seconds = 1, math.inf
    for chunk in (c for c in CANDIDATES if c < 2 * most):
        stacks = math.ceil(clients / min(chunk, most))
        part = plan.only(plan.clients[: math.ceil(clients / stacks)])
        count = passes_at_once(engine.task, stacks)
        batch = batch_at(engine.task.tokens, engine.schedules(part), 0)
        if chunk > 1 and count * batch.ids_CBT.numel() > token_budget:
            break
        seconds = math.ceil(stacks / count) * seconds_per_step(engine.task, params, batch, count)
        if seconds < 0.97 * best_seconds:  # hardly faster only needs more memory
            best, best_seconds = min(chunk, most), seconds
        elif chunk > 2 * best:
            break
    return best


def seconds_per_step(
    task: Task, params: Tensor, batch: Batch, count: int = 1, repeats: int = 1
) -> float:
    """Return the fastest of a few gradient passes, ``count`` at once, after one to warm up."""
    device = task.base.device
    batch, params_C = batch.to(device), params.to(device).expand(len(batch.count_C), -1).clone()
    together = threading.Barrier(count)

    def passes() -> float:
        gradient = GradientPass(task, params_C)
        seconds = []
        for _ in range(repeats + 1):
            together.wait()
            start = time.perf_counter()
            _, grad_C = gradient(batch)
            grad_C[0, 0].item()  # a GPU answers when it is done
            seconds.append(time.perf_counter() - start)
        gradient.close()
        return min(seconds[1:])

    return max(side_by_side([passes] * count, count, together.abort))
