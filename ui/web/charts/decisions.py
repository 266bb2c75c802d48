"""What was expected of decisions beside what came of them; where a fact lies on the loss."""

import altair as alt
import pandas as pd

from federation.runs.run import Run
from ui.web.charts import curves
from ui.web.charts.curves import MOST, Picture
from ui.web.charts.marks import HEIGHT, below, colours, shapes, tips
from ui.web.decided import Row
from ui.web.figures import training_loss
from ui.web.language import SOURCES
from ui.web.naming import NAMES, Naming

HIGHLIGHT = "#D9741A"
HITS = {True: ("where it was expected", "#0F9A72"), False: ("elsewhere", "#D0453A")}


def expectation_frame(rows: list[Row]) -> pd.DataFrame:
    """Return the newest decisions that expected something: the interval and what came of it."""
    found = [
        (r.round, r.low, r.high, r.loss, "" if r.hit is None else HITS[r.hit][0], r.by)
        for r in rows
        if r.low is not None
    ]
    columns = ["round", "low", "high", "loss", "came out", "by"]
    return pd.DataFrame(found[-MOST:], columns=columns)


def expectations(rows: list[Row], chosen: int | None = None) -> Picture:
    """Draw expected intervals of the training loss, and the loss as it came.

    Args:
        rows: decisions.
        chosen: round to be marked, from 1.
    """
    frame = expectation_frame(rows)
    rounds = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1, format="d"))
    low = alt.Y("low:Q", title="training loss, nats per token", scale=alt.Scale(zero=False))
    bars = (
        alt.Chart(frame)
        .mark_bar(size=16, opacity=0.3, color="#2A86C8")
        .encode(
            x=rounds,
            y=low,
            y2=alt.Y2("high:Q"),
            tooltip=tips("round:Q", "by:N", low="low", high="high"),
        )
    )
    words, hues = [w for w, _ in HITS.values()], [hue for _, hue in HITS.values()]
    points = (
        alt.Chart(frame[frame["came out"] != ""])
        .mark_point(filled=True, size=40, opacity=1)
        .encode(
            x=rounds,
            y=alt.Y("loss:Q", title="training loss, nats per token"),
            color=alt.Color(
                "came out:N", scale=alt.Scale(domain=words, range=hues), legend=below("came out")
            ),
            shape=alt.Shape(
                "came out:N",
                scale=alt.Scale(domain=words, range=["circle", "cross"]),
                legend=below("came out"),
            ),
            tooltip=tips("round:Q", "came out:N", loss="loss"),
        )
    )
    layers: list[alt.Chart] = [bars, points]
    if chosen is not None:
        layers.append(line_at(chosen, "this decision"))
    return alt.layer(*layers).properties(height=HEIGHT)


def line_at(round: int, word: str) -> alt.Chart:
    """Draw a line at a round."""
    frame = pd.DataFrame([(round, word)], columns=["round", "what"])
    return (
        alt.Chart(frame)
        .mark_rule(color=HIGHLIGHT, strokeWidth=2, strokeDash=[4, 3])
        .encode(x=alt.X("round:Q"), tooltip=tips("what:N", "round:Q"))
    )


def loss_with(run: Run, round: int, word: str, naming: Naming = NAMES) -> Picture:
    """Draw the training loss with one round of it marked.

    Args:
        run: whose loss.
        round: from 1.
        word: what is to be found there.
        naming: what clients are called in the reasons of decisions.
    """
    losses = training_loss(run)
    picture = curves.loss(run, naming) + line_at(round, word)
    if round not in losses:
        return picture
    frame = pd.DataFrame([(round, losses[round], word)], columns=["round", "loss", "what"])
    return picture + (
        alt.Chart(frame)
        .mark_point(size=260, color=HIGHLIGHT, strokeWidth=3, filled=False)
        .encode(
            x=alt.X("round:Q"), y=alt.Y("loss:Q"), tooltip=tips("what:N", "round:Q", loss="loss")
        )
    )


def timeline(rows: list[Row]) -> alt.Chart:
    """Draw who decided which round, one lane a source."""
    shown = [(r.round, SOURCES[r.source].word, r.changed or "no change", r.why) for r in rows]
    frame = pd.DataFrame(shown[-MOST:], columns=["round", "by", "change", "why"])
    present = {r.source for r in rows[-MOST:]}
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x=alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("by:N", title=None, axis=alt.Axis(labelLimit=160)),
            color=alt.Color("by:N", scale=colours(SOURCES, present), legend=None),
            shape=alt.Shape("by:N", scale=shapes(SOURCES, present), legend=None),
            tooltip=tips("round:Q", "by:N", "change:N", "why:N"),
        )
        .properties(height=alt.Step(28))
    )
