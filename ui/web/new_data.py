"""The data of a new experiment: its rows, what of them is learnt, and who holds them."""

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import streamlit as st

from federation.config import ORGANISATIONS, DataSpec
from federation.data.dataset import plain_templates
from federation.errors import ConfigError, FedpilotError
from ui.web import places
from ui.web.charts.mixes import mix_frame, mixes
from ui.web.checker import Answer, answer_of
from ui.web.draft import configuration, judged
from ui.web.forms import Table, got, of_use
from ui.web.jobs import Job
from ui.web.naming import shared
from ui.web.new_state import MOMENT, ask
from ui.web.samples import MOST_FIELDS, OF_CLIENTS, OF_DATA, Sample, look, part, shown, stamp
from ui.web.shell import plain, problems, shelf
from ui.web.widgets import Filled, Values, draw, folded, grid

TEMPLATES = ("data.prompt", "data.response", "data.text")
SHOWN = ("data.source", "data.max_tokens", "data.count", "data.examples", *TEMPLATES)
FIELDS = ("data.clients.key", "data.clients.label")  # that name a field of a row
LEARNT = {"answer": "an answer to a prompt", "text": "a whole text"}
TOKENS = 160  # of an answer that are drawn

CONTROLS = {c.key: c for c in configuration() if c.key.startswith("data.")}


@st.cache_data(show_spinner=False, max_entries=20)
def _looked(table: Table, base: str, stamp: str) -> Sample | None:
    return look(table, Path(base))


def source(filled: Filled) -> Values:
    """Ask where the rows are from: a path, or a file that is brought."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        typed = draw(CONTROLS["data.source"], filled)
        with st.popover("Upload", icon=":material/upload:"):
            st.file_uploader(
                "A file of rows", type=list(places.SUFFIXES), key=f"{filled.id}-upload",
                on_change=brought,
                args=(f"{filled.id}-upload", filled.key(CONTROLS["data.source"])),
                help="It is kept beside the runs on this machine and goes nowhere else.",
            )  # fmt: skip
    found: Values = {"data.source": typed}
    if typed == ORGANISATIONS:
        st.caption("Built in: invented organisations with questions whose answers can be checked.")
        found |= grid([CONTROLS["data.count"], CONTROLS["data.examples"]], filled)
    return found


def brought(upload: str, target: str) -> None:
    """Keep a file that was brought, and name it as the source."""
    file = st.session_state.get(upload)
    if file is None:
        return
    try:
        path = places.keep_upload(shelf().folder, file.name, file.getvalue())
    except FedpilotError as error:
        st.toast(plain(str(error)), icon=":material/error:", duration="long")
    else:
        st.session_state[target] = str(path)


def sample_of(values: Values) -> Sample | None:
    """Read the first rows of what is typed, or say why not."""
    table: Table = {"data": {"source": values["data.source"]}}
    for key in ("data.count", "data.examples"):
        if values.get(key) is not None:
            table["data"][key.rpartition(".")[2]] = values[key]
    try:
        named = str(values["data.source"])
        found = _looked(part(table, OF_DATA), str(Path.cwd()), stamp(named, Path.cwd()))
    except FedpilotError as error:
        st.error(plain(str(error).removeprefix("configuration: ")), icon=":material/error:")
        return None
    if found is None:
        st.info(
            "Not a file of this machine: a data set of that name is asked of the hub when the run"
            " starts, and cannot be previewed before.",
            icon=":material/cloud:",
        )
    return found


def check_extra(spec: DataSpec) -> None:
    """Refuse extra rows that lack a field which is asked for, as far as they are here.

    Args:
        spec: of the data, defaults filled in.

    Raises:
        ConfigError: naming the field.
        DataError: if the rows cannot be read.
    """
    if not spec.extra:
        return
    source: Table = {"data": {"source": spec.extra, "text_unit": spec.text_unit}}
    found = _looked(source, str(Path.cwd()), stamp(spec.extra, Path.cwd()))
    if found is None:
        return
    named = [field for field, own in spec.extra_fields.items() if own in found.fields]
    try:
        plain_templates(spec).check([*found.fields, *named])
    except ConfigError as error:
        raise ConfigError(
            f"data.extra: {error}; data.extra_fields says under which name they have it"
        ) from None


def rows(found: Sample, filled: Filled, built_in: bool) -> None:
    """Show the first rows; those that are built in when somebody wants to see them."""
    key = f"{filled.id}.rows" + ".built-in" * built_in
    with st.expander("The first rows", not built_in, key=key, on_change="rerun") as part:
        if part.open:
            st.dataframe(
                [shown(row) for row in found.rows], height=180, hide_index=True,
                alt="The first rows of the data",
            )  # fmt: skip


def learnt(filled: Filled, found: Sample | None, built_in: bool) -> Values:
    """Ask what of a row is read and what is learnt."""
    first = "text" if got(filled.table, "data.text") is not None else "answer"
    kind = st.segmented_control(
        "What is learnt", list(LEARNT), format_func=LEARNT.__getitem__, default=first,
        required=True, key=filled.key(CONTROLS["data.text"], ".kind"), persist_state="session",
    )  # fmt: skip
    if found:
        names = " ".join(plain(f"{{{name}}}") for name in found.fields[:MOST_FIELDS])
        more = len(found.fields) - MOST_FIELDS
        others = f" and {more:,} more" if more > 0 else ""
        st.caption(f"Fields of a row, to be named in braces: {names}{others}")
    if built_in and kind == "answer":
        st.caption("Left empty, the built-in data's own templates are used.")
    if kind == "text":
        return {"data.text": draw(CONTROLS["data.text"], filled)}
    two = st.columns(2)
    values: Values = {}
    for column, key in zip(two, TEMPLATES[:2], strict=True):
        with column:
            values[key] = draw(CONTROLS[key], filled)
    return values


def example(table: Table, found: Sample, without: "list[Future[Answer]]") -> None:
    """Show one row as the model would meet it, and which of its tokens are learnt.

    Args:
        table: the experiment.
        found: the first rows.
        without: the answers that the page goes on without.
    """
    asked = part(table, ("model.base", "data"))
    with st.container(border=True):
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.markdown("**An example, as the model meets it**")
        at = right.number_input(
            "Row", 1, len(found.rows), key="example-row", label_visibility="collapsed"
        )
        place = int(at) - 1
        try:
            judged(asked)
        except ConfigError as error:
            st.caption(plain(str(error)))
            return
        row = {name: jsonable(x) for name, x in found.rows[place].items()}
        future = ask(
            "example", table=asked, row=row, fields=found.fields, origin=found.origins[place]
        )
        answer, error = answer_of(future, MOMENT, without)
        if answer:
            drawn_example(answer)
        else:
            st.caption(plain(error) or ":material/hourglass_top: reading the tokenizer …")


def jsonable(value: object) -> object:
    """Keep what JSON has; anything else is shown as a text."""
    if isinstance(value, list | tuple):
        return [jsonable(x) for x in value]
    plain_ = isinstance(value, str | int | float | bool) or value is None
    return value if plain_ and value == value else None if value != value else str(value)


def drawn_example(answer: Answer) -> None:
    """Draw what is read, and token by token what is learnt."""
    prompt, response = answer["tokens"][: answer["prompt"]], answer["tokens"][answer["prompt"] :]
    if answer["text"][0]:
        st.caption(f"read, not learnt: {len(prompt)} tokens")
        st.text(answer["text"][0])
    st.caption(f"learnt: {len(response)} tokens, the end of the text among them")
    more = f" … and {len(response) - TOKENS} more" if len(response) > TOKENS else ""
    st.markdown(" ".join(map(token_text, response[:TOKENS])) + more)
    if answer["truncated"]:
        st.warning(
            f"The row has {answer['whole']} tokens and is cut to {len(answer['tokens'])}: the"
            " beginning of the prompt goes first. Raise the longest example to keep it whole.",
            icon=":material/content_cut:",
        )


def token_text(token: str) -> str:
    """Write a token so that its edges are seen: spaces as dots, line ends as arrows."""
    visible = token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·")
    return f":green-background[{plain(visible) or '∅'}]"


def without(table: Mapping[str, Any], keys: list[str]) -> Table:
    """Return a table that leaves some keys of ``[data.clients]`` out."""
    left = {name.rpartition(".")[2] for name in keys}
    held = {name: x for name, x in got(table, "data.clients", {}).items() if name not in left}
    return {**table, "data": {**got(table, "data", {}), "clients": held}}


def clients(filled: Filled, found: Sample | None) -> Values:
    """Ask how rows become clients."""
    st.markdown("**Who holds which row**")
    mine = [c for c in CONTROLS.values() if c.table == "data.clients"]
    fields = list(found.fields) if found else []
    known = {**filled.known, **dict.fromkeys(FIELDS, fields)}
    # What the form was filled with may name fields that this data does not have.
    named = {key: got(filled.table, key) for key in FIELDS}
    strange = [key for key, name in named.items() if fields and name not in (None, *fields)]
    offered = Filled(without(filled.table, strange), filled.id + ".own" * bool(strange), known)
    values: Values = {"data.clients.by": draw(CONTROLS["data.clients.by"], filled)}
    useful = [c for c in mine[1:] if of_use(c, values)]
    rare = [c for c in useful if c.key.endswith((".min_examples", ".unseen", ".test_key"))]
    values |= grid([c for c in useful if c not in rare], offered)
    split = [c for c in CONTROLS.values() if c.table == "data.split"]
    more = "More about clients, and what is kept for tests"
    return values | folded(more, [*rare, *split], offered)


def others(filled: Filled) -> Values:
    """Ask for the rest of what is known of data, whatever is declared."""
    rest = [c for c in CONTROLS.values() if c.table == "data" and c.key not in SHOWN]
    return folded("More about text", [CONTROLS["data.max_tokens"], *rest], filled, 2)


def held_by(table: Table) -> Mapping[str, Any] | None:
    """Show who would hold what, counted by a job of its own; return what it counted."""
    asked = part(table, OF_CLIENTS)
    mark = stamp(str(got(table, "data.source", "")), Path.cwd())
    with st.container(border=True), problems():
        job = places.clients_job(shelf().folder, asked, mark, start=False)
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown("**How much the clients differ**")
        if job is None or not (job.alive or job.code == 0):
            if job is not None and job.code:
                st.error(plain(job.said), icon=":material/error:")
            st.caption("Every row is read, dealt to its client and counted; nothing is trained.")
            if right.button("Count", icon=":material/grid_on:", width="stretch"):
                places.clients_job(shelf().folder, asked, mark, start=True)
                st.rerun()
            return None
        if job.alive:
            until_counted(job)
            return None
        report = job.printed
        if report is not None:
            drawn_report(report)
        return report
    return None


@st.fragment(run_every=1.0)
def until_counted(job: Job) -> None:
    """Wait for a job, without holding up the form."""
    if not job.alive:
        st.rerun()
    st.caption(f":material/hourglass_top: counting: {plain(job.said or 'reading the data')}")


def drawn_report(report: Mapping[str, Any]) -> None:
    """Draw who holds what."""
    with st.container(horizontal=True):
        st.metric("Clients", f"{len(report['clients']):,}")
        st.metric("Examples", f"{report['examples']:,}")
        st.metric(
            "Apart", f"{report['mean_divergence_bits']:.2f} bit",
            help="mean Jensen-Shannon divergence of a client's mix to everybody's: 0 alike, 1 "
            "disjoint",
        )  # fmt: skip
        st.metric(
            "Unequal sizes", f"{report['size_gini']:.2f}",
            help="Gini coefficient: 0 all equal, towards 1 all rows with one client",
        )  # fmt: skip
    if shared():
        st.caption("Not drawn on a shared server: what a client holds tells who it is.")
    else:
        frame, more = mix_frame(report["clients"])
        st.altair_chart(mixes(frame, report["kind"]), alt="Clients by labels, as shares")
        if more:
            st.caption(f"{more:,} smaller clients are not drawn.")
    used = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in report["rows"].items() if v)
    st.caption(f"rows: {used}")
