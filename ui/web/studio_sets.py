"""A made-up set on the page: how it stands, its card, its rows side by side, the gate, its use."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from federation.errors import FedpilotError
from ui.web import made_sets
from ui.web.card_figures import (
    GROUPS,
    NOT_MEASURED,
    VERDICTS,
    Figure,
    figures,
    kept,
    refusals,
)
from ui.web.charts.gate import gate_chart
from ui.web.charts.mixes import mix_frame, mixes
from ui.web.draft import draft_of_run
from ui.web.forms import table_of
from ui.web.language import METRICS
from ui.web.made_sets import GLOBAL, MadeSet
from ui.web.shell import page, plain, problems, shelf
from ui.web.widgets import Filled, grid

LOOKS = {
    "making": (":material/hourglass_top:", "blue", "being made"),
    "judging": (":material/balance:", "blue", "before the gate"),
    "made": (":material/inventory_2:", "gray", "made, not judged"),
    "admitted": (":material/check_circle:", "green", "admitted"),
    "rejected": (":material/block:", "red", "rejected"),
    "failed": (":material/error:", "red", "failed"),
}
"""Status of a set -> icon, colour and word."""
DEMO = "the demo's experiment"
OWN = "others of your own"
SIDE = 2  # clients whose rows are shown beside each other


def listed(sets: list[MadeSet]) -> None:
    """List the sets there are."""
    rows = [
        {
            "set": made.name,
            "status": LOOKS[made.status][2],
            "rows": made.card.get("rows"),
            "clients": len(made.card.get("skew") or []) or None,
            "by": (made.card.get("source") or {}).get("kind"),
            "epsilon": (made.card.get("privacy") or {}).get("epsilon"),
            "gain": (made.card.get("gate") or {}).get("gain"),
        }
        for made in sets
    ]
    st.dataframe(
        rows, hide_index=True, alt="Made-up sets and how they stand", placeholder="–",
        column_config={
            "set": st.column_config.TextColumn("Set", pinned=True),
            "status": "Status",
            "rows": st.column_config.NumberColumn("Rows", format="%d"),
            "clients": st.column_config.NumberColumn("Clients", format="%d"),
            "by": "Written by",
            "epsilon": st.column_config.NumberColumn(
                "Epsilon", format="%.2f", help="what votes of private clients gave away; 0: none"
            ),
            "gain": st.column_config.NumberColumn(
                "Gain", format="%+.4f", help="by which the gate's figure is better with the set"
            ),
        },
    )  # fmt: skip


def shown(made: MadeSet) -> None:
    """Show a set."""
    icon, colour, word = LOOKS[made.status]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"### {plain(made.name)}", width="content")
        st.badge(word, icon=icon, color=colour)  # pyright: ignore[reportArgumentType]
    if made.status in ("making", "judging"):
        working(made.name)
    if made.said and made.status not in ("making", "judging"):
        st.error(plain(made.said), icon=":material/error:")
    if made.card:
        verdict(made)
        card(made.card)
        rows = made_sets.rows_of(made)
        if rows:
            side_by_side(made.name, rows)
    with st.expander("Its profile"):
        profile = made.folder / made_sets.PROFILE
        st.code(profile.read_text(encoding="utf-8"), language="toml")


@st.fragment(run_every=1.0)
def working(name: str) -> None:
    """Show what a job says, until it has ended."""
    with problems():
        now = made_sets.read(shelf().folder, name)
        if now.status not in ("making", "judging"):
            st.rerun()
        st.status(f"{LOOKS[now.status][2]}: {plain(now.said or 'starting')}", type="compact")


def verdict(made: MadeSet) -> None:
    """Show what the gate said, or offer to ask it; and how the set can be used."""
    gate = made.card.get("gate")
    with st.container(border=True):
        st.markdown("**Accept or reject: the gate**")
        if gate:
            spoken(gate)
            earlier(made)
        if made.status in ("admitted", "rejected"):
            with st.expander("Judge it again, by another run or otherwise"):
                ask_gate(made)
        elif made.status == "made":
            ask_gate(made)
        if made.rows is not None and made.status in ("made", "admitted"):
            if made.status == "made":
                st.caption("Not judged yet: nothing says that training on it helps.")
            train_on(made)


def earlier(made: MadeSet) -> None:
    """List what the gate said before, and what asking again is worth."""
    if not made.earlier:
        return
    said = [
        f"{'admitted' if gate['admitted'] else 'rejected'}"
        f" ({figure_of(gate['metric'])} {gain_text(gate)})"
        for gate in made.earlier
    ]
    st.caption(
        f"Judged {len(said) + 1} times; before: {plain('; '.join(said))}. Each interval holds by"
        " itself alone: whoever asks until a set is admitted has proved nothing."
    )


def figure_of(metric: str) -> str:
    """Return what people call the figure that a gate goes by."""
    return METRICS.get(metric, metric)


def gain_text(gate: Mapping[str, Any]) -> str:
    """Write a gain with its interval."""
    if gate["gain"] is None:
        return "a run diverged"
    return f"{gate['gain']:+.4f}, {gate['low']:+.4f} to {gate['high']:+.4f}"


def train_on(made: MadeSet) -> None:
    """Lead to a new experiment: on a run's data and the set, or on the set alone."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        real = st.selectbox(
            "Real data", [*shelf().names(), OWN], key=f"beside-{made.name}", width=240,
            help="those of a run, with its experiment, or others that you name in the form",
        )  # fmt: skip
        query = {"made-up": made.name, "how": "extra"} | (
            {"like": real} if real not in (None, OWN) else {}
        )
        st.page_link(
            page("new"), label="Train on it beside real data", icon=":material/add_circle:",
            query_params=query,
        )  # fmt: skip
        st.page_link(
            page("new"), label="Train on it alone", icon=":material/science:",
            query_params={"made-up": made.name, "how": "source"},
        )  # fmt: skip


def spoken(gate: Mapping[str, Any]) -> None:
    """Show what the gate said: paired runs, the interval of their differences, the verdict."""
    left, right = st.columns([2, 3], vertical_alignment="center")
    with left:
        if gate["gain"] is None:
            st.markdown("A run diverged: nothing can be compared, and the set is rejected.")
        else:
            st.metric(
                f"Gain in {figure_of(gate['metric'])}", f"{gate['gain']:+.4f}",
                None if gate["low"] is None else f"{gate['low']:+.4f} to {gate['high']:+.4f}",
                delta_color="off", delta_arrow="off",
                delta_description=f"{gate['confidence']:.0%} interval",
                help="mean by which runs that also train on the set are better, over paired seeds",
            )  # fmt: skip
        said = "admitted" if gate["admitted"] else "rejected"
        st.caption(f"{said}: a set is admitted if the whole interval lies above zero")
        if gate["gain"] is not None and gate["low"] is None:
            st.caption("One pair said enough: no further one could have had it admitted.")
    with right:
        st.altair_chart(gate_chart(gate), alt="Paired runs without and with the set, by seed")


def ask_gate(made: MadeSet) -> None:
    """Offer to judge a set by paired runs."""
    with problems():
        profile = made_sets.profile_table(made)
        form = [c for c in GLOBAL if c.table == "gate"]
        key = f"gate-{made.name}-{len(made.earlier)}"
        explained = st.container()
        wanted = table_of(form, grid(form, Filled(profile, key, {}), 4)).get("gate", {})
        spec = made_sets.gate_spec({**profile, "gate": wanted})
        explained.markdown(
            f"{spec.seeds} pairs of runs are played, each with and without the set; it is admitted"
            f" if the {spec.confidence:.0%} interval of the gain in {figure_of(spec.metric)} lies"
            " above zero."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            by = st.selectbox("Judged by", [DEMO, *shelf().names()], key=f"{key}-by")
            if st.button("Ask the gate", type="primary", icon=":material/balance:"):
                if by == DEMO:
                    table = made_sets.demo_gate(spec.metric)
                else:
                    run = shelf().open(by).run
                    table = made_sets.gate_of(draft_of_run(run).table, spec.metric)
                made_sets.judge(shelf().folder, made, table, wanted)
                st.rerun()


def card(found: Mapping[str, Any]) -> None:
    """Show the quality and leakage card: every figure, what it means and what is good."""
    st.markdown("**Quality and leakage card**")
    spent = found["privacy"]
    epsilon = "no guarantee" if spent["epsilon"] is None else f"{spent['epsilon']:.3f}"
    st.caption(
        f"written by {plain(found['source']['kind'])}, seed {found['seed']}; private text:"
        f" {plain(spent['private_text'])}; epsilon {epsilon}"
    )
    figures_table("Was the profile kept?", kept(found), "")
    for group, (title, _) in GROUPS.items():
        figures_table(title, figures(found, group), NOT_MEASURED[group])
    for line in refusals(found):
        st.caption(plain(line))
    clients = [
        {"client": x["client"], "labels": x["got"], "examples": max(1, sum(x["got"].values()))}
        for x in found["skew"]
    ]
    with st.expander("Who holds what"):
        frame, _ = mix_frame(clients)
        st.altair_chart(mixes(frame, "label"), alt="Clients by labels, as shares")


def figures_table(title: str, shown: list[Figure], nothing: str) -> None:
    """Show figures as a table with their meaning."""
    st.markdown(f"**{title}**")
    if not shown:
        st.caption(nothing)
        return
    lines = ["| | | Meaning | Good is |", "|---|---:|---|---|"]
    for figure in shown:
        icon, colour, word = VERDICTS[figure.verdict]
        value = figure.value.replace(" ", "\u00a0")  # on one line: its column is narrow
        texts = map(plain, (value, figure.meaning, figure.good))
        badge = f":{colour}-badge[{icon} {word}]"
        lines.append(f"| {badge} {plain(figure.name)} | {' | '.join(texts)} |")
    st.markdown("\n".join(lines))


def side_by_side(name: str, rows: list[dict[str, Any]]) -> None:
    """Show rows of clients beside each other, of one label or of all."""
    st.markdown("**Examples side by side**")
    clients = list(dict.fromkeys(str(row.get("client")) for row in rows))
    labels = list(dict.fromkeys(str(row.get("label")) for row in rows))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Clients", clients, clients[:SIDE], key=f"clients-{name}", max_selections=4
        )
        label = st.selectbox("Label", ["all", *labels], key=f"label-{name}", width=220)
        most = st.number_input("Rows of each", 1, 20, 3, key=f"most-{name}", width=140)
    if not chosen:
        st.caption("Choose a client.")
        return
    for column, client in zip(st.columns(len(chosen)), chosen, strict=True):
        mine = [r for r in rows if r.get("client") == client and label in ("all", r.get("label"))]
        with column:
            st.markdown(f"{plain(client)}: {len(mine):,} rows")
            for row in mine[: int(most)]:
                example(row)
            if not mine:
                st.caption("No row of this label.")


def example(row: Mapping[str, Any]) -> None:
    """Show one row."""
    with st.container(border=True):
        st.caption(plain(f"{row.get('label')} ({row.get('task')})"))
        st.markdown(plain(str(row.get("instruction", ""))))
        if row.get("context"):
            st.code(str(row["context"]), language=None, wrap_lines=True)
        st.markdown(f":green-background[{plain(str(row.get('response', '')))}]")


def all_sets() -> list[MadeSet]:
    """Read the sets there are; one that vanishes meanwhile is left out."""
    found = []
    for name in made_sets.names(shelf().folder):
        try:
            found.append(made_sets.read(shelf().folder, name))
        except FedpilotError:
            continue
    return found
