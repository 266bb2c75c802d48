"""Jobs about a run or a study that a page waits for: that they go on, and how they failed."""

import time
from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from ui.web.jobs import Job, jobs
from ui.web.shell import page, plain, shelf

EVERY = 1.0  # seconds between looks
REMEMBERED = 3600.0  # seconds for which a failure is shown


def newest(about: str, command: str, flag: str = "") -> Job | None:
    """Return the newest job of a command about a run or a study.

    Args:
        about: name of the run or study.
        command: of fedpilot.
        flag: that it has to have been given.
    """
    of_it = jobs(shelf().folder, about)
    found = (job for job in of_it if job.args[:1] == (command,) and (not flag or flag in job.args))
    return next(found, None)


def follow(job: Job | None, text: Callable[[str], str] = str) -> bool:
    """Show a job while it goes on, and say why it failed.

    Args:
        job: none: nothing is shown.
        text: what is done to what it says: names may have to be replaced.

    Returns:
        Whether it goes on.
    """
    if job is None:
        return False
    if job.alive:
        await_end(job, text)
        return True
    if job.code != 0 and time.time() - job.began < REMEMBERED:
        said = text(job.said) or "its process ended and said nothing"
        st.error(f"{plain(text(job.title))}: {plain(said)}", icon=":material/error:")
    return False


@st.fragment(run_every=EVERY)
def await_end(job: Job, text: Callable[[str], str]) -> None:
    """Show what a job says, and draw the page anew when it ends."""
    if not job.alive:
        st.rerun()
    said = text(job.said)[:120]
    st.status(f"{plain(text(job.title))} · {plain(said) or 'starting'}", type="compact")


@st.fragment(run_every=EVERY)
def until_there(job: Job, names: Callable[[], Sequence[str]], back: Mapping[str, str]) -> None:
    """Say that a run or study is being started, until it is there or its process has said why not.

    Args:
        job: what makes it.
        names: says which there are.
        back: page -> its label, for who has to start it otherwise.
    """
    if job.about in names():
        st.rerun()
    if job.alive:
        words = f"{plain(job.about)} is starting: {plain(job.step or 'loading')}"
        st.status(words, type="compact")
        return
    st.error(plain(job.said or "the process ended and said nothing"), title="It did not start")
    for name, label in back.items():
        st.page_link(page(name), label=label, icon=":material/arrow_back:")
