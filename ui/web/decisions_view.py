"""What the page Decisions draws of a run, once for every state of its journal."""

import streamlit as st

from ui.web import decided
from ui.web.charts import curves
from ui.web.charts import decisions as charts
from ui.web.decided import Row
from ui.web.shell import BY_STATE, KEPT, called
from ui.web.store import Opened


@st.cache_resource(max_entries=KEPT, show_spinner=False, hash_funcs=BY_STATE)
def rows_of(opened: Opened) -> list[Row]:
    """Return the decisions of a run, the oldest first; the same list for all tabs."""
    naming = called()
    return [
        row._replace(changed=naming.text(row.changed), why=naming.text(row.why))
        for row in decided.rows(opened.run)
    ]


@st.cache_data(max_entries=KEPT, show_spinner=False, hash_funcs=BY_STATE)
def pictures(opened: Opened, chosen: int | None, fact: str | None) -> None:
    """Show the loss with decisions or a fact marked, and expectations or a timeline.

    Args:
        opened: the run.
        chosen: round of the decision that is shown below, from 1.
        fact: id of a fact of a round, to be marked.
    """
    run, rows = opened.run, rows_of(opened)
    at = decided.round_of(fact) if fact else None
    two = st.columns(2)
    with two[0].container(border=True, height="stretch"):
        st.markdown("**Loss, and what was decided**")
        if at and fact:
            picture = charts.loss_with(run, at, fact, called())
        elif chosen is not None:
            picture = charts.loss_with(run, chosen, "the decision below", called())
        else:
            picture = curves.loss(run, called())
        st.altair_chart(picture, alt="Training and test loss over rounds, with decisions marked")
    with two[1].container(border=True, height="stretch"):
        if any(row.low is not None for row in rows):
            hits = [row.hit for row in rows if row.hit is not None]
            st.markdown("**What was expected, and what came**")
            st.altair_chart(
                charts.expectations(rows, chosen),
                alt="Expected intervals of the training loss and the loss as it came, by round",
            )
            if hits:
                st.caption(f"{sum(hits)} of {len(hits)} came out where they were expected.")
        else:
            st.markdown("**Who decided**")
            st.altair_chart(charts.timeline(rows), alt="Who decided which round")
            st.caption("Nobody here said what to expect: rules and searches do not.")
