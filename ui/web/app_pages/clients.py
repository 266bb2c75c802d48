"""Clients: how their updates relate, what each gives, who takes part, who is served how well."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from federation.errors import FedpilotError
from federation.kindred import spoilers
from federation.runs.records import ContributionsRecord
from ui.commands.whatif import UNLIKE
from ui.web import behaviour, jobs, participation, pending, whatifs
from ui.web.behaviour import Kept, Sketched
from ui.web.charts import clients as charts
from ui.web.charts.intervals import intervals
from ui.web.figures import judged_rows, own_subject_of
from ui.web.language import SUBJECTS
from ui.web.naming import pick_names
from ui.web.shell import acting, pick_run, plain, problems, shelf

MOST_ROWS = 300  # clients in the table, the busiest
MOST_SHOWN = 8  # clients with a colour of their own
JUDGED = {"own": "others' rows like its own", "all": "all test rows"}

opened = pick_run("Clients", ":material/groups:")
run = opened.run
if not run.history.rounds:
    st.info("No round is finished yet, so nothing is known of clients.", icon=":material/groups:")
    st.stop()

parts = participation.parts(run)
with st.container(horizontal=True, vertical_alignment="bottom"):
    naming = pick_names(run)
    names = {part.client: naming.client(part.client) for part in parts}
    busiest = [part.client for part in parts]
    picked = st.multiselect(
        "Picked out", busiest, key="pick", bind="query-params", max_selections=MOST_SHOWN,
        format_func=lambda c: names[c], width=620, filter_mode="contains",
        placeholder="those that point away from the mean the most",
        help="clients with a colour of their own in the pictures; others are grey",
    ) if len(busiest) > MOST_SHOWN and not naming.hides else []  # fmt: skip


@st.cache_data(max_entries=500, show_spinner=False)
def sketched(file: str, sha256: str, clients: int) -> Sketched | None:
    """Sketch the updates of a round, once."""
    return behaviour.sketch(Path(file), sha256, clients)


def sketches(rounds: Sequence[Kept]) -> dict[int, Sketched]:
    """Sketch the updates of rounds; those that are packed or damaged are left out, and named."""
    found: dict[int, Sketched] = {}
    wrong: list[str] = []
    for at in rounds:
        try:
            own = sketched(str(at.file), at.sha256, len(at.clients))
        except FedpilotError as error:
            wrong.append(str(error))
            continue
        if own is not None:
            found[at.round] = own
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        st.warning(f"Left out: {plain(wrong[0])}{more}", icon=":material/broken_image:")
    return found


def numbers() -> None:
    """Show the figures of participation and fairness."""
    reported = [part.reported for part in parts]
    fair, tested = participation.fairness(run), judged_rows(run, participation.CLIENTS)
    with st.container(horizontal=True):
        st.metric(
            "Clients", f"{len(parts):,}", border=True, delta="asked or judged",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
        st.metric(
            "Took part", f"{min(reported)} to {max(reported)}", border=True,
            delta=f"of {len(run.history.rounds)} rounds", delta_color="off", delta_arrow="off",
        )  # fmt: skip
        st.metric(
            "Gini of participation", f"{participation.inequality(reported):.2f}", border=True,
            help="0: all took part equally often; towards 1: a few did all of it",
            delta="0 is even", delta_color="off", delta_arrow="off",
        )  # fmt: skip
        if fair is not None:
            st.metric(
                "Loss on own tests", f"{fair.mean:.3f}", border=True,
                delta=f"± {fair.spread:.3f} over clients", delta_color="off", delta_arrow="off",
                help=f"nats per token, mean over clients, after round {fair.after}; {tested} of all"
                " clients together",
            )  # fmt: skip
            st.metric(
                "Worst tenth", f"{fair.worst:.3f}", border=True,
                delta=f"{fair.worst - fair.mean:+.3f} against the mean", delta_color="inverse",
                help="loss on own tests, mean over the tenth of clients served worst",
            )  # fmt: skip


def pictures() -> None:
    """Show the plane and the cosines, or the lengths of updates where none were kept."""
    rounds, more = behaviour.kept(run)
    with st.spinner("Reading updates", show_time=True):
        there = sketches(rounds)
    if not there:
        without_updates()
        return
    rounds = [at for at in rounds if at.round in there]
    cosines: dict[str, list[float]] = {}
    for at in rounds:
        for client, cosine in zip(at.clients, there[at.round].cosine_C, strict=True):
            if cosine == cosine:
                cosines.setdefault(client, []).append(float(cosine))
    shown = [names.get(c, c) for c in picked or behaviour.furthest(cosines, MOST_SHOWN)]
    left, right = st.columns([3, 2])
    with left.container(border=True, height="stretch"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**Behaviour plane**", width="stretch")
            measure = st.segmented_control(
                "Updates", ["direction", "with length"], default="direction", key="updates",
                bind="query-params", label_visibility="collapsed", required=True,
            )  # fmt: skip
        points, shares = behaviour.points(rounds, there, direction=measure != "with length")
        frame = charts.plane_frame(points, names, shown)
        st.altair_chart(
            charts.plane(frame, shares, shown),
            alt="Where each client's updates lie, round after round, on two principal components",
        )
        st.caption(
            f"A mark an update, larger in later rounds; who lies near sends alike. {len(rounds)} "
            f"of {len(run.history.rounds)} rounds have their updates"
            + (f"; {more} older ones are not read" if more else "")
            + f". From sketches of {behaviour.SKETCH} numbers: distances are right to about 6 %."
        )
    with right.container(border=True, height="stretch"):
        st.markdown("**Who points along with the others**")
        st.altair_chart(
            charts.cosines(frame, shown), alt="Cosine of every client's update to the round's mean"
        )
        st.caption("1: exactly the mean's direction. 0: at a right angle. Below 0: against it.")


def without_updates() -> None:
    """Show what is known without the updates, and say how to have them."""
    with st.container(border=True):
        st.markdown("**Length of updates**")
        rows = [(r, names[c], norm) for r, c, norm in participation.lengths(run)]
        if rows:
            shown = [names[part.client] for part in parts[:MOST_SHOWN]]
            st.altair_chart(
                charts.lengths(rows, shown), alt="L2 norm of every client's update by round"
            )
            if rows[0][0] > 1:
                st.caption(f"Rounds {rows[0][0]:,} to {rows[-1][0]:,}; older ones are not drawn.")
        st.info(
            "This run did not keep what its clients reported, or it was packed on the way, so "
            "there is no behaviour plane and no cosine. In a new run set `engine.keep_updates` to "
            "the number of rounds to keep.",
            icon=":material/info:",
        )


def contributions() -> None:
    """Show what every client of a round contributed, and offer to find it out."""
    st.subheader("What each client gave", divider="gray")
    known = {record.round + 1: record for record in run.history.contributions}
    why = whatifs.why_not(opened)
    left, right = st.columns([3, 2])
    with right.container(border=True, height="stretch"):
        st.markdown("**Leave each client of a round out in turn**")
        if why:
            st.caption(why)
        busy = pending.follow(pending.newest(opened.name, "whatif"), naming.text)
        rounds = whatifs.playable(run) or [1]
        two = st.columns(2)
        round = two[0].selectbox(
            "Round", rounds, index=len(rounds) - 1, key="round", disabled=bool(why)
        )
        repeats = two[1].number_input(
            "Repeats", 1, 20, 1, key="repeats", disabled=bool(why),
            help="from the second on the clients train again with other draws: then there are "
            "intervals",
        )  # fmt: skip
        st.caption(cost(int(round or 1), int(repeats)))
        if st.button(
            "Find out", icon=":material/person_remove:", type="primary", disabled=busy or bool(why)
        ):
            said = "it goes on beside the page"
            acting(lambda: ask(int(round or 1), int(repeats)), said, anew=True)
    with left.container(border=True, height="stretch"):
        if not known:
            st.markdown("**No round was asked about yet**")
            st.caption(
                "A contribution is by how much the test loss rises if the client's report is left "
                "out of the round's combine: on all rows, and on others' rows like its own."
            )
            return
        about = st.pills(
            "Round", sorted(known), default=max(known), key="gave", bind="query-params",
            required=True,
        )  # fmt: skip
        record = known[about or max(known)]
        own = bool(record.own) and st.segmented_control(
            "Judged on", list(JUDGED), default="own", format_func=JUDGED.__getitem__,
            key="judged", required=True,
            help="An honest client whose rows are plenty elsewhere looks harmful on all rows. On "
            "others' rows like its own, as loud as all others together, one whose answers are "
            "wrong does harm and an honest one does not.",
        ) == "own"  # fmt: skip
        st.altair_chart(
            intervals(
                whatifs.contributions(record, naming.client, own),
                "test loss without it, difference, nats per token (right of 0: it helped)",
            ),
            alt="By how much the test loss changes without each client",
        )
        if own:
            judged_so(record)
            return
        repeats = len(record.was)
        if repeats == 1:
            st.warning(
                "Played once: nothing says how much of it is chance. Repeats give intervals.",
                icon=":material/casino:",
            )
        else:
            st.caption(f"{repeats} repeats; lines are 95 % intervals, small dots single repeats.")
        if not record.reproduced:
            st.caption(f"Caution: {UNLIKE}.")


def judged_so(record: ContributionsRecord) -> None:
    """Say who stands out on rows like its own, and of whom nothing can be said."""
    if bad := spoilers(record):
        called = ", ".join(map(naming.client, bad))
        st.warning(
            f"Spoils rows like its own, far beyond the others: {called}.",
            icon=":material/person_alert:",
        )
    else:
        st.caption("Nobody spoils rows like its own beyond the others; 95 % intervals over rows.")
    if alone := [naming.client(name) for name in record.effects if name not in record.own]:
        st.caption(f"Nobody else holds rows like those of {', '.join(alone)}.")


def cost(round: int, repeats: int) -> str:
    """Say what finding it out takes."""
    seconds = run.history.rounds[round - 1].seconds * (repeats - 1)
    again = f", {repeats - 1} times trained again (about {seconds:.0f} s)" if repeats > 1 else ""
    clients = len(run.history.rounds[round - 1].clients)
    return f"{2 * clients} models to judge{again}; the run itself stays as it is."


def ask(round: int, repeats: int) -> None:
    """Start the job."""
    whatifs.effort_of(repeats=repeats)
    args = whatifs.contribution_arguments(run.path.absolute(), round, repeats)
    jobs.start(shelf().folder, f"contributions of round {round}", args, opened.name)


def table() -> None:
    """Show every client's part, and how well each is served, to whoever opens it."""
    name = "Who takes part, and who is served how well"
    with st.expander(name, key="parts", bind="query-params", icon=":material/groups:") as part:
        if part.open:
            took_part()
            served()


def took_part() -> None:
    """Show every client's part."""
    rounds = len(run.history.rounds)
    rows = [
        (names[p.client], p.reported, round(p.reported / rounds, 2), p.asked - p.reported, p.last,
         p.training, p.served, p.alone)
        for p in parts
    ]  # fmt: skip
    columns = ["client", "reported", "share", "missed", "last", "training", "served", "alone"]
    st.dataframe(
        pd.DataFrame(rows[:MOST_ROWS], columns=columns), hide_index=True,
        alt="Participation and loss a client", placeholder="–",
        column_config={
            "client": st.column_config.TextColumn("Client", pinned=True),
            "reported": st.column_config.NumberColumn("Rounds", help="in which it reported"),
            "share": st.column_config.ProgressColumn(
                "Share", format="percent", min_value=0, max_value=1, help="of all rounds"
            ),
            "missed": st.column_config.NumberColumn("Missed", help="asked, but did not report"),
            "last": st.column_config.NumberColumn("Last asked", help="round"),
            "training": st.column_config.NumberColumn("Training", format="%.3f", help="last loss"),
            "served": st.column_config.NumberColumn("Own test", format="%.3f", help="this model"),
            "alone": st.column_config.NumberColumn("Alone", format="%.3f", help="its own model"),
        },
    )  # fmt: skip
    less = f" The {MOST_ROWS} of {len(rows):,} that took part most." if rows[MOST_ROWS:] else ""
    st.caption(f"Losses in nats per token; lower is better.{less}")


def served() -> None:
    """Show how well every client is served."""
    with st.container(border=True):
        st.markdown("**Loss on each client's own test**")
        frame = charts.served_frame(parts, names, own_subject_of(run))
        if not len(frame):
            st.caption("Not judged yet.")
            return
        st.altair_chart(charts.served(frame), alt="Loss on each client's own test, by model")
        worse = participation.better_alone(parts)
        if any(p.alone is not None for p in parts):
            tested = judged_rows(run, participation.CLIENTS)
            st.caption(
                f"{len(worse)} of {len(parts)} clients would be served better by a model of "
                f"their own, judged on {tested} of all their tests together."
            )
        else:
            st.caption(f"{SUBJECTS['local'].word.capitalize()}: not measured in this run.")


def card() -> None:
    """Show who holds what, or offer to count it."""
    st.subheader("Data card", divider="gray")
    if naming.hides:
        st.caption("Not shown under pseudonyms: what a client holds tells who it is.")
        return
    job = pending.newest(opened.name, "data")
    busy = pending.follow(job)
    found = job.printed if job is not None else None
    if found is None:
        st.caption("How many rows of which label every client holds: counted from the run's data.")
        if st.button("Count rows", icon=":material/grid_on:", disabled=busy, key="count"):
            args = ["data", str(run.path.absolute()), "--json"]
            acting(
                lambda: jobs.start(shelf().folder, "counting rows", args, opened.name),
                "counting", anew=True,
            )  # fmt: skip
        return
    draw_card(found)


def draw_card(found: Mapping[str, object]) -> None:
    """Show a report of ``fedpilot data``."""
    clients = found.get("clients")
    if not isinstance(clients, list):
        st.caption("The report is of another version.")
        return
    held = [(c["client"], int(c["examples"]), c["labels"]) for c in clients]
    kind = str(found.get("kind", "label"))
    frame, more = charts.holdings_frame(held)
    left, right = st.columns([1, 2])
    rows = [(c["client"], c["examples"], c["tokens"], c["effective_labels"], c["divergence_bits"])
            for c in clients]  # fmt: skip
    left.dataframe(
        pd.DataFrame(rows, columns=["client", "rows", "tokens", "labels", "apart"]),
        hide_index=True, alt="Rows and tokens of every client", placeholder="–",
        column_config={
            "client": st.column_config.TextColumn("Client"),
            "rows": st.column_config.NumberColumn("Rows", format="localized"),
            "tokens": st.column_config.NumberColumn("Tokens", format="localized"),
            "labels": st.column_config.NumberColumn("Labels", format="%.1f", help="effective"),
            "apart": st.column_config.NumberColumn(
                "Apart", format="%.2f", help="Jensen-Shannon divergence to everybody's mix, bits"
            ),
        },
    )  # fmt: skip
    with right.container(border=True):
        st.markdown("**Who holds what**")
        st.altair_chart(
            charts.holdings(frame, kind), alt=f"Share of every {kind} in a client's rows"
        )
        st.caption(
            f"sizes: Gini {found.get('size_gini', 0):.2f}; mean divergence "
            f"{found.get('mean_divergence_bits', 0):.2f} bits"
            + (f"; {more} rarer {kind}s are not drawn" if more else "")
        )


numbers()
with problems():
    pictures()
contributions()
table()
card()
