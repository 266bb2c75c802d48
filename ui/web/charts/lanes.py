"""Who did what in which round: a lane a client, a mark a round."""

from collections import Counter
from collections.abc import Iterator

import altair as alt
import pandas as pd

from federation.runs.records import RoundRecord
from federation.runs.run import Run
from ui.web.charts.marks import tips
from ui.web.naming import NAMES, Naming

MOST_ROUNDS, MOST_CLIENTS = 60, 40
STATES = {
    "reported": ("#2A86C8", "square"),
    "straggled": ("#E0A100", "triangle-right"),
    "dropped out": ("#7B8A97", "cross"),
    "flagged": ("#D0453A", "diamond"),
}
"""What became of a client that was asked -> colour and shape."""


def state_of(reason: str) -> str:
    """Say in a word why a client that was asked did not report."""
    low = reason.lower()
    if "diverg" in low or "reject" in low or "finite" in low:
        return "flagged"
    return "straggled" if "deadline" in low or "slow" in low or "late" in low else "dropped out"


def lane_frame(run: Run, naming: Naming = NAMES) -> tuple[pd.DataFrame, int]:
    """Return the newest rounds of the clients that took part most, and how many are not shown.

    Args:
        run: whose rounds.
        naming: what clients are called here.
    """
    rows = [
        (record.round + 1, client, state, why)
        for record in list(run.history.rounds.values())[-MOST_ROUNDS:]
        for client, state, why in took_part(record)
    ]
    busiest = [client for client, _ in Counter(client for _, client, _, _ in rows).most_common()]
    shown = set(busiest[:MOST_CLIENTS])
    kept = [(r, naming.client(c), s, naming.text(why)) for r, c, s, why in rows if c in shown]
    frame = pd.DataFrame(kept, columns=["round", "client", "state", "why"])
    return frame, len(busiest) - len(shown)


def took_part(record: RoundRecord) -> Iterator[tuple[str, str, str]]:
    """Yield what became of every client that a round asked: client, state, why."""
    for client in record.clients:
        yield client, "reported", ""
    for client, why in record.missing.items():
        yield client, state_of(why), why


def lanes(frame: pd.DataFrame) -> alt.Chart:
    """Draw lanes."""
    present = [state for state in STATES if state in set(frame["state"])]
    domain = [*present]
    legend = alt.Legend(title=None, orient="bottom")
    colour = alt.Scale(domain=domain, range=[STATES[s][0] for s in present])
    shape = alt.Scale(domain=domain, range=[STATES[s][1] for s in present])
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("client:N", title=None, sort=None, axis=alt.Axis(labelLimit=160)),
            color=alt.Color("state:N", scale=colour, legend=legend),
            shape=alt.Shape("state:N", scale=shape, legend=legend),
            tooltip=tips("client:N", "round:O", "state:N", "why:N"),
        )
        .properties(height=alt.Step(20))
    )
