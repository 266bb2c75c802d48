"""New experiment: a form derived from the typed configuration, what it takes, and its start."""

from concurrent.futures import Future

import streamlit as st

from federation.config import ORGANISATIONS
from federation.data.dataset import plain_templates, with_defaults
from federation.errors import ConfigError, FedpilotError
from ui.web import drafting, new_data, new_side
from ui.web.checker import Answer, answer_of
from ui.web.draft import (
    PARTS,
    SECTIONS,
    configuration,
    draft_of_run,
    draft_of_text,
    judged,
    section_named,
    section_of,
    settings_of,
    starts,
    written,
)
from ui.web.forms import Control, got, of_use
from ui.web.new_state import EXPERIMENT, MOMENT, ask
from ui.web.shell import plain, problems, shelf
from ui.web.widgets import Filled, Values, draw, ever_open, folded, grid, unseen

ICON = ":material/add_circle:"
FOLDED = {
    "": "More: seed",
    "model": "More about the model",
    "adapter": "More about the adapter",
    "work": "More about local work",
    "schedule": "More about the schedule",
    "cohort": "More about who is asked",
    "devices": "Simulated devices: speeds, drop-outs, deadlines",
    "upload": "More about uploads",
    "evaluation": "More about evaluation",
    "engine": "The engine on this machine",
    "pilot": "More about the pilot: budgets, fallbacks, shadows",
    "pilot.selection": "More about choosing clients",
    "pilot.synthetic": "More about rows that are made up",
}
without: "list[Future[Answer]]" = []
"""Answers that were not there when what shows them was drawn; they may be there a moment later."""


def bring() -> None:
    """Offer to fill the form from a run, a file or a text."""
    with st.popover("Load", icon=":material/folder_open:"):
        names = shelf().names()
        run = st.selectbox("From a run", names, None, placeholder="choose", key="load-run")
        if st.button("Take its configuration", disabled=not run) and run:
            with problems():
                drafting.fill(EXPERIMENT, draft_of_run(shelf().open(run).run))
                st.rerun()
        file = st.file_uploader("From a TOML file", type="toml", key="load-file")
        text = st.text_area("From a text", key="load-text", height=120, placeholder="rounds = 20")
        if st.button("Take it", disabled=not (file or text)):
            with problems():
                given = decoded(file.getvalue()) if file else text or ""
                drafting.fill(EXPERIMENT, draft_of_text(given, "the text"))
                st.rerun()


def decoded(data: bytes) -> str:
    """Read a text.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError("the file is no text in UTF-8; save it as such") from None


def section(name: str, filled: Filled, values: Values) -> None:
    """Draw a part of the form: what most people want first, the rest folded, table by table."""
    mine = [c for c in configuration() if section_of(c) == name and c.key not in values]
    if not ever_open(f"{filled.id}.{name}", tabs[name].open):
        values |= unseen(mine, filled)
        return
    common = [c for c in mine if c.key in SECTIONS[name].common]
    for table in SECTIONS[name].tables:
        group(table, [c for c in common if c.table == table], filled, values)
    for table in SECTIONS[name].tables:
        rest = [c for c in mine if c.table == table and c not in common]
        useful = [c for c in rest if of_use(c, values)]
        if useful:
            values |= folded(FOLDED.get(table, table), useful, filled)


def group(table: str, common: list[Control], filled: Filled, values: Values) -> None:
    """Draw the common controls of a table; those that decide about others first."""
    if table == "algorithm":
        algorithm(filled, values)
        return
    kinds = [c for c in common if c.key.endswith(".kind")]
    values |= grid(kinds, filled)
    values |= grid([c for c in common if c not in kinds and of_use(c, values)], filled)


def algorithm(filled: Filled, values: Values) -> None:
    """Ask for the algorithm and its own settings, which are known as soon as torch is loaded."""
    known, _ = answer_of(ask("algorithms"), MOMENT, without)
    control = next(c for c in configuration() if c.key == "algorithm.name")
    names = {control.key: [*known, "centralised"]} if known else {}
    offered = Filled(filled.table, filled.id, {**filled.known, **names})
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        values[control.key] = draw(control, offered)
    chosen = (known or {}).get(str(values[control.key]))
    if chosen:
        right.caption(plain(chosen["about"]))
        settings.extend(settings_of(chosen["schema"]))
        mine = Filled(filled.table, f"{filled.id}.{values[control.key]}", {})
        values |= grid(settings, mine, 3)
    elif known is None:
        right.caption(":material/hourglass_top: loading the algorithms and their settings …")


def pilot(filled: Filled, values: Values) -> tuple[bool, list[str]]:
    """Ask whether a pilot decides, how far it may go, and what else it may do."""
    if not ever_open(f"{filled.id}.pilot", tabs["pilot"].open):
        section("pilot", filled, values)
        there = [part for part in PARTS if got(filled.table, part) is not None]
        return bool(got(filled.table, "pilot")), there
    on = st.toggle(
        "A pilot decides every round", bool(got(filled.table, "pilot")),
        key=f"{filled.id}-pilot", persist_state="session",
        help="It moves learning rate, steps and cohort within the bounds below; every decision is "
        "recorded with what the others would have done.",
    )  # fmt: skip
    if on:
        around = starts("pilot.bounds.", values.get)
        section("pilot", Filled(filled.table, filled.id, filled.known, around), values)
        return True, [part for part in PARTS if switched(part, filled, values)]
    st.caption("Every round is as the form says: the rules of the schedule and the cohort.")
    return False, []


def switched(part: str, filled: Filled, values: Values) -> bool:
    """Ask whether a pilot does a thing that a table of its own stands for, and how."""
    name, help = PARTS[part]
    on = st.toggle(
        name, got(filled.table, part) is not None, key=f"{filled.id}-{part}",
        persist_state="session", help=f"{help}  \n`{part}`",
    )  # fmt: skip
    if on:
        mine = [c for c in configuration() if c.table == part]
        values |= folded(FOLDED[part], mine, filled)
    return bool(on)


@st.fragment(run_every=0.5)
def until_answered() -> None:
    """Look again as soon as an answer is there that this page went on without."""
    if all(future.done() for future in without):
        st.rerun()


left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("New experiment", icon=ICON)
with right.container(horizontal=True, horizontal_alignment="right"):
    bring()
    st.button(
        "Begin anew", icon=":material/restart_alt:", on_click=drafting.start_anew,
        args=(EXPERIMENT,),
        help="fills the form with the demo's experiment",
    )  # fmt: skip
loaded, id = drafting.draft(EXPERIMENT)
st.caption(f"Filled from {plain(loaded.origin)}. Behind every ? stand meaning, bounds and default.")

ask("algorithms")  # soon there, if somebody looks at them
settings: list[Control] = []
values: Values = {}
form, side = st.columns([3, 2], gap="large")
with form:
    titles = [f"{section.icon} {section.title}" for section in SECTIONS.values()]
    shown = st.tabs(titles, key="new-tabs", on_change="rerun")
    tabs = dict(zip(SECTIONS, shown, strict=True))
faults = {name: tab.empty() for name, tab in tabs.items()}
modules = st.session_state.get("new-modules", [])
offers = {"adapter.targets": ["all-linear", *modules], "model.base": ["nano"]}
filled = Filled(loaded.table, id, offers)

with tabs["data"]:
    values |= new_data.source(filled)
    sample = new_data.sample_of(values)
    if sample:
        new_data.rows(sample, filled, values["data.source"] == ORGANISATIONS)
    values |= new_data.learnt(filled, sample, values["data.source"] == ORGANISATIONS)
    shown_example = st.container()
    values |= new_data.others(filled)
    values |= new_data.clients(filled, sample)
    counted = st.container()
for name in ("model", "training", "clients", "measure"):
    with tabs[name]:
        section(name, filled, values)
with tabs["pilot"]:
    piloted, parts = pilot(filled, values)

algorithm_now = values.get("algorithm.name")
kept = dict(got(loaded.table, "algorithm", {}))
kept = kept if kept.pop("name", "fedavg") == algorithm_now else {}
table = written(values, settings, pilot=piloted, parts=parts, kept=kept)
with shown_example:
    if sample:
        new_data.example(table, sample, without)
with counted:
    report = new_data.held_by(table)

error, config, sizes, check = "", None, {}, None
try:
    config = judged(table, len(report["clients"]) if report else None)
    if sample:
        plain_templates(with_defaults(config.data)).check(sample.fields)
    new_data.check_extra(with_defaults(config.data))
except FedpilotError as wrong:
    error = str(wrong)
if config is not None and not error:
    check = ask("check", table=table)
    answer, error = answer_of(check, MOMENT, without)
    sizes = answer or {}
    if sizes.get("modules") and sizes["modules"] != modules:
        st.session_state["new-modules"] = sizes["modules"]
        if ever_open(f"{id}.model", None):  # they are offered there
            st.rerun()
if error:
    faults[section_named(error)].error(plain(error), icon=":material/error:")

with side:
    name = new_side.start(table, config, error, loaded.name)
    if config is not None and not error:
        if check in without:
            st.caption(":material/hourglass_top: checking, and measuring what it takes …")
        else:
            new_side.takes(config, sizes, report)
    new_side.said_thrice(table, name)
drafting.keep(EXPERIMENT, table, name)

if without:
    until_answered()
