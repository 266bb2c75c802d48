"""Forms that outlive a reload: what they are filled with, and what is kept of what is written.

What is written into a form is kept beside the runs as soon as something was changed, and its id
stands in the URL (``?draft=ID``): a reload, another tab or whoever has the link goes on with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import streamlit as st

from federation.errors import ConfigError, FedpilotError
from ui.web import drafts
from ui.web.draft import Draft
from ui.web.forms import Table
from ui.web.shell import plain, problems, shelf

ID = "draft"
"""Key of the URL: a draft to go on with.

Neither it nor a key of a kind is bound to a widget of another page: such a key leaves the URL with
its page.
"""


@dataclass(frozen=True)
class Kind:
    """What a form is of.

    Attributes:
        name: before the keys of its session.
        keys: of the URL, that say what it is filled with.
        first: gives what it is filled with where nothing is asked for.
        wanted: gives what those keys ask for; raises FedpilotError.
        fits: tells whether a table that was kept is one of this form.
    """

    name: str
    keys: tuple[str, ...]
    first: Callable[[], Draft]
    wanted: Callable[[Mapping[str, str]], Draft]
    fits: Callable[[Table], bool]

    @property
    def form_key(self) -> str:
        """Key in the session of the form."""
        return f"{self.name}-form"

    @property
    def name_key(self) -> str:
        """Key in the session of the name of what is to be started."""
        return f"{self.name}-name"


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


def fill(kind: Kind, draft: Draft, asked: Mapping[str, str] | None = None, id: str = "") -> Form:
    """Fill the form anew."""
    before: Form | None = st.session_state.get(kind.form_key)
    st.session_state.pop(kind.name_key, None)
    if asked is None:  # by a button of the page: what the URL asks for is over
        st.query_params.clear()
    form = Form(draft, before.number + 1 if before else 1, asked or {}, id)
    form.seen = draft if asked is None else None  # it is kept even if nothing is changed any more
    st.session_state[kind.form_key] = form
    return form


def refill(kind: Kind, table: Table) -> None:
    """Draw what is being written anew, with other parts: its draft and its name stay."""
    form: Form = st.session_state[kind.form_key]
    form.draft, form.number = replace(form.draft, table=table), form.number + 1


def draft(kind: Kind) -> tuple[Draft, str]:
    """Return what the form is filled with, and the name of this filling."""
    form: Form | None = st.session_state.get(kind.form_key)
    query = st.query_params.to_dict()
    asked = {key: query[key] for key in (ID, *kind.keys) if key in query}
    if form is None or (asked and asked != form.asked):
        try:
            form = fill(kind, wanted(kind, asked), asked, asked.get(ID, ""))
        except FedpilotError as error:
            form = fill(kind, form.draft if form else kind.first(), asked)
            form.fault = str(error)
    elif form.id and not asked:  # back from another page
        name_it(form)
    if form.fault:
        st.error(plain(form.fault), icon=":material/error:")
    return form.draft, f"{kind.name}{form.number}"


def wanted(kind: Kind, asked: Mapping[str, str]) -> Draft:
    """Return what the URL asks for.

    Raises:
        ConfigError: if it is not there, or this form cannot show it.
    """
    if ID not in asked:
        return kind.wanted(asked) if asked else kind.first()
    draft = drafts.read(shelf().folder, asked[ID])
    if not kind.fits(draft.table):
        raise ConfigError("this draft is none of this form; the form is filled anew")
    return draft


def keep(kind: Kind, table: Table, name: str) -> None:
    """Keep what the form holds, if something was changed since it was drawn last."""
    form: Form = st.session_state[kind.form_key]
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


def start_anew(kind: Kind) -> None:
    """Fill the form with the first draft; what it held stays kept under its id."""
    fill(kind, kind.first()).seen = None
