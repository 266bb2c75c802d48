"""The part of a page on which a what-if is put together, and the what-ifs that a run had."""

import shlex
from collections.abc import Sequence
from typing import Any

import streamlit as st

from federation.changes import REPEATS, Change
from federation.errors import FedpilotError
from federation.runs.run import Run
from ui.commands.whatif import lines
from ui.web import jobs, pending, whatifs
from ui.web.charts.intervals import intervals
from ui.web.figures import seconds_text
from ui.web.language import VERDICTS
from ui.web.naming import Naming, pick_names
from ui.web.shell import about, acting, badge, damaged, plain, problems, run_box, shelf
from ui.web.store import Opened


def show(names: Sequence[str]) -> None:
    """Show the builder for one run, and what came of earlier ones.

    Args:
        names: of the runs there are.
    """
    with problems():
        with st.container(horizontal=True, vertical_alignment="bottom"):
            opened = shelf().open(run_box(names, 420))
            about(opened)
            naming = pick_names(opened.run)
        build(opened, naming)


def build(opened: Opened, naming: Naming) -> None:
    """Show both parts."""
    if opened.damage:
        damaged(opened)
    left, right = st.columns([2, 3])
    with left.container(border=True):
        st.markdown("**What would have been, if ...**")
        if why := whatifs.why_not(opened):
            st.caption(why)
        else:
            form(opened, naming)
    with right.container(border=True):
        earlier(opened.run, naming)


def form(opened: Opened, naming: Naming) -> None:
    """Put a what-if together: every limit is that of :class:`federation.changes.Change`."""
    run = opened.run
    rounds = whatifs.playable(run)
    two = st.columns(2)
    round = two[0].selectbox("From round", rounds, index=len(rounds) - 1, key="from") or rounds[-1]
    most = len(run.history.rounds) - round + 1
    played = two[1].number_input("Rounds played", 1, most, 1, key=f"played-{most}")
    asked = changes(run, round, naming)
    repeats = st.number_input(
        "Repeats", 1, REPEATS, 1, key="times",
        help="from the second on with other draws: then there is an interval",
    )  # fmt: skip
    busy = pending.follow(pending.newest(opened.name, "whatif"), naming.text)
    try:
        change, effort = whatifs.checked(run, round, int(played), int(repeats), **asked)
    except FedpilotError as error:
        st.caption(naming.text(plain(str(error).removeprefix("what-if: "))))
        st.button("Play it again", icon=":material/replay:", disabled=True, key="off")
        return
    args = whatifs.arguments(run.path.absolute(), round, change, effort)
    seconds = whatifs.training(run, round, change, effort)
    trains = f"trains for about {seconds_text(seconds)}" if seconds else "trains nothing"
    st.caption(f"It {trains}, and judges the models. The run itself stays as it is.")
    if st.button(
        "Play it again", icon=":material/replay:", type="primary", disabled=busy, key="on"
    ):
        title = f"a what-if of round {round}"
        acting(
            lambda: jobs.start(shelf().folder, title, args, opened.name),
            "it goes on beside the page",
            anew=True,
        )
    if not naming.hides:
        st.code(shlex.join(["fedpilot", *args]), language="bash", wrap_lines=True)


def changes(run: Run, round: int, naming: Naming) -> dict[str, Any]:
    """Ask what is otherwise."""
    clients = list(run.history.rounds[round - 1].clients)
    said: dict[str, Any] = {}
    said["drop"] = tuple(
        st.multiselect(
            "Without", clients, key="drop", format_func=naming.client, help=meaning("drop"),
            placeholder="all reported",
        )
    )  # fmt: skip
    weighed = st.multiselect(
        "Reweighted", clients, key="reweight", format_func=naming.client, help=meaning("reweight"),
        placeholder="as they were",
    )  # fmt: skip
    called = {client: naming.client(client) for client in weighed}
    said["reweight"] = {
        client: st.number_input(f"Factor on {plain(name)}", 1e-6, 1e6, 2.0, key=f"factor-{name}")
        for client, name in called.items()
    }
    said["algorithm"] = st.selectbox(
        "Combined by", whatifs.COMBINES, index=None, key="combine", accept_new_options=True,
        placeholder="as it was", help=meaning("algorithm"),
    )  # fmt: skip
    two = st.columns(2)
    for name, label, at in (("scale_lr", "Learning rate times", 0), ("clip", "Clip to norm", 1)):
        said[name] = two[at].number_input(
            label, min_value=0.0, value=None, key=name, placeholder="as it was",
            help=meaning(name), format="%g",
        )  # fmt: skip
    steps = st.number_input(
        "Local steps", 0, 100_000, None, key="steps", placeholder="as they were",
        help=meaning("steps"),
    )  # fmt: skip
    return said | {"steps": None if steps is None else int(steps)}


def meaning(name: str) -> str:
    """Return what a field of a change means, as it is declared."""
    return Change.model_fields[name].description or name


def earlier(run: Run, naming: Naming) -> None:
    """Show the what-ifs that a run had, the newest in words."""
    records = run.history.whatifs
    if not records:
        st.markdown("**Nothing was asked of this run yet**")
        st.caption(
            "A what-if plays rounds again beside the run, from the same state and with the same "
            "draws, once as they were and once with a change, and compares both models on "
            "everybody's test. Its answer is a record in the run's journal."
        )
        return
    newest = records[-1]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**The newest answer**")
        badge(VERDICTS[whatifs.verdict(newest.effect)])
    change = {k: whatifs.named(v, naming.client) for k, v in newest.change.items()}
    said = lines(newest.model_copy(update={"change": change}))
    st.markdown(plain(f"What if {said['what if']}: {whatifs.said(newest.effect)}."))
    for name in ("test loss", "updates", "caution"):
        if name in said:
            st.caption(f"{name}: {plain(said[name])}")
    st.markdown(f"**All {len(records)} of this run**" if len(records) > 1 else "**As a picture**")
    rows = whatifs.rows(run, naming.client)
    st.altair_chart(
        intervals(rows, "change of the test loss, nats per token (left of 0: it would be better)"),
        alt="Effects of all what-ifs of this run with their intervals",
    )
    if any(row.low is None for row in rows):
        st.caption(
            "A mark without a line was played once: nothing says how much of it is chance. Repeats "
            "give an interval of 95 %."
        )
