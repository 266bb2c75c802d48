"""Studies: the learning curves of arms."""

from collections.abc import Iterable, Sequence

import altair as alt
import pandas as pd

from ui.web.charts.clients import COLOURS
from ui.web.charts.curves import Picture
from ui.web.charts.marks import HEIGHT


def curve_frame(rows: Iterable[tuple[str, str, int, float]]) -> pd.DataFrame:
    """Return one row a run and a round: arm, run, round, value."""
    return pd.DataFrame(list(rows), columns=["arm", "run", "round", "value"])


def curves(frame: pd.DataFrame, arms: Sequence[str], title: str) -> Picture:
    """Draw the mean of each arm, and its runs as thin lines.

    Args:
        frame: as :func:`curve_frame` makes it.
        arms: in order; the control is the first.
        title: of the figure, with its unit.
    """
    hues = [COLOURS[i % len(COLOURS)] for i in range(len(arms))]
    legend = alt.Legend(title=None, orient="bottom", columns=5, labelLimit=200, symbolOpacity=1)
    colour = alt.Color(
        "arm:N", scale=alt.Scale(domain=list(arms), range=hues), sort=list(arms), legend=legend
    )
    x = alt.X("round:Q", title="rounds done", axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart(frame).encode(color=colour)
    runs = base.mark_line(strokeWidth=1, opacity=0.45).encode(
        x=x, y=y, detail="run:N", tooltip=["run:N", "round:Q", alt.Tooltip("value:Q", format=".4f")]
    )
    mean = base.mark_line(strokeWidth=3, point=alt.OverlayMarkDef(size=60, filled=True)).encode(
        x=x, y=alt.Y("mean(value):Q", title=title), tooltip=["arm:N", "round:Q"]
    )
    return alt.layer(runs, mean).properties(height=HEIGHT + 60)
