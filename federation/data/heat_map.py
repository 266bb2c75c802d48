"""A heterogeneity report as a picture: clients x labels, sizes and distances.

This module knows a report and a canvas; every figure in the picture was computed by
``federation.data.heterogeneity``.  Matplotlib is imported when a picture is asked for, and without
pyplot, which keeps global state.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from federation.data.heterogeneity import HeterogeneityReport, counted, spread
from federation.runs.storage import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

FONT = "DejaVu Sans"  # comes with matplotlib
BOXES = "Last Resort High-Efficiency"  # has a box for every sign
_SHADES = ("#f3f5f8", "#c9dcea", "#7fb2d3", "#2f7fb5", "#12508a", "#0a2a52")
_GREYS = ("#f6f6f6", "#8f8f8f")  # of the column "other", which is no label
_BAR = "#86a8c8"
_INK = "#24364b"
_NAMED_CLIENTS = 60  # more rows than this and names become unreadable
_ANNOTATED_CELLS = 160  # more cells than this and figures in them become noise


def heat_map(report: HeterogeneityReport, path: Path, *, most_labels: int = 30) -> None:
    """Draw clients x labels as a PNG: each client's mix, its size and its distance.

    Clients are sorted by their main label, so structure shows as blocks.

    Args:
        report: what to draw.
        path: the file to write; its folder must exist.
        most_labels: labels with a column of their own, most frequent first; the rest are "other".

    Raises:
        StorageError: if the file cannot be written; an older one is then left as it was.
    """
    from matplotlib import rc_context

    fonts = fonts_for("".join((*report.names, *report.labels)))
    # Clients and labels may be called $x$ and are no formulas.
    with rc_context({"font.size": 9, "font.family": fonts, "text.parse_math": False}):
        image = BytesIO()
        _draw(report, most_labels).savefig(image, format="png", dpi=160)
    atomic_write(path, image.getvalue())


def fonts_for(text: str) -> list[str]:
    """Name the font of pictures and, for signs it lacks, installed fonts that have them."""
    from matplotlib.font_manager import fontManager, get_font

    lacking, found = lacked(text, [FONT]), [FONT]
    for entry in sorted(fontManager.ttflist, key=lambda x: (x.name, x.fname)) if lacking else ():
        if entry.name not in (*found, BOXES) and entry.style == "normal":
            font = get_font(entry.fname)
            if any(font.get_char_index(ord(sign)) for sign in lacking):
                found.append(entry.name)
                lacking = lacked(text, found)
        if not lacking:
            break
    return found


def lacked(text: str, fonts: Sequence[str]) -> set[str]:
    """Return the signs of a text that none of some fonts has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = [get_font(findfont(FontProperties(family=name))) for name in fonts]
    return {
        sign
        for sign in set(text)
        if not sign.isprintable() or not any(font.get_char_index(ord(sign)) for font in known)
    }


def drawable(text: str) -> str:
    """Write signs that the fonts in use lack as numbers, so that names can be told apart."""
    from matplotlib import rcParams

    lacking = lacked(text, rcParams["font.family"])
    return "".join(escaped(sign) if sign in lacking else sign for sign in text)


def escaped(sign: str) -> str:
    """Write a sign as the number that Unicode gives it, as ``\\u5ba2``."""
    return sign.encode("unicode_escape").decode()


def _draw(report: HeterogeneityReport, most_labels: int) -> "Figure":
    """Lay out four panels: population above, mixes below, sizes and distances at the right."""
    from matplotlib.figure import Figure

    shares, population, labels = _columns(report, most_labels)
    named = min(len(report.labels), most_labels)
    order = _blocks(shares[:, :named])
    n, width = shares.shape
    height = max(0.26 * n, 1.6) if n <= _NAMED_CLIENTS else 8.0
    across = min(max(0.42 * width, 4.4), 12.0)
    figure = Figure(figsize=(across + 4.6, height + 2.4), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(across, 1, 1), height_ratios=(0.3, height))
    top, mixes = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    darkest = float(shares[:, :named].max())  # no population share exceeds the largest client share
    _paint(top, population[None], named, darkest)
    image = _paint(mixes, shares[order], named, darkest)
    _name_axes(top, mixes, labels, [report.names[i] for i in order])
    sizes, divergence = report.sizes[order], report.divergence[order]
    _bars(figure.add_subplot(grid[1, 1], sharey=mixes), sizes, "examples", "{:,}", sizes.max())
    _bars(figure.add_subplot(grid[1, 2], sharey=mixes), divergence, "JSD, bits", "{:.2f}", 1)
    bar = figure.colorbar(
        image, ax=[top, mixes], location="bottom", shrink=0.5, aspect=36, pad=0.03
    )
    bar.ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.set_label(f"share of a client's examples, by {report.kind}")
    bar.outline.set_visible(False)
    figure.suptitle(_title(report), x=0.01, ha="left", fontsize=10, color=_INK)
    return figure


def _columns(
    report: HeterogeneityReport, most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Give a column to the most frequent labels, most frequent first, and one to all others."""
    order = np.argsort(-report.population, kind="stable")
    shares, population = report.shares[:, order], report.population[order]
    labels = [report.labels[i] for i in order]
    if len(labels) <= most:
        return shares, population, labels
    rest = len(labels) - most
    return (
        np.column_stack([shares[:, :most], shares[:, most:].sum(axis=1)]),
        np.append(population[:most], population[most:].sum()),
        [*labels[:most], f"{rest} others"],
    )


def _blocks(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort clients by their main label, the purest first."""
    return np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))


def _paint(axes: "Axes", shares: NDArray[np.float64], named: int, darkest: float) -> "AxesImage":
    """Draw a matrix of shares, those of "other" in grey on a scale of their own."""
    from matplotlib.colors import LinearSegmentedColormap

    n, width = shares.shape
    shades = LinearSegmentedColormap.from_list("shades", _SHADES)
    image = axes.imshow(
        shares[:, :named],
        cmap=shades,
        vmin=0,
        vmax=darkest,
        extent=(-0.5, named - 0.5, n - 0.5, -0.5),
    )
    if named < width:
        greys = LinearSegmentedColormap.from_list("greys", _GREYS)
        right = (named - 0.5, width - 0.5, n - 0.5, -0.5)
        axes.imshow(shares[:, named:], cmap=greys, vmin=0, vmax=1, extent=right)
    axes.set(aspect="auto", xlim=(-0.5, width - 0.5))
    _rule(axes, n, width)
    if n * width <= _ANNOTATED_CELLS:
        _annotate(axes, shares, darkest)
    return image


def _rule(axes: "Axes", n: int, width: int) -> None:
    """Part the cells with white lines, as far as they are large enough to be told apart."""
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="x", color="white", linewidth=1.2)
    if n <= _NAMED_CLIENTS:
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", axis="y", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _annotate(axes: "Axes", shares: NDArray[np.float64], darkest: float) -> None:
    for (i, j), share in np.ndenumerate(shares):
        if share >= 0.005:
            ink = "white" if share > 0.5 * darkest else _INK
            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=ink, size=8)


def _name_axes(top: "Axes", mixes: "Axes", labels: list[str], clients: list[str]) -> None:
    top.xaxis.tick_top()
    top.set_xticks(range(len(labels)), [_short(label) for label in labels])
    top.tick_params(axis="x", labelrotation=45)
    for text in top.get_xticklabels():
        text.set(ha="left", rotation_mode="anchor")
    top.set_yticks([0], ["all clients"], weight="bold")
    mixes.set_xticks([])
    if len(clients) <= _NAMED_CLIENTS:
        mixes.set_yticks(range(len(clients)), [_short(name) for name in clients])
    else:
        mixes.set_yticks([])
        mixes.set_ylabel(f"{len(clients):,} clients, by what they hold most of")


def _bars(axes: "Axes", values: NDArray[np.number], heading: str, style: str, top: float) -> None:
    """Draw one number per client beside the matrix."""
    rows = np.arange(len(values))
    axes.set_title(heading, fontsize=9, loc="left", color=_INK)
    if len(values) <= _NAMED_CLIENTS:
        axes.barh(rows, values, height=0.62, color=_BAR)
        for row, value in enumerate(values.tolist()):
            axes.text(
                value + 0.05 * top, row, style.format(value), va="center", size=7.5, color=_INK
            )
        axes.set(xlim=(0, 1.6 * top), xticks=[])
    else:
        edges = np.arange(len(values) + 1) - 0.5
        axes.stairs(values, edges, orientation="horizontal", fill=True, color=_BAR)
        axes.set(xlim=(0, top), xticks=[0, top])
    axes.tick_params(axis="y", which="both", left=False, labelleft=False)
    axes.spines[:].set_visible(False)


def _title(report: HeterogeneityReport) -> str:
    return (
        f"{counted(len(report.names), 'client')}, {counted(report.sizes.sum(), 'example')}"
        f" ({spread(report)});"
        f" mean divergence to the population {report.mean_divergence:.2f} bits"
    )


def _short(name: str, most: int = 26) -> str:
    name = drawable(name[:most]) + name[most:]
    return name if len(name) <= most else f"{name[: most - 1]}…"
