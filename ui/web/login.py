"""Who may come in: everybody who reaches loopback, or whoever an identity provider vouches for.

A login (OpenID Connect) is asked for where ``secrets.toml`` has a table ``[auth]``; docs/sharing.md
says how.  What cannot be read lets nobody in.
"""

from pathlib import Path
from urllib.parse import urlparse

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.errors import StreamlitAuthError

AUTH = "auth"


def public_hosts() -> list[str]:
    """Return the host to which a login leads back; none where no login is configured."""
    if not st.secrets.load_if_toml_exists():
        return []
    host = urlparse(str(st.secrets.get(AUTH, {}).get("redirect_uri", ""))).hostname
    return [host] if host else []


def unreadable() -> str:
    """Name the file of secrets that is there and cannot be read; empty if there is none."""
    if st.secrets.load_if_toml_exists():
        return ""
    there = (Path(file) for file in st.get_option("secrets.files"))
    return next((str(path) for path in there if path.exists()), "")


def require() -> None:
    """Ask for a login where one is configured, and show nothing else until there is one."""
    if unreadable():
        with card("Nobody can log in"):
            st.error("secrets.toml cannot be read; mend it and start the interface again.")
        st.stop()
    user = st.user.to_dict()
    if "is_logged_in" not in user:
        return
    if not user["is_logged_in"]:
        with card("Log in to fedpilot"):
            st.markdown(
                "Whoever looks at runs here is asked for who they are; what you answer where a run "
                "waits for a person is recorded under your name.",
                text_alignment="center",
            )
            if st.button("Log in", type="primary", icon=":material/login:"):
                go()
        st.stop()
    with st.sidebar:
        who = str(user.get("email") or user.get("name") or "")
        st.button("Log out", icon=":material/logout:", on_click=st.logout, help=who)


def card(title: str) -> DeltaGenerator:
    """Return a card with a title in the middle of the page."""
    middle = st.columns([1, 2, 1])[1]
    inside = middle.container(border=True, horizontal_alignment="center", gap="medium")
    inside.subheader(title, anchor=False, text_alignment="center")
    return inside


def go() -> None:
    """Go to the provider, or say in a line why that is impossible."""
    try:
        st.login()
    except StreamlitAuthError as error:
        st.error(str(error).strip().splitlines()[0], icon=":material/error:")
