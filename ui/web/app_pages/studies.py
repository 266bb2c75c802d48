"""Studies: questions answered by experiments that keep their error rate."""

import time
from pathlib import Path

import streamlit as st

from agents.study import stopping
from agents.study.ledger import Study
from federation.errors import FedpilotError
from federation.runs import storage
from ui.web import jobs, pending, studies
from ui.web.charts.intervals import Row, intervals
from ui.web.charts.studies import curve_frame, curves
from ui.web.following import follow
from ui.web.jobs import Job
from ui.web.language import STATUSES
from ui.web.naming import Naming, shared
from ui.web.shell import (
    CALLED,
    JOB,
    KEPT,
    OF,
    acting,
    badge,
    called,
    page,
    plain,
    shelf,
)

EVERY = 2.0  # seconds between looks at a study that goes on
STUDY = "study"
TOLD_TO_STOP = (130, 143)  # exit codes of a study that was stopped: no failures
STAGES = {
    "done": ":material/check_circle:",
    "now": ":material/pending:",
    "later": ":material/circle:",
}
COLUMNS = {
    "arm": st.column_config.TextColumn("Arm", pinned=True),
    "changes": st.column_config.TextColumn("What it changes"),
    "by": st.column_config.TextColumn(
        "From", width=88, help="registered, found by the search, or proposed"
    ),
    "verdict": st.column_config.TextColumn("Verdict", width=100),
    "improvement": st.column_config.TextColumn("Improvement", width=185, help="mean and interval"),
    "pairs": st.column_config.TextColumn("Pairs", width=55),
    "why": st.column_config.TextColumn("Why", width=235),
}
began = time.thread_time()


def show(study: Study, job: Job | None) -> None:
    """Show a study as it stands."""
    heading(study, job)
    progress(study)
    with st.container(border=True):
        verdicts(study)
    rows = [{key: said(cell) for key, cell in row.items()} for row in studies.arms(study)]
    st.dataframe(
        rows, hide_index=True, column_config=COLUMNS,
        alt="Arms, what they change and what is proved",
    )  # fmt: skip
    learning(study)


def said(text: str) -> str:
    """Write a text that is no Markdown: on a shared server it names no client."""
    return called().text(text)


def learning(study: Study) -> None:
    """Show the learning curves of all arms."""
    found = curve_frame((said(arm), said(run), n, x) for arm, run, n, x in studies.curves(study))
    if not len(found):
        return
    with st.container(border=True):
        figure, control = studies.figure_text(study.spec.metric), study.spec.control
        st.markdown("**Learning curves, validation split**")
        order = [control, *(a for a in study.told.arms or study.spec.arms if a != control)]
        shown = [arm for arm in map(said, order) if arm in set(found["arm"])]
        st.altair_chart(
            curves(found, shown, figure),
            alt=f"{figure} on the validation split over rounds, by arm",
        )
        st.caption("Bold: mean of an arm. Thin: its runs, one a seed.")


def heading(study: Study, job: Job | None) -> None:
    """Show the question, how it stands, and what can be done."""
    state = studies.status(study)
    st.subheader(plain(study.spec.question), divider="gray")
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(STATUSES[state])
        if state == "running":
            going(study)
        elif job is not None and job.alive:
            words = "writing the report" if state == "finished" else said(job.step or "loading")
            st.status(f"{plain(job.title)}: {plain(words)}", type="compact")
        else:
            over(study, state)
        st.page_link(
            page("new_study"), label="Study like this", icon=":material/content_copy:",
            query_params={OF: study.path.name},
        )  # fmt: skip
    if job is not None and state == "stopped" and job.code not in (None, 0, *TOLD_TO_STOP):
        st.error(plain(job.said), title="It ended early", icon=":material/error:")


def going(study: Study) -> None:
    """Say what a study is at, and offer to stop it."""
    now = studies.at(study)
    if stopping.told(study.path):
        st.status(
            f"stops after the round in flight: {plain(now or study.path.name)}", type="compact"
        )
        return
    st.caption(f"now: {plain(now)}" if now else "now: between two runs")
    if st.button("Stop", icon=":material/stop:", key="stop", help="what is done is kept"):
        acting(lambda: stopping.stop(study.path), "it stops after the round in flight", anew=True)


def over(study: Study, state: str) -> None:
    """Offer what can be done with a study that does not go on."""
    path, name = study.path, study.path.name
    if state == "stopped" and st.button(
        "Go on", type="primary", icon=":material/play_arrow:", key="go-on"
    ):
        begin(f"going on with {name}", ["study", str(path.absolute())], name)
    if (path / studies.REPORT).is_file():
        naming = called()  # whoever downloads asks in another thread
        st.download_button(
            "Report", lambda: studies.report(path, naming), f"{name}.zip", "application/zip",
            icon=":material/download:", key="report", help="Markdown with its pictures",
            on_click="ignore",
        )  # fmt: skip
    elif st.button("Write the report", icon=":material/description:", key="write"):
        begin("the report", ["study", "--report", str(path.absolute())], name)


def begin(title: str, args: list[str], name: str) -> None:
    """Start a job about a study."""
    said = f"{plain(title)} is starting"
    acting(lambda: jobs.start(shelf().folder, title, args, name), said, anew=True)


def progress(study: Study) -> None:
    """Show the budget and how far every part is."""
    told, spec = study.told, study.spec
    spent = told.client_steps
    st.progress(
        min(1.0, spent / spec.max_client_steps),
        f"{spent:,} of {spec.max_client_steps:,} client-steps spent in {len(told.measured)} runs",
    )
    with st.container(horizontal=True):
        for stage in studies.stages(study):
            with st.container(border=True, width="stretch", height="stretch", gap="xsmall"):
                st.markdown(f"{STAGES[stage.state]} **{stage.name}**")
                st.caption(plain(stage.said))


def verdicts(study: Study) -> None:
    """Show the arms' intervals against the control and the noise floor."""
    told, spec = study.told, study.spec
    rows = [row._replace(name=said(row.name)) for row in studies.rows(study)]
    final = told.verdict is not None
    st.markdown("**Verdict**" if final else "**So far**")
    if not rows:
        st.caption("No arm has the three pairs yet that an interval needs.")
        return
    figure, control = studies.figure_text(spec.metric), said(spec.control)
    floor = told.floor.floor if told.floor else 0.0
    st.altair_chart(
        intervals(rows, f"improvement over {control}: {figure} (right is better)", floor),
        alt=f"Improvement of every arm over {control}, with intervals and the noise floor",
    )
    for row in rows:  # in words, too: a picture is read by nobody who cannot see it
        st.markdown(f"**{plain(row.name)}: {row.verdict}**, {in_words(row)}")
    split = "test split, read once at the end" if final else "validation split, no verdict yet"
    st.caption(
        f"Lines: intervals, right together in {1 - spec.alpha:.0%} of studies. Dots: single pairs. "
        f"Grey band: the noise floor, ± {floor:.4g}. Figures of the {split}."
    )


def in_words(row: Row) -> str:
    """Write a difference with its interval, and why it is judged as it is."""
    ends = "" if row.low is None else f" [{row.low:.4g}, {row.high:.4g}]"
    return f"{row.mean:.4g}{ends}" + (f": {plain(row.said)}" if row.said else "")


def none_yet() -> None:
    """Say what a study is, and offer to set one up."""
    with st.container(border=True, horizontal_alignment="center", gap="medium"):
        st.markdown("### No study yet", text_alignment="center")
        st.markdown(
            "A study compares ways to train: it measures first how much the control differs from "
            "itself, pairs arms and control by seed, stops early without losing its error rate, "
            "and reads the test split once, at the end.",
            text_alignment="center",
        )
        st.page_link(page("new_study"), label="Set up a study", icon=":material/add_circle:")


def pick(names: list[str]) -> str:
    """Let one of the studies be chosen."""
    wanted = st.query_params.get(STUDY)
    if wanted and wanted not in names:
        st.warning(f"There is no study {plain(wanted)} here any more; this is another one.")
    name = right.selectbox("Study", names, key=STUDY, bind="query-params", filter_mode="contains")
    return name or names[0]


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _pseudonyms(path: Path, state: object) -> Naming:
    return studies.naming(Study.open(path))


def opened(path: Path, state: object) -> Study | None:
    """Read a study; one that is damaged is said to be."""
    try:
        study = Study.open(path)
        if shared():
            st.session_state[CALLED] = _pseudonyms(path, state)
    except FedpilotError as error:
        st.error(
            f"{plain(str(error))}\n\nNothing can be done with it here. Its runs may be whole: "
            f"`fedpilot verify` names what was changed of {plain(path.name)}.",
            title="This study is damaged", icon=":material/broken_image:",
        )  # fmt: skip
        return None
    return study


left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("Studies", icon=":material/experiment:")
names = shelf().studies()
asked_for = jobs.read(shelf().folder / jobs.JOBS / Path(st.query_params.get(JOB, "none")).name)
if asked_for is not None and asked_for.about not in names:
    pending.until_there(asked_for, shelf().studies, {"new_study": "Back to the form"})
    st.stop()
if asked_for is not None:
    del st.query_params[JOB]
    st.query_params[STUDY] = asked_for.about
if not names:
    none_yet()
    st.stop()

name = pick(names)
path = shelf().path(name)
job = next((j for j in jobs.jobs(shelf().folder, name) if j.args[:1] == ("study",)), None)


def now() -> tuple[object, ...]:
    """Tell what this page shows."""
    return *studies.seen(path), job and job.alive


# Told before drawing: a study that ends meanwhile is drawn as going on, and has to be drawn anew.
goes_on = storage.is_locked(path) or (job is not None and job.alive)
drawn = now()
study = opened(path, drawn)
if study is not None:
    show(study, job)
with st.container(horizontal=True):
    st.page_link(page("new_study"), label="New study", icon=":material/add_circle:")
    st.page_link(page("runs"), label="All runs", icon=":material/table_rows:")
if goes_on:
    follow(now, drawn, EVERY, began)
