"""Studies: questions answered by experiments that keep their error rate."""

from pathlib import Path

import streamlit as st

from agents.study.ledger import Study
from agents.study.spec import StudySpec, from_toml
from federation.errors import FedpilotError
from ui.web import actions, jobs, pending, places, studies
from ui.web.charts.intervals import intervals
from ui.web.charts.studies import curve_frame, curves
from ui.web.jobs import Job
from ui.web.language import STATUSES
from ui.web.shell import acting, badge, page, plain, problems, shelf

EVERY = 2.0  # seconds between looks at a study that goes on
STUDY = "study"
SOURCES = ("example", "paste", "upload", "file on this machine")
STAGES = {
    "done": ":material/check_circle:",
    "now": ":material/pending:",
    "later": ":material/circle:",
}
COLUMNS = {
    "arm": st.column_config.TextColumn("Arm", pinned=True),
    "changes": st.column_config.TextColumn("What it changes"),
    "by": st.column_config.TextColumn("From", help="registered, found by the search, or proposed"),
    "verdict": st.column_config.TextColumn("Verdict"),
    "improvement": st.column_config.TextColumn("Improvement", help="mean and interval"),
    "pairs": st.column_config.TextColumn("Pairs", width="small"),
    "why": st.column_config.TextColumn("Why", width="large"),
}

names = shelf().studies()
left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("Studies", icon=":material/experiment:")


def begin() -> None:
    """Offer to start a study from a TOML file."""
    st.markdown(
        "A study compares ways to train: it measures first how much the control differs from "
        "itself, pairs arms and control by seed, stops early without losing its error rate, and "
        "reads the test split once, at the end."
    )
    offered = SOURCES if studies.EXAMPLE.is_file() else SOURCES[1:]
    source = st.segmented_control("From", offered, default=offered[0], key="from", required=True)
    try:
        found = chosen(source or offered[0])
        if found is None:
            return
        spec, text, path = found
        offer(spec, text, path)
    except FedpilotError as error:
        st.error(plain(str(error)), icon=":material/error:")


def chosen(source: str) -> tuple[StudySpec, str, Path | None] | None:
    """Read the study that is chosen, and check it; None before anything is chosen.

    Raises:
        ConfigError: if it cannot be used.
    """
    if source == "file on this machine":
        typed = st.text_input("TOML file", placeholder="/path/to/study.toml", key="file")
        path = places.typed_path(typed) if typed else None
        return None if path is None else (from_toml(path), "", path.absolute())
    if source == "upload":
        given = st.file_uploader("TOML file", type=["toml"], key="upload")
        if given is None:
            return None
        text = given.getvalue().decode("utf-8", "replace")
    else:
        first = studies.EXAMPLE.read_text(encoding="utf-8") if source == "example" else ""
        text = st.text_area("TOML", first, height=320, key=f"toml-{source}") or ""
        if not text.strip():
            return None
    return studies.checked(text), text, None


def offer(spec: StudySpec, text: str, path: Path | None) -> None:
    """Show what a study would do, and offer to start it."""
    arms = ", ".join(spec.arms)
    st.success(
        f"{plain(spec.question)}  \nArms {plain(arms)}; control {plain(spec.control)}; "
        f"{len(spec.seeds)} seeds; at most {spec.max_client_steps:,} client-steps; judged by "
        f"{spec.metric.name}.",
        icon=":material/task_alt:", title="It can be read",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(
            "Name", actions.free_name(shelf().folder, path.stem if path else "study"), key="name"
        )
        if st.button("Start it", type="primary", icon=":material/play_arrow:", key="start"):
            acting(lambda: start(wanted or "", text, path), "the study is starting")
            st.rerun()


def start(wanted: str, text: str, path: Path | None) -> Job:
    """Start the job that conducts a study."""
    name = studies.named(shelf().folder, wanted)
    file = path or studies.written(shelf().folder, name, text)
    args = ["study", str(file), "--out", str((shelf().folder / name).absolute())]
    return jobs.start(shelf().folder, f"the study {name}", args, name)


def show(name: str) -> None:
    """Show a study as it stands."""
    study = Study.open(shelf().path(name))
    heading(name, study)
    progress(study)
    with st.container(border=True):
        verdicts(study)
    st.dataframe(
        studies.arms(study), hide_index=True, column_config=COLUMNS,
        alt="Arms, what they change and what is proved",
    )  # fmt: skip
    found = curve_frame(studies.curves(study))
    if len(found):
        with st.container(border=True):
            metric = study.spec.metric
            st.markdown("**Learning curves, validation split**")
            order = [study.spec.control, *(a for a in study.told.arms or study.spec.arms
                                           if a != study.spec.control)]  # fmt: skip
            shown = [arm for arm in order if arm in set(found["arm"])]
            st.altair_chart(
                curves(found, shown, f"{metric.name}, {metric.unit}"),
                alt=f"{metric.name} on the validation split over rounds, by arm",
            )
            st.caption("Bold: mean of an arm. Thin: its runs, one a seed.")


def heading(name: str, study: Study) -> None:
    """Show the question, how it stands, and what can be done."""
    state = studies.status(study)
    st.subheader(plain(study.spec.question), divider="gray")
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(STATUSES[state])
        now = studies.running(study)
        if now:
            st.caption(f"now: {plain(now)}")
        path = study.path
        if (path / studies.REPORT).is_file():
            st.download_button(
                "Report", lambda: studies.report(path), f"{name}.zip", "application/zip",
                icon=":material/download:", key="report", help="Markdown with its pictures",
                on_click="ignore",
            )  # fmt: skip
        elif state != "running" and st.button("Write the report", icon=":material/description:"):
            args = ["study", "--report", str(path.absolute())]
            acting(lambda: jobs.start(shelf().folder, "the report", args, name), "being written")
            st.rerun()
        if state == "stopped" and st.button(
            "Go on", type="primary", icon=":material/play_arrow:", key="go-on"
        ):
            args = ["study", str(path.absolute())]
            title = f"going on with {name}"
            acting(lambda: jobs.start(shelf().folder, title, args, name), "it goes on")
            st.rerun()


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
    rows = studies.rows(study)
    final = told.verdict is not None
    st.markdown("**Verdict**" if final else "**So far**")
    if not rows:
        st.caption("No arm has the three pairs yet that an interval needs.")
        return
    unit = f"{spec.metric.name}, {spec.metric.unit}"
    floor = told.floor.floor if told.floor else 0.0
    st.altair_chart(
        intervals(rows, f"improvement over {spec.control}, {unit} (right is better)", floor),
        alt=f"Improvement of every arm over {spec.control}, with intervals and the noise floor",
    )
    split = "test split, read once at the end" if final else "validation split, no verdict yet"
    st.caption(
        f"Lines: intervals, right together in {1 - spec.alpha:.0%} of studies. Dots: single pairs. "
        f"Grey band: the noise floor, ± {floor:.4g}. Figures of the {split}."
    )


if not names:
    pending.follow(next((j for j in jobs.jobs(shelf().folder) if j.args[:1] == ("study",)), None))
    with st.container(border=True):
        st.markdown("### No study yet")
        begin()
    st.stop()

wanted = st.query_params.get(STUDY)
if wanted and wanted not in names:
    st.warning(f"There is no study {plain(wanted)} here any more; this is another one.")
name = right.selectbox("Study", names, key=STUDY, bind="query-params", filter_mode="contains")
name = name or names[0]
with st.expander("New study", icon=":material/add_circle:", on_change="rerun", key="new") as new:
    if new.open:
        begin()
last = next((j for j in jobs.jobs(shelf().folder) if j.args[:1] == ("study",)), None)
pending.follow(last)
going = bool(last and last.alive)


@st.fragment(run_every=EVERY if going or studies.is_going(shelf().path(name)) else None)
def live() -> None:
    """Show the study, again and again while it goes on."""
    with problems():
        show(name)


live()
st.page_link(page("runs"), label="All runs", icon=":material/table_rows:")
