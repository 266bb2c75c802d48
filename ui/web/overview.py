"""The table of runs: one row a run, plain values; how the columns are shown."""

from collections.abc import Iterable

import pandas as pd
import streamlit as st

from federation.errors import FedpilotError
from ui.results import asked
from ui.web.figures import MAIN, own_subject_of, progress, sparkline
from ui.web.language import STATUSES
from ui.web.store import Opened, tags

COLUMNS = {
    "run": st.column_config.TextColumn("Run", pinned=True, width="medium"),
    "status": st.column_config.TextColumn("Status", width="small"),
    "trend": st.column_config.LineChartColumn(
        "Trend", width="small", help="the main figure over rounds; each scaled to itself"
    ),
    "loss": st.column_config.NumberColumn(
        "Loss", format="%.3f", help="everybody's test, nats per token; lower is better"
    ),
    "match": st.column_config.NumberColumn(
        "Exact match", format="%.3f", help="everybody's test; higher is better"
    ),
    "algorithm": st.column_config.TextColumn("Algorithm", width="small"),
    "policy": st.column_config.TextColumn("Pilot", width="small", help="who decides the rounds"),
    "clients": st.column_config.NumberColumn("Clients", format="%d", help="that ever trained"),
    "rounds": st.column_config.TextColumn("Rounds", width="small"),
    "traffic": st.column_config.NumberColumn(
        "Traffic", format="bytes", help="both ways, all clients together"
    ),
    "seconds": st.column_config.NumberColumn("Time", format="%.0f s", help="in committed rounds"),
    "tags": st.column_config.ListColumn("Tags"),
}


def rows(runs: Iterable[tuple[Opened, str]], wanted: str = "") -> pd.DataFrame:
    """Return a row for every run that is wanted.

    Args:
        runs: runs and their status.
        wanted: words that all have to occur in name, algorithm, data, pilot or tags.
    """
    words = wanted.lower().split()
    found = [row(opened, status) for opened, status in runs]
    kept = [r for r in found if all(word in text_of(r) for word in words)]
    return pd.DataFrame(kept, columns=[*COLUMNS])


def text_of(row: dict[str, object]) -> str:
    """Return what of a row is searched, in lower case."""
    return " ".join(str(row[k]) for k in ("run", "algorithm", "policy", "data", "tags")).lower()


def row(opened: Opened, status: str) -> dict[str, object]:
    """Return the row of a run; what is not known of it is None."""
    run = opened.run
    how = progress(run)
    try:
        wanted = asked(run)
        algorithm, data = wanted.algorithm, wanted.data
    except FedpilotError:
        algorithm = data = ""
    pilot = run.config.get("pilot")
    policy = pilot.get("policy", "heuristic") if isinstance(pilot, dict) and pilot else ""
    figures = run.evaluation.get(own_subject_of(run), {})
    return {
        "run": opened.name,
        "status": STATUSES[status].word,
        "trend": sparkline(run),
        "loss": figures.get("nll"),
        "match": next((figures[m] for m in MAIN[:2] if m in figures), None),
        "algorithm": algorithm,
        "policy": str(policy),
        "clients": len({c for r in run.history.rounds.values() for c in r.clients}),
        "rounds": f"{how.done} of {how.planned}",
        "traffic": run.bytes_up + run.bytes_down,
        "seconds": run.seconds,
        "tags": list(tags(run.path)),
        "data": data,
    }
