"""Decisions: what was seen, said, allowed, applied and came of it; a person may be asked."""

import time

import pandas as pd
import streamlit as st

from federation.pretraining.recipe import pretrains
from federation.runs import inbox
from federation.runs.run import Run
from ui.web import asking, decided
from ui.web.decided import Row
from ui.web.decisions_view import pictures, rows_of
from ui.web.following import follow
from ui.web.jobs import jobs
from ui.web.language import SOURCES
from ui.web.one_decision import fact_wanted, interval, one
from ui.web.shell import RUN, page, pick_run, plain, shelf
from ui.web.store import Opened

EVERY = 2.0  # seconds between looks at a run that goes on
began = time.thread_time()
MOST = 500  # decisions in the table; a browser need not hold ten thousand
RECENT = 6  # rounds whose facts are shown at first
NOTHING = "–"
ALWAYS = ("round", "source", "why", "loss")  # columns; others are left out where all are empty
NOTABLE, ALL = "what moved or went otherwise", "all"

first = pick_run("Decisions", ":material/rule_settings:")
if pretrains(first.run):
    st.info(
        "This run pre-trains a base model: its recipe decides every round beforehand, so there is "
        "nothing here to weigh. Its curve is on the page Live."
    )
    st.page_link(
        page("live"), label="Live", icon=":material/monitoring:", query_params={RUN: first.name}
    )
    st.stop()


def seen(opened: Opened) -> tuple[object, ...]:
    """Tell what this page shows of a run that goes on; another value, another page."""
    made = [(job.id, job.alive) for job in jobs(shelf().folder, opened.name)]
    return opened.state, opened.status, inbox.files(opened.run.path), made


def show(opened: Opened) -> None:
    """Show the decisions of a run as they stand."""
    if not opened.damage:
        asking.card(opened.run)
    rows = rows_of(opened)
    if not rows:
        if opened.run.asking is None:
            st.caption("Nothing was decided yet: the model is loaded, measured and judged first.")
        return
    chosen = pick(opened.run, rows)
    pictures(opened, chosen and chosen.round, fact_wanted())
    name = f"All {len(rows):,} decisions as a table"
    with st.expander(name, key="table", bind="query-params", icon=":material/table_rows:") as part:
        if part.open:
            table(rows)
    if chosen is not None:
        one(opened, chosen, newest=st.session_state.get("round") is None)


def pick(run: Run, rows: list[Row]) -> Row | None:
    """Let a round be chosen; the newest while none is."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.number_input(
            "Round", 1, None, None, 1, key="round", bind="query-params", placeholder="newest",
            width=180, help="whose decision is shown below; or open the table and select it there",
        )  # fmt: skip
        facts = [x for x in (st.session_state.get("fact"), st.query_params.get("fact")) if x]
        if facts and decided.round_of(str(facts[0])):
            st.caption(f"The chart marks the fact {plain(decided.with_round(str(facts[0])))}.")
    by_round = {row.round: row for row in rows}
    if wanted is None:
        return rows[-1]
    asked = run.asking is not None and wanted == run.asking.round + 1
    if wanted not in by_round and not asked:
        st.warning(f"Round {wanted} is not decided; rounds 1 to {rows[-1].round} are.")
    return by_round.get(int(wanted))


def table(rows: list[Row]) -> None:
    """Show the decisions as a table, the newest first."""
    which = st.segmented_control(
        "Show", [ALL, NOTABLE], default=ALL, key="which", label_visibility="collapsed"
    )
    kept = [row for row in reversed(rows) if which != NOTABLE or row.notable]
    shown = kept[:MOST]
    if not shown:
        st.caption("Nothing moved, nothing was refused, nothing came out otherwise than expected.")
        return
    data = [line(row) for row in shown]
    used = [k for k in data[0] if k in ALWAYS or any(x[k] != NOTHING for x in data)]
    said = any(row.low is not None for row in shown)
    st.dataframe(
        pd.DataFrame(data, columns=used),
        key="decisions",
        hide_index=True,
        height=370 if len(shown) > 10 else "content",
        on_select=go_there,
        selection_mode="single-row",
        alt="Decisions with their source, what changed, verdict, expectation and outcome",
        placeholder="–",
        column_config={
            "round": st.column_config.NumberColumn("Round", width=60, format="%d"),
            "source": st.column_config.TextColumn("Source", width=80),
            "changed": st.column_config.TextColumn("Changed", width=170 if said else 240),
            "why": st.column_config.TextColumn("Why", width=230 if said else 250),
            "loss": st.column_config.NumberColumn("Loss", width=65, format="%.3f"),
            "expected": st.column_config.TextColumn("Expected loss", width=110),
            "came": st.column_config.TextColumn("Came out", width=90),
            "verdict": st.column_config.TextColumn("Guard", width=120),
            "by": st.column_config.TextColumn("Policy", width=150),
        },
    )  # fmt: skip
    st.session_state["decisions-rounds"] = [row.round for row in shown]
    if len(kept) > MOST:
        st.caption(f"The newest {MOST} of {len(kept):,}; older ones by their number above.")


def line(row: Row) -> dict[str, object]:
    """Return the line of a decision; what it is asked for most stands first."""
    return {
        "round": row.round,
        "source": SOURCES[row.source].word,
        "changed": row.changed or NOTHING,
        "why": row.why,
        "loss": row.loss,
        "expected": interval(row),
        "came": came(row),
        "verdict": row.verdict,
        "by": row.by,
    }


def go_there() -> None:
    """Go to the round whose line was selected."""
    lines = st.session_state["decisions"]["selection"]["rows"]
    rounds = st.session_state.get("decisions-rounds", [])
    if lines and lines[0] < len(rounds):
        st.session_state["round"] = rounds[lines[0]]
        st.session_state["fact"] = None


def came(row: Row) -> str:
    """Say whether it came out as expected."""
    return NOTHING if row.hit is None else "as expected" if row.hit else "otherwise"


# Told before drawing: a run that ends meanwhile is drawn as going on, and has to be drawn anew.
goes_on = first.status == "running" or any(x.alive for x in jobs(shelf().folder, first.name))
drawn = seen(first)
show(first)
if goes_on:
    follow(lambda: seen(shelf().open(first.name)), drawn, EVERY, began)
