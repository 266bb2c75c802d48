"""From a control to a widget: one function, the same for every key of every table."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from ui.web.forms import LARGEST, Control, held, number_text
from ui.web.language import METRICS

ROOM = 26  # letters of options that fit side by side; more go into a list
WIDE = ("words", "several", "range", "ranges", "pairs")
LONG = ("prompt", "response", "text", "separator")
NAMES = {
    "lr": "Learning rate",
    "top_k": "Top-k share",
    "rslora": "rsLoRA scale",
    "by": "Clients by",
    "adapter.kind": "What is trained",
    "schedule.kind": "Schedule",
    "algorithm.name": "Algorithm",
    "data.count": "Organisations",
    "data.seed": "Seed of the federation",
    "data.split.validation": "Validation share",
    "data.split.test": "Test share",
    "data.clients.count": "Clients",
    "data.clients.key": "Client field",
    "data.clients.label": "Label field",
    "data.choices": "Answers to choose from",
    "cohort.size": "Clients a round",
    "cohort.rule": "Chosen by",
    "devices.deadline_seconds": "Deadline, seconds",
    "cohort.deadline": "Deadline, seconds",
    "pilot.deadline": "Answer within, seconds",
    "pilot.model": "Language model",
    "metric.name": "Judged by",
    "agent.model": "Language model",
    "agent.arms": "Arms that it may propose",
    "agent.deadline": "Answer within, seconds",
    "search.seeds": "Seeds a trial",
    "search.share": "Share of the model",
    "noise_pairs": "Pairs of the noise floor",
    "max_client_steps": "Most client-steps",
    "votes.epsilon": "Epsilon",
    "eps": "Epsilon",
    "dtype": "Number format",
    "bits": "Bits per value",
    "clip": "Clip to norm",
    "noise": "Noise multiplier",
    "base": "Base model",
    "every": "Evaluate every",
    "max_calls": "Most requests",
    "server_lr": "Server learning rate",
    "mu": "Proximal pull, mu",
}
"""Key, or its last part -> what people call it, where that is not the same."""

Values = dict[str, object]
OPENED = "opened"
"""Key in the session of the parts that were ever open."""


@dataclass(frozen=True)
class Filled:
    """What widgets are drawn with.

    Attributes:
        table: what they show first.
        id: of this filling; another one has widgets of its own.
        known: key -> names that are offered beside what may be typed.
        around: key of a range, with its name -> where it starts when it is switched on.
    """

    table: Mapping[str, Any]
    id: str
    known: Mapping[str, Sequence[str]]
    around: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def key(self, control: Control, part: str = "") -> str:
        """Return the name of a widget in the session."""
        return f"{self.id}.{control.key}{part}"


def name_of(control: Control) -> str:
    """Return what people call a key."""
    last = control.key.rpartition(".")[2]
    text = last.replace("_", " ")
    return NAMES.get(control.key) or NAMES.get(last) or text[:1].upper() + text[1:]


def help_of(control: Control) -> str:
    """Say what a key means, what it may be and what it is by default; which key it is."""
    parts = [control.meaning[:1].upper() + control.meaning[1:]]
    if control.bounds:
        parts.append(control.bounds)
    default = control.default
    if isinstance(default, int | float) and not isinstance(default, bool):
        parts.append(f"default {number_text(default)}")
    elif control.nothing:
        parts.append(f"empty: {control.nothing}")
    elif control.word:
        parts.append(f"default {default}" if control.kind != "words" else f"or {control.word}")
    return "; ".join(parts).replace("[", "\\[") + f"  \n`{control.key}`"


def grid(controls: Iterable[Control], filled: Filled, columns: int = 2) -> Values:
    """Draw controls side by side, wide ones over the whole width; return their values."""
    found: Values = {}
    row: list[Any] = []
    for control in controls:
        wide = control.kind in WIDE or control.key.rpartition(".")[2] in LONG
        if wide:
            row = []
            found[control.key] = draw(control, filled)
            continue
        row = row or list(st.columns(columns))
        with row.pop(0):
            found[control.key] = draw(control, filled)
    return found


def folded(title: str, controls: Iterable[Control], filled: Filled, columns: int = 3) -> Values:
    """Draw controls in a part that is folded; nothing in it is drawn before it is opened.

    Returns:
        Their values: of what was never opened, those that it was filled with.
    """
    key = f"{filled.id}.{title}"
    with st.expander(title, key=key, on_change="rerun") as part:
        if ever_open(key, part.open):
            return grid(controls, filled, columns)
    return unseen(controls, filled)


def ever_open(key: str, now: bool | None) -> bool:
    """Tell whether a part was ever open; from then on it is drawn: its widgets hold what was said.

    Args:
        key: of the part.
        now: whether it is open now.
    """
    opened: set[str] = st.session_state.setdefault(OPENED, set())
    if now:
        opened.add(key)
    return key in opened


def unseen(controls: Iterable[Control], filled: Filled) -> Values:
    """Return the values of controls that were never drawn: those that they are filled with."""
    return {control.key: held(control, filled.table) for control in controls}


def draw(control: Control, filled: Filled) -> object:
    """Draw the widget of a control; return what it holds."""
    return DRAWN[control.kind](control, filled)


def switch(control: Control, filled: Filled) -> object:
    """Draw yes or no."""
    return st.toggle(
        name_of(control), bool(held(control, filled.table)), key=filled.key(control),
        help=help_of(control), persist_state="session",
    )  # fmt: skip


def number(control: Control, filled: Filled) -> object:
    """Draw a number; where it may be left out, the field may be empty."""
    whole = control.kind == "integer"
    cast: Callable[[float], float] = int if whole else float
    value = held(control, filled.table)
    least = None if control.least is None else cast(control.least)
    most = None if control.most is None else cast(min(control.most, LARGEST))
    nothing = control.nothing or control.word or ("not set" if control.optional else "needed")
    return st.number_input(
        name_of(control),
        least if least is not None or not whole else -LARGEST,
        most if most is not None or not whole else LARGEST,
        None if value is None else cast(value),
        step=1 if whole else step_of(value, control),
        format=None if whole else "%g",
        key=filled.key(control),
        help=help_of(control),
        placeholder=nothing,
        persist_state="session",
    )


def step_of(value: float | None, control: Control) -> float:
    """Return how far a press of a button moves a number: a digit of its first decimal place."""
    if not value:
        return 0.1 if control.most is not None and control.most <= 1 else 1.0
    return 10.0 ** math.floor(math.log10(abs(value)) - 1e-9)


def choice(control: Control, filled: Filled) -> object:
    """Draw a choice."""
    value = held(control, filled.table)
    options = list(control.options)
    if sum(len(option) + 3 for option in options) <= ROOM:
        return st.segmented_control(
            name_of(control), options, default=value, required=not control.optional,
            format_func=said_of,
            key=filled.key(control), help=help_of(control), persist_state="session",
        )  # fmt: skip
    return st.selectbox(
        name_of(control), options, options.index(value) if value in options else 0,
        key=filled.key(control), help=help_of(control), persist_state="session",
        format_func=said_of,
    )  # fmt: skip


def said_of(option: str) -> str:
    """Return what people call one of several choices."""
    return METRICS.get(option, option)


def several(control: Control, filled: Filled) -> object:
    """Draw a choice of several."""
    return st.pills(
        name_of(control), list(control.options), selection_mode="multi",
        default=held(control, filled.table), key=filled.key(control), help=help_of(control),
        persist_state="session", format_func=said_of,
    )  # fmt: skip


def words(control: Control, filled: Filled) -> object:
    """Draw a list of words: known ones are offered, others may be typed."""
    value = held(control, filled.table) or []
    known = [control.word, *filled.known.get(control.key, control.options)]
    return st.multiselect(
        name_of(control), unique([*known, *value]), value, key=filled.key(control),
        help=help_of(control), accept_new_options=True, placeholder="choose or type",
        persist_state="session",
    )  # fmt: skip


def text(control: Control, filled: Filled) -> object:
    """Draw a text: with names to choose from, if some are known."""
    value = held(control, filled.table)
    known = filled.known.get(control.key, control.options)
    if known:
        options = unique([*known, *([value] if value else [])])
        return st.selectbox(
            name_of(control), options, options.index(value) if value in options else None,
            key=filled.key(control), help=help_of(control),
            accept_new_options=True, placeholder="not set",
            persist_state="session",
        )  # fmt: skip
    if control.key.rpartition(".")[2] in LONG:
        return st.text_area(
            name_of(control), value or "", height=68 if control.default else 82,
            key=filled.key(control), help=help_of(control), persist_state="session",
        )  # fmt: skip
    return st.text_input(
        name_of(control), value or "", key=filled.key(control), help=help_of(control),
        placeholder="not set" if control.optional else None, persist_state="session",
    )  # fmt: skip


def span(control: Control, filled: Filled) -> object:
    """Draw a lowest and a highest number."""
    low, high = held(control, filled.table)
    places = st.columns(2)
    return ends(name_of(control), filled.key(control), (low, high), places, help_of(control))


def ends(
    name: str,
    key: str,
    value: tuple[Any, Any],
    places: Sequence[Any],
    help: str | None = None,
) -> list[float] | None:
    """Draw two numbers into two places; None if one is missing."""
    whole = all(isinstance(x, int) for x in value)
    found = [
        place.number_input(
            f"{name}, {word}", value=x, step=1 if whole else step_of(x, Control(key, "number")),
            format=None if whole else "%g", key=f"{key}.{word}", help=help,
            persist_state="session",
        )
        for word, x, place in zip(("lowest", "highest"), value, places, strict=True)
    ]  # fmt: skip
    return None if None in found else found


def ranges(control: Control, filled: Filled) -> object:
    """Draw a range for every name that is switched on."""
    value = held(control, filled.table) or {}
    st.markdown(f"**{name_of(control)}**", help=help_of(control))
    found: dict[str, object] = {}
    for name in unique([*control.options, *value]):
        start = value.get(name) or filled.around.get(f"{control.key}.{name}", (1, 10))
        shown = NAMES.get(name, name.replace("_", " ").capitalize())
        first, *places = st.columns(3, vertical_alignment="bottom")
        on = first.toggle(
            shown, name in value, key=filled.key(control, f".{name}"), persist_state="session"
        )
        if on:
            key = filled.key(control, f".{name}.of")
            found[name] = ends(shown, key, (start[0], start[1]), places)
    return {name: x for name, x in found.items() if x is not None}


def pairs(control: Control, filled: Filled) -> object:
    """Draw names with a value each, one a line: NAME = VALUE."""
    value = held(control, filled.table) or {}
    lines = "\n".join(f"{name} = {x}" for name, x in value.items())
    typed = st.text_area(
        name_of(control), lines, key=filled.key(control), help=help_of(control),
        placeholder="name = value, one a line", height=110, persist_state="session",
    )  # fmt: skip
    return paired(typed or "", control)


def paired(typed: str, control: Control) -> dict[str, object]:
    """Read names with a value each; one that is no number stays a text, and is refused later."""
    found: dict[str, object] = {}
    for line in typed.splitlines():
        name, _, value = (part.strip() for part in line.rpartition("="))
        if line.strip():
            key = (name or value).strip('"')
            found[key] = numeric(value if name else "") if control.of == "number" else value
    return found


def numeric(text: str) -> object:
    """Read a number; a text that is none stays a text."""
    try:
        return float(text)
    except ValueError:
        return text


def unique(names: Iterable[str]) -> list[str]:
    """Keep the first of equal names, and no empty one."""
    return [name for name in dict.fromkeys(names) if name]


DRAWN: dict[str, Callable[[Control, Filled], object]] = {
    "switch": switch,
    "integer": number,
    "number": number,
    "choice": choice,
    "several": several,
    "words": words,
    "text": text,
    "range": span,
    "ranges": ranges,
    "pairs": pairs,
}
