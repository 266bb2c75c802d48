"""What the page of a new experiment may be filled with, and who answers its questions."""

from collections.abc import Mapping
from concurrent.futures import Future

import streamlit as st

from federation.errors import ConfigError
from ui.web import made_sets
from ui.web.checker import Answer, Checker
from ui.web.draft import Draft, draft_of_run, first_draft
from ui.web.drafting import Kind
from ui.web.shell import shelf

LIKE, SET, HOW = "like", "made-up", "how"
"""Keys of the URL: a run to clone; a made-up set to use, and how."""
MOMENT = 0.1  # seconds that a page waits for an answer before it goes on without


@st.cache_resource(show_spinner=False, on_release=Checker.close)
def checker() -> Checker:
    """Return the process that knows torch, one for all tabs."""
    return Checker()


def ask(what: str, **question: object) -> "Future[Answer]":
    """Ask it something."""
    return checker().ask(what, **question)


def wanted(asked: Mapping[str, str]) -> Draft:
    """Return what the URL asks for.

    Raises:
        ConfigError: if it is not there, or no form can show it.
    """
    like = draft_of_run(shelf().open(asked[LIKE]).run) if LIKE in asked else None
    if SET not in asked:
        return like or first_draft()
    made = made_sets.read(shelf().folder, asked[SET])
    if made.rows is None:
        raise ConfigError(f"the made-up set {made.name} has no rows to train on")
    if asked.get(HOW) != "extra":
        return Draft(made_sets.alone(made), f"the made-up set {made.name}")
    real = like or Draft(made_sets.nobodys_data(), "your own data")
    return Draft(
        made_sets.beside(made, real.table), f"{real.origin} and the made-up set {made.name}"
    )


EXPERIMENT = Kind("new", (LIKE, SET, HOW), first_draft, wanted, lambda table: "arms" not in table)
"""The form of a new experiment."""
