"""Beside the form of a new experiment: what it takes, how it is written, and its start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from federation.config import Config
from federation.errors import ConfigError
from federation.runs.storage import size_text
from ui.web import actions, places
from ui.web.budget import Budget, budget, memory
from ui.web.checker import answer_of
from ui.web.draft import SECTIONS, section_named
from ui.web.figures import seconds_text
from ui.web.forms import Table, got
from ui.web.new_state import EXPERIMENT, ask
from ui.web.shell import plain, problems, shelf, watch
from ui.web.written import command_text, python_text, toml_text

PATIENCE = 180.0  # seconds that a start waits until the experiment was checked


def start(table: Table, config: Config | None, error: str, named: str) -> str:
    """Show the name, whether it can be started, and the button; return the name."""
    runs = shelf().folder
    suggested = actions.free_name(runs, named or str(got(table, "algorithm.name", "run")))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the run", suggested, key=EXPERIMENT.name_key, max_chars=64,
            persist_state="session",
        )  # fmt: skip
        ready = config is not None and not error
        pressed = st.button(
            "Start", type="primary", icon=":material/play_arrow:", disabled=not ready, key="start"
        )
    if error:
        where = SECTIONS[section_named(error)]
        st.error(f"**{where.title}** · {plain(error)}", icon=":material/error:")
    if pressed:
        with problems():
            checked(table)
            watch(places.start_run(runs, name, table))
    return name


def checked(table: Table) -> None:
    """Wait until the process that knows torch has found nothing wrong.

    Raises:
        ConfigError: if it has, or is not heard of in time.
    """
    with st.spinner("checking"):
        answer, error = answer_of(ask("check", table=table), PATIENCE)
    if error:
        raise ConfigError(error)
    if answer is None:
        raise ConfigError(f"the experiment was not checked within {PATIENCE:.0f} s; try again")


def takes(config: Config, sizes: Mapping[str, Any], report: Mapping[str, Any] | None) -> None:
    """Show what an experiment takes."""
    length = None
    if report and report["examples"]:
        tokens = [c["tokens"] for c in report["clients"] if c["tokens"] is not None]
        length = sum(tokens) / report["examples"] if tokens else None
    runs = (opened.run for opened in shelf().opened())
    spent = budget(config, sizes, runs, length)
    with st.container(border=True):
        st.markdown("**What it takes**")
        two = st.columns(2)
        two[0].metric(
            "Client-steps", f"{spent.client_steps:,}",
            help="rounds × cohort × steps: the unit in which budgets are kept",
        )  # fmt: skip
        two[1].metric("Time in rounds", time_text(spent), help=time_help(spent))
        two[0].metric("Tokens read", tokens_text(spent), help=tokens_help(spent))
        two[1].metric(
            "Memory", memory_text(config, sizes),
            help="weights, adapters, gradients and moments of the clients that share a pass;"
            " activations come on top",
        )  # fmt: skip
        down = "–" if spent.down is None else size_text(spent.down)
        two[0].metric("Sent to clients", down)
        two[1].metric(
            "Sent by clients", "–" if spent.up is None else size_text(spent.up),
            help="metered as the run would send it, compression included",
        )  # fmt: skip
        st.caption(trained_text(config, sizes))


def time_text(spent: Budget) -> str:
    """Write how long it takes."""
    return "unknown" if spent.seconds is None else f"≈ {seconds_text(spent.seconds)}"


def time_help(spent: Budget) -> str:
    """Say where the time is from."""
    if spent.seconds is None:
        return "no earlier run here trained the same kind of adapter on this model"
    return f"at the pace of run {plain(spent.like)}; evaluations and baselines come on top"


def tokens_text(spent: Budget) -> str:
    """Write how many tokens are read."""
    if spent.tokens is None:
        return f"≤ {short(spent.most_tokens)}"
    return f"≈ {short(spent.tokens)}"


def tokens_help(spent: Budget) -> str:
    """Say where that number is from."""
    if spent.tokens is None:
        return "if every example were as long as it may be; count the clients to know better"
    return f"{spent.examples:,} examples of the mean length of the data, with repetition"


def memory_text(config: Config, sizes: Mapping[str, Any]) -> str:
    """Write how much memory weights and adapters need."""
    if not sizes:
        return "–"
    chunk = config.engine.chunk
    clients = min(config.cohort.size, chunk) if isinstance(chunk, int) else config.cohort.size
    return f"≥ {size_text(memory(config, sizes, clients))}"


def trained_text(config: Config, sizes: Mapping[str, Any]) -> str:
    """Write what is trained of how much, and what a client sends in a round."""
    if not sizes:
        return "The model is not on this machine yet: its sizes are known when the run has it."
    share = sizes["trained"] / sizes["parameters"]
    return (
        f"{short(sizes['trained'])} of {short(sizes['parameters'])} parameters are trained"
        f" ({share:.2%}); a client receives {size_text(sizes['down'])} and sends"
        f" {size_text(sizes['up'])} a round."
    )


def short(number: float) -> str:
    """Write a large number in a few letters."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{number:,.0f}"


def said_thrice(table: Table, name: str) -> None:
    """Show the experiment as TOML, as a command and as Python.

    The TOML is a plain text: what draws code takes a browser half a second to load.
    """
    runs = shelf().folder
    config, out = runs / places.CONFIGS / f"{name}.toml", runs / name
    toml, command, python = st.tabs(
        ["TOML", "Command line", "Python"], key="new-said", on_change="rerun"
    )
    with toml, problems():
        text = toml_text(table)
        with st.container(border=True):
            st.text(text)
        st.download_button(
            "Save", text, f"{name}.toml", "application/toml", icon=":material/download:",
            on_click="ignore", help="as a file, for `fedpilot run`",
        )  # fmt: skip
        st.caption("What differs from the defaults, and what every reader asks for.")
    if command.open:
        with command:
            st.code(command_text(config, out), language="bash", wrap_lines=True)
            st.caption("What Start does: the file is written first, then this runs.")
    if python.open:
        with python:
            st.code(python_text(table, Path(out)), language="python")
