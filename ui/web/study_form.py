"""The form of a study: what it is filled with, its arms one after the other, and the rest."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from agents.study.ledger import Study
from ui.web import drafting, places, study_draft
from ui.web.checker import Answer, answer_of
from ui.web.draft import Draft, configuration, settings_of, starts
from ui.web.drafting import Kind
from ui.web.forms import Control, Table, got
from ui.web.new_state import MOMENT, ask
from ui.web.shell import OF, problems, shelf
from ui.web.study_arms import changeable, override, slug, with_changes
from ui.web.study_draft import OF_BASE, OTHERS, PAIRS
from ui.web.widgets import Filled, Values, draw, grid, name_of
from ui.web.written import toml_text

NOW = "study-now"
"""Key in the session of the table that the form made last."""
Arms = dict[str, list[str]]


def draft_of(names: str) -> Draft:
    """Return the draft of a study, or of runs.

    Args:
        names: of a study, of a run, or of several with commas between them.

    Raises:
        ConfigError: if there is none of that name, or no form can show it.
    """
    if names in shelf().studies():
        spec = Study.open(shelf().path(names)).spec
        return study_draft.draft_of_study(spec, f"study {names}")
    runs = [names] if names in shelf().names() else names.split(",")
    return study_draft.draft_of_runs([shelf().open(name).run for name in runs])


STUDY = Kind(
    "study", (OF,), study_draft.first_draft, lambda asked: draft_of(asked[OF]), study_draft.shows
)
"""The form of a study."""


def bring() -> None:
    """Offer to fill the form from a run, a study, a file or a text."""
    with st.popover("Load", icon=":material/folder_open:"):
        there = [*shelf().names(), *shelf().studies()]
        name = st.selectbox("From a run or a study", there, None, placeholder="choose", key="load")
        button("Take it as the base", name, draft_of)
        file = st.file_uploader("From a TOML file", type="toml", key="study-upload")
        button("Take the file", file and file.getvalue().decode("utf-8", "replace"), of_text)
        path = st.text_input("From a file on this machine", placeholder="/path/to/study.toml")
        button("Take that file", path, lambda x: study_draft.draft_of_file(places.typed_path(x)))
        text = st.text_area("From a text", key="study-text", height=120)
        button("Take the text", text, of_text)
        st.caption("A study fills everything; a configuration becomes the base.")


def of_text(text: str) -> Draft:
    """Read what was pasted or uploaded."""
    return study_draft.draft_of_text(text, "the text")


def button(label: str, given: str | None, taken: Callable[[str], Draft]) -> None:
    """Offer to fill the form from what is given."""
    if st.button(label, disabled=not given) and given:
        with problems():
            drafting.fill(STUDY, taken(given))
            st.rerun()


# --- Arms ----------------------------------------------------------------------------------------


def arms(
    table: Table,
    base: Table,
    id: str,
    places: dict[str, DeltaGenerator],
    without: "list[Future[Answer]]",
) -> tuple[Arms, str, str]:
    """Draw an arm after the other, the control first.

    Args:
        table: what the form is filled with.
        base: the configuration that arms override, as it stands in the form now.
        id: name of this filling.
        places: where what is wrong with a part of the form is shown; those of the arms are added.
        without: the answers that the page goes on without.

    Returns:
        Arms, the control's name, and which value is missing, in a line.
    """
    first = table["control"]
    order = [first, *(name for name in table["arms"] if name != first)]
    found: Arms = {}
    missing, removed = "", None
    algorithms, _ = answer_of(ask("algorithms"), MOMENT, without)
    for place, name in enumerate(order):
        with st.container(border=True, key=f"{id}-arm{place}"):
            called = slug(heading(name, place, id) or "", found)
            places[f"arms.{called}"] = st.empty()
            found[called], lacks = changes(
                table["arms"][name], base, f"{id}.arm{place}", algorithms or {}
            )
            if lacks and not missing:
                missing = f"arms.{called}: {lacks} needs a value"
            if place and st.button(
                "Remove this arm", icon=":material/delete:", key=f"{id}.remove{place}",
                type="tertiary",
            ):  # fmt: skip
                removed = called
    control = next(iter(found))
    if removed is not None:
        rearranged(table, {k: v for k, v in found.items() if k != removed}, control)
    if len(found) <= OTHERS and st.button("Add an arm", icon=":material/add:", key="add-arm"):
        rearranged(table, {**found, slug("arm", found): []}, control)
    return found, control, missing


def heading(name: str, place: int, id: str) -> str | None:
    """Ask for the name of an arm."""
    label = "Name of the control" if not place else f"Name of arm {place}"
    help = "lower-case letters, digits, - and _; runs and the report are named by it"
    return st.text_input(
        label, name, max_chars=40, key=f"{id}.name{place}", help=help, persist_state="session"
    )


def rearranged(table: Table, arms: Arms, control: str) -> None:
    """Draw the form anew with other arms; all else stays as it is filled in."""
    now = st.session_state.get(NOW, table)
    drafting.refill(STUDY, {**now, "arms": arms, "control": control})
    st.rerun()


def changes(
    overrides: list[str], base: Table, id: str, algorithms: Answer
) -> tuple[list[str], str]:
    """Ask what an arm changes: keys, then a value for each.

    Returns:
        Overrides, and the first key that has no value.
    """
    given = {one.partition("=")[0].strip(): one for one in overrides}
    shown = with_changes(base, overrides)
    picked = st.session_state.get(f"{id}.keys", given)
    now = st.session_state.get(f"{id}.algorithm.name") if "algorithm.name" in picked else None
    chosen = algorithms.get(str(now or got(shown, "algorithm.name", "fedavg")))
    settings = settings_of(chosen["schema"]) if chosen else []
    known = changeable() | {control.key: control for control in settings}
    keys = st.multiselect(
        "Changes", list(dict.fromkeys((*known, *given))), list(given), key=f"{id}.keys",
        format_func=lambda key: label(known, key), accept_new_options=True,
        placeholder="nothing: the base as it is", persist_state="session",
        help="keys of the configuration; what is measured, and on what, is the base's alone",
    )  # fmt: skip
    offered = {"model.base": ["nano"], "algorithm.name": [*algorithms]}
    values = grid([known[key] for key in keys if key in known], Filled(shown, id, offered))
    found, missing = [], []
    for key in keys:
        said = override(known[key], values[key]) if key in known else other(key, given, id)
        found += [said] if said else []
        missing += [] if said else [key]
    return found, missing[0] if missing else ""


def label(known: Mapping[str, Control], key: str) -> str:
    """Return what people call a key, and the key."""
    return f"{name_of(known[key])} · {key}" if key in known else key


def other(key: str, given: Mapping[str, str], id: str) -> str | None:
    """Ask for the value of a key that has no control: as TOML has it."""
    was = given.get(key, "").partition("=")[2]
    text = st.text_input(key, was, key=f"{id}.raw.{key}", help="as TOML has it")
    return f"{key}={text.strip()}" if text and text.strip() else None


# --- All else ------------------------------------------------------------------------------------


def question(filled: Filled) -> Values:
    """Ask what is to be found out, and by which figure."""
    mine = [c for c in study_draft.questions() if c.key in ("question", "metric.name")]
    return {control.key: draw(control, filled) for control in mine}


def of_base(base: Table, id: str) -> Table:
    """Ask for those keys of the base that a study hangs on; return the base with them."""
    there = {c.key: c for c in configuration()}
    values = grid([there[key] for key in OF_BASE], Filled(base, f"{id}.base", {}))
    piloted = True
    if got(base, "pilot"):
        piloted = st.toggle(
            "Its pilot decides in every run", True, key=f"{id}.piloted", persist_state="session",
            help="what an arm changes is then where the pilot begins, and it may move on",
        )  # fmt: skip
    table = study_draft.based(base, values, piloted=piloted)
    with st.expander("All of the base"), problems():
        st.code(toml_text(table), language="toml")
        st.caption("To change more of it, clone a run, start it, and study that.")
    return table


def pairs(filled: Filled, known: list[int]) -> tuple[list[int], Values]:
    """Ask how many pairs there may be and what they may cost; return seeds and values."""
    left, right = st.columns(2, vertical_alignment="bottom")
    count = left.number_input(
        "Paired seeds", PAIRS["minItems"], PAIRS["maxItems"],
        min(PAIRS["maxItems"], max(PAIRS["minItems"], len(known))), key=f"{filled.id}.seeds",
        persist_state="session",
        help="arm and control run under each, until the arm is decided",
    )  # fmt: skip
    found = study_draft.seeds(int(count), known)
    right.caption(f"Seeds {', '.join(map(str, found))}.")
    mine = [c for c in study_draft.questions() if not c.table and c.key != "question"]
    return found, grid(mine, filled, 3)


PARTS = {
    "search": (
        "Search for hyperparameters",
        "What it finds becomes an arm, judged under seeds that it has not seen.",
    ),
    "agent": (
        "A language model may propose arms",
        "It sees validation figures; it sees no test figure and decides no verdict.",
    ),
}
"""Tables of a study that say something by being there -> what switches them on, and its help."""


def part(name: str, filled: Filled) -> Values | None:
    """Ask whether there is a search, or an agent, and how it goes; None if there is none."""
    title, help = PARTS[name]
    on = st.toggle(
        title, got(filled.table, name) is not None, key=f"{filled.id}-{name}", help=help,
        persist_state="session",
    )  # fmt: skip
    if not on:
        return None
    return grid([c for c in study_draft.questions() if c.table == name], filled, 3)


def filling(table: Mapping[str, Any], base: Table, id: str) -> Filled:
    """Return what the parts of the form are drawn with."""
    spans = {
        key: span
        for name in PARTS
        for key, span in starts(f"{name}.bounds.", partial(got, base)).items()
    }
    return Filled(table, id, {}, spans)
