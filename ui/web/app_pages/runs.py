"""Runs: what there is, what it came to, and what can be done with it."""

import hashlib
import time
from collections.abc import Sequence

import streamlit as st

from ui.web import export_view, exporting, lift, places, store
from ui.web.following import follow
from ui.web.jobs import jobs
from ui.web.language import STATUSES
from ui.web.new_state import LIKE
from ui.web.overview import COLUMNS, rows
from ui.web.shell import (
    OF,
    RUN,
    acting,
    nothing_yet,
    page,
    plain,
    problems,
    shelf,
    status_of,
)

EVERY = 3.0  # seconds between looks while something goes on
began = time.thread_time()

left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("Runs", icon=":material/table_rows:")
with right.container(
    horizontal=True, horizontal_alignment="right", vertical_alignment="center"
):  # fmt: skip
    with st.popover("Import", icon=":material/download:"):
        source = st.text_input("Run directory on this machine", placeholder="/path/to/run")
        if st.button("Import", key="import", disabled=not source):
            with problems():
                st.toast(f"imported {plain(shelf().take_in(places.typed_path(source)))}")
    st.page_link(page("new"), label="New experiment", icon=":material/add_circle:")

if not shelf().names() and not any(job.alive for job in jobs(shelf().folder)):
    nothing_yet()
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    wanted = st.text_input(
        "Find", type="search", placeholder="name, algorithm, data, tag", key="q", live=True,
        bind="query-params", width=320,
    )  # fmt: skip
    words = [look.word for look in STATUSES.values()]
    states = st.pills("Status", words, selection_mode="multi", key="status", bind="query-params")


def seen() -> tuple[Sequence[tuple[str, object, str]], Sequence[tuple[str, bool]]]:
    """Tell what this page shows: runs, and what is being made; another value, another page."""
    runs = [(o.name, o.state, o.status) for o in shelf().opened()]
    return runs, [(job.id, job.alive) for job in jobs(shelf().folder)]


@st.fragment
def table() -> None:
    """Show the runs that are wanted, and what can be done with the one that is selected."""
    there = shelf().opened()
    lifts = lift.lifts(there, [shelf().folder / name for name in shelf().studies()])
    shown = rows([(o, status_of(o)) for o in there], wanted or "", states, lifts)
    for job in jobs(shelf().folder):
        if not job.about or job.args[:1] == ("study",):  # its own page tells of it
            continue
        if job.alive and job.about not in shelf().names():
            st.caption(f":material/hourglass_top: {plain(job.title)} is starting …")
        elif job.code and job.about not in shelf().names() and job == jobs(shelf().folder)[0]:
            st.error(f"{plain(job.title)}: {plain(job.said)}", icon=":material/error:")
    if not len(shown):
        st.caption("No run is like that.")
        return
    # Rows are selected by their place: where the list changed, nothing is selected any more.
    listed = hashlib.sha256("/".join(map(str, shown["run"])).encode()).hexdigest()[:8]
    event = st.dataframe(
        shown, key=f"table-{listed}", hide_index=True, column_config=COLUMNS, on_select="rerun",
        selection_mode="single-row", placeholder="", alt="Runs with their status, figures and cost",
    )  # fmt: skip
    chosen = event["selection"]["rows"]
    if not chosen:
        st.caption("Select a run to open, clone, tag or delete it.")
        return
    name = str(shown.iloc[chosen[0]]["run"])
    with problems():
        act(name)
    if name in lifts:
        st.caption(f"Its pilot: {plain(lifts[name].told)}.")
    elif any(o.name == name and lift.has_pilot(o.run.config) for o in there):
        st.caption(f"What its pilot gains was not measured. To measure it, {lift.HOW}.")


def act(name: str) -> None:
    """Offer what can be done with a run."""
    path = shelf().path(name)
    with st.container(horizontal=True, border=True, vertical_alignment="center"):
        st.markdown(f"**{plain(name)}**")
        for target, label, icon in (
            ("live", "Open", ":material/monitoring:"),
            ("new", "Clone and edit", ":material/content_copy:"),
            ("compare", "Compare", ":material/compare:"),
            ("new_study", "Study", ":material/experiment:"),
        ):
            key = {"new": LIKE, "new_study": OF}.get(target, RUN)
            st.page_link(page(target), label=label, icon=icon, query_params={key: name})
        if exporting.offered(shelf().open(name)):
            st.page_link(
                page("live"), label="Export", icon=":material/output:",
                query_params={RUN: name, export_view.KEY: "true"},
            )  # fmt: skip
        with st.popover("Tags", icon=":material/sell:"):
            old = ", ".join(store.tags(path))
            words = st.text_input("Tags, separated by commas", old, key=f"tags-{name}")
            if st.button("Save", key=f"save-{name}"):
                acting(lambda: store.tag(path, (words or "").split(",")), "tags saved", anew=True)
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown(f"Delete **{plain(name)}** and everything in it? This cannot be undone.")
            if st.button("Delete it", type="primary", key=f"delete-{name}"):
                acting(lambda: shelf().delete(name), f"{plain(name)} is deleted", anew=True)


drawn = seen()
table()
if any(status == "running" for *_, status in drawn[0]) or any(alive for _, alive in drawn[1]):
    follow(seen, drawn, EVERY, began)
