"""Reports that hold no work of their own: free riders, told by what their updates look like.

Fraboni, Vidal and Lorenzi 2021 (arXiv:2006.11901) and Lin, Du and Liu 2019 (arXiv:1911.12560) say
what riders send: the model as it was, noise, or what the model did before.  So a report is idle if
its update is next to nothing, if it points nowhere (neither where the others' point, nor where the
model went or came from, closer than a random direction would), or if it is the model's last step or
its whole way.  Directions are compared, not lengths; a rider that mixes work into it is not found.
One round is little to go by; see :func:`federation.runs.history.riders`.

Shape suffixes: C clients, P flat parameters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from federation.plan import Reports, RoundPlan
from federation.tree import Tree

FEWEST = 3  # reports of which one can be told from the rest
NOTHING = 0.05  # share of the median length, per step, below which an update is nothing
SIGMAS = 3.0  # a random direction's cosine lies within so many times 1 / sqrt(P)
LEAST_PARAMETERS = 4000  # of fewer, honest updates are too often as far from everything
COPY = 0.8  # cosine from which on an update is that of the model before
ALONE = 0.25  # and so much closer to it than the median update is


@dataclass
class Past:
    """Where the model was, so that what it did is known.

    Attributes:
        first: parameters before the first round, ``(P,)``.
        before: parameters that the newest round began with; none: not known.
    """

    first: Tensor
    before: Tensor | None = None

    def idle(self, reports: Reports | None, plan: RoundPlan, sent: Tree) -> dict[str, str]:
        """Say which reports of a round hold no work of their own, and remember the round.

        Args:
            reports: what came back, if anything did.
            plan: what was asked.
            sent: what the clients were sent.

        Returns:
            client -> "nothing", "noise" or "copy".  Reports that were packed for travelling, and
            those of fewer than three clients, are not looked into.
        """
        if "params" not in sent:
            return {}
        now, before = sent["params"], self.before
        self.before = now
        if reports is None or "delta" not in reports.tree_C:
            return {}
        steps_C = torch.tensor(plan.only(reports.clients).steps_C)
        worked = [i for i, n in enumerate(steps_C.tolist()) if n]  # of no step there is no change
        if len(worked) < FEWEST:
            return {}
        ways = [] if before is None else [now - self.first, now - before]
        delta_C = reports.tree_C["delta"][worked].to(torch.float32)
        found = told(delta_C, steps_C[worked].to(delta_C), ways)
        return {reports.clients[worked[i]]: what for i, what in found.items()}


def told(delta_C: Tensor, steps_C: Tensor, ways: Iterable[Tensor]) -> dict[int, str]:
    """Tell which updates are idle.

    Args:
        delta_C: updates, ``(C, P)``.
        steps_C: steps that each client was to make, ``(C,)``.
        ways: where the model went before, each ``(P,)``; without any, noise is not told.
    """
    length_C = delta_C.norm(dim=1)
    pace_C = length_C / steps_C
    usual = float(pace_C.median())
    if not usual > 0:
        return {}
    unit_C = delta_C / length_C.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    cosines = [unit_C @ (way / way.norm()) for way in ways if way.norm() > 0]
    found = {i: "nothing" for i, pace in enumerate(pace_C.tolist()) if pace < NOTHING * usual}
    if not cosines:
        return found
    for i in range(len(unit_C)):
        if i not in found and any(is_copy(cosine_C, i) for cosine_C in cosines):
            found[i] = "copy"
    limit = SIGMAS / math.sqrt(delta_C.shape[1])
    alike_C = alikeness(unit_C)
    if delta_C.shape[1] >= LEAST_PARAMETERS and alike_C.abs().median() > limit:
        nowhere_C = torch.stack([alike_C, *cosines]).abs().amax(dim=0) < limit
        noise = nowhere_C.nonzero().flatten().tolist()
        found |= {i: "noise" for i in noise if i not in found}
    return found


def is_copy(cosine_C: Tensor, i: int) -> bool:
    """Tell whether an update is that of the model before, as those of the others are not."""
    cosine = float(cosine_C[i])
    usual = float(torch.cat([cosine_C[:i], cosine_C[i + 1 :]]).median())
    return cosine > COPY and 1 - cosine < ALONE * (1 - usual)


def alikeness(unit_C: Tensor) -> Tensor:
    """Return the cosine between every direction ``(C, P)`` and the sum of the others', ``(C,)``."""
    others_C = unit_C.sum(dim=0) - unit_C
    length_C = others_C.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return (unit_C * others_C).sum(dim=1) / length_C
