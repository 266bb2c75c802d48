"""The picture of a run: loss and exact match over rounds, baselines as lines, bytes in the title.

Knows a run and a canvas.  Matplotlib is imported when a picture is asked for, and without pyplot,
which keeps global state.  Colours are Okabe and Ito's, which the colour-blind can tell apart; every
line is named where it ends.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from agents.study.plots import apart
from federation.data.heat_map import drawable, fonts_for
from federation.runs.run import Run
from federation.runs.storage import atomic_write, size_text
from ui.results import NAMES, algorithm, mean, own_subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "progress.png"
INK = "#24364b"
COLOURS = {"base": "#6b7785", "local": "#D55E00", "federated": "#0072B2", "centralised": "#009E73"}
DASHES = {"base": (0, (1, 1.5)), "local": (0, (6, 2)), "centralised": (0, (6, 2, 1, 2))}
TRAINING = "#3A96CC"  # their sky blue, darker, so that it can be read as text
PANELS = {
    "nll": "loss, nats per token (lower is better)",
    "exact_match": "exact match (higher is better)",
    "rouge_l": "ROUGE-L (higher is better)",
    "choice_accuracy": "choice accuracy (higher is better)",
}
Points = tuple[list[int], list[float]]


def plot(run: Run, path: Path | None = None) -> Path:
    """Draw a run as a PNG.

    Args:
        run: what to draw.
        path: where to; ``progress.png`` in the run directory if omitted.

    Returns:
        The file.

    Raises:
        StorageError: if it cannot be written; an older one is then left as it was.
    """
    from matplotlib import rc_context

    path = path or run.path / PICTURE
    # A run may be called $x$ and is no formula.
    fonts = fonts_for(title(run))
    with rc_context({"font.size": 10, "font.family": fonts, "text.parse_math": False}):
        image = BytesIO()
        draw(run).savefig(image, format="png", dpi=130)
    atomic_write(path, image.getvalue())
    return path


def draw(run: Run) -> "Figure":
    """Draw a panel for the loss and one for each other metric that was measured."""
    from matplotlib.figure import Figure

    measured = {name for figures in run.evaluation.values() for name in figures} | {"nll"}
    panels = [name for name in PANELS if name in measured]
    figure = Figure(figsize=(5.8 * len(panels) + 0.6, 4.0), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess,reportCallIssue]
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, run, metric)
    figure.suptitle(drawable(title(run)), x=0.01, ha="left", fontsize=10.5, color=INK)
    return figure


def panel(axes: "Axes", run: Run, metric: str) -> None:
    """Draw one metric on the global test set over rounds."""
    names: list[tuple[float, str, str]] = []
    if metric == "nll":
        rounds, losses = training(run)
        axes.plot(rounds, losses, color=TRAINING, lw=1.3)
        if losses:
            names.append((losses[-1], f"in training {losses[-1]:.2f}", TRAINING))
    own = own_subject(run)
    for subject, figures in run.evaluation.items():
        value = figures.get(metric, math.nan)
        if not math.isfinite(value) or subject not in NAMES:
            continue
        if subject == own:
            axes.plot(*curve(run, metric), color=COLOURS[own], lw=2.2, marker="o", ms=4.5, zorder=3)
        else:
            axes.axhline(value, color=COLOURS[subject], lw=1.5, ls=DASHES.get(subject, "-"))
        names.append((value, f"{NAMES[subject]} {value:.2f}", COLOURS[subject]))
    finish(axes, metric, names)


def finish(axes: "Axes", metric: str, names: list[tuple[float, str, str]]) -> None:
    """Name the axes and, at the right end, the lines."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(PANELS[metric], loc="left", fontsize=10, color=INK)
    axes.set_xlabel("rounds", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric != "nll":
        axes.set_ylim(0, max(0.1, axes.get_ylim()[1]))
    axes.margins(x=0.02)
    axes.grid(axis="y", color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    for height, (_, text, colour) in zip(apart(axes, names, 0.065), sorted(names), strict=True):
        axes.text(1.02, height, text, color=colour, transform=axes.transAxes, va="center", size=9)


def training(run: Run) -> Points:
    """Return rounds, counted from 1, and the mean training loss of their cohorts."""
    losses = {x.round + 1: mean(x.record.loss) for x in run.rounds}
    known = {round: loss for round, loss in losses.items() if loss is not None}
    return list(known), list(known.values())


def curve(run: Run, metric: str) -> Points:
    """Return rounds done and the figure on the test set after them; 0 is the base model."""
    own = own_subject(run)
    points = {0: run.evaluation.get("base", {}).get(metric, math.nan)}
    points |= {x.round + 1: x.evaluation.get(own, {}).get(metric, math.nan) for x in run.rounds}
    known = {round: value for round, value in points.items() if math.isfinite(value)}
    return list(known), list(known.values())


def title(run: Run) -> str:
    """Say which run it is and what it cost."""
    done = len(run.history.rounds)
    traffic = f"{size_text(run.bytes_down)} down, {size_text(run.bytes_up)} up"
    rounds = f"{done} round{'' if done == 1 else 's'}"
    return f"{run.path.name}: {algorithm(run)}, {rounds}, {traffic}, {run.seconds:,.0f} s"
