"""What the server asks for in one round, and what comes back.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from federation.specs import LocalWork
from federation.tree import Tree, concat, rows


@dataclass(frozen=True)
class RoundPlan:
    """What the server asks for in one round.

    Attributes:
        round: number of the round, from 0.
        population: N, how many clients are registered; ``clients`` are the |S| chosen of them.
        clients: ids of the cohort, in any order: results never depend on it.
        work: what each client does.
        seed: run seed, the first part of every random address.
        steps: optimizer steps of each client, aligned with ``clients``; ``work.steps`` if omitted.
        batch_sizes: examples per step of each client; ``work.batch_size`` if omitted.
        first: clients of the cohort that share no pass with the rest: they train before it.
    """

    round: int
    population: int
    clients: tuple[str, ...]
    work: LocalWork
    seed: int = 0
    steps: tuple[int, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for."""
        if len(set(self.clients)) != len(self.clients):
            raise ValueError(f"round {self.round}: a client is named twice in {self.clients}")
        for name in ("steps", "batch_sizes"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.clients):
                raise ValueError(
                    f"round {self.round}: {len(value)} {name}, {len(self.clients)} clients"
                )

    @property
    def steps_C(self) -> tuple[int, ...]:
        """Optimizer steps of each client."""
        return self.steps or (self.work.steps,) * len(self.clients)

    @property
    def batch_sizes_C(self) -> tuple[int, ...]:
        """Examples per step of each client."""
        return self.batch_sizes or (self.work.batch_size,) * len(self.clients)

    def only(self, clients: Sequence[str]) -> "RoundPlan":
        """Restrict the plan to some of its clients; the rest of it stays as it is."""
        at = {client: i for i, client in enumerate(self.clients)}
        index = [at[client] for client in clients]
        return replace(
            self,
            clients=tuple(clients),
            steps=self.steps and tuple(self.steps[i] for i in index),
            batch_sizes=self.batch_sizes and tuple(self.batch_sizes[i] for i in index),
            first=tuple(client for client in self.first if client in clients),
        )


REPORT = "report/"  # prefix of the groups that clients reported, in a file of reports
FIGURES = ("weight_C", "loss_C", "tokens_C", "norm_C")


@dataclass(frozen=True)
class Reports:
    """What came back from a cohort, stacked along C.

    Attributes:
        clients: who reported.
        tree_C: reported groups, each ``(C, ...)``.
        weight_C: number of training examples each client holds, ``(C,)`` float64.
        loss_C: mean training loss over the client's local steps, nats per token, ``(C,)`` float64;
            NaN for a client that made no step.
        tokens_C: supervised tokens trained on, ``(C,)`` int64.
        norm_C: L2 norm of each client's change of the parameters, before anything is done to it
            for travelling, ``(C,)`` float64.
        rejected: who trained and is not among ``clients``, and why.
    """

    clients: tuple[str, ...]
    tree_C: Tree
    weight_C: Tensor
    loss_C: Tensor
    tokens_C: Tensor
    norm_C: Tensor
    rejected: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def concat(parts: "Sequence[Reports]") -> "Reports":
        """Join the reports of disjoint groups of clients."""
        return Reports(
            clients=tuple(client for part in parts for client in part.clients),
            tree_C=concat(part.tree_C for part in parts),
            weight_C=torch.cat([part.weight_C for part in parts]),
            loss_C=torch.cat([part.loss_C for part in parts]),
            tokens_C=torch.cat([part.tokens_C for part in parts]),
            norm_C=torch.cat([part.norm_C for part in parts]),
            rejected={client: why for part in parts for client, why in part.rejected.items()},
        )

    def only(self, clients: Sequence[str]) -> "Reports":
        """Select the reports of those of ``clients`` that reported, in the order given."""
        at = {client: i for i, client in enumerate(self.clients)}
        clients = [client for client in clients if client in at]
        index = [at[client] for client in clients]
        return Reports(
            clients=tuple(clients),
            tree_C=rows(self.tree_C, index),
            weight_C=self.weight_C[index],
            loss_C=self.loss_C[index],
            tokens_C=self.tokens_C[index],
            norm_C=self.norm_C[index],
            rejected=self.rejected,
        )

    def as_tree(self) -> Tree:
        """Return all there is but who is who as one tree, to be kept in a file."""
        reported = {REPORT + group: x_C for group, x_C in self.tree_C.items()}
        return reported | {name: getattr(self, name) for name in FIGURES}

    @staticmethod
    def from_tree(tree: Tree, clients: tuple[str, ...]) -> "Reports":
        """Return what :meth:`as_tree` made a tree of.

        Args:
            tree: of ``as_tree``.
            clients: who reported, in the order of its rows.

        Raises:
            ValueError: if there are not as many rows as clients, or it is no such tree.
        """
        if any(name not in tree or len(tree[name]) != len(clients) for name in FIGURES):
            raise ValueError(f"these are not the reports of {len(clients)} clients")
        reported = {g.removeprefix(REPORT): x for g, x in tree.items() if g.startswith(REPORT)}
        return Reports(
            clients, reported, tree["weight_C"], tree["loss_C"], tree["tokens_C"], tree["norm_C"]
        )


class Engine(Protocol):
    """Turns what was sent into stacked reports.

    The engine law: ``train(sent, plan over S ∪ T) == concat(train(sent, plan over S), train(sent,
    plan over T))``.  A chunk, a process, a GPU, a machine and a hospital are all just parts.
    """

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let every client of the plan do its local work from what was sent."""
        ...
