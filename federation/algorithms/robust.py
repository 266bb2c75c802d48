"""Combines that a few wrong clients cannot steer: median, trimmed mean, Krum and Multi-Krum.

Each is FedAvg with another ``combine``.  All of them weigh clients alike, whatever their sizes: a
weight is something that a client claims.  So a client split into two clones counts twice.

Shape suffixes: C clients, P flat parameters.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from federation.algorithms.algorithm import Algorithm, fedavg, uniform_mean
from federation.algorithms.settings import Krum, MultiKrum, TrimmedMean
from federation.tree import Tree, rows


def median() -> Algorithm:
    """Take the median of every value over the clients.

    Yin et al. 2018, arXiv:1803.01498, definition 1 (coordinate-wise median) in algorithm 1, on the
    changes of the parameters.  Of an even number of clients: the mean of the two in the middle.
    """
    return replace(fedavg(), combine=coordinatewise(lambda clients: (clients - 1) // 2))


def trimmedmean(trim: float = TrimmedMean.trim) -> Algorithm:
    """Average every value over the clients, without the largest and the smallest of them.

    Yin et al. 2018, arXiv:1803.01498, definition 2 (coordinate-wise trimmed mean).  ``trim`` is
    their beta; beta C is rounded up to whole clients, so that never less than the share is left
    out, but one value or two always stay: then it is the median.
    """

    def left_out(clients: int) -> int:
        # Rounded first: 0.07 * 100 is 7.000000000000001 and means 7.
        return min(math.ceil(round(trim * clients, 9)), (clients - 1) // 2)

    return replace(fedavg(), combine=coordinatewise(left_out))


def coordinatewise(left_out: Callable[[int], int]) -> Callable[[Tree, Tensor], Tree]:
    """Return the mean of what lies in the middle, value by value.

    Args:
        left_out: number of clients -> how many values are left out at either end.
    """

    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        out = left_out(len(weight_C))
        return {
            group: x_C.sort(dim=0).values[out : len(x_C) - out].double().mean(dim=0).to(x_C.dtype)
            for group, x_C in report_C.items()
        }

    return combine


def krum(byzantine: int = Krum.byzantine) -> Algorithm:
    """Take the one update that lies closest to its neighbours.

    Blanchard et al. 2017, arXiv:1703.02757, section 4: the score of an update is the sum of the
    squared distances to its ``C - f - 2`` closest others, and the lowest score wins.  It takes more
    than ``2 f + 2`` reports.  Equal scores, which two closest neighbours may have: the shorter
    update wins, where the paper takes the first, because no result may depend on the order of the
    clients.
    """
    return multikrum(byzantine, selected=1)


def multikrum(
    byzantine: int = MultiKrum.byzantine, selected: int | None = MultiKrum.selected
) -> Algorithm:
    """Average the updates that lie closest to their neighbours.

    Blanchard et al. 2017, arXiv:1703.02757, Multi-Krum: the ``m`` lowest scores of :func:`krum`;
    m = 1 is Krum, m = C the plain mean.
    """

    def combine(report_C: Tree, weight_C: Tensor) -> Tree:
        clients = len(weight_C)
        chosen = krum_order(report_C, clients, byzantine)[: selected or clients - byzantine]
        return uniform_mean(rows(report_C, chosen), weight_C[chosen])

    quorum = max(2 * byzantine + 3, selected or 1)
    return replace(fedavg(), combine=combine, quorum=quorum)


def krum_order(report_C: Tree, clients: int, byzantine: int) -> list[int]:
    """Order clients by Krum's score, the lowest first; the shorter update first where it is equal.

    Args:
        report_C: what was reported; distances are over all groups together.
        clients: C.
        byzantine: f.
    """
    if not report_C:
        return list(range(clients))
    square_CC = torch.zeros(clients, clients, dtype=torch.float64)
    length_C = torch.zeros(clients, dtype=torch.float64)
    for x_C in report_C.values():
        wide_C = x_C.to(torch.float64)
        # Difference by difference: a Gram matrix would cancel where updates are close.
        square_CC += torch.cdist(wide_C, wide_C, compute_mode=EXACT).square()
        length_C += wide_C.square().sum(dim=1)
    neighbours = clients - byzantine - 2
    others_CC = square_CC.fill_diagonal_(math.inf).sort(dim=1).values
    score_C = others_CC[:, :neighbours].sum(dim=1)
    keys = list(zip(score_C.tolist(), length_C.tolist(), strict=True))
    return sorted(range(clients), key=keys.__getitem__)


EXACT = "donot_use_mm_for_euclid_dist"
