"""What pages share: the shelf of runs, which run a page is about, its heading, and how errors look.

Which run is meant stands in the URL (``?run=NAME``), so that every page can be sent to somebody.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import streamlit as st

from federation.errors import FedpilotError
from ui.web.jobs import Job
from ui.web.language import SOURCES, Look
from ui.web.naming import NAMES, Naming, shared
from ui.web.server import RUNS
from ui.web.store import Opened, Shelf
from ui.web.written import sendable

PAGES = Path(__file__).parent / "app_pages"
JOINER = "\u2060"
RUN = "run"
"""Key of the run in the URL and in the session."""
SHOWN = "run-shown"
"""Key in the session of the run that a page was about last: the next page is about it too."""
CALLED = "called"
"""Key in the session of what the clients of that run are called, on a shared server."""
JOB = "job"
"""Key in the URL of a job whose run is to be shown as soon as it is there."""
SAID = "said"
"""Key of the session: what is still to be said of an action."""
OF = "of"
"""Key in the URL of what a new study is filled from: a study, a run, or several with commas."""

BY_STATE: dict[str | type[Any], Callable[[Any], Any]] = {Opened: lambda opened: opened.state}
"""For caches: a run is the same as long as nothing is appended to its journal."""
KEPT = 16  # states, of whatever runs, of which a cache keeps what was drawn


@st.cache_resource(show_spinner=False)
def _shelf(folder: str) -> Shelf:
    return Shelf(Path(folder))


def shelf() -> Shelf:
    """Return the runs of this server, one copy for all tabs."""
    return _shelf(os.environ.get(RUNS) or "runs")


def page(name: str) -> str:
    """Return the script of a page, for links and switches."""
    return str(PAGES / f"{name}.py")


def status_of(opened: Opened) -> str:
    """Return a run's status as people see it: one that runs may be paused, or wait for them."""
    if opened.status == "running":
        if opened.run.asking is not None:
            return "waiting"
        if opened.run.paused:
            return "paused"
    return opened.status


def badge(look: Look, help: str | None = None) -> None:
    """Show a status or a source."""
    st.badge(look.word, icon=look.icon, color=look.badge, help=help)


def source_badge(source: str) -> str:
    """Write a source as an inline badge."""
    look = SOURCES[source]
    return f":{look.badge}-badge[{look.icon} {look.word}]"


@st.cache_resource(max_entries=KEPT, show_spinner=False, hash_funcs=BY_STATE)
def _pseudonyms(opened: tuple[Opened, ...]) -> Naming:
    return Naming.hidden(one.run for one in opened)


def about(*opened: Opened) -> None:
    """Say which runs a page is about: on a shared server, texts do not name their clients."""
    if shared():
        st.session_state[CALLED] = _pseudonyms(opened)


def called() -> Naming:
    """Return what the clients of the run that a page is about are called."""
    return st.session_state.get(CALLED, NAMES) if shared() else NAMES


def plain(text: str) -> str:
    """Let a text from data stand for itself in Markdown: no link, no image, no formula, no icon.

    On a shared server it names no client of the run that the page is about.
    """
    text = called().text(sendable(text))
    # Addresses are made into links after escapes are undone; a joiner of no width keeps them apart.
    for sign in ("://", "www.", "@"):
        text = text.replace(sign, f"{sign[0]}{JOINER}{sign[1:]}")
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:&" else c for c in text)


def pick_run(title: str, icon: str) -> Opened:
    """Show a page's heading and which run it is about; end the page where there is none.

    Args:
        title: of the page.
        icon: of the page.

    Returns:
        The run.
    """
    names = shelf().names()
    if not names:
        st.title(title, icon=icon)
        nothing_yet()
        st.stop()
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title(title, icon=icon)
    with right:
        name = run_box(names)
    with problems():
        opened = shelf().open(name)
        about(opened)
        if opened.damage:
            damaged(opened)
        return opened
    st.stop()


def run_box(names: Sequence[str], width: Literal["stretch"] | int = "stretch") -> str:
    """Let one of the runs be chosen, and say in the URL which: the newest is soon another one.

    A page without a run in its URL is about the run that another page was about before.

    Args:
        names: of the runs, the newest first.
        width: of the box, pixels.
    """
    wanted, shown = st.query_params.get(RUN), st.session_state.get(SHOWN)
    if wanted and wanted not in names:
        st.warning(f"There is no run {plain(wanted)} here any more; this is another one.")
    name = next((x for x in (wanted, shown) if x in names), names[0]) or names[0]
    st.session_state[RUN] = st.session_state[SHOWN] = name
    if wanted is None:
        st.query_params[RUN] = name

    def follow() -> None:
        st.query_params[RUN] = st.session_state[RUN]

    st.selectbox("Run", names, key=RUN, filter_mode="contains", on_change=follow, width=width)
    return name


def damaged(opened: Opened) -> None:
    """Say that a run is damaged: what is readable is shown, nothing can be done with it."""
    st.error(
        f"{plain(opened.damage)}\n\nWhat stands before the damage is shown below, read-only.",
        title="This run is damaged",
        icon=":material/broken_image:",
    )


def nothing_yet() -> None:
    """Say that there are no runs, and offer the demo."""
    with st.container(border=True, horizontal_alignment="center", gap="medium"):
        st.markdown("### No runs yet", text_alignment="center")
        st.markdown(
            "The demo trains a federation of five invented organisations on a small built-in "
            "model, offline, in about two minutes on two processor cores.",
            text_alignment="center",
        )
        with st.container(
            horizontal=True, horizontal_alignment="center", vertical_alignment="center"
        ):
            demo_button()
            st.page_link(page("new"), label="Set up your own", icon=":material/add_circle:")


def demo_button() -> None:
    """Offer the demo with one button; start it, then go and watch."""
    from ui.web.actions import free_name, start_demo

    runs = shelf().folder
    # Chosen when the button is drawn: a second click, or another tab's, means the same run.
    name = st.session_state.setdefault("demo_name", free_name(runs, "demo"))
    if st.button("Start the demo", type="primary", icon=":material/rocket_launch:"):
        del st.session_state["demo_name"]
        with problems():
            watch(start_demo(runs, name))


def watch(job: Job) -> None:
    """Go to the live page of a run that a job makes, or goes on with."""
    st.switch_page(page("live"), query_params={JOB: job.id})


@contextmanager
def problems() -> Iterator[None]:
    """Show an error of the user's in a line; faults of ours are shown by the app."""
    try:
        yield
    except FedpilotError as error:
        st.error(plain(str(error)), icon=":material/error:")


class Said(NamedTuple):
    """What is said of an action, for a moment."""

    words: str
    icon: str
    duration: Literal["short", "long"] = "short"

    def show(self) -> None:
        """Show it."""
        st.toast(self.words, icon=self.icon, duration=self.duration)


def acting(what: Callable[[], object], done: str, anew: bool = False) -> None:
    """Do something that a button asks for; say that it is done, or why not.

    Args:
        what: is done.
        done: what is said then.
        anew: draw the page anew; what is said at once would be swept away with the old one.
    """
    try:
        what()
    except FedpilotError as error:
        said = Said(plain(str(error)), ":material/error:", "long")
    else:
        said = Said(done, ":material/check:")
    if not anew:
        said.show()
        return
    st.session_state[SAID] = said
    st.rerun()


def say_what_was_done() -> None:
    """Say what the drawing before this one left to be said."""
    if said := st.session_state.pop(SAID, None):
        said.show()
