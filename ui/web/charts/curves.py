"""Loss and accuracy over rounds, with the decisions that changed something as marks on them."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import altair as alt
import pandas as pd

from federation.runs.run import Run
from ui.web.charts.marks import HEIGHT, below, colours, shapes, tips
from ui.web.figures import measured, noise, own_subject_of, thinned, training_loss
from ui.web.language import METRICS, SOURCES, SUBJECTS
from ui.web.moved import moves
from ui.web.naming import NAMES, Naming

Picture = alt.LayerChart | alt.FacetChart
TRAINING, TESTED = "in training", "on everybody's test"
LINES = {TRAINING: ("#8A7BB8", [1, 0]), TESTED: (SUBJECTS["federated"].hue, [5, 3])}
MARKED = 100  # newest decisions that are marked
MOST = 300  # points of a line; more are not seen, and cost
DOTS = 60  # points of a line that are marks of their own


def loss_frame(run: Run) -> pd.DataFrame:
    """Return the cohort's training loss: round (from 1), loss, and the band that is noise."""
    series = training_loss(run)
    spread = noise(series.values()) or 0.0
    rounds = thinned(list(series), MOST)
    rows = [(r, series[r], series[r] - spread, series[r] + spread) for r in rounds]
    return pd.DataFrame(rows, columns=["round", "loss", "low", "high"])


def decision_frame(run: Run, naming: Naming = NAMES) -> pd.DataFrame:
    """Return the decisions that changed a knob, or failed: where to mark them and what they did."""
    told = islice(marked(run), MARKED)
    rows = [(*row, naming.text(what), naming.text(why)) for *row, what, why in told]
    return pd.DataFrame(rows[::-1], columns=["round", "loss", "by", "change", "why"])


def marked(run: Run) -> Iterator[tuple[int, float, str, str, str]]:
    """Yield the decisions to be marked, the newest first: round, loss, by, change, why."""
    losses = training_loss(run)
    for decision in reversed(run.history.decisions.values()):
        n, changes = decision.round, moves(run, decision)
        if (changes or decision.source == "fallback") and n + 1 in losses:
            what = ", ".join(changes) or "no change"
            yield n + 1, losses[n + 1], SOURCES[decision.source].word, what, decision.reason


def loss(run: Run, naming: Naming = NAMES) -> Picture:
    """Draw the training loss with its noise, the tested loss, and what was decided.

    Args:
        run: whose.
        naming: what clients are called in the reasons of decisions.
    """
    frame = loss_frame(run)
    rounds = alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1, format="d"))
    height = alt.Y("value:Q", title="loss, nats per token", scale=alt.Scale(zero=False))
    band = alt.Chart(frame).mark_area(opacity=0.15, color=LINES[TRAINING][0])
    lines = line_frame(run)
    present = [name for name in LINES if name in set(lines["of"])]
    kind = alt.Color(
        "of:N",
        scale=alt.Scale(domain=present, range=[LINES[name][0] for name in present]),
        legend=below(),
    )
    dash = alt.StrokeDash(
        "of:N",
        scale=alt.Scale(domain=present, range=[LINES[name][1] for name in present]),
        legend=None,
    )
    tooltip = tips("of:N", "round:Q", value="loss")
    plain = alt.Chart(lines).encode(x=rounds, y=height, color=kind, tooltip=tooltip)
    quiet = alt.Color("of:N", scale=kind["scale"], legend=None)  # one legend is enough
    dots = plain.encode(color=quiet)
    alone = len(lines) and sum(lines["of"] == TRAINING) == 1  # a line of one point is not seen
    dotted = dots if alone else dots.transform_filter(alt.datum.of == TESTED)
    layers: list[alt.Chart] = [
        band.encode(x=rounds, y=alt.Y("low:Q", title="loss, nats per token"), y2=alt.Y2("high:Q")),
        plain.mark_line(strokeWidth=2).encode(strokeDash=dash),
        dotted.mark_point(filled=True, size=45, opacity=1),
    ]
    marks = decision_frame(run, naming)
    if len(marks):
        layers.append(decided(marks))
    both = alt.layer(*layers).resolve_scale(shape="independent", color="independent")
    return both.properties(height=HEIGHT)


def line_frame(run: Run) -> pd.DataFrame:
    """Return the points of both lines: round, value, of which line."""
    series = training_loss(run)
    rows = [(r, series[r], TRAINING) for r in thinned(list(series), MOST)]
    rows += [(r, value, TESTED) for r, value in thinned(list(measured(run, "nll").items()), DOTS)]
    return pd.DataFrame(rows, columns=["round", "value", "of"])


def decided(marks: pd.DataFrame) -> alt.Chart:
    """Draw decisions as marks whose colour and shape say who decided."""
    present = {name for name, look in SOURCES.items() if look.word in set(marks["by"])}
    legend = below("decided by", symbolStrokeWidth=0)  # the edge sets marks off from the line
    return (
        alt.Chart(marks)
        .mark_point(size=110, filled=True, opacity=1, stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("round:Q"),
            y=alt.Y("loss:Q"),
            color=alt.Color("by:N", scale=colours(SOURCES, present), legend=legend),
            shape=alt.Shape("by:N", scale=shapes(SOURCES, present), legend=legend),
            tooltip=tips("round:Q", "by:N", "change:N", "why:N"),
        )
    )


def height_of(values: Iterable[float]) -> alt.Scale:
    """Scale a figure; one that is everywhere the same has no range to make an axis of."""
    found = set(values)
    flat = [min(0.0, *found), max(1.0, *found)] if len(found) == 1 else None
    return alt.Scale(domain=flat) if flat else alt.Scale()


def metric_frame(run: Run, metric: str) -> pd.DataFrame:
    """Return a figure on everybody's test by rounds done, with what it is compared to."""
    own = own_subject_of(run)
    tested = thinned(list(measured(run, metric).items()), DOTS)
    rows = [(r, v, SUBJECTS[own].word) for r, v in tested]
    last = max((r for r, _, _ in rows), default=len(run.history.rounds))
    figures = run.evaluation
    for subject in SUBJECTS:
        value = figures.get(subject, {}).get(metric, math.nan)
        if subject != own and math.isfinite(value) and last:
            rows += [(0, value, SUBJECTS[subject].word), (last, value, SUBJECTS[subject].word)]
    return pd.DataFrame(rows, columns=["round", "value", "model"])


def metric(run: Run, name: str) -> alt.Chart:
    """Draw a figure on everybody's test over rounds; what it is compared to as level lines."""
    frame = metric_frame(run, name)
    present = {s for s, look in SUBJECTS.items() if look.word in set(frame["model"])}
    return (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=50), strokeWidth=2)
        .encode(
            x=alt.X("round:Q", title="rounds done", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=METRICS.get(name, name), scale=height_of(frame["value"])),
            color=alt.Color("model:N", scale=colours(SUBJECTS, present), legend=below()),
            shape=alt.Shape("model:N", scale=shapes(SUBJECTS, present), legend=below()),
            tooltip=tips("model:N", "round:Q", value=METRICS.get(name, name)),
        )
        .properties(height=HEIGHT)
    )
