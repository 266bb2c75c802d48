"""The table of runs: one row a run, plain values; how the columns are shown."""

from collections.abc import Collection, Iterable, Mapping

import pandas as pd
import streamlit as st

from agents.privacy import DELTA, spent
from federation.errors import FedpilotError
from ui.results import asked
from ui.web.figures import MAIN, cost, own_subject_of, progress, sparkline
from ui.web.language import STATUSES
from ui.web.lift import HOW, Lift
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
    "lift": st.column_config.NumberColumn(
        "Pilot lift",
        format="%+.3f",
        help="mean improvement over the same runs without a pilot, "
        f"positive is better; only where it was measured. To measure it, {HOW}",
    ),
    "interval": st.column_config.TextColumn(
        "Lift, interval",
        width=150,
        help="covers in 95 % at least; select a run to see the figure "
        "and the pairs that it rests on",
    ),
    "tokens": st.column_config.NumberColumn(
        "Model tokens",
        format="localized",
        help="in and out, of the pilot's calls of a language "
        "model, as far as its server reports them",
    ),
    "thinking": st.column_config.NumberColumn(
        "Model time",
        format="%.1f s",
        help="that deciding took in rounds in which a model was asked",
    ),
    "epsilon": st.column_config.NumberColumn(
        "Privacy ε",
        format="%.2f",
        help="what noise guarantees so far to the client asked most "
        f"often, at δ = {DELTA:g}; no amplification is counted on",
    ),
    "clients": st.column_config.NumberColumn("Clients", format="%d", help="that ever trained"),
    "rounds": st.column_config.TextColumn("Rounds", width="small"),
    "traffic": st.column_config.NumberColumn(
        "Traffic", format="%.3g MiB", help="both ways, all clients together; 1 MiB = 2^20 bytes"
    ),
    "seconds": st.column_config.NumberColumn("Time", format="%.0f s", help="in committed rounds"),
    "tags": st.column_config.ListColumn("Tags"),
}


ALWAYS = ("run", "status")
NOTHING = (None, "", [])


def rows(
    runs: Iterable[tuple[Opened, str]],
    wanted: str = "",
    states: Collection[str] = (),
    lifts: Mapping[str, Lift] | None = None,
) -> pd.DataFrame:
    """Return a row for every run that is wanted; a column in which no run has a value is left out.

    Args:
        runs: runs and their status.
        wanted: words that all have to occur in name, algorithm, data, pilot or tags.
        states: words of statuses; none: all.
        lifts: name of a run -> what its pilot gains.
    """
    words = wanted.lower().split()
    found = [row(opened, status, (lifts or {}).get(opened.name)) for opened, status in runs]
    used = [k for k in COLUMNS if k in ALWAYS or any(r[k] not in NOTHING for r in found)]
    kept = [r for r in found if all(word in text_of(r) for word in words)]
    kept = [r for r in kept if not states or r["status"] in states]
    return pd.DataFrame(kept, columns=used)


def text_of(row: dict[str, object]) -> str:
    """Return what of a row is searched, in lower case."""
    return " ".join(str(row[k]) for k in ("run", "algorithm", "policy", "data", "tags")).lower()


def row(opened: Opened, status: str, lift: Lift | None = None) -> dict[str, object]:
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
    private, asked_model = spent(run), cost(run)
    return {
        "run": opened.name,
        "status": STATUSES[status].word,
        "trend": sparkline(run),
        "loss": figures.get("nll"),
        "match": next((figures[m] for m in MAIN[:2] if m in figures), None),
        "algorithm": algorithm,
        "policy": str(policy),
        "lift": lift and lift.mean,
        "interval": lift and lift.interval,
        "tokens": asked_model and asked_model.tokens,
        "thinking": asked_model and asked_model.seconds,
        "epsilon": private and private.epsilon,
        "clients": len({c for r in run.history.rounds.values() for c in r.clients}),
        "rounds": f"{how.done} of {how.planned}",
        "traffic": (run.bytes_up + run.bytes_down) / 2**20,
        "seconds": run.seconds,
        "tags": list(tags(run.path)),
        "data": data,
    }
