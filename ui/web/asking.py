"""A person is asked what a round should be: the question as a card, the answer as a command.

Everything that is shown is read from the run: what is asked, which answers wait in its inbox, which
it refused.  So a second tab, a reload or another server shows the same.
"""

import hashlib
import json
from collections.abc import Mapping

import streamlit as st

from federation.errors import FedpilotError
from federation.runs import inbox
from federation.runs.inbox import Answer
from federation.runs.records import AskedRecord, CommandRecord
from federation.runs.run import Run
from ui.web.answer_forms import Field, draw, fields_of, filled
from ui.web.decided import as_proposal
from ui.web.language import SOURCES
from ui.web.moved import beside_knobs
from ui.web.shell import acting, plain, source_badge

LONGEST_BY = 80


def answer_id(asked: AskedRecord, answer: str, values: Mapping[str, float]) -> str:
    """Return the id of an answer: the same for a double click and a second tab, of no other one."""
    said = json.dumps([asked.id, asked.since, answer, dict(values)], sort_keys=True)
    return f"{asked.id}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def answered(asked: AskedRecord, answer: str, values: Mapping[str, float], by: str) -> Answer:
    """Make a command of an answer, by the rules of the inbox.

    Raises:
        ConfigError: in one line, what is wrong with it.
    """
    command = inbox.parse(
        {
            "command": "answer",
            "id": answer_id(asked, answer, values),
            "by": by[:LONGEST_BY],
            "asked": asked.id,
            "answer": answer,
            "values": dict(values),
        }
    )
    assert isinstance(command, Answer)
    return command


def refusals(run: Run, asked: AskedRecord) -> list[CommandRecord]:
    """List the answers to a question that the run refused, the oldest first."""
    answers = (x for x in run.history.commands.values() if x.command == "answer")
    return [x for x in answers if x.arguments.get("asked") == asked.id and not x.accepted]


def waiting(run: Run, asked: AskedRecord) -> list[Answer]:
    """List the answers to a question that lie in the inbox still."""
    try:
        found = inbox.waiting(run.path, run.history.commands)
    except FedpilotError:  # of a damaged run nothing is followed
        return []
    return [x for x in found if isinstance(x, Answer) and x.asked == asked.id]


def who() -> str:
    """Say who answers: the name of whoever logged in, or a person."""
    email = st.user.to_dict().get("email")
    return email if isinstance(email, str) and email else "person"


def moves(asked: AskedRecord, values: Mapping[str, float]) -> list[str]:
    """Say what values would change, knob by knob."""
    return [
        f"{name} {asked.values[name]:.4g} → {value:.4g}"
        if name in asked.values
        else f"{name} {value:.4g}"
        for name, value in values.items()
        if asked.values.get(name) != value
    ]


def edit_fields(asked: AskedRecord) -> list[Field]:
    """Return the fields of an edit, filled with what is proposed, else with what holds now."""
    proposal = as_proposal(asked.proposal)
    return fields_of(asked.values_schema, {**asked.values, **(proposal.values if proposal else {})})


def card(run: Run) -> None:
    """Show the question of a run, if there is one."""
    asked = run.asking
    if asked is None:
        return
    with st.container(border=True, key="asking"):
        st.markdown(f"#### {SOURCES['human'].icon} Round {asked.round + 1} waits for you")
        question(asked)
        for refusal in refusals(run, asked):
            st.error(f"Your answer was not taken: {plain(refusal.reason)}", icon=":material/block:")
        pending = waiting(run, asked)
        if run.status != "running":
            st.info("The run is not going on, so nobody would read an answer. Go on with it first.")
        elif pending:
            st.info(
                f"Your answer ({pending[-1].answer}) is on its way: the run reads it shortly.",
                icon=":material/outgoing_mail:",
            )
        else:
            decide(run, asked)


def question(asked: AskedRecord) -> None:
    """Show what is proposed, by whom, and what holds now."""
    proposal = as_proposal(asked.proposal)
    now = ", ".join(f"{name} {value:.4g}" for name, value in asked.values.items())
    if proposal is None:
        why = "; ".join(asked.violations) or "it gave no answer"
        st.markdown(f"**{plain(asked.policy)}** proposes nothing: {plain(why)}.")
    else:
        wanted = [*moves(asked, proposal.values), *beside_knobs(proposal)]
        what = ", ".join(wanted) or "everything stays as it is"
        st.markdown(
            f"{source_badge(proposal.source)} **{plain(asked.policy)}** proposes: **{plain(what)}**"
        )
        if proposal.rationale:
            st.markdown(f"> {plain(proposal.rationale)}")
        if proposal.expected:
            low, high = proposal.expected
            st.caption(f"It expects a training loss of {low:.3f} to {high:.3f} nats per token.")
        for violation in asked.violations:
            st.warning(plain(violation), icon=":material/block:")
    patience = "waits as long as it takes"
    if asked.patience is not None:
        patience = f"without an answer the fallback decides after {asked.patience:g} s"
    since = f"{asked.since[:19].replace('T', ' at ')} UTC"
    st.caption(f"Now: {plain(now)}. Asked on {plain(since)}; {patience}.")


def decide(run: Run, asked: AskedRecord) -> None:
    """Offer the answers."""

    def post(answer: str, values: Mapping[str, float]) -> None:
        command = answered(asked, answer, values, who())
        acting(lambda: inbox.post(run.path, command), "your answer is posted")

    fields, key = edit_fields(asked), f"edit-{asked.id}"

    def edit() -> None:
        drawn = {field.name: st.session_state.get(f"{key}-{field.name}") for field in fields}
        values = filled(fields, drawn)
        post("edit", {k: float(v) for k, v in values.items() if isinstance(v, int | float)})

    # All of them are posted before anything is drawn: who leaves the page at once has answered.
    allowed = as_proposal(asked.proposal) is not None and not asked.violations
    with st.container(horizontal=True):
        st.button(
            "Approve", type="primary", icon=":material/check:", key="approve",
            disabled=not allowed, on_click=post, args=("approve", {}),
        )  # fmt: skip
        st.button(
            "Reject", icon=":material/close:", key="reject", help="everything stays as it is",
            on_click=post, args=("reject", {}),
        )  # fmt: skip
    with st.expander("Edit it first", icon=":material/edit:"), st.form("edit", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            draw(fields, key)
        st.form_submit_button("Use these values", icon=":material/check:", on_click=edit)
