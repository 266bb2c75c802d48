"""The form of a profile: who is to be made up, client by client, and how."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from federation.data.organisations.domain import NAMES, domain_named
from federation.data.organisations.organisation import labels_of
from federation.data.organisations.style import STYLES
from ui.web.forms import Table, got, table_of
from ui.web.made_sets import CLIENT, GLOBAL, example_profile
from ui.web.shell import plain
from ui.web.widgets import Filled, Values, grid

DRAFT, NUMBER = "studio-draft", "studio-number"
COMMON = ("domain", "size", "style", "labels")
TABLES = {
    "filters": "What is not let through",
    "writer": "How a language model is asked",
    "gate": "When the gate admits a set",
}
VOTES = "votes"
LABELS_SHOWN = 12


def fill(table: Table) -> None:
    """Fill the form anew."""
    st.session_state[DRAFT] = table
    st.session_state[NUMBER] = st.session_state.get(NUMBER, 0) + 1


def draft() -> tuple[Table, str]:
    """Return what the form is filled with, and the name of this filling."""
    if DRAFT not in st.session_state:
        fill(example_profile())
    return st.session_state[DRAFT], f"studio{st.session_state[NUMBER]}"


def clients(table: Mapping[str, Any], id: str) -> dict[str, Table]:
    """Draw a client after the other; return their tables by name."""
    found: dict[str, Table] = {}
    removed = None
    for place, (name, client) in enumerate(table["clients"].items()):
        filled = Filled(client, f"{id}.client{place}", {"domain": NAMES, "style": styles()})
        with st.expander(f"**{plain(name)}**", expanded=place == 0, icon=":material/apartment:"):
            typed = st.text_input("Name", name, key=f"{id}.name{place}", persist_state="session")
            values: Values = grid([c for c in CLIENT if c.key in COMMON], filled)
            known_labels(str(values["domain"]))
            with st.popover("More about this client"):
                values |= grid([c for c in CLIENT if c.key not in COMMON], filled, 1)
            if len(table["clients"]) > 1 and st.button(
                "Remove this client", icon=":material/delete:", key=f"{id}.remove{place}"
            ):
                removed = name
        found[unused(typed or name, found)] = table_of(CLIENT, values, ("domain", "size"))
    if removed is not None:
        found.pop(removed, None)
        fill({**table, "clients": found})
        st.rerun()
    return found


def unused(name: str, taken: Mapping[str, object]) -> str:
    """Return a name that no other client has."""
    while name in taken:
        name += " (2)"
    return name


def styles() -> list[str]:
    """Return the styles that templates know."""
    return [style.name for style in STYLES]


def known_labels(domain: str) -> None:
    """Say which labels the templates of a domain know."""
    if domain not in NAMES:
        st.caption("Templates do not know this domain: a language model has to write it.")
        return
    labels = [label for _, label in labels_of(domain_named(domain))]
    rest = f" and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else ""
    st.caption(f"Labels of its templates: {plain(', '.join(labels[:LABELS_SHOWN]))}{rest}.")


def add(table: Table) -> None:
    """Offer another client."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        domain = st.selectbox("Another client", NAMES, key="studio-add", width=200)
        if st.button("Add", icon=":material/add:"):
            name = unused(f"{domain}-{len(table['clients']) + 1}", table["clients"])
            client = {"domain": domain, "size": 60}
            fill({**table, "clients": {**table["clients"], name: client}})
            st.rerun()


def others(table: Mapping[str, Any], id: str) -> Values:
    """Draw what is asked of all clients together."""
    filled = Filled(table, id, {})
    values = grid([c for c in GLOBAL if c.key == "language"], filled)
    for name, title in TABLES.items():
        with st.expander(title):
            values |= grid([c for c in GLOBAL if c.table == name], filled, 3)
    with st.expander("Votes of clients that hold private text"):
        st.caption(
            "Clients vote for the made-up rows that are most like theirs; noise is added to the"
            " votes, and epsilon bounds what they give away of any one client."
        )
        on = st.toggle("Let them vote", bool(got(table, VOTES)), key=f"{id}-votes")
        if on:
            values |= grid([c for c in GLOBAL if c.table == VOTES], filled, 3)
    with st.expander("Labels in words, for a language model"):
        values |= grid([c for c in GLOBAL if c.key == "meanings"], filled)
    return values


def written(values: Values, clients: Mapping[str, Table]) -> Table:
    """Return the table of a profile."""
    form = [c for c in GLOBAL if c.table != VOTES or f"{VOTES}.epsilon" in values]
    return {**table_of(form, values, ("votes.epsilon",)), "clients": dict(clients)}
