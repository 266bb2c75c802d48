"""Playground and copilot: a prompt to a run's models side by side, and a talk about the run."""

from pathlib import Path

import streamlit as st

from agents.copilot import records
from federation.pretraining.recipe import pretrains
from ui.web import answering, chat_view, chats, mail, playing
from ui.web.language import SUBJECTS
from ui.web.shell import acting, called, pick_run, plain, problems, shelf
from ui.web.store import Opened

PLAY, COPILOT = "Models", "Copilot"  # as the URL has them
EVERY = 1.0  # seconds between looks while somebody works
NEW = "a new chat"

opened = pick_run("Playground", ":material/forum:")
if pretrains(opened.run):
    st.info(
        "This run pre-trains a base model, which knows no questions yet: name its folder "
        f"{plain(str(opened.run.path / 'model'))} as model.base of an experiment, and ask that one."
    )
    st.stop()
view = st.segmented_control(
    "View", [PLAY, COPILOT], default=PLAY, key="play-view", bind="query-params", required=True,
    label_visibility="collapsed",
)  # fmt: skip


def play(opened: Opened) -> None:
    """Ask a run's models."""
    there = playing.there(opened.run)
    sha256 = opened.run.history.config_sha256 or ""
    folder = answering.folder_of(shelf().folder, opened.name, sha256)
    examples = example(opened, folder)
    with st.form("ask", border=True):
        prompt = st.text_area(
            "Prompt", examples[0], height=110, max_chars=8000,
            key=f"prompt-{mail.key(examples[0])}",
            placeholder="What a client would ask, as in the data's prompts",
        )  # fmt: skip
        who = st.pills(
            "Who answers", there.subjects, selection_mode="multi", default=there.subjects,
            format_func=lambda x: SUBJECTS[x].word, key="who",
        )  # fmt: skip
        middle, right = st.columns([3, 2], vertical_alignment="bottom")
        round = None
        if len(there.rounds) > 1:
            round = middle.select_slider(
                "Federated, after round", there.rounds, there.rounds[-1], key="at",
                format_func=lambda n: str(n + 1),
            )  # fmt: skip
        client = ""
        if there.clients:
            client = right.selectbox(
                "The client alone", there.clients, key="client", format_func=called().client
            ) or ""  # fmt: skip
        with st.expander("Limits, and a server that answers", icon=":material/tune:"):
            one, two = st.columns([1, 2])
            tokens = one.number_input("Longest answer, tokens", 1, 256, 48, key="tokens")
            address = two.text_input(
                "Address of an OpenAI-compatible server on this machine", key="address",
                placeholder="http://127.0.0.1:8000/v1",
                help="its models base and fed answer, as fedpilot serve names them; empty: a "
                "process beside this one loads the model",
            )  # fmt: skip
        asked = st.form_submit_button("Ask", type="primary", icon=":material/send:")
    if asked:
        speakers = [
            {
                "subject": s,
                "round": round if s == "federated" else None,
                "client": client if s == "local" else "",
            }
            for s in (("base", "federated") if address else who or ())
        ]
        letter = {"prompt": prompt, "who": speakers, "tokens": tokens, "address": address or ""}
        id = mail.key(letter, opened.run.history.last_round)

        def post() -> None:
            mail.post(folder, id, letter)
            st.query_params["asked"] = id

        acting(post, "asked")
    if shown := st.query_params.get("asked"):
        answers(folder, opened.name, shown, examples[1])


def example(opened: Opened, folder: Path) -> tuple[str, str]:
    """Offer prompts of the run's own test; return the chosen one and what was wanted."""
    found = mail.said(folder, "examples") or {}
    if not found:
        if st.button("Show prompts of its test", icon=":material/quiz:", key="examples"):
            acting(lambda: mail.post(folder, "examples", {"want": answering.EXAMPLES}), "looking")
        if mail.waiting(folder):
            until_examples(folder, opened.name)
        return "", ""
    pairs = [x for x in found.get("examples") or [] if isinstance(x, list) and len(x) == 2]
    if not pairs:
        st.caption(f"No prompts of its test: {plain(str(found.get('failure', 'there are none')))}")
        return "", ""
    chosen = st.pills(
        "Prompts of its test", range(len(pairs)), key="example",
        format_func=lambda i: plain(str(pairs[i][0]))[:60],
    )  # fmt: skip
    return ("", "") if chosen is None else (str(pairs[chosen][0]), str(pairs[chosen][1]))


def wake(folder: Path, name: str) -> None:
    """Start the worker if questions wait and none is there."""
    if mail.waiting(folder):
        with problems():
            path = str(shelf().path(name).absolute())
            mail.ensure(folder, answering.MODULE, path, runs=shelf().folder)


@st.fragment(run_every=EVERY)
def until_examples(folder: Path, name: str) -> None:
    """Wait for prompts."""
    wake(folder, name)
    if mail.said(folder, "examples"):
        st.rerun()
    st.status(":shimmer[The model and its test are being loaded]", type="compact")


@st.fragment(run_every=EVERY)
def answers(folder: Path, name: str, id: str, wanted: str) -> None:
    """Show answers as they come."""
    wake(folder, name)
    said = mail.said(folder, id) if mail.ID.fullmatch(id) else None
    if said is None:
        if id in mail.waiting(folder):
            st.status(":shimmer[The model is being loaded]", type="compact")
        return
    if said.get("failure"):
        st.error(plain(str(said["failure"])), icon=":material/error:")
    if wanted:
        st.caption(f"Wanted: {plain(wanted)}")
    parts = [x for x in said.get("parts") or [] if isinstance(x, dict)]
    if not said.get("done"):
        st.status(f":shimmer[{len(parts)} answered, the next one writes]", type="compact")
    if parts:
        for column, part in zip(st.columns(len(parts)), parts, strict=True):
            with column.container(border=True, height="stretch"):
                one_answer(part)


def one_answer(part: dict[str, object]) -> None:
    """Show what one model said."""
    look = SUBJECTS[str(part["subject"])]
    word = called().client(str(part["client"])) if part.get("client") else look.word
    st.badge(plain(word), icon=look.icon, color=look.badge, help=look.word)
    if part.get("failure"):
        st.error(plain(str(part["failure"])), icon=":material/error:")
        return
    st.code(called().text(str(part.get("text", ""))) or " ", language=None, wrap_lines=True)
    words = []
    if isinstance(of := part.get("of"), int):
        words.append(f"round {of + 1}, {str(part.get('sha256', ''))[:8]}")
    tokens, took = part.get("tokens"), part.get("took")
    if isinstance(tokens, int) and isinstance(took, int | float) and took > 0:
        words.append(f"{tokens} tokens, {rate(tokens / took)} a second")
    words += [] if part.get("ended") else ["cut off"]
    st.caption(plain(" · ".join(words)))


def rate(value: float) -> str:
    """Write tokens a second."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def talk(opened: Opened) -> None:
    """Talk about a run."""
    run = opened.run.path
    names = [path.name for path in records.chats_of(run)][::-1]
    left, right = st.columns([2, 3])
    asked = st.session_state.pop("begun", None)
    if asked:
        st.session_state["chat"] = asked
    name = left.selectbox(
        "Chat", [*names, NEW] if names else [NEW], key="chat", bind="query-params"
    )
    known = chats.read(run / records.CHATS / name) if name in names else None
    first = "" if known is None or known.model == chats.RULES else known.model
    model = right.text_input(
        "Who answers", first, key=f"model-{name}", max_chars=500,
        placeholder="rules, without a model",
        help="openai:MODEL@http://127.0.0.1:8000/v1, or scripted:FILE; empty: rules answer, which "
        "understand a small language of commands",
    ) or ""  # fmt: skip
    if name in names:
        tail(opened.name, str(name), model.strip())
    else:
        st.caption(
            "Ask about the run: every number of an answer is checked against facts, and what acts "
            "asks you first."
        )
    said = None
    begun = known is not None and (known.turns or mail.waiting(chats.post_of(known.path)))
    if not begun:
        said = chat_view.suggestions(model)
    text = st.chat_input("Say something about this run", max_chars=20_000, key="say") or said
    if text:
        speak(opened, name if known else None, str(text), model.strip())


def speak(opened: Opened, name: str | None, text: str, model: str) -> None:
    """Say something in a chat; begin one if there is none."""
    run = opened.run.path
    with problems():
        chat = name or chats.begin(run)
        length = chats.read(run / records.CHATS / chat).length
        chat_view.post(run, chat, {"kind": "say", "text": text, "model": model}, length)
        st.session_state["begun"] = chat
        st.session_state.pop("suggestion", None)
        st.rerun()


@st.fragment(run_every=EVERY)
def tail(run: str, name: str, model: str) -> None:
    """Show a chat as it grows."""
    with problems():
        path = shelf().path(run)
        chat_view.awake(path, name)
        chat_view.show(path, chats.read(path / records.CHATS / name), model)


if opened.damage:
    st.caption("Of a damaged run no model is asked and nothing is said.")
elif view == COPILOT:
    with problems():
        talk(opened)
else:
    play(opened)
