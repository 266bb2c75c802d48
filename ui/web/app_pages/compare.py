"""Compare and what-if: runs over one another, and what a run would have come to otherwise."""

import streamlit as st

from federation.runs.storage import size_text
from ui.web import comparing, whatif_form
from ui.web.charts import compare as charts
from ui.web.charts.intervals import Row, intervals
from ui.web.comparing import FEWEST, MOST, TRAINING, Verdicts, text
from ui.web.figures import seconds_text
from ui.web.language import VERDICTS
from ui.web.shell import (
    OF,
    RUN,
    about,
    badge,
    called,
    damaged,
    nothing_yet,
    page,
    plain,
    problems,
    shelf,
)
from ui.web.store import Opened, differences

RUNS = "runs"
BESIDE = 2  # runs whose two tables fit beside each other
MOST_NAMED = 4  # keys that are named in a line
VIEWS = ("compare", "what-if")

left, right = st.columns([3, 2], vertical_alignment="bottom")
left.title("Compare and what-if", icon=":material/compare:")
names = shelf().names()
if not names:
    nothing_yet()
    st.stop()
with right.container(horizontal_alignment="right"):
    view = st.segmented_control(
        "View", VIEWS, default=VIEWS[0], key="view", bind="query-params", required=True,
        label_visibility="collapsed",
    )  # fmt: skip


def pick() -> list[Opened]:
    """Let a person choose runs; those of the URL may be separated by commas."""
    asked = st.query_params.get_all(RUNS)
    split = [
        name for value in asked for name in (value.split(",") if value not in names else [value])
    ]
    if RUNS not in st.session_state:
        one = st.query_params.get(RUN)
        first = [name for name in dict.fromkeys(split or [one or ""]) if name in names]
        others = [name for name in names if name not in first]
        wanted = first if split else [*first, *others][: max(FEWEST, len(first))]
        st.session_state[RUNS] = wanted[:MOST]
        if missing := [name for name in split if name not in names]:
            st.warning(f"Not here any more: {plain(', '.join(missing))}")
    chosen = st.multiselect(
        "Runs", names, key=RUNS, bind="query-params", max_selections=MOST, filter_mode="contains",
        help="two to six; the first is what the others are judged against",
    )  # fmt: skip
    opened: list[Opened] = []
    for name in chosen[:MOST]:
        with problems():
            opened.append(shelf().open(name))
    about(*opened)
    for one in opened:
        if one.damage:
            damaged(one)
    return opened


def curves(chosen: list[Opened]) -> None:
    """Draw a figure of all runs over one another."""
    runs = {o.name: o.run for o in chosen}
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            there = comparing.metrics(runs.values())
            main = comparing.main_figure(chosen)
            metric = st.selectbox(
                "Figure", there, index=there.index(main) if main in there else 0, key="figure",
                bind="query-params", format_func=charts.title_of, width=320,
            ) or TRAINING  # fmt: skip
            axis = st.segmented_control(
                "Along", list(comparing.AXES), default="rounds", key="along", bind="query-params",
                required=True,
            ) or "rounds"  # fmt: skip
        frame = charts.curve_frame(runs, metric, axis)
        if not len(frame):
            st.caption("None of them has this figure yet.")
            return
        st.altair_chart(
            charts.curves(frame, list(runs), metric, axis),
            alt=f"{charts.title_of(metric)} of {len(runs)} runs along {axis}",
        )
        without = [name for name in runs if name not in set(frame["run"])]
        if without:
            st.caption(f"Without this figure: {plain(', '.join(without))}.")


def came_to(chosen: list[Opened]) -> None:
    """Show final figures, the best of each marked."""
    st.markdown("**What they came to**")
    finals = {o.name: comparing.finals(o.run) for o in chosen}
    rows = []
    for metric in comparing.metrics(o.run for o in chosen):
        values = {name: found[metric] for name, found in finals.items() if metric in found}
        if not values:
            continue
        best = comparing.best(values, metric)
        cells = {
            name: f"{values[name]:.4f}" + (" ★" if name in best else "") if name in values else "–"
            for name in finals
        }
        way = "↓" if comparing.lower_is_better(metric) else "↑"
        rows.append({"figure": f"{charts.title_of(metric)} {way}", **cells})
    for label, cell in (
        ("rounds done", lambda o: str(len(o.run.history.rounds))),
        ("traffic, both ways", lambda o: size_text(o.run.bytes_up + o.run.bytes_down)),
        ("time in rounds", lambda o: seconds_text(o.run.seconds)),
    ):
        rows.append({"figure": label, **{o.name: cell(o) for o in chosen}})
    grid(rows, "figure", "Final figures of every run, the best marked with a star")
    st.caption("★ the best of them; ↓ lower is better, ↑ higher is better. On everybody's test.")


def differ(chosen: list[Opened]) -> dict[str, dict[str, object]]:
    """Show the keys in which configurations differ."""
    st.markdown("**What they were given**")
    own = differences({o.name: o.run.asked for o in chosen})
    found = {key: {name: hidden(value) for name, value in row.items()} for key, row in own.items()}
    if not found:
        st.caption("Their configurations are the same, seed included: so are their figures.")
        return {}
    rows = [{"key": k, **{name: text(v) for name, v in row.items()}} for k, row in found.items()]
    grid(rows, "key", "Keys in which the configurations differ")
    return found


def hidden(value: object) -> object:
    """Return a value of a configuration; on a shared server it names no client."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    return called().text(text(value))


def grid(rows: list[dict[str, str]], first: str, alt: str) -> None:
    """Show a table with a column a run."""
    st.dataframe(
        rows,
        hide_index=True,
        alt=alt,
        column_config={
            first: st.column_config.TextColumn(first.capitalize(), pinned=True, width=220)
        },
    )


def proved(chosen: list[Opened]) -> None:
    """Show what pairs of seeds prove, or why they prove nothing."""
    st.subheader("Is the difference more than chance?", divider="gray")
    metric = comparing.main_figure(chosen)
    found = comparing.verdicts(chosen, shelf().opened(), metric)
    if not found.arms:
        st.caption(
            "These runs differ in nothing but the seed: what they are apart is the noise floor. "
            "Add a run with another configuration."
        )
        return
    rows = [
        Row(a.name, a.judged.mean, a.judged.low, a.judged.high, a.judged.verdict, a.judged.why,
            tuple(p.improvement for p in a.pairs))
        for a in found.arms
        if a.judged is not None and a.judged.mean is not None
    ]  # fmt: skip
    if rows:
        unit = charts.title_of(metric)
        st.altair_chart(
            intervals(rows, f"improvement over {found.control}, {unit} (right is better)",
                      found.floor or 0.0),
            alt=f"Improvement over {found.control} with intervals and the noise floor",
        )  # fmt: skip
    for arm in found.arms:
        tell(arm, found)
    pairs = [
        {"seed": str(p.seed), found.control: f"{p.was:.4f} ({p.control})",
         arm.name: f"{p.became:.4f} ({p.arm})", "improvement": f"{p.improvement:+.4f}"}
        for arm in found.arms
        for p in arm.pairs
    ]  # fmt: skip
    if pairs:
        with st.expander("Pairs, seed by seed", icon=":material/table_rows:"):
            grid(pairs, "seed", "Figures of control and arm under each seed")
    st.caption(
        f"By {charts.title_of(metric)} on everybody's test; finished runs of this folder with the "
        "same configuration and another seed count as pairs. Student's t on paired differences, "
        "Holm over arms, one wrong verdict or more in 5 % at most. Nothing here was registered "
        "before the runs were seen: what matters deserves a study."
    )
    st.page_link(
        page("new_study"), label="Study from these runs", icon=":material/experiment:",
        query_params={OF: ",".join(o.name for o in chosen)},
    )  # fmt: skip


def tell(arm: comparing.Arm, found: Verdicts) -> None:
    """Say what is proved of an arm."""
    changes = "; ".join(f"{key} {value}" for key, value in arm.changes.items())
    if len(arm.changes) > MOST_NAMED:
        changes = f"{len(arm.changes)} keys differ"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            if arm.judged is None:
                st.badge("no verdict", icon=":material/block:", color="gray")
            else:
                badge(VERDICTS[arm.judged.verdict])
            st.markdown(f"**{plain(arm.name)}** against {plain(found.control)}: {plain(changes)}")
        if arm.judged is None:
            why = arm.why or (
                "the control ran under one seed only, so nobody knows by how much it differs from "
                "itself; run both under three seeds or more"
            )
            st.caption(f"No verdict: {plain(why)}.")
            return
        judged, floor = arm.judged, found.floor or 0.0
        told = f"{judged.pairs} pairs: {judged.why}"
        if judged.mean is not None and judged.low is not None and judged.high is not None:
            told = (
                f"{judged.mean:+.4f} on average ({judged.low:+.4f} to {judged.high:+.4f}), {told}"
            )
        st.caption(plain(f"{told}. Noise floor {floor:.4f}."))


if view == VIEWS[1]:
    whatif_form.show(names)
    st.stop()

chosen = pick()
if len(chosen) < FEWEST:
    st.info("Choose two to six runs to compare.", icon=":material/compare:")
    st.stop()
with problems():
    curves(chosen)
    two = st.columns(2) if len(chosen) <= BESIDE else (st.container(), st.container())
    with two[0]:
        came_to(chosen)
    with two[1]:
        found = differ(chosen)
    if found:
        with st.container(border=True):
            st.markdown("**From settings to figures**")
            metric = comparing.main_figure(chosen)
            figures = {o.name: f for o in chosen if (f := comparing.finals(o.run).get(metric))}
            frame = charts.parallel_frame(found, charts.title_of(metric), figures)
            st.altair_chart(
                charts.parallel(frame, [o.name for o in chosen]),
                alt="Settings in which the runs differ and the figure that each came to",
            )
    proved(chosen)
