"""Live: a run as it goes on, what was decided, and how to steer it."""

import time
from functools import partial
from pathlib import Path

import streamlit as st

from federation.runs import inbox
from federation.runs.folder import BASELINES
from ui.web import actions, export_view, exporting, jobs, pending
from ui.web.figures import progress, seconds_text
from ui.web.following import follow
from ui.web.jobs import Job
from ui.web.language import STATUSES
from ui.web.live_view import numbers, pictures
from ui.web.places import harmless
from ui.web.shell import (
    JOB,
    OF,
    RUN,
    acting,
    badge,
    page,
    pick_run,
    plain,
    problems,
    shelf,
    status_of,
    watch,
)
from ui.web.store import Opened

EVERY = 2.0  # seconds between looks at a run that goes on
began = time.thread_time()


asked_for = jobs.read(shelf().folder / jobs.JOBS / Path(st.query_params.get(JOB, "none")).name)
if asked_for is not None and asked_for.about not in shelf().names():
    st.title("Live", icon=":material/monitoring:")
    back = {"new": "Back to the form"} if asked_for.args[:1] == ("run",) else {}
    pending.until_there(asked_for, shelf().names, {**back, "runs": "Back to the runs"})
    st.stop()
if asked_for is not None:
    del st.query_params[JOB]
    st.query_params[RUN] = asked_for.about

first = pick_run("Live", ":material/monitoring:")


def going_on(name: str) -> Job | None:
    """Return the job that makes a run, or goes on with it, if it lives."""
    makes = ("run", "demo", "resume", "fork", "replay")
    alive = (j for j in jobs.jobs(shelf().folder, name) if j.alive)
    return next((job for job in alive if job.args[0] in makes), None)


def seen(opened: Opened, job: Job | None) -> tuple[object, ...]:
    """Tell what this page shows of a run that goes on; another value, another page."""
    said = job.said if job and opened.status != "running" else ""
    return opened.state, opened.status, inbox.files(opened.run.path), job and job.id, said


def show(opened: Opened, job: Job | None) -> None:
    """Show a run as it stands."""
    heading(opened, job)
    if not opened.run.history.rounds:
        if opened.run.asking is None:
            st.caption("No round is finished yet: the model is loaded, measured and judged first.")
        return
    if exporting.offered(opened):
        export_view.show(opened)
    numbers(opened)
    pictures(opened)


def heading(opened: Opened, job: Job | None) -> None:
    """Show the status, why it is so, and what can be done about it."""
    status = status_of(opened)
    run = opened.run
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(STATUSES[status])
        if run.history.ended and run.history.ended.reason:
            st.caption(plain(run.history.ended.reason))
        if job is not None and opened.status != "running":
            doing = "ending" if opened.status == "finished" else "starting"
            said = plain(job.said or "loading")
            st.status(f"its process is {doing}: {said}", type="compact")
        else:
            controls(opened, status)
    how = progress(run)
    words = f"round {how.done} of {how.planned}"
    if status == "running" and how.done == how.planned:
        words += "; what is left is to judge, and to train baselines where they are wanted"
    elif status == "running" and how.seconds_left is not None:
        words += f", about {seconds_text(how.seconds_left)} left"
    st.progress(how.share, words)
    known = run.history.commands
    for command in inbox.waiting(run.path, known) if opened.status == "running" else ():
        st.caption(f":material/schedule: {DONE[command.command]} before the next round")
    for refused in [c for c in run.history.commands.values() if not c.accepted][-1:]:
        st.caption(
            f":material/block: {plain(refused.command)} was refused: {plain(refused.reason)}"
        )
    if status == "waiting" and run.asking is not None:
        st.warning("A decision waits for you.", icon=":material/person_alert:")
        link = {RUN: opened.name, "round": str(run.asking.round + 1)}
        st.page_link(
            page("decisions"), label="Decide", icon=":material/rule_settings:", query_params=link
        )
    for warning in run.history.warnings[-3:]:
        st.warning(plain(warning.text), icon=":material/warning:")


DONE = {
    "pause": "pauses",
    "resume": "goes on",
    "stop": "stops",
    "more_rounds": "gets one more round",
    "answer": "hears your answer",
}


def controls(opened: Opened, status: str) -> None:
    """Offer what can be done with a run in this status."""
    if status == "damaged":
        return
    run = opened.run
    buttons: list[tuple[str, str, str, dict[str, object]]] = []
    if status == "running":
        buttons.append(("Pause", ":material/pause:", "pause", {}))
    if status == "paused":
        buttons.append(("Go on", ":material/play_arrow:", "resume", {}))
    if status in ("running", "paused", "waiting"):
        buttons.append(("Stop", ":material/stop:", "stop", {}))
        if not (run.path / BASELINES).exists():  # begun for the rounds that there are
            icon = ":material/exposure_plus_1:"
            buttons.append(("One more round", icon, "more_rounds", {"n": 1}))
    for label, icon, command, arguments in buttons:
        if st.button(label, icon=icon, key=command):
            acting(partial(actions.steer, run, command, **arguments), "the run is told")
    over = status in ("stopped", "interrupted", "failed")
    if over and st.button("Go on", icon=":material/play_arrow:", key="go-on"):
        with problems():
            watch(actions.resume(shelf().folder, run))
    rounds = actions.forkable(run)
    if rounds:
        with st.popover("Fork", icon=":material/call_split:"):
            fork(opened, rounds)
    st.page_link(
        page("new_study"), label="Study from this run", icon=":material/experiment:",
        query_params={OF: opened.name},
    )  # fmt: skip


def fork(opened: Opened, rounds: list[int]) -> None:
    """Ask from which round a new run is to start."""
    st.markdown(
        "A new run that starts from the state after a round of this one. The states of older rounds"
        " are not kept."
    )
    after = st.selectbox("After round", rounds, index=len(rounds) - 1, key="fork-round")
    named = harmless(f"{opened.name}-fork")
    new = st.text_input("Name of the new run", named, key="fork-name", max_chars=64)
    planned = progress(opened.run).planned
    total = st.number_input("Rounds in all", min_value=after + 1, value=max(planned, after + 1))
    if st.button("Fork", key="fork", type="primary", disabled=not new):
        with problems():
            watch(actions.fork(shelf().folder, opened.name, after, new or "", int(total)))


job = going_on(first.name)
# Told before drawing: a run that ends meanwhile is drawn as going on, and has to be drawn anew.
goes_on = first.status == "running" or job is not None
drawn = seen(first, job)
show(first, job)
if goes_on:
    follow(lambda: seen(shelf().open(first.name), going_on(first.name)), drawn, EVERY, began)
