"""Data studio: describe a federation, make up its data, look at it, and let the gate decide."""

import streamlit as st

from federation.errors import ConfigError, FedpilotError
from ui.web import made_sets, studio_forms, studio_sets
from ui.web.charts.mixes import mix_frame, mixes
from ui.web.made_sets import Order
from ui.web.shell import plain, problems, shelf
from ui.web.written import toml_text

ICON = ":material/auto_awesome:"
SETS, DESCRIBE = "Sets", "Describe"
"""What the page shows, as it stands in the URL."""
MADE = "studio-made"
"""Key of the session: the set that was begun just now."""
FEW = 8  # labels that are drawn beside the form


def order() -> Order:
    """Ask for what is not in a profile: the seed, who writes, private files."""
    seed = st.number_input("Seed", 0, 2**53 - 1, 0, key="studio-seed", help="of all that is drawn")
    model = st.text_input(
        "Language model", key="studio-model", placeholder="built-in templates",
        help="openai:MODEL@URL of a server, or scripted:FILE; empty: the built-in templates, which"
        " write English and need no model",
    )  # fmt: skip
    with st.expander("Private and test files"):
        private = st.text_area(
            "Private files, one a line", key="studio-private", height=80,
            help="no passage of them comes out, rows are compared with them, and they vote if"
            " votes are on",
        )  # fmt: skip
        test = st.text_area(
            "Test files, one a line", key="studio-test", height=80,
            help="no passage of them comes out; they never vote",
        )  # fmt: skip
    files = made_sets.files_typed
    return Order(int(seed), (model or "").strip(), files(private or ""), files(test or ""))


def describe() -> None:
    """Show the form of a profile, what it asks for, and the button that makes it."""
    table, id = studio_forms.draft()
    form, side = st.columns([3, 2], gap="large")
    with form:
        st.caption("Say what you want, not what somebody has: counts of real clients are private.")
        clients = studio_forms.clients(table, id)
        values = studio_forms.others(table, id)
        now = studio_forms.written(values, clients)
        studio_forms.add(now)
    with side:
        name = st.text_input("Name of the set", free_name(), key="studio-name", max_chars=64)
        wanted = order()
        error, asked = "", []
        try:
            asked = made_sets.asked_for(now, wanted)
        except ConfigError as wrong:
            error = str(wrong)
            st.error(plain(error), icon=":material/error:")
        pressed = st.button("Make it", type="primary", icon=ICON, disabled=bool(error), key="make")
        if pressed:
            make(name or "", now, wanted)
        if asked:
            total = sum(client["examples"] for client in asked)
            st.metric("Rows asked for", f"{total:,}")
            st.altair_chart(
                mixes(mix_frame(asked, FEW)[0], "label"),
                alt="What every client is to hold, as shares",
            )
        written(name or "set", now, wanted)


def written(name: str, table: dict[str, object], wanted: Order) -> None:
    """Show the profile as TOML, and the command that makes it."""
    tabs = st.tabs(["TOML", "Command line"])
    folder = shelf().folder / made_sets.DATA / name
    with tabs[0], problems():
        st.code(toml_text(table), language="toml")
    with tabs[1]:
        command = wanted.command(folder / made_sets.PROFILE, folder / made_sets.ROWS)
        st.code(command, language="bash", wrap_lines=True)


def make(name: str, table: dict[str, object], wanted: Order) -> None:
    """Start to make a set, and go and look at it."""
    try:
        made_sets.begin(shelf().folder, name, table, wanted)
    except FedpilotError as wrong:
        st.error(plain(str(wrong)), icon=":material/error:")
        return
    st.session_state[MADE] = name
    st.rerun()


def turn_to(view: str) -> None:
    """Show the other view."""
    st.session_state["studio-view"] = view


def free_name() -> str:
    """Return a name that no set has."""
    taken = set(made_sets.names(shelf().folder))
    return next(name for n in range(1, 10**6) if (name := f"set-{n}") not in taken)


def sets() -> None:
    """Show the sets there are, and one of them whole."""
    found = studio_sets.all_sets()
    if not found:
        with st.container(border=True, horizontal_alignment="center"):
            st.markdown("### No made-up data yet", text_alignment="center")
            st.markdown(
                "Describe who the clients are and what each is to hold; built-in templates or a"
                " language model write the rows, and a card says how good they are.",
                text_alignment="center",
            )
            st.button(
                "Describe a federation", type="primary", icon=ICON, on_click=turn_to,
                args=(DESCRIBE,),
            )  # fmt: skip
        return
    studio_sets.listed(found)
    names = [made.name for made in found]
    chosen = st.selectbox("Set", names, key="set", bind="query-params", width=320)
    studio_sets.shown(next(made for made in found if made.name == chosen))


if MADE in st.session_state:  # before the widgets that show it are drawn
    st.session_state["set"] = st.session_state.pop(MADE)
    turn_to(SETS)
left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("Data studio", icon=ICON)
with right.container(horizontal=True, horizontal_alignment="right"):
    first = None if "studio-view" in st.session_state else SETS
    view = st.segmented_control(
        "View", [SETS, DESCRIBE], default=first, required=True, key="studio-view",
        bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
if view == DESCRIBE:
    describe()
else:
    sets()
