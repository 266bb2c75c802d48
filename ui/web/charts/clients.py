"""Clients: where their updates lie, how they point, who is served how well, who holds what."""

from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import pandas as pd
from numpy.typing import NDArray

from ui.web.behaviour import Point
from ui.web.charts.curves import Picture
from ui.web.charts.marks import HEIGHT, below, colours, shapes
from ui.web.language import SUBJECTS
from ui.web.participation import Part

OTHERS = "others"
GREY = "#7B8A97"
COLOURS = ("#2A86C8", "#D9741A", "#0F9A72", "#A0528A", "#B58900", "#5A6ACF", "#C2504A", "#3D8F95")
"""Of clients that are picked out; Okabe and Ito's or near them, readable on white and on black."""
MOST_LABELS, MOST_HOLDERS = 24, 40


def colour_of(shown: Sequence[str], frame: pd.DataFrame, columns: int) -> alt.Color:
    """Give the clients that are picked out a colour each, the same in every picture.

    Args:
        shown: those that are picked out.
        frame: what is drawn.
        columns: of the legend, as there is room.
    """
    grey = [OTHERS] if OTHERS in set(frame["client"]) else []
    domain = [*shown, *grey]
    hues = [*(COLOURS[i % len(COLOURS)] for i in range(len(shown))), *(GREY for _ in grey)]
    legend = alt.Legend(title=None, orient="bottom", columns=columns, symbolOpacity=1)
    return alt.Color("client:N", scale=alt.Scale(domain=domain, range=hues), legend=legend)


def plane_frame(
    points: Iterable[Point], names: Mapping[str, str], shown: Sequence[str]
) -> pd.DataFrame:
    """Return one row an update: where it lies, whose it is, and the colour group it belongs to."""
    rows = [
        (
            p.round + 1,
            names[p.client],
            names[p.client] if names[p.client] in shown else OTHERS,
            p.x,
            p.y,
            p.norm,
            p.cosine,
        )
        for p in points
    ]
    columns = ["round", "who", "client", "x", "y", "norm", "cosine"]
    return pd.DataFrame(rows, columns=columns)


def plane(frame: pd.DataFrame, shares: NDArray, shown: Sequence[str]) -> Picture:
    """Draw clients' ways over the plane: later rounds are larger and fuller."""
    colour = colour_of(shown, frame, 5)
    axes = [
        f"{word} component ({s:.0%} of the variance)"
        for word, s in zip(("first", "second"), shares, strict=True)
    ]
    x = alt.X("x:Q", title=axes[0], scale=alt.Scale(zero=False, nice=True, padding=20))
    y = alt.Y("y:Q", title=axes[1], scale=alt.Scale(zero=False, nice=True, padding=20))
    tooltip = [
        alt.Tooltip("who:N", title="client"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("norm:Q", format=".3f", title="length of its update"),
        alt.Tooltip("cosine:Q", format=".3f", title="cosine to the mean"),
    ]
    base = alt.Chart(frame).encode(x=x, y=y)
    ways = base.mark_line(strokeWidth=1.2, opacity=0.35).encode(
        detail="who:N", order="round:Q", color=colour
    )
    early = alt.Size("round:Q", scale=alt.Scale(range=[25, 150]), legend=None)
    full = alt.Opacity("round:Q", scale=alt.Scale(range=[0.35, 1.0]), legend=None)
    marks = base.mark_point(filled=True).encode(
        color=colour, size=early, opacity=full, tooltip=tooltip
    )
    return alt.layer(ways, marks).properties(height=400)


def cosines(frame: pd.DataFrame, shown: Sequence[str]) -> Picture:
    """Draw the cosine of every update to the mean of its round."""
    colour = colour_of(shown, frame, 3)
    x = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("cosine:Q", title="cosine to the round's mean update", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("who:N", title="client"),
        alt.Tooltip("round:Q"),
        alt.Tooltip("cosine:Q", format=".3f"),
    ]
    base = alt.Chart(frame).encode(x=x, y=y)
    lines = base.mark_line(strokeWidth=1.6).encode(detail="who:N", color=colour)
    marks = base.mark_point(filled=True, size=45, opacity=1).encode(color=colour, tooltip=tooltip)
    return alt.layer(lines, marks).properties(height=400)


def lengths(rows: Iterable[tuple[int, str, float]], shown: Sequence[str]) -> Picture:
    """Draw the lengths of updates by round; those of clients that are picked out as lines."""
    found = [(r, who, who if who in shown else OTHERS, norm) for r, who, norm in rows]
    frame = pd.DataFrame(found, columns=["round", "who", "client", "norm"])
    base = alt.Chart(frame).encode(
        x=alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("norm:Q", title="length of the update, L2 norm", scale=alt.Scale(zero=False)),
        color=colour_of(shown, frame, 8),
        tooltip=[
            alt.Tooltip("who:N", title="client"),
            alt.Tooltip("round:Q"),
            alt.Tooltip("norm:Q", format=".3f"),
        ],
    )
    # A line for each of a thousand others says nothing, and costs a browser a second.
    ways = base.transform_filter(alt.datum.client != OTHERS).mark_line(strokeWidth=1.6)
    marks = base.mark_point(filled=True, size=45, opacity=1)
    return alt.layer(ways, marks).properties(height=HEIGHT)


def served_frame(parts: Iterable[Part], names: Mapping[str, str], own: str) -> pd.DataFrame:
    """Return the loss of each client by the run's model and by its own, worst served first."""
    ordered = sorted((p for p in parts if p.served is not None), key=lambda p: -(p.served or 0.0))[
        :MOST_HOLDERS
    ]
    rows = [
        (names[p.client], SUBJECTS[subject].word, value)
        for p in ordered
        for subject, value in ((own, p.served), ("local", p.alone))
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["client", "model", "loss"])


def served(frame: pd.DataFrame) -> Picture:
    """Draw how well every client is served: a mark a model, the worst served client on top."""
    present = {key for key, look in SUBJECTS.items() if look.word in set(frame["model"])}
    y = alt.Y(
        "client:N",
        title=None,
        sort=list(dict.fromkeys(frame["client"])),
        axis=alt.Axis(labelLimit=200),
    )
    x = alt.X(
        "loss:Q",
        title="loss on the client's own test, nats per token",
        scale=alt.Scale(zero=False, nice=True),
    )
    base = alt.Chart(frame).encode(y=y)
    between = base.mark_line(color=GREY, opacity=0.5).encode(x=x, detail="client:N")
    marks = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=x,
        color=alt.Color("model:N", scale=colours(SUBJECTS, present), legend=below()),
        shape=alt.Shape("model:N", scale=shapes(SUBJECTS, present), legend=below()),
        tooltip=["client:N", "model:N", alt.Tooltip("loss:Q", format=".3f")],
    )
    return alt.layer(between, marks).properties(height=110 + 30 * frame["client"].nunique())


def holdings_frame(
    clients: Iterable[tuple[str, int, Mapping[str, int]]], most: int = MOST_LABELS
) -> tuple[pd.DataFrame, int]:
    """Return the share of every label in every client's rows, and how many labels are not shown.

    Args:
        clients: client, its rows, label -> how many of them.
        most: labels, the most frequent ones.
    """
    held = list(clients)[:MOST_HOLDERS]
    total: dict[str, int] = {}
    for _, _, labels in held:
        for label, count in labels.items():
            total[label] = total.get(label, 0) + count
    frequent = sorted(total, key=lambda label: -total[label])[:most]
    rows = [
        (client, label, labels.get(label, 0), labels.get(label, 0) / size if size else 0.0)
        for client, size, labels in held
        for label in frequent
    ]
    frame = pd.DataFrame(rows, columns=["client", "label", "rows", "share"])
    return frame, len(total) - len(frequent)


def holdings(frame: pd.DataFrame, kind: str) -> alt.Chart:
    """Draw who holds what as a heat map."""
    labels = list(dict.fromkeys(frame["label"]))
    return (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            x=alt.X(
                "label:N",
                title=kind,
                sort=labels,
                axis=alt.Axis(labelAngle=-60, labelLimit=150, labelOverlap=False),
            ),
            y=alt.Y("client:N", title=None, sort=None, axis=alt.Axis(labelLimit=200)),
            color=alt.Color(
                "share:Q",
                title="share of the client's rows",
                legend=alt.Legend(orient="bottom", format=".0%", gradientLength=220),
            ),
            tooltip=["client:N", "label:N", "rows:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=250 + 26 * frame["client"].nunique())
    )
