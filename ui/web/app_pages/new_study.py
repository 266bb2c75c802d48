"""New study: a question, arms against a control, pairs, a budget; what it takes, and its start."""

import shlex
from concurrent.futures import Future

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from agents.study.spec import StudySpec
from federation.errors import ConfigError, FedpilotError
from ui.web import actions, drafting, places, study_draft, study_form
from ui.web.checker import Answer, answer_of
from ui.web.figures import seconds_text
from ui.web.forms import Table
from ui.web.new_state import MOMENT, ask
from ui.web.shell import JOB, page, plain, problems, shelf
from ui.web.study_form import NOW, PARTS, STUDY
from ui.web.written import toml_text

PATIENCE = 180.0  # seconds that a start waits until the study was checked
without: "list[Future[Answer]]" = []
"""Answers that were not there when what shows them was drawn; they may be there a moment later."""
faults: dict[str, DeltaGenerator] = {}
SECTIONS = {  # part of the form -> its title and icon
    "question": ("Question", ":material/help:"),
    "base": ("Base", ":material/database:"),
    "arms": ("Arms", ":material/call_split:"),
    "pairs": ("Pairs and budget", ":material/join:"),
    "parts": ("Search and proposals", ":material/query_stats:"),
}


def section(place: str) -> None:
    """Begin a part of the form, and keep a place for what is wrong with it."""
    title, icon = SECTIONS[place]
    st.markdown(f"#### {icon} {title}")
    faults[place] = st.empty()


def start(table: Table, ready: bool, named: str) -> str:
    """Show the name, and the button that starts the study; return the name."""
    runs = shelf().folder
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the study", actions.free_name(runs, named or "study"), key=STUDY.name_key,
            max_chars=64, persist_state="session",
        )  # fmt: skip
        pressed = st.button(
            "Start", type="primary", icon=":material/play_arrow:", disabled=not ready, key="start"
        )
    if pressed:
        with problems():
            checked(table)
            job = places.start_study(runs, name or "", table)
            st.switch_page(page("studies"), query_params={JOB: job.id})
    return name or ""


def checked(table: Table) -> None:
    """Wait until the process that knows torch has found nothing wrong.

    Raises:
        ConfigError: if it has, or is not heard of in time.
    """
    with st.spinner("checking"):
        answer, error = answer_of(ask("study", table=table), PATIENCE)
    if error:
        raise ConfigError(error)
    if answer is None:
        raise ConfigError(f"the study was not checked within {PATIENCE:.0f} s; try again")


def takes(spec: StudySpec) -> None:
    """Show what a study takes."""
    found = study_draft.cost(spec, (opened.run for opened in shelf().opened()))
    with st.container(border=True):
        st.markdown("**What it takes, at most**")
        two = st.columns(2)
        two[0].metric(
            "Client-steps", f"{found.most:,}",
            help=f"rounds × cohort × steps of all runs; a verdict needs {found.least:,} at least",
        )  # fmt: skip
        two[1].metric(
            "Training", "unknown" if found.seconds is None else f"≈ {seconds_text(found.seconds)}",
            help="no earlier run here trained the same kind of adapter on this model"
            if found.seconds is None
            else f"at the pace of run {plain(found.like)}; loading and judging come on top",
        )  # fmt: skip
        two[0].metric("Runs", f"{found.runs:,}", help="one a seed of every arm, and the floor's")
        split = spec.config(spec.arms[spec.control], 0, spec.control).data.split
        share = split.test or split.global_test
        two[1].metric(
            "Hidden test split", f"{share:.0%}" if share else "by a field",
            help="of every client's rows: read once, after the last run; arms are steered by the "
            "validation split alone",
        )  # fmt: skip
        st.caption(
            "Arms that are decided early play no more pairs, so it usually takes less. The noise "
            f"floor comes first: {spec.noise_pairs} pairs of the control with itself."
        )


def said_twice(table: Table, name: str) -> None:
    """Show the study as TOML and as a command."""
    runs = shelf().folder
    config, out = runs / places.CONFIGS / f"{name}.toml", runs / name
    tabs = st.tabs(["TOML", "Command line"])
    with tabs[0], problems():
        st.code(toml_text(table), language="toml", wrap_lines=True)
        st.caption("What differs from the defaults, and what every reader asks for.")
    with tabs[1]:
        line = f"fedpilot study {shlex.quote(str(config))} --out {shlex.quote(str(out))}"
        st.code(line, language="bash", wrap_lines=True)
        st.caption("What Start does: the file is written first, then this runs.")


@st.fragment(run_every=0.5)
def until_answered() -> None:
    """Look again as soon as an answer is there that this page went on without."""
    if all(future.done() for future in without):
        st.rerun()


left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("New study", icon=":material/experiment:")
with right.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
    st.page_link(page("studies"), label="All studies", icon=":material/arrow_back:")
    study_form.bring()
    st.button(
        "Begin anew", icon=":material/restart_alt:", on_click=drafting.start_anew, args=(STUDY,),
        help="fills the form with the example",
    )  # fmt: skip
loaded, id = drafting.draft(STUDY)
st.caption(f"Filled from {plain(loaded.origin)}. Behind every ? stand meaning, bounds and default.")

filled = study_form.filling(loaded.table, loaded.table["base"], id)
form, side = st.columns([3, 2], gap="large")
with form:
    section("question")
    values = study_form.question(filled)
    section("base")
    base = study_form.of_base(loaded.table["base"], id)
    section("arms")
    arms, control, missing = study_form.arms(loaded.table, base, id, faults, without)
    section("pairs")
    seeds, more = study_form.pairs(filled, loaded.table["seeds"])
    values |= more
    section("parts")
    parts = {name: found for name in PARTS if (found := study_form.part(name, filled)) is not None}

for found in parts.values():
    values |= found
table = study_draft.written(
    values, arms=arms, control=control, seeds=seeds, base=base, parts=tuple(parts)
)
st.session_state[NOW] = table
whole = study_draft.budgeted(table)
error, spec, check = "", None, None
try:
    if missing:
        raise ConfigError(missing)
    spec = study_draft.judged(whole)
except FedpilotError as wrong:
    error = str(wrong)
if spec is not None:
    check = ask("study", table=whole)
    _, error = answer_of(check, MOMENT, without)
if error:
    place = study_draft.place_of(error, arms)
    faults.get(place, faults["arms"]).error(plain(error), icon=":material/error:")

with side:
    name = start(whole, spec is not None and not error, loaded.name)
    if error:
        st.error(plain(error), icon=":material/error:")
    if spec is not None:
        takes(spec)
    if check in without:
        st.caption(":material/hourglass_top: checking …")
    said_twice(whole, name)
drafting.keep(STUDY, table, name)

if without:
    until_answered()
