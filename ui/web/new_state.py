"""What the page of a new experiment remembers: what it is filled with, and who answers questions.

What is written into the form is kept beside the runs as soon as something was changed, and its id
stands in the URL (``?draft=ID``): a reload, another tab or whoever has the link goes on with it.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

import streamlit as st

from federation.errors import ConfigError, FedpilotError
from ui.web import drafts, made_sets
from ui.web.checker import Answer, Checker
from ui.web.draft import Draft, draft_of_run, first_draft
from ui.web.forms import Table
from ui.web.shell import plain, problems, shelf

FORM, NAME = "new-form", "new-name"
ID, LIKE, SET, HOW = "draft", "like", "made-up", "how"
"""Keys of the URL: a draft to go on with; a run to clone; a made-up set to use, and how.

None is bound to a widget of another page: such a key leaves the URL with its page.
"""
MOMENT = 0.1  # seconds that a page waits for an answer before it goes on without


@dataclass
class Form:
    """The form of a browser tab.

    Attributes:
        draft: what it is filled with.
        number: of this filling.
        asked: what the URL asked for when it was filled.
        id: under which it is kept; empty: nothing was changed yet.
        fault: why it is not filled with what was asked for.
        seen: what it held when it was drawn last; of what is kept at once, what it was filled with;
            None: it was not drawn yet.
    """

    draft: Draft
    number: int
    asked: Mapping[str, str]
    id: str = ""
    fault: str = ""
    seen: Draft | None = None


@st.cache_resource(show_spinner=False, on_release=Checker.close)
def checker() -> Checker:
    """Return the process that knows torch, one for all tabs."""
    return Checker()


def ask(what: str, **question: object) -> "Future[Answer]":
    """Ask it something."""
    return checker().ask(what, **question)


def fill(draft: Draft, asked: Mapping[str, str] | None = None, id: str = "") -> Form:
    """Fill the form anew."""
    before: Form | None = st.session_state.get(FORM)
    st.session_state.pop(NAME, None)
    if asked is None:  # by a button of the page: what the URL asks for is over
        st.query_params.clear()
    form = Form(draft, before.number + 1 if before else 1, asked or {}, id)
    form.seen = draft if asked is None else None  # it is kept even if nothing is changed any more
    st.session_state[FORM] = form
    return form


def draft() -> tuple[Draft, str]:
    """Return what the form is filled with, and the name of this filling."""
    form: Form | None = st.session_state.get(FORM)
    query = st.query_params.to_dict()
    asked = {key: query[key] for key in (ID, LIKE, SET, HOW) if key in query}
    if form is None or (asked and asked != form.asked):
        try:
            form = fill(wanted(asked), asked, asked.get(ID, ""))
        except FedpilotError as error:
            form = fill(form.draft if form else first_draft(), asked)
            form.fault = str(error)
    elif form.id and not asked:  # back from another page
        name_it(form)
    if form.fault:
        st.error(plain(form.fault), icon=":material/error:")
    return form.draft, f"new{form.number}"


def wanted(asked: Mapping[str, str]) -> Draft:
    """Return what the URL asks for.

    Raises:
        ConfigError: if it is not there, or no form can show it.
    """
    runs = shelf().folder
    if ID in asked:
        return drafts.read(runs, asked[ID])
    like = draft_of_run(shelf().open(asked[LIKE]).run) if LIKE in asked else None
    if SET not in asked:
        return like or first_draft()
    made = made_sets.read(runs, asked[SET])
    if made.rows is None:
        raise ConfigError(f"the made-up set {made.name} has no rows to train on")
    if asked.get(HOW) != "extra":
        return Draft(made_sets.alone(made), f"the made-up set {made.name}")
    real = like or Draft(made_sets.nobodys_data(), "your own data")
    return Draft(
        made_sets.beside(made, real.table), f"{real.origin} and the made-up set {made.name}"
    )


def keep(table: Table, name: str) -> None:
    """Keep what the form holds, if something was changed since it was drawn last."""
    form: Form = st.session_state[FORM]
    now = replace(form.draft, table=table, name=name)
    before, form.seen = form.seen, now
    if before in (None, now):
        return
    form.id = form.id or drafts.new_id()
    with problems():
        drafts.keep(shelf().folder, form.id, now)
        name_it(form)


def name_it(form: Form) -> None:
    """Name the draft in the URL."""
    form.asked, form.fault = {ID: form.id}, ""
    st.query_params.from_dict(form.asked)


def start_anew() -> None:
    """Fill the form with the first draft; what it held stays kept under its id."""
    fill(first_draft()).seen = None
