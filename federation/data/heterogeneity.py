"""How much clients differ: sizes, what they hold, and how far each is from the population.

This module knows clients, one categorical column (labels or topics) and token counts.  It draws no
conclusions, and leaves the picture to ``federation.data.heat_map``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from federation.data.clients import Clients, Column, Integers
from federation.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

NONE = "(none)"  # the label of rows that have none


@dataclass(frozen=True, eq=False)
class HeterogeneityReport:
    """How a federation's clients differ.  N clients, L labels.

    Attributes:
        names: the clients.
        labels: the labels or topics, in the order of ``counts``.
        kind: what they are: "label", "topic", "category", ...
        counts: rows of each client with each label, ``(N, L)`` int64.
        tokens: tokens of each client, ``(N,)`` int64; None if lengths are unknown.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    kind: str
    counts: NDArray[np.int64]
    tokens: NDArray[np.int64] | None

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each client, ``(N,)``."""
        return self.counts.sum(axis=1)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Label mix of each client, ``(N, L)``; rows sum to 1."""
        return self.counts / self.sizes[:, None]

    @property
    def population(self) -> NDArray[np.float64]:
        """Label mix of all rows together, ``(L,)``."""
        return self.counts.sum(axis=0) / self.counts.sum()

    @property
    def divergence(self) -> NDArray[np.float64]:
        """Jensen-Shannon divergence of each client to the population, bits in [0, 1], ``(N,)``."""
        return jensen_shannon(self.shares, self.population)

    @property
    def mean_divergence(self) -> float:
        """Divergence of the average row's client, bits: clients weighted by size."""
        return float(np.average(self.divergence, weights=self.sizes))

    @property
    def size_gini(self) -> float:
        """Gini coefficient of sizes: 0 all equal, towards 1 all rows with one client."""
        return gini(self.sizes)

    @property
    def effective_labels(self) -> NDArray[np.float64]:
        """Effective number of labels of each client, ``(N,)``."""
        return effective_number(self.shares)

    def table(self, limit: int = 20) -> "Table":
        """Lay the report out for a terminal, the ``limit`` largest clients first."""
        return _table(self, limit)

    def json(self) -> dict[str, object]:
        """Give the report as plain values for ``json.dumps``."""
        sizes, divergence, effective = self.sizes, self.divergence, self.effective_labels
        clients = [
            {
                "client": name,
                "examples": int(sizes[i]),
                "tokens": None if self.tokens is None else int(self.tokens[i]),
                "effective_labels": float(effective[i]),
                "divergence_bits": float(divergence[i]),
                "labels": _held(self.labels, self.counts[i]),
            }
            for i, name in enumerate(self.names)
        ]
        return {
            "kind": self.kind,
            "clients": clients,
            "examples": int(sizes.sum()),
            "labels": _held(self.labels, self.counts.sum(axis=0)),
            "size_gini": self.size_gini,
            "mean_divergence_bits": self.mean_divergence,
            "effective_labels": float(effective_number(self.population)),
        }


def report(
    clients: Clients,
    labels: Column,
    *,
    lengths: Integers | None = None,
    kind: str = "label",
) -> HeterogeneityReport:
    """Count what every client holds.

    Args:
        clients: who holds what.
        labels: label of every row; ``federation.data.topics`` makes one up where data has none.
            Rows without a label are counted as "(none)".
        lengths: tokens of every row, ``(n,)``.
        kind: what the labels are called.

    Raises:
        DataError: naming the client, if one has no rows.
    """
    if not clients.sizes.all():
        name = clients.names[int(clients.sizes.argmin())]
        raise DataError(f"client {name!r} has no rows; give it one or take it out")
    codes, names = labels.codes[clients.order], tuple(labels.names)
    if (codes < 0).any():
        codes, names = np.where(codes < 0, len(names), codes), (*names, NONE)
    used, codes = np.unique(codes, return_inverse=True)
    n, width = len(clients), len(used)
    cells = np.bincount(clients.owners * width + codes, minlength=n * width)
    return HeterogeneityReport(
        names=clients.names,
        labels=tuple(names[code] for code in used),
        kind=kind,
        counts=cells.reshape(n, width),
        tokens=None if lengths is None else _sums(lengths[clients.order], clients.bounds),
    )


def entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy over the last axis, bits; ``0 log 0 = 0``."""
    return -(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=-1)


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence over the last axis (Lin, 1991), bits: 0 equal, 1 disjoint."""
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.clip(divergence, 0.0, 1.0)  # its bounds are a theorem; rounding errors are not


def effective_number(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effective number of labels over the last axis, 2 to the entropy (Hill, 1973, order 1)."""
    return np.exp2(entropy(p))


def gini(sizes: Integers) -> float:
    """Gini coefficient: mean absolute difference of all pairs over twice the mean."""
    n = len(sizes)
    rank = np.arange(1, n + 1)
    return float((2 * rank - n - 1) @ np.sort(sizes) / (n * sizes.sum()))


def _sums(values: Integers, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[bounds])


def _held(labels: Sequence[str], counts: NDArray[np.int64]) -> dict[str, int]:
    """Name what is held, most frequent first."""
    order = np.argsort(-counts, kind="stable")
    return {labels[i]: int(counts[i]) for i in map(int, order) if counts[i]}


def _table(report: HeterogeneityReport, limit: int) -> "Table":
    from rich.table import Table

    n, sizes = len(report.names), report.sizes
    shown = np.argsort(-sizes, kind="stable")[:limit]
    title = f"{counted(n, 'client')}, {counted(sizes.sum(), 'example')}" + (
        f" (the {limit} largest of them)" if n > limit else ""
    )
    table = Table(title=title, caption=_caption(report), caption_justify="left")
    table.add_column("client", overflow="fold")
    for heading in ("examples", "tokens", "values", "apart"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"mostly ({report.kind})", overflow="fold")
    shares, divergence, effective = report.shares, report.divergence, report.effective_labels
    for i in shown:
        table.add_row(
            report.names[i],
            f"{sizes[i]:,}",
            "-" if report.tokens is None else f"{report.tokens[i]:,}",
            f"{effective[i]:.1f}",
            f"{divergence[i]:.3f}",
            _main(report.labels, shares[i]),
        )
    return table


def _caption(report: HeterogeneityReport) -> str:
    overall = effective_number(report.population)
    return (
        f"{spread(report)}\n"
        f"values: effective number of values of {report.kind}, 2^entropy; {overall:.1f} overall\n"
        "apart: Jensen-Shannon divergence of a client's mix to everybody's, 0 (alike) to 1 bit;"
        f" {report.mean_divergence:.3f} in the mean"
    )


def counted(number: int, thing: str) -> str:
    """Write how many things there are: "1 client", "1,200 clients"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def spread(report: HeterogeneityReport) -> str:
    """Say how unequal sizes are, in a few words."""
    smallest, largest = report.sizes.min(), report.sizes.max()
    if smallest == largest:
        return f"{smallest:,} each"
    return f"sizes {smallest:,} to {largest:,}, Gini {report.size_gini:.2f}"


def _main(labels: Sequence[str], shares: NDArray[np.float64], most: int = 3) -> str:
    largest = np.argsort(-shares, kind="stable")[:most]
    return ", ".join(f"{labels[i]} {shares[i]:.0%}" for i in largest if shares[i] > 0)
