"""Broken parts of local training, and for each the law that has to notice it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from federation.algorithms.catalogue import fedavg
from federation.data.tokens import Tokens
from federation.plan import RoundPlan
from federation.specs import LocalWork
from federation.training import base, batches, engine, fused, local, lora, memory, optim, packing
from federation.training.base import Base
from federation.training.batches import Batch
from federation.training.engine import LocalEngine
from federation.training.fused import Linear
from federation.training.lora import LoRA
from federation.training.memory import RamMemory
from federation.training.optim import Optimizer
from federation.training.packing import Group, Packing
from federation.tree import Params, Tree
from tests.laws import engine_laws as laws

CHUNK = len(laws.CLIENTS)
KEPT = {"keep_optimizer": True}
KEPT_ADAMW, KEPT_SGD = (work.model_copy(update=KEPT) for work in (laws.ADAMW, laws.SGD))

# --- Loss and batches --------------------------------------------------------------------------


def loss_is_mean_over_clients(base_: Base, batch: Batch) -> Tensor:
    loss_C = base.client_loss(base_, batch)
    return loss_C / len(loss_C)


def loss_is_mean_over_examples(base_: Base, batch: Batch) -> Tensor:
    return base.client_loss(base_, batch) * batch.count_C / batch.ids_CBT.shape[1]


def padding_is_supervised(tokens: Tokens, rows_CB: np.ndarray) -> Batch:
    batch = batches.collate(tokens, rows_CB)
    clients, size, length = batch.ids_CBT.shape
    where = torch.arange(clients * size * length).view(-1, length)[:, :-1].flatten()
    client = where // (size * length)
    target = batch.ids_CBT.flatten()[where + 1]
    return Batch(batch.ids_CBT, where, target, client, client.bincount(minlength=clients))


def prompt_is_supervised(tokens: Tokens, rows_CB: np.ndarray) -> Batch:
    return batches.collate(replace(tokens, prompt_len=np.ones_like(tokens.prompt_len)), rows_CB)


def finished_client_keeps_moving(
    tokens: Tokens, schedules: Sequence[np.ndarray], step: int
) -> Batch:
    most = max(len(schedule) for schedule in schedules)
    longer = [
        np.concatenate([schedule, schedule[-1:].repeat(most - len(schedule), axis=0)])
        for schedule in schedules
    ]
    return local_batch_at(tokens, longer, step)


def batches_drawn_by_position(self: LocalEngine, plan: RoundPlan) -> list[np.ndarray]:
    return [
        batches.draw(
            laws.rows_of(client), laws.TOKENS.lengths, plan.seed, plan.round, str(c), steps, size
        )
        for c, (client, steps, size) in enumerate(
            zip(plan.clients, plan.steps_C, plan.batch_sizes_C, strict=True)
        )
    ]


STREAM = count()


def batches_drawn_from_a_stream(
    rows: np.ndarray,
    lengths: np.ndarray,
    seed: int,
    round: int,
    client: str,
    steps: int,
    batch_size: int,
) -> np.ndarray:
    return batches.draw(rows, lengths, next(STREAM), round, client, steps, batch_size)


# --- Optimizers --------------------------------------------------------------------------------


def clip_whole_stack(grad_C: Tensor, max_norm: float) -> Tensor:
    return optim.clip_rows(grad_C.reshape(1, -1), max_norm).view_as(grad_C)


def adamw_with_one_step_count(
    params_C: Tensor, grad_C: Tensor, state: Tree, work: LocalWork
) -> None:
    state["steps"].fill_(state["steps"].max())
    optim.adamw_update(params_C, grad_C, state, work)


def adamw_with_coupled_decay(
    params_C: Tensor, grad_C: Tensor, state: Tree, work: LocalWork
) -> None:
    grad_C = grad_C + work.weight_decay * params_C
    optim.adamw_update(params_C, grad_C, state, work.model_copy(update={"weight_decay": 0.0}))


def adamw_with_shared_second_moment(
    params_C: Tensor, grad_C: Tensor, state: Tree, work: LocalWork
) -> None:
    optim.adamw_update(params_C, grad_C, state, work)
    state["second"].copy_(state["second"].mean(0, keepdim=True).expand_as(state["second"]))


# --- Memory and order --------------------------------------------------------------------------


def gather_by_position(self: RamMemory, clients: Sequence[str], fresh: Tree) -> Tree:
    kept = [self._kept.get(str(position), fresh) for position in range(len(clients))]
    return memory.stack(kept, len(clients), fresh)


def scatter_by_position(self: RamMemory, clients: Sequence[str], tree_C: Tree) -> None:
    rows = memory.unstack(tree_C, len(clients))
    self._kept.update({str(position): row for position, row in enumerate(rows)})


def forget(self: RamMemory, clients: Sequence[str], tree_C: Tree) -> None:
    pass


def in_any_order(items: Sequence[str], key: object = None) -> list[str]:
    return list(items)


# --- Adapters ----------------------------------------------------------------------------------


def linear_without_scale(module: object) -> Linear:
    return fused_linear(module)._replace(scale=1.0)


def linear_with_first_adapter(module: object) -> Linear:
    layer = fused_linear(module)
    if layer.A_C is None or layer.B_C is None:
        return layer
    A_C, B_C = (x[:1].expand_as(x) for x in (layer.A_C, layer.B_C))
    return layer._replace(A_C=A_C, B_C=B_C)


def clients_of_equal_length(batch: Batch, multiple: int) -> Packing:
    how = packing.pack(batch, multiple)
    rows, C = sum(how.rows_C), len(how.rows_C)
    return replace(how, rows_C=tuple((rows + c) // C for c in range(C)))


def sequences_as_one(length: Tensor, multiple: int) -> tuple[tuple[Group, ...], Tensor]:
    return packed_groups(length.sum()[None], multiple)


def bind_and_merge(self: LoRA, views: Params | None) -> Params:
    if views is None:
        next(iter(self.inner.values())).weight.data.mul_(1 + 1e-9)
    return lora_bind(self, views)


def stay_bound(self: local.GradientPass) -> None:
    pass


local_batch_at = local.batch_at
fused_linear = fused.linear
packed_groups = packing.grouped
lora_bind = lora.LoRA.bind


class Mutant(NamedTuple):
    """A broken part.

    Attributes:
        patches: (owner, name, what stands there instead); a dictionary's entry or an attribute.
        law: what has to fail.
    """

    patches: tuple[tuple[object, str, object], ...]
    law: Callable[[], None]


def one(owner: object, name: str, broken: object, law: Callable[[], None]) -> Mutant:
    return Mutant(((owner, name, broken),), law)


def adamw(update: Callable[..., None], law: Callable[[], None]) -> Mutant:
    return one(optim.OPTIMIZERS, "adamw", Optimizer(optim.adamw_init, update), law)


cohort = partial(laws.cohort_is_plain_training, chunk=CHUNK)
cohort_adamw, cohort_sgd = partial(cohort, laws.ADAMW), partial(cohort, laws.SGD)
unclipped = partial(cohort, laws.SGD_WITHOUT_MOMENTUM)
rounds = partial(laws.rounds_of_one_client_are_plain_training, 0.0, chunk=CHUNK)
batched_adamw = partial(laws.batched_is_sequential, fedavg(), KEPT_ADAMW, CHUNK)
batched_sgd = partial(laws.batched_is_sequential, fedavg(), KEPT_SGD, CHUNK)
frozen = partial(laws.base_is_frozen, fedavg(), laws.SGD)


def frozen_in_this_thread() -> None:
    """One client a pass, and no thread of its own, with which what it leaves behind would go."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        frozen(1)
    finally:
        torch.set_num_threads(threads)


replayed = partial(laws.any_round_can_be_replayed_alone, fedavg(), laws.SGD, CHUNK)
owned = partial(laws.memory_has_an_owner, fedavg(), KEPT_ADAMW, CHUNK)

BY_POSITION = (
    (RamMemory, "gather", gather_by_position),
    (RamMemory, "scatter", scatter_by_position),
)

MUTANTS: dict[str, Mutant] = {
    "loss averaged over clients": one(local, "client_loss", loss_is_mean_over_clients, unclipped),
    "loss per example": one(local, "client_loss", loss_is_mean_over_examples, unclipped),
    "padding supervised": one(local, "collate", padding_is_supervised, batched_sgd),
    "prompt supervised": one(local, "collate", prompt_is_supervised, cohort_sgd),
    "finished client moves": one(local, "batch_at", finished_client_keeps_moving, batched_adamw),
    "batches by position": one(LocalEngine, "schedules", batches_drawn_by_position, batched_sgd),
    "batches from a stream": one(engine, "draw", batches_drawn_from_a_stream, replayed),
    "stack clipped as one": one(local, "clip_rows", clip_whole_stack, batched_sgd),
    "no clipping": one(local, "clip_rows", lambda grad_C, most: grad_C, cohort_sgd),
    "one step count": adamw(adamw_with_one_step_count, batched_adamw),
    "coupled weight decay": adamw(adamw_with_coupled_decay, cohort_adamw),
    "shared second moment": adamw(adamw_with_shared_second_moment, owned),
    "memory by position": Mutant(BY_POSITION, batched_adamw),
    "memory forgotten": one(RamMemory, "scatter", forget, partial(rounds, KEPT_SGD)),
    "stack not sorted": one(engine, "sorted", in_any_order, cohort_sgd),
    "scale forgotten": one(fused, "linear", linear_without_scale, cohort_sgd),
    "first adapter for all": one(fused, "linear", linear_with_first_adapter, cohort_sgd),
    "rows of another client": one(base, "pack", clients_of_equal_length, cohort_sgd),
    "sequences run together": one(packing, "grouped", sequences_as_one, cohort_sgd),
    "base written": one(LoRA, "bind", bind_and_merge, partial(frozen, CHUNK)),
    "adapter left on the base": one(local.GradientPass, "close", stay_bound, frozen_in_this_thread),
}
