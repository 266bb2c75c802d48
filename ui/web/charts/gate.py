"""What the gate measured: paired runs without and with a set, seed by seed."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ui.web.language import METRICS

AROUND = 90  # pixels of axis and legend
WITHOUT, HAVING = "without the set", "with the set"


def gate_frame(gate: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row for every run that can be drawn."""
    rows = [
        (str(seed), arm, value)
        for arm, values in ((WITHOUT, gate["without"]), (HAVING, gate["having"]))
        for seed, value in zip(gate["seeds"], values, strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["seed", "arm", "value"])


def gate_chart(gate: Mapping[str, Any]) -> alt.LayerChart | alt.FacetChart:
    """Draw every pair as a line between its two runs."""
    title = METRICS.get(gate["metric"], gate["metric"])
    base = alt.Chart(gate_frame(gate)).encode(
        y=alt.Y("seed:N", title="seed", sort=None),
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False)),
    )
    arms = alt.Scale(domain=[WITHOUT, HAVING], range=["#7B8A97", "#2A86C8"])
    shapes = alt.Scale(domain=[WITHOUT, HAVING], range=["square", "circle"])
    legend = alt.Legend(title=None, orient="bottom")
    lines = base.mark_line(color="#7B8A97").encode(detail="seed:N")
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        color=alt.Color("arm:N", scale=arms, legend=legend),
        shape=alt.Shape("arm:N", scale=shapes, legend=legend),
        tooltip=["seed:N", "arm:N", alt.Tooltip("value:Q", title=title, format=".4f")],
    )
    return alt.layer(lines, points).properties(height=34 * len(gate["seeds"]) + AROUND)
