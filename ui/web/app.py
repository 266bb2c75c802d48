"""The interface's entry: which pages there are, and what stands around them."""

import streamlit as st

from ui.web import login
from ui.web.server import HERE
from ui.web.shell import page, say_what_was_done

st.set_page_config(page_title="fedpilot", page_icon=str(HERE / "logo.svg"), layout="wide")
st.logo(str(HERE / "wordmark.svg"), icon_image=str(HERE / "logo.svg"), size="large")
login.require()

pages = {
    "Runs": [
        st.Page(page("runs"), title="Runs", icon=":material/table_rows:", default=True),
        st.Page(page("new"), title="New experiment", icon=":material/add_circle:"),
    ],
    "One run": [
        st.Page(page("live"), title="Live", icon=":material/monitoring:"),
        st.Page(page("decisions"), title="Decisions", icon=":material/rule_settings:"),
        st.Page(page("clients"), title="Clients", icon=":material/groups:"),
        st.Page(page("playground"), title="Playground", icon=":material/forum:"),
    ],
    "Ask": [
        st.Page(page("compare"), title="Compare and what-if", icon=":material/compare:"),
        st.Page(page("studies"), title="Studies", icon=":material/experiment:"),
        st.Page(
            page("new_study"), title="New study", icon=":material/experiment:", visibility="hidden"
        ),
        st.Page(page("studio"), title="Data studio", icon=":material/auto_awesome:"),
    ],
}
chosen = st.navigation(pages, position="sidebar", expanded=True)
say_what_was_done()
chosen.run()
