"""What a federated algorithm is, the round that plays it, and the plainest one.

An :class:`Algorithm` is a few pure functions over flat groups.  Client functions are *row-wise*:
row c of the result depends only on row c of the clients' matrices and on what was broadcast, so the
same text serves one client or sixty-four, in simulation or on a real site.  ``combine`` is the only
function that removes the clients axis.  A variant is ``replace(fedavg(), ...)`` or a wrapper.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from federation.errors import QuorumError
from federation.plan import Engine, Reports, RoundPlan
from federation.specs import LocalWork
from federation.tree import Tree


def no_memory(params: Tensor) -> Tree:
    """Start a client that remembers nothing between rounds."""
    return {}


def sent_params(sent: Tree, kept_C: Tree, clients: int) -> Tensor:
    """Start local work from the sent parameters: ``(P,)`` seen as ``(C, P)``, without copying."""
    return sent["params"].expand(clients, -1)


def plain_gradient(grad_C: Tensor, params_C: Tensor, sent: Tree, kept_C: Tree) -> Tensor:
    """Leave the local gradient as it is."""
    return grad_C


def report_delta(delta_C: Tensor, sent: Tree, kept_C: Tree, plan: RoundPlan) -> tuple[Tree, Tree]:
    """Report the change of the parameters; keep what was kept."""
    return {"delta": delta_C}, kept_C


def weighted_mean(report_C: Tree, weight_C: Tensor) -> Tree:
    """Average every group over C with weights ``weight_C / weight_C.sum()``.

    Raises:
        ValueError: if the weights are not positive and finite in sum.
    """
    total = weight_C.sum()
    if not (torch.isfinite(total) and total > 0 and (weight_C >= 0).all()):
        raise ValueError(f"weights must be >= 0 with a positive sum, got {weight_C.tolist()}")
    # In float64: the mean of C equal rows is that row to the last bit, whatever C is.
    share_C = (weight_C / total).to(torch.float64)
    return {
        group: torch.tensordot(share_C, x_C.to(torch.float64), dims=1).to(x_C.dtype)
        for group, x_C in report_C.items()
    }


def uniform_mean(report_C: Tree, weight_C: Tensor) -> Tree:
    """Average every group over C with equal weights, whatever the clients' sizes."""
    return weighted_mean(report_C, torch.ones_like(weight_C))


def add_delta(state: Tree, combined: Tree, plan: RoundPlan) -> Tree:
    """Add the combined change to the global parameters."""
    return {**state, "params": state["params"] + combined["delta"]}


def any_work(work: LocalWork) -> None:
    """Accept whatever clients are asked to do."""


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm.

    Attributes:
        init: ``(params (P,)) -> state``; server, once.
        memory: ``(params (P,)) -> kept`` of one client before its first round, without C.
        start: ``(sent, kept_C, C) -> params_C (C, P)``; row-wise, where local work begins.  It is
            also what "the model of client c" means when clients are evaluated.
        correct: ``(grad_C, params_C, sent, kept_C) -> grad_C``; row-wise, every local step.
        report: ``(delta_C, sent, kept_C, plan) -> (report_C, kept_C)``; row-wise, after local work.
            ``delta_C`` is end minus ``start``; row c is client ``plan.clients[c]``.  Groups of
            ``kept_C`` that the algorithm does not know belong to others and are handed on.
        combine: ``(report_C, weight_C) -> combined``; removes C, the only one that may.
        step: ``(state, combined, plan) -> state``; server, every round.  ``plan.clients`` are those
            that reported.
        sends: groups of the state that travel to the clients.
        check: ``(work) -> None``; raises ConfigError for local work under which the equations of
            the algorithm do not hold, before anything is sent.
        quorum: fewest reports that ``combine`` can make something of.
    """

    init: Callable[[Tensor], Tree]
    memory: Callable[[Tensor], Tree]
    start: Callable[[Tree, Tree, int], Tensor]
    correct: Callable[[Tensor, Tensor, Tree, Tree], Tensor]
    report: Callable[[Tensor, Tree, Tree, RoundPlan], tuple[Tree, Tree]]
    combine: Callable[[Tree, Tensor], Tree]
    step: Callable[[Tree, Tree, RoundPlan], Tree]
    sends: tuple[str, ...] = ("params",)
    check: Callable[[LocalWork], None] = any_work
    quorum: int = 1

    def sent(self, state: Tree) -> Tree:
        """Select what travels to the clients."""
        return {group: state[group] for group in self.sends}

    @property
    def is_personal(self) -> bool:
        """Whether clients have models of their own: they do not begin at what was sent."""
        return self.start is not sent_params


def run_round(
    algorithm: Algorithm, engine: Engine, state: Tree, plan: RoundPlan
) -> tuple[Tree, Reports]:
    """Run one round: send, train, combine, step.  The same in simulation and on real sites.

    Raises:
        ConfigError: if the algorithm refuses the planned work; nothing has been sent then.
        QuorumError: as :func:`advance`.
    """
    algorithm.check(plan.work)
    reports = engine.train(algorithm.sent(state), plan)
    return advance(algorithm, state, reports, plan), reports


def advance(algorithm: Algorithm, state: Tree, reports: Reports, plan: RoundPlan) -> Tree:
    """Let the server make of the reports of a round its next state: combine and step.

    Raises:
        QuorumError: if too few reports can be used, or the server's step leaves the range of its
            numbers; ``state`` is as it was.
    """
    came, named = len(reports.clients), f"round {plan.round + 1}"  # people count from 1
    if came < algorithm.quorum:
        why = "; ".join(f"{client}: {reason}" for client, reason in reports.rejected.items())
        why = f" ({why})" if why else ""
        if not came:
            raise QuorumError(f"{named}: no report can be used{why}; lower work.lr?")
        raise QuorumError(
            f"{named}: the algorithm needs {algorithm.quorum} reports, {came} can be"
            f" used{why}; raise cohort.size or choose another algorithm"
        )
    combined = algorithm.combine(reports.tree_C, reports.weight_C)
    after = algorithm.step(state, combined, plan.only(reports.clients))
    diverged = [group for group, x in after.items() if not torch.isfinite(x).all()]
    if diverged:
        raise QuorumError(
            f"{named}: the server's {diverged[0]} is not finite after its step; lower"
            " algorithm.server_lr or work.lr"
        )
    return after


def fedavg() -> Algorithm:
    """Average the clients' updates, weighted by their examples.

    McMahan et al. 2017, arXiv:1602.05629, algorithm 1 (averaging deltas instead of models, which is
    the same as long as weights sum to one).
    """
    return Algorithm(
        init=lambda params: {"params": params},
        memory=no_memory,
        start=sent_params,
        correct=plain_gradient,
        report=report_delta,
        combine=weighted_mean,
        step=add_delta,
    )
