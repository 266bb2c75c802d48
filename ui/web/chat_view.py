"""A chat, drawn: messages, steps, facts that lead to the chart, and what waits for a person."""

import json
from collections.abc import Iterable
from pathlib import Path

import streamlit as st

from agents.copilot.events import Approval
from agents.copilot.records import Asked, Refused
from agents.facts import Fact
from ui.web import chats, mail
from ui.web.answer_forms import draw, fields_of, filled
from ui.web.chats import Step, Talk, Turn
from ui.web.shell import RUN, acting, called, page, plain, problems, shelf

Letter = dict[str, object]
CHIPS = 8  # facts that are shown as chips
SUGGESTIONS = {
    ":material/query_stats: What is known?": ("facts", "What do the facts of the last rounds say?"),
    ":material/lightbulb: Explain a round": ("explain 2", "Explain round 2."),
    ":material/compare: Compare": ("compare", "Which other runs are there to compare with?"),
    ":material/tune: Propose": ("propose lr=0.004", "Propose a better learning rate."),
    ":material/help: Help": ("help", "What can you do?"),
}
"""Pill -> what it says to rules, and to a model."""


def post(run: Path, chat: str, letter: Letter, *about: object) -> None:
    """Post a letter to a chat, and see to it that somebody reads it."""
    folder = chats.post_of(run / "chats" / chat)
    id = mail.key(letter.get("kind"), *about, letter)

    def posting() -> None:
        mail.post(folder, id, letter)
        awake(run, chat)

    acting(posting, "posted")


def awake(run: Path, chat: str) -> None:
    """Start the worker of a chat if letters wait and none is there."""
    folder = chats.post_of(run / "chats" / chat)
    if mail.waiting(folder):
        args = (str(run.absolute()), chat)
        mail.ensure(folder, chats.WORKER, *args, runs=shelf().folder)


def show(run: Path, talk: Talk, model: str) -> None:
    """Show a chat as it stands.

    Args:
        run: what it is about.
        talk: the chat.
        model: whom to ask next; empty: rules.
    """
    name = talk.path.name
    for turn in talk.turns:
        show_turn(run.name, talk, turn)
    for approval in talk.waiting:
        approve(run, talk, approval, model)
    folder = chats.post_of(talk.path)
    letters = mail.waiting(folder)
    last = mail.newest(folder)
    if letters:
        st.status(":shimmer[Thinking]", type="compact")
    elif last and last.get("failure"):
        st.error(plain(str(last["failure"])), icon=":material/error:")
    if not letters and (talk.unanswered or chats.undecided(talk)):
        if talk.unanswered:
            why = f"No answer: {plain(talk.failure)}" if talk.failure else "There is no answer yet."
            st.caption(why)
        if st.button("Ask again", icon=":material/refresh:", key=f"again-{talk.length}"):
            post(run, name, {"kind": "go_on", "model": model}, talk.length)


def show_turn(run: str, talk: Talk, turn: Turn) -> None:
    """Show what was said and what came of it."""
    if turn.said is not None:
        with st.chat_message("user"):
            st.markdown(plain(turn.said.text))
    if not turn.parts and (turn.answer is None or not turn.answer.text):
        return
    with st.chat_message("assistant", avatar=":material/neurology:"):
        steps(run, talk, turn)
        if turn.answer is not None and turn.answer.text:
            answer(run, talk, turn)


def steps(run: str, talk: Talk, turn: Turn) -> None:
    """Show the calls of a turn as a timeline, folded once there is an answer in words."""
    if not turn.parts:
        return
    count, going = len(turn.steps), turn.answer is None
    open_calls = any(step.result is None for step in turn.steps)
    word = f"{count} step{'' if count == 1 else 's'}" if count else "no step"
    told = turn.answer is not None and bool(turn.answer.text)
    state = "running" if going and open_calls and not talk.waiting else "complete"
    with st.status(word, type="compact", expanded=not told, state=state):
        for part in turn.parts:
            if isinstance(part, Step):
                step(run, part, opened=not told)
            elif isinstance(part, Refused):
                with st.status(
                    "an answer was refused and asked for again", type="step", state="error"
                ):
                    st.caption(plain("; ".join(part.problems)))
            elif isinstance(part, Asked) and part.failure:
                with st.status("the model gave no answer", type="step", state="error"):
                    st.caption(plain(part.failure))
            elif isinstance(part, Asked):
                st.caption(f"{plain(part.text)} (not checked)")


def step(run: str, part: Step, *, opened: bool) -> None:
    """Show one call and what came of it; opened where no answer in words follows."""
    call, result = part.call, part.result
    args = " ".join(f"{k}={json.dumps(v)}" for k, v in call.args.items())
    if result is None:
        with st.status(f"{plain(call.name)} {plain(args)}: waits", type="step", state="running"):
            st.caption("Somebody has to decide, or it is being carried out.")
        return
    done = result.status == "done"
    word = "" if done else f": {result.status}"
    label = f"{plain(call.name)} {plain(args)}{word}"
    with st.status(label, type="step", state="complete" if done else "error", expanded=opened):
        if result.shown and not (done and result.facts and not words_beside(result.shown)):
            st.code(called().text(result.shown), language=None, wrap_lines=True)
        if result.note:
            st.caption(plain(result.note))
        chips(run, result.facts)


def words_beside(shown: str) -> bool:
    """Tell whether a tool told anything but facts, one a line."""
    return any(" = " not in line for line in shown.splitlines())


def answer(run: str, talk: Talk, turn: Turn) -> None:
    """Show an answer; what no fact supports is marked with why."""
    assert turn.answer is not None
    marked = chats.marked(turn.answer)
    if talk.model == chats.RULES and "\n" in turn.answer.text:
        st.code(called().text(turn.answer.text), language=None)  # laid out in columns
    elif len(marked) == 1 and not marked[0][1]:
        st.markdown("  \n".join(plain(line) for line in turn.answer.text.splitlines()))
    else:
        for sentence, problems in marked:
            if problems:
                st.markdown(f":orange-background[{plain(sentence)}]")
                why = "; ".join(problems)
                st.markdown(f":red-badge[:material/warning: unsupported: {plain(why)}]")
            else:
                st.markdown(plain(sentence))
    chips(run, chats.cited(turn.answer.text, talk.facts))


def chips(run: str, facts: Iterable[Fact]) -> None:
    """Show facts of rounds as links to where they lie on the chart."""
    there = [fact for fact in facts if fact.round is not None and "@" in fact.id]
    if not there:
        return
    with st.container(horizontal=True, gap="small"):
        for fact in there[-CHIPS:]:
            round = (fact.round or 0) + 1
            query = {RUN: run, "round": str(round), "fact": fact.id}
            meaning = plain(f"{fact.name}, {fact.unit}")
            st.page_link(
                page("decisions"), label=f"{plain(fact.id)} = {fact.value:g} (round {round})",
                query_params=query,
                icon=":material/show_chart:", help=f"{meaning}: see it on the chart",
            )  # fmt: skip
        if len(there) > CHIPS:
            st.caption(f"and {len(there) - CHIPS} more")


def approve(run: Path, talk: Talk, approval: Approval, model: str) -> None:
    """Ask a person about one call."""
    name, call = talk.path.name, approval.call
    head: Letter = {"kind": "decide", "call": call, "model": model}
    key = f"{name}-{call}"
    with st.container(border=True, key=f"approval-{key}"):
        st.markdown(f"#### :material/person_alert: {plain(approval.name)} waits for you")
        for line in approval.about:
            st.markdown(f"- {plain(line)}")
        given = ", ".join(f"{k} = {json.dumps(v)}" for k, v in approval.args.items())
        st.caption(f"With {plain(given)}" if given else "Without arguments")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.button(
                "Approve", type="primary", icon=":material/check:", key=f"yes-{key}",
                on_click=post, args=(run, name, {**head, "verdict": "approve"}),
            )  # fmt: skip
            reason = st.text_input(
                "Why not", key=f"why-{key}", placeholder="why not (may be empty)",
                label_visibility="collapsed", width=260,
            )  # fmt: skip
            st.button(
                "Reject", icon=":material/close:", key=f"no-{key}", on_click=post,
                args=(run, name, {**head, "verdict": "reject", "reason": reason or ""}),
            )  # fmt: skip
        edit(run, talk, approval, head)


def edit(run: Path, talk: Talk, approval: Approval, head: Letter) -> None:
    """Let a person change the arguments; the worker judges them by schema and guard."""
    key = f"edit-{talk.path.name}-{approval.call}"
    with st.expander("Edit it first", icon=":material/edit:"), st.form(key, border=False):
        fields = fields_of(approval.args_schema, approval.args)
        columns = st.columns(3)
        drawn: Letter = {}
        for number, field in enumerate(fields):
            with columns[number % 3]:
                drawn |= draw([field], key)
        if st.form_submit_button("Carry out with these", icon=":material/check:"):
            with problems():
                args = filled(fields, drawn)
                post(run, talk.path.name, {**head, "verdict": "edit", "args": args})


def suggestions(model: str) -> str | None:
    """Offer something to say; return what was chosen."""
    chosen = st.pills("To begin with", list(SUGGESTIONS), key="suggestion")
    return SUGGESTIONS[chosen][1 if model else 0] if chosen else None
