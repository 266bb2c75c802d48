"""Who holds what: clients by labels as a heat map, what was asked beside what was made."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

MOST_CLIENTS, MOST_LABELS = 40, 24
REST = "(others)"
AROUND = 230  # pixels of legend, names of labels and title


def mix_frame(
    clients: Sequence[Mapping[str, Any]], most_labels: int = MOST_LABELS
) -> tuple[pd.DataFrame, int]:
    """Return clients x labels, the largest of both, and how many clients are left out.

    Args:
        clients: as ``fedpilot data --json`` reports them.
        most_labels: labels that are drawn; the others are drawn as one.
    """
    totals: dict[str, int] = {}
    for client in clients:
        for label, count in client["labels"].items():
            totals[label] = totals.get(label, 0) + count
    kept = sorted(totals, key=lambda label: -totals[label])[:most_labels]
    largest = sorted(clients, key=lambda c: -c["examples"])[:MOST_CLIENTS]
    rows = [
        (f"{client['client']} ({client['examples']:,})", label, count, count / client["examples"])
        for client in sorted(largest, key=lambda c: list(clients).index(c))
        for label, count in gathered(client["labels"], kept).items()
    ]
    frame = pd.DataFrame(rows, columns=["client", "label", "examples", "share"])
    return frame, len(clients) - len(largest)


def gathered(labels: Mapping[str, int], kept: Sequence[str]) -> dict[str, int]:
    """Count the labels that are drawn, and all others together."""
    found = {label: labels.get(label, 0) for label in kept}
    if rest := sum(labels.values()) - sum(found.values()):
        found[REST] = rest
    return found


def mixes(frame: pd.DataFrame, kind: str) -> alt.Chart:
    """Draw who holds what."""
    return (
        alt.Chart(frame)
        .mark_rect(stroke="white", strokeWidth=1, strokeOpacity=0.25)
        .encode(
            x=alt.X(
                "label:N",
                title=kind,
                sort=None,
                axis=alt.Axis(labelAngle=-40, labelLimit=140, labelOverlap=False),
            ),
            y=alt.Y(
                "client:N", title=None, sort=None, axis=alt.Axis(labelLimit=200, labelOverlap=False)
            ),
            color=alt.Color(
                "share:Q",
                title="share of the client's examples",
                scale=alt.Scale(scheme="blues", domain=[0, 1]),
                legend=alt.Legend(orient="top", format=".0%", gradientLength=200),
            ),
            tooltip=[
                alt.Tooltip("client:N"),
                alt.Tooltip("label:N", title=kind),
                alt.Tooltip("examples:Q", format=","),
                alt.Tooltip("share:Q", format=".0%"),
            ],
        )
        .properties(height=24 * frame["client"].nunique() + AROUND)
    )
