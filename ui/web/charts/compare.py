"""Several runs in one picture: curves over one another, and their settings side by side."""

import math
from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from federation.runs.run import Run
from ui.web.charts.clients import COLOURS
from ui.web.charts.curves import Picture
from ui.web.charts.marks import HEIGHT
from ui.web.comparing import AXES, MACHINE, TRAINING, along, lower_is_better, series, text
from ui.web.figures import thinned
from ui.web.language import METRICS

MOST = 400  # points of a line
MOST_AXES = 8
JUDGING = ("evaluation",)  # tables that nothing is learnt by
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def title_of(metric: str) -> str:
    """Return what people call a figure, with its unit."""
    return "training loss, nats per token" if metric == TRAINING else METRICS.get(metric, metric)


def look(runs: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """Give every run a colour and a shape, the same in every picture."""
    colour = alt.Scale(domain=list(runs), range=list(COLOURS[: len(runs)]))
    shape = alt.Scale(domain=list(runs), range=list(SHAPES[: len(runs)]))
    legend = alt.Legend(title=None, orient="bottom", columns=3, labelLimit=260)
    return (
        alt.Color("run:N", scale=colour, legend=legend),
        alt.Shape("run:N", scale=shape, legend=legend),
    )


def curve_frame(runs: Mapping[str, Run], metric: str, axis: str) -> pd.DataFrame:
    """Return one row a run and a round at which a figure is known."""
    rows = []
    for name, run in runs.items():
        at, values = along(run, axis), series(run, metric)
        known = [r for r in values if r in at]
        rows += [(name, r, at[r], values[r]) for r in thinned(known, MOST)]
    return pd.DataFrame(rows, columns=["run", "round", "at", "value"])


def curves(frame: pd.DataFrame, runs: Sequence[str], metric: str, axis: str) -> alt.Chart:
    """Draw a figure of several runs over one another."""
    colour, shape = look(runs)
    few = len(frame) <= 40 * max(1, len(runs))
    point = alt.OverlayMarkDef(size=55, filled=True) if few else False
    way = "lower is better" if lower_is_better(metric) else "higher is better"
    return (
        alt.Chart(frame)
        .mark_line(point=point, strokeWidth=2)
        .encode(
            x=alt.X(
                "at:Q", title=AXES[axis], axis=alt.Axis(format="~s" if axis != "rounds" else "d")
            ),
            y=alt.Y("value:Q", title=[title_of(metric), f"({way})"], scale=alt.Scale(zero=False)),
            tooltip=[
                "run:N",
                "round:Q",
                alt.Tooltip("at:Q", format=".4~g", title=AXES[axis]),
                alt.Tooltip("value:Q", format=".4f", title=title_of(metric)),
            ],
            color=colour,
            shape=shape,
        )
        .properties(height=HEIGHT + 40)
    )


def parallel_frame(
    settings: Mapping[str, Mapping[str, object]], figure: str, figures: Mapping[str, float]
) -> pd.DataFrame:
    """Return one row a run and axis: where it lies on the axis, 0 to 1, and its value in words.

    Args:
        settings: key -> run -> value, of the keys in which runs differ.
        figure: name of the axis of the figure, which comes last.
        figures: run -> figure.
    """
    rows = []
    told = [item for item in settings.items() if item[0].split(".")[0] not in (*MACHINE, *JUDGING)]
    axes = [*told[: MOST_AXES - 1], (figure, figures)]
    for key, values in axes:
        places = placed(values)
        rows += [(run, key, places[run], text(value)) for run, value in values.items()]
    return pd.DataFrame(rows, columns=["run", "axis", "place", "text"])


def placed(values: Mapping[str, object]) -> dict[str, float]:
    """Place values on an axis: numbers by size, by ratio where they span more than tenfold."""
    if values and all(type(v) in (int, float) for v in values.values()):
        numbers = {run: float(str(v)) for run, v in values.items()}
        low, high = min(numbers.values()), max(numbers.values())
        if low > 0 and high / low > 10:
            numbers = {run: math.log(v) for run, v in numbers.items()}
            low, high = math.log(low), math.log(high)
        return {run: (v - low) / (high - low) if high > low else 0.5 for run, v in numbers.items()}
    words = sorted({text(v) for v in values.values()})
    wide = max(1, len(words) - 1)
    return {
        run: words.index(text(v)) / wide if len(words) > 1 else 0.5 for run, v in values.items()
    }


def parallel(frame: pd.DataFrame, runs: Sequence[str]) -> Picture:
    """Draw runs as lines over parallel axes: what they were given, and what they came to."""
    colour, shape = look(runs)
    axes = list(dict.fromkeys(frame["axis"]))
    x = alt.X(
        "axis:N", title=None, sort=axes, scale=alt.Scale(padding=0.4),
        axis=alt.Axis(
            labelAngle=0, orient="top", labelLimit=150, labelOverlap=False, grid=True,
            domain=False, labelFontWeight="bold", labelExpr="split(datum.label, /[.,] ?/)",
        ),
    )  # fmt: skip
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.2]))
    base = alt.Chart(frame).encode(x=x, y=y)
    lines = base.mark_line(strokeWidth=2, opacity=0.85).encode(
        detail="run:N", color=colour, tooltip=["run:N", "axis:N", "text:N"]
    )
    marks = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=colour, shape=shape, tooltip=["run:N", "axis:N", "text:N"]
    )
    once = frame.drop_duplicates(["axis", "place"])
    words = (
        alt.Chart(once)
        .mark_text(align="left", dx=9, dy=-9, fontSize=12, color="#7B8A97")
        .encode(x=x, y=y, text="text:N")
    )
    return alt.layer(lines, marks, words).properties(height=HEIGHT)
