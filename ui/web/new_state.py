"""What the page of a new experiment remembers: its first draft, and who answers questions."""

from concurrent.futures import Future

import streamlit as st

from federation.errors import FedpilotError
from ui.web import made_sets
from ui.web.checker import Answer, Checker
from ui.web.draft import Draft, draft_of_run, first_draft
from ui.web.shell import plain, problems, shelf

DRAFT, NUMBER = "new-draft", "new-number"
LIKE, SET, HOW = "like", "set", "how"
"""Keys of the URL: a run to clone; a made-up set to use, and how."""
MOMENT = 0.1  # seconds that a page waits for an answer before it goes on without


@st.cache_resource(show_spinner=False, on_release=Checker.close)
def checker() -> Checker:
    """Return the process that knows torch, one for all tabs."""
    return Checker()


def ask(what: str, **question: object) -> "Future[Answer]":
    """Ask it something."""
    return checker().ask(what, **question)


def fill(draft: Draft) -> None:
    """Fill the form anew."""
    st.session_state[DRAFT] = draft
    st.session_state[NUMBER] = st.session_state.get(NUMBER, 0) + 1


def draft() -> tuple[Draft, str]:
    """Return what the form is filled with, and the name of this filling."""
    like = st.query_params.get(LIKE)
    made = st.query_params.get(SET)
    if made and st.session_state.get("new-set") != st.query_params.to_dict():
        st.session_state["new-set"] = st.query_params.to_dict()
        how = "extra" if st.query_params.get(HOW) == "extra" else "source"
        with problems():
            there = made_sets.read(shelf().folder, made)
            if there.rows is not None:
                fill(Draft(made_sets.used(there, how), f"the made-up set {made}"))
    if like and st.session_state.get("new-like") != like:
        st.session_state["new-like"], fault = like, ""
        try:
            fill(draft_of_run(shelf().open(like).run))
        except FedpilotError as error:
            fault = str(error)
        st.session_state["new-fault"] = fault
    if like and (fault := st.session_state.get("new-fault")):
        st.error(plain(fault), icon=":material/error:")
    if DRAFT not in st.session_state:
        fill(first_draft())
    return st.session_state[DRAFT], f"new{st.session_state[NUMBER]}"
