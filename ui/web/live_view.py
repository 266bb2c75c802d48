"""What the page Live shows of a run, drawn once for every state of its journal."""

import streamlit as st

from agents.privacy import spent as spent_of
from federation.runs.storage import size_text
from ui.web.charts import curves, lanes
from ui.web.figures import (
    judged_rows,
    limits,
    main_metric,
    measured,
    noise,
    seconds_text,
    since_base,
    training_loss,
)
from ui.web.language import METRICS
from ui.web.shell import BY_STATE, KEPT, RUN, called, page, plain, source_badge
from ui.web.store import Opened


@st.cache_data(max_entries=KEPT, show_spinner=False, hash_funcs=BY_STATE)
def numbers(opened: Opened) -> None:
    """Show the figures that matter now, worked out once for all tabs."""
    run = opened.run
    losses = training_loss(run)
    scatter = noise(losses.values())
    main = main_metric(run)
    tested = measured(run, main)
    with st.grid(5, min_column_width=140, row_height=128):
        newest = list(losses.values())[-1] if losses else None
        st.metric(
            "Training loss", "–" if newest is None else f"{newest:.3f}",
            None if scatter is None else f"± {scatter:.3f}", delta_color="off", delta_arrow="off",
            delta_description=None if scatter is None else "a round", border=True,
            height="stretch", help="mean over the cohort, nats per token; the noise is the robust "
            "spread of second differences",
        )  # fmt: skip
        if tested:
            gained = since_base(tested)
            moved = gained is not None and f"{abs(gained):.3f}" != "0.000"
            better = "inverse" if main == "nll" else "normal"
            against = None if gained is None else f"{gained:+.3f}" if moved else "no change"
            name, _, unit = METRICS.get(main, main).partition(", ")
            st.metric(
                name.capitalize(), f"{list(tested.values())[-1]:.3f}",
                "base model" if list(tested) == [0] else against,
                border=True, height="stretch",
                help=f"on everybody's test, {judged_rows(run)}{'; ' * bool(unit)}{unit}",
                delta_description=None if gained is None else "on base",
                delta_color=better if moved else "off", delta_arrow="auto" if moved else "off",
            )  # fmt: skip
        rounds = len(run.history.rounds)
        for label, total in (
            ("Sent to clients", run.bytes_down),
            ("Sent by clients", run.bytes_up),
        ):
            st.metric(
                label, size_text(total), size_text(total // rounds), delta_color="off",
                delta_arrow="off", delta_description="a round", border=True, height="stretch",
            )  # fmt: skip
        if (private := spent_of(run)) is not None:
            st.metric(
                "Privacy spent", f"ε {private.epsilon:.2f}", f"δ {private.delta:g}",
                delta_color="off", delta_arrow="off", border=True, height="stretch",
                help=f"of the client asked most often ({private.rounds} rounds), noise "
                f"{private.multiplier:g} x the clipping norm, no amplification counted on",
            )  # fmt: skip
        for limit in limits(run):
            st.metric(
                f"Pilot: {limit.name}", f"{limit.used:,.0f}", f"of {limit.most:,.0f}",
                delta_color="off", delta_arrow="off", border=True, height="stretch",
            )  # fmt: skip
        st.metric(
            "Time in rounds", seconds_text(run.seconds), seconds_text(run.seconds / rounds),
            delta_color="off", delta_arrow="off", delta_description="a round", border=True,
            height="stretch",
        )  # fmt: skip


@st.cache_data(max_entries=KEPT, show_spinner=False, hash_funcs=BY_STATE)
def pictures(opened: Opened) -> None:
    """Show curves, lanes and the newest explanation, drawn once for all tabs."""
    run = opened.run
    main = main_metric(run)
    two = st.columns(2)
    with two[0].container(border=True, height="stretch"):
        st.markdown("**Loss, and what was decided**")
        st.altair_chart(curves.loss(run, called()), alt="Training and test loss, with decisions")
    with two[1].container(border=True, height="stretch"):
        there = measured(run, main)
        rows = f" · {judged_rows(run)}" if there else ""
        st.markdown(f"**{METRICS.get(main, main).capitalize()} on everybody's test**{rows}")
        if there:
            st.altair_chart(curves.metric(run, main), alt=f"{METRICS.get(main, main)} over rounds")
        else:
            st.caption("Not measured yet.")
    two = st.columns([3, 2])
    with two[0].container(border=True, height="stretch"):
        frame, more = lanes.lane_frame(run, called())
        st.markdown("**Who took part**")
        st.altair_chart(lanes.lanes(frame), alt="What became of every client, by round")
        if more:
            st.caption(f"{more:,} more clients took part less often and are not drawn.")
    with two[1].container(border=True, height="stretch"):
        st.markdown("**The newest round, explained**")
        explanation = next(iter(run.history.explanations[-1:]), None)
        if explanation is None:
            st.caption("This run has no pilot that explains.")
            return
        round = str((explanation.round or 0) + 1)
        st.markdown(f"{source_badge(explanation.source)} {plain(explanation.text)}")
        st.page_link(
            page("decisions"), label=f"The decision of round {round}",
            icon=":material/rule_settings:", query_params={RUN: opened.name, "round": round},
        )  # fmt: skip
