"""Differences with their intervals, one a row, and what they prove by colour and shape."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from ui.web.charts.curves import Picture
from ui.web.charts.marks import below, colours, shapes
from ui.web.language import VERDICTS

ROW, AROUND = 30, 150  # pixels: of a row, of axis and legend
BAND = "#7B8A97"


class Row(NamedTuple):
    """A difference.

    Attributes:
        name: of what.
        mean: the difference.
        low: lower end of its interval; None where there is none.
        high: upper end.
        verdict: one of :data:`ui.web.language.VERDICTS`.
        said: in words, for whoever points at it.
        values: the differences that the mean is over.
    """

    name: str
    mean: float
    low: float | None
    high: float | None
    verdict: str
    said: str = ""
    values: tuple[float, ...] = ()


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one row a difference; where there is no interval, its ends are the mean."""
    found = [
        (
            row.name,
            row.mean,
            row.mean if row.low is None else row.low,
            row.mean if row.high is None else row.high,
            VERDICTS[row.verdict].word,
            row.said,
        )
        for row in rows
    ]
    return pd.DataFrame(found, columns=["name", "mean", "low", "high", "verdict", "said"])


def dots(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one row for each of the differences that the means are over."""
    found = [(row.name, value) for row in rows for value in row.values]
    return pd.DataFrame(found, columns=["name", "value"])


def intervals(rows: Sequence[Row], title: str, floor: float = 0.0) -> Picture:
    """Draw differences around zero.

    Args:
        rows: the first at the top.
        title: of the axis: what is different, its unit and, in brackets, which side is which.
        floor: half width of the band within which differences are noise.
    """
    data = frame(rows)
    y = alt.Y("name:N", title=None, sort=[row.name for row in rows], axis=alt.Axis(labelLimit=260))
    present = {row.verdict for row in rows}
    tooltip = [
        alt.Tooltip("name:N", title="of"),
        alt.Tooltip("mean:Q", format="+.4f", title="difference"),
        alt.Tooltip("said:N", title="in words"),
    ]
    layers: list[alt.Chart] = []
    if floor:
        band = pd.DataFrame([(-floor, floor)], columns=["from", "to"])
        layers.append(
            alt.Chart(band).mark_rect(opacity=0.18, color=BAND).encode(x="from:Q", x2="to:Q")
        )
    zero = pd.DataFrame([(0.0,)], columns=["zero"])
    layers.append(alt.Chart(zero).mark_rule(color=BAND, strokeWidth=1.5).encode(x="zero:Q"))
    colour = alt.Color("verdict:N", scale=colours(VERDICTS, present), legend=below())
    shape = alt.Shape("verdict:N", scale=shapes(VERDICTS, present), legend=below())
    base = alt.Chart(data).encode(y=y)
    layers.append(base.mark_rule(strokeWidth=3).encode(x="low:Q", x2="high:Q", color=colour))
    single = dots(rows)
    if len(single):
        layers.append(
            alt.Chart(single)
            .mark_point(size=22, filled=True, opacity=0.55, color=BAND)
            .encode(x="value:Q", y=y)
        )
    first, bracket, rest = title.partition(" (")
    x = alt.X("mean:Q", title=[first, f"({rest}"] if bracket else title)
    layers.append(
        base.mark_point(filled=True, size=130, opacity=1).encode(
            x=x, color=colour, shape=shape, tooltip=tooltip
        )
    )
    return alt.layer(*layers).properties(height=AROUND + ROW * len(rows))
