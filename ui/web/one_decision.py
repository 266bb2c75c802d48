"""One decision, drawn: what was seen, said, allowed, applied, and what others would have done."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import streamlit as st

from agents.made_up import of_details
from federation.runs.run import Run
from ui.web import actions, decided
from ui.web.decided import Row
from ui.web.jobs import Job
from ui.web.moved import beside_knobs, rule_of, values_of
from ui.web.places import harmless
from ui.web.shell import RUN, acting, called, page, plain, shelf, source_badge
from ui.web.store import Opened

EVERY = 2.0  # seconds between looks at what is made of a run
RECENT = 6  # rounds whose facts are shown
MANY = 300  # rounds before a decision, of which facts are quickly made
LATER = (
    "Facts rest on every round before. So far on in a run that goes on they are made again for a "
    "round that you choose, above or in the table."
)


class Glance(NamedTuple):
    """What a page shows of an observation: little of it, however long the run is.

    Attributes:
        why: in a line, why there is none, or it does not match; empty otherwise.
        sha256: of the observation; empty if there is none.
        matches: whether that is the journal's hash; None if the journal has none.
        facts: rows of the newest facts.
        more: how many older ones there are.
        values: every knob's value before the decision.
        left: rounds and whatever else is limited -> how much was left.
    """

    why: str
    sha256: str = ""
    matches: bool | None = None
    facts: tuple[dict[str, object], ...] = ()
    more: int = 0
    values: Mapping[str, float] = {}
    left: Mapping[str, float] = {}


@st.cache_data(max_entries=64, show_spinner=False)
def looked(name: str, began: str, recorded: str, round: int, _run: Run) -> Glance:
    """Make an observation again, once for all tabs: the records before a decision stay."""
    seen = decided.look_again(_run, round)
    found = seen.observation
    if found is None:
        return Glance(seen.why)
    facts = tuple(decided.fact_rows(found, RECENT))
    more = len(found.facts) - len(facts)
    left = {"rounds": float(found.rounds_left), **found.budget}
    return Glance(seen.why, found.sha256, seen.matches, facts, more, found.values, left)


def one(opened: Opened, row: Row, newest: bool) -> None:
    """Show everything about one decision.

    Args:
        opened: the run.
        row: the decision.
        newest: whether it is shown because it is the newest, and nobody chose it.
    """
    run, n = opened.run, row.round - 1
    decision = run.history.decisions[n]
    st.subheader(f"Round {row.round}", divider="gray")
    st.markdown(
        f"{source_badge(row.source)} **{plain(row.by)}**: {plain(row.why or 'no reason given')}"
    )
    explained = next((x for x in reversed(run.history.explanations) if x.round == n), None)
    if explained is not None:
        st.markdown(f"{source_badge(explained.source)} {plain(explained.text)}")
    undone = run.history.rollbacks.get(n)
    if undone is not None:
        back = "the first state" if undone.to is None else f"round {undone.to + 1}"
        st.warning(
            f"The round was undone, back to {back}: {plain(undone.reason)}", icon=":material/undo:"
        )
    recorded = str(decision.details.get("observation_sha256", ""))
    start = run.history.start
    if newest and n > MANY and opened.status == "running":
        seen = Glance(LATER)
    else:
        seen = looked(opened.name, start.config_sha256 if start else "", recorded, n, run)
    two = st.columns(2)
    with two[0].container(border=True, height="stretch"):
        what_was_seen(seen)
    with two[1].container(border=True, height="stretch"):
        what_was_said(run, n)
    two = st.columns([2, 3])
    before = values_of(run.history.decisions[n - 1]) if n - 1 in run.history.decisions else {}
    before = dict(seen.values) or before
    with two[0].container(border=True, height="stretch"):
        what_was_allowed(run, n, row)
    with two[1].container(border=True, height="stretch"):
        what_others_would(run, n, before)
    next_steps(opened, row)


def what_was_seen(seen: Glance) -> None:
    """Show the facts, and whether they are those of then."""
    st.markdown("**Seen**")
    if not seen.sha256:
        st.caption(plain(seen.why))
        return
    if seen.matches:
        st.badge(
            "as it was seen then",
            icon=":material/verified:",
            color="green",
            help="the facts were made again from the records before the decision; sha256 "
            + seen.sha256,
        )
    else:
        st.badge(
            "not as it was seen then",
            icon=":material/gpp_maybe:",
            color="orange",
            help=plain(seen.why),
        )
    if not seen.facts:
        st.caption("No fact yet: nothing was played before.")
        return
    st.dataframe(
        pd.DataFrame(seen.facts), hide_index=True, height=300 if len(seen.facts) > 8 else "content",
        alt="Facts that were seen: round, id, value, unit", placeholder="–",
        column_config={
            "round": st.column_config.NumberColumn("Round", width=58, format="%d"),
            "id": st.column_config.TextColumn(
                "Fact", width=130, help="as it is cited; the number in it counts rounds from 0"
            ),
            "value": st.column_config.TextColumn("Value", width=96),
            "unit": st.column_config.TextColumn("Unit", width=96),
        },
    )  # fmt: skip
    older = f", {seen.more} older ones not shown" if seen.more else ""
    left = "; ".join(f"{k.replace('_', ' ')} left: {v:g}" for k, v in seen.left.items())
    st.caption(f"{len(seen.facts)} facts{older}; {left}")


def what_was_said(run: Run, n: int) -> None:
    """Show proposal, evidence, and what asking has cost."""
    decision = run.history.decisions[n]
    st.markdown("**Said**")
    proposal = decided.proposal_of(decision)
    if proposal is None:
        st.caption(plain(decision.reason) or "Nothing was proposed: a rule of the core decides.")
    else:
        knobs = [f"{k} {v:.4g}" for k, v in proposal.values.items()]
        what = ", ".join([*knobs, *beside_knobs(proposal)]) or "leave everything as it is"
        st.markdown(f"{source_badge(proposal.source)} {plain(what)}")
        if proposal.rationale:
            st.markdown(f"> {plain(proposal.rationale)}")
        chips(list(proposal.evidence))
    if made_up := of_details(decision.details):
        st.markdown(f"**Made up before the first round**: {plain(made_up.words)}")
    told = decided.told(decision)
    st.caption(" · ".join(plain(f"{k} {short(v)}") for k, v in told.items()))
    if raw := decided.raw_of(decision):
        name, icon = "The answer as it came", ":material/data_object:"
        with st.expander(name, key="answer", bind="query-params", icon=icon) as part:
            if part.open:
                st.code(called().text(raw), language=None, wrap_lines=True)


def chips(evidence: list[str]) -> None:
    """Show cited facts; a chosen one is marked on the loss."""
    wanted = fact_wanted()
    ids = list(dict.fromkeys([*evidence, *([wanted] if wanted else [])]))
    if not ids:
        st.caption("No fact was cited.")
        return
    st.pills(
        "It rests on",
        ids,
        key="fact",
        bind="query-params",
        format_func=lambda id: plain(
            decided.with_round(id) + ("" if id in evidence else ", from a link")
        ),
        help="a chip marks its round on the loss",
    )


def short(text: str) -> str:
    """Shorten a hash."""
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text


def what_was_allowed(run: Run, n: int, row: Row) -> None:
    """Show verdict, violations, what was applied and what came of it."""
    decision = run.history.decisions[n]
    st.markdown("**Allowed and applied**")
    verdict = decision.details.get("verdict")
    icon = (
        decided.VERDICTS[verdict][0]
        if isinstance(verdict, str) and verdict in decided.VERDICTS
        else ":material/rule:"
    )
    st.markdown(
        f"{icon} {row.verdict}"
        + (f"; applied by {source_badge(row.source)}" if row.source == "fallback" else "")
    )
    for violation in decided.violations_of(decision):
        st.warning(plain(violation), icon=":material/block:")
    person = decision.details.get("person")
    if isinstance(person, dict):
        by, answer = (plain(str(person.get(key, ""))) for key in ("by", "answer"))
        st.markdown(f"{source_badge('human')} {by}: {answer}")
    with st.container(horizontal=True):
        for name, value in values_of(decision).items():
            st.metric(plain(name.replace("_", " ")), f"{value:.4g}")
    if rule := rule_of(decision):
        st.markdown(f"Clients chosen by **{plain(rule)}**")
    came_out = (
        "not played yet" if row.loss is None else f"training loss {row.loss:.3f} nats per token"
    )
    if row.hit is not None:
        came_out += f", {'inside' if row.hit else 'outside'} the expected {interval(row)}"
    st.caption(f"What came: {came_out}.")


def what_others_would(run: Run, n: int, before: dict[str, float]) -> None:
    """Show what every shadow policy would have done."""
    st.markdown("**What others would have done**")
    others = decided.others(run.history.decisions[n], before)
    if len(others.policies) == 1:
        st.caption("No other policy was asked beside this one.")
    else:
        st.caption("What a policy leaves alone stands as it was before.")
    # As text: what draws tables takes a browser half a second to load.
    head = ["knob", *others.policies]
    lines = [head, *([row[name] for name in head] for row in others.rows)]
    first, *rest = (f"| {' | '.join(breakable(plain(x)) for x in line)} |" for line in lines)
    st.markdown("\n".join([first, "|---" * len(head) + "|", *rest]))


def breakable(name: str) -> str:
    """Let a long name end a line behind its joints, so that a table keeps within its card."""
    return name.replace("+", "+\u200b").replace("_", "_\u200b")


def next_steps(opened: Opened, row: Row) -> None:
    """Offer to repeat the run without asking anybody, or to go another way from a round."""
    runs = shelf().folder
    with st.container(border=True):
        st.markdown("**From here**")
        with st.container(horizontal=True, vertical_alignment="center"):
            done = opened.status == "finished"
            if st.button(
                "Repeat without a model",
                icon=":material/replay:",
                key="replay",
                disabled=not done,
                help="plays the run again from its journal, asking nobody, and compares the bits"
                if done
                else "only a finished run is repeated",
            ):
                acting(lambda: actions.replay(runs, opened.name), "the repetition has begun")
            kept = row.round in actions.forkable(opened.run) and not opened.damage
            if st.button(
                f"Fork after round {row.round}",
                icon=":material/fork_right:",
                key="fork",
                disabled=not kept,
                help="a new run that has this one's rounds up to here and goes on by itself"
                if kept
                else "its state is not kept: the newest rounds' are",
            ):
                new, rounds = harmless(f"{opened.name}-fork{row.round}"), opened.run.rounds_planned
                acting(
                    lambda: actions.fork(runs, opened.name, row.round, new, rounds),
                    "the fork has begun",
                )
        alive = any(job.alive for job in actions.made_of(runs, opened.name))
        st.fragment(made_from, run_every=EVERY if alive else None)(opened.name, alive)


def made_from(name: str, alive: bool) -> None:
    """Show how far repetitions and forks of a run are, until none goes on any more."""
    made = actions.made_of(shelf().folder, name)
    if alive and not any(job.alive for job in made):
        st.rerun()
    for job in made[:4]:
        progress(job)


def progress(job: Job) -> None:
    """Show how far a repetition or fork is, with a link to it."""
    icon = (
        ":material/hourglass_top:"
        if job.alive
        else ":material/check_circle:"
        if job.code == 0
        else ":material/error:"
    )
    said = "under way" if job.alive else job.said or "it ended and said nothing"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{icon} {plain(job.title)}: {plain(said)}")
        if job.about in shelf().names():
            st.page_link(
                page("live"),
                label=plain(job.about),
                icon=":material/monitoring:",
                query_params={RUN: job.about},
            )


def fact_wanted() -> str | None:
    """Return the fact that the URL or a chip names, if it is one of a round."""
    fact = st.session_state.get("fact") or st.query_params.get("fact")
    return fact if isinstance(fact, str) and decided.round_of(fact) else None


def interval(row: Row) -> str:
    """Write what was expected."""
    return "–" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
