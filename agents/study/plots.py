"""The pictures of a study: the arms' intervals over the noise floor, and learning curves.

Knows numbers with names; report.py reads them.  Matplotlib is imported when a picture is asked
for, without pyplot, which keeps global state.  Colours are Okabe and Ito's; everything is named
where it is drawn.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from agents.study.statistics import Judgement
from federation.runs.storage import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, BAND = "#24364b", "#6b7785", "#dfe5ec"
VERDICTS = {"better": "#00795A", "worse": "#C24E00", "inconclusive": GREY}
ARMS = ("#0072B2", "#C24E00", "#00795A", "#A8507F", "#8A6D00", "#3A86B4", "#7A4FA3", "#5B6B2F")
"""Okabe and Ito's hues, darkened where they are to be read as text on white."""
WIDE, ROW = 9.0, 0.52  # inches

Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Compared:
    """One arm of the interval picture.

    Attributes:
        name: of the arm.
        judged: what its pairs prove.
        improvements: of each pair.
    """

    name: str
    judged: Judgement
    improvements: Sequence[float]


@contextmanager
def canvas(path: Path, height: float) -> "Iterator[Axes]":
    """Give a panel to draw on, and write it as a PNG, whole or not at all."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 10, "font.family": "DejaVu Sans", "text.parse_math": False}):
        figure = Figure(figsize=(WIDE, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
        yield axes
        image = BytesIO()
        figure.savefig(image, format="png", dpi=130)
    atomic_write(path, image.getvalue())


def titled(axes: "Axes", title: str, below: str) -> None:
    """Say what is drawn."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(below, color=INK)


def intervals(
    arms: Sequence[Compared], *, floor: float, control: str, metric: str, path: Path
) -> None:
    """Draw the mean improvement of every arm with its interval, and the noise floor as a band.

    Args:
        arms: the first at the top.
        floor: half width of the band.
        control: name of what they are compared with.
        metric: its name and unit.
        path: the PNG.
    """
    with canvas(path, 1.5 + ROW * len(arms)) as axes:
        axes.axvspan(-floor, floor, color=BAND, lw=0, zorder=0)
        axes.axvline(0, color=INK, lw=1, zorder=1)
        for row, arm in enumerate(arms):
            draw_arm(axes, row, arm)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        widen(axes, floor)
        title = f"test split: mean, interval, pairs; grey band: noise floor \u00b1{floor:.3g}"
        titled(axes, title, f"improvement over {control} in {metric}: right is better")


def draw_arm(axes: "Axes", row: int, arm: Compared) -> None:
    """Draw one arm: its pairs faintly, its interval, and in words what it proves."""
    judged, colour = arm.judged, VERDICTS[arm.judged.verdict]
    words = f"{judged.verdict}, {judged.pairs} pair{'' if judged.pairs == 1 else 's'}"
    if judged.mean is not None and judged.low is not None and judged.high is not None:
        axes.plot([judged.low, judged.high], [row, row], color=colour, lw=2.2, zorder=3)
        axes.plot([judged.mean], [row], "o", color=colour, ms=7, zorder=4)
        own = list(arm.improvements)
        axes.plot(own, [row + 0.26] * len(own), "|", color=colour, ms=6, alpha=0.7, zorder=2)
    else:
        words = f"no interval: {judged.why}"
    axes.annotate(
        words,
        (1.01, row),
        xycoords=("axes fraction", "data"),
        color=colour,
        va="center",
        fontsize=9,
    )


def widen(axes: "Axes", floor: float) -> None:
    """Give the band room, so that it can be seen as one."""
    low, high = axes.get_xlim()
    room = 1.15 * floor or 1e-9
    axes.set_xlim(min(low, -room), max(high, room))


def curves(
    arms: Mapping[str, Sequence[Curve]], *, control: str, metric: str, higher: bool, path: Path
) -> None:
    """Draw the validation figure of every arm over its rounds: each seed faintly, the mean boldly.

    Args:
        arms: name -> a curve for each seed, of the same seeds for every arm: a mean over other
            seeds would show their luck.
        control: which of them is drawn dark.
        metric: its name and unit.
        higher: whether a higher figure is better.
        path: the PNG.
    """
    with canvas(path, 4.4) as axes:
        others = [name for name in arms if name != control]
        colours = {name: ARMS[i % len(ARMS)] for i, name in enumerate(others)} | {control: INK}
        names: list[tuple[float, str, str]] = []
        for name, seeds in arms.items():
            for curve in seeds:
                axes.plot(*zip(*curve, strict=True), color=colours[name], lw=0.8, alpha=0.3)
            mean = averaged(seeds)
            own = {"ls": "--", "zorder": 4} if name == control else {"ls": "-", "zorder": 3}
            axes.plot(*zip(*mean, strict=True), color=colours[name], lw=2.2, **own)
            names.append((mean[-1][1], f"{name} {mean[-1][1]:#.3g}", colours[name]))
        better, count = "higher" if higher else "lower", len(arms[control])
        titled(
            axes,
            f"validation split: {metric}, {better} is better\nbold: mean over the {count} seeds"
            f" that all arms have; dashed: {control}, the control",
            "rounds",
        )
        finish(axes, names)


def averaged(seeds: Sequence[Curve]) -> list[tuple[int, float]]:
    """Average curves over seeds at the rounds that all of them have."""
    points = [dict(curve) for curve in seeds]
    shared = sorted(set.intersection(*(set(p) for p in points)))
    return [(n, sum(p[n] for p in points) / len(points)) for n in shared]


def trials(found: Sequence[tuple[float, str]], *, metric: str, higher: bool, path: Path) -> None:
    """Draw the figure of every trial of a search and the best so far.

    Args:
        found: figure and source of each, in order; a diverged one is not finite.
        metric: its name and unit.
        higher: whether a higher figure is better.
        path: the PNG.
    """
    marks = {"optimizer": ("o", ARMS[0]), "llm": ("D", ARMS[1])}
    with canvas(path, 3.4) as axes:
        known = [(i, y, who) for i, (y, who) in enumerate(found, start=1) if math.isfinite(y)]
        for who, (mark, colour) in marks.items():
            points = [(i, y) for i, y, source in known if source == who]
            if points:
                label = f"proposed by the {'model' if who == 'llm' else who}"
                axes.plot(*zip(*points, strict=True), mark, color=colour, ms=5, label=label)
        choose = max if higher else min
        best = [choose(y for i, y, _ in known if i <= n) for n, _, _ in known]
        numbers = [n for n, _, _ in known]
        axes.step(numbers, best, where="post", color=INK, lw=1.4, label="best so far")
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        better = "higher" if higher else "lower"
        title = f"every trial on the validation split: {metric}, {better} is better"
        titled(axes, title, "trial")
        finish(axes, [])


def finish(axes: "Axes", names: list[tuple[float, str, str]]) -> None:
    """Count along the bottom, and name the lines at the right end."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    axes.grid(axis="y", color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)
    for height, (_, text, colour) in zip(apart(axes, names), sorted(names), strict=True):
        axes.text(1.02, height, text, color=colour, transform=axes.transAxes, va="center", size=9)


def apart(axes: "Axes", names: list[tuple[float, str, str]], gap: float = 0.06) -> list[float]:
    """Return heights in the panel for the names, near their lines and not on one another."""
    low, high = axes.get_ylim()
    heights: list[float] = []
    for value, _, _ in sorted(names):
        height = (value - low) / (high - low)
        heights.append(max(height, heights[-1] + gap) if heights else height)
    over = max(0.0, heights[-1] - 1.0) if heights else 0.0
    return [height - over for height in heights]
