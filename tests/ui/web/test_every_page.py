"""Every page in every state that a run can be in: no exception, and the state's own words."""

import ast
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from federation.pretraining.recipe import Recipe, kept
from federation.runs.records import EndRecord
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.made_uinew import instead
from tests.ui.web.recorded import config, record, start, write
from ui.web.shell import PAGES

NAME = "one"
READ_ONLY = "What stands before the damage is shown below, read-only."
NOTHING = "No runs yet"
TWO = "Choose two to six runs to compare."
UNDECIDED = "its recipe decides every round beforehand"

SAID = {
    "runs": {
        "empty": NOTHING,
        "running": "running",
        "finished": "finished",
        "failed": "failed",
        "damaged": "damaged",
        "pretraining": "diloco",
        "unknown": "Select a run",
    },
    "new": {
        "empty": "Filled from the demo",
        "finished": "Filled from run one",
        "damaged": "Filled from run one",
        "pretraining": "pre-trains a base model",
        "unknown": "unknown key antenna",
    },
    "live": {
        "empty": NOTHING,
        "running": "Pause",
        "finished": "Round 6: loss 0.500.",
        "failed": "Go on",
        "damaged": READ_ONLY,
        "pretraining": "finished",
        "unknown": "finished",
    },
    "decisions": {
        "empty": NOTHING,
        "running": "Fork after round 4",
        "finished": "Fork after round 6",
        "failed": "Fork after round 3",
        "damaged": READ_ONLY,
        "pretraining": UNDECIDED,
        "unknown": "unknown key antenna",
    },
    "clients": {
        "empty": NOTHING,
        "running": "The run goes on; what-ifs are asked of runs that have ended.",
        "finished": "Find out",
        "failed": "Find out",
        "damaged": READ_ONLY,
        "pretraining": "nothing of it can be played again",
        "unknown": "Took part",
    },
    "playground": {
        "empty": NOTHING,
        "running": "Ask",
        "finished": "Ask",
        "failed": "Ask",
        "damaged": READ_ONLY,
        "pretraining": "which knows no questions yet",
        "unknown": "Ask",
    },
    "compare": {
        "empty": NOTHING,
        "running": TWO,
        "finished": TWO,
        "damaged": READ_ONLY,
        "pretraining": TWO,
        "unknown": TWO,
    },
    "studies": {"empty": "No study yet", "damaged": "No study yet"},
    "new_study": {
        "empty": "Filled from the example",
        "running": "Filled from run one",
        "finished": "Filled from run one",
        "damaged": "Filled from run one",
        "pretraining": "pre-trains a base model",
        "unknown": "unknown key antenna",
    },
    "studio": {"empty": "No made-up data yet", "damaged": "No made-up data yet"},
}
"""Page -> state -> what it says then: what is wrong, or what to do next."""
ACTS = {"Go on", "Find out", "Fork", "Ask", "Play it again", "Start the demo", "Pause", "Stop"}
"""Buttons that would do something with a run."""


def damage(path: Path) -> None:
    """Change a record of a run."""
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[14] = lines[14].replace(b"because", b"because!")
    journal.write_bytes(b"\n".join(lines))


def pretraining(path: Path) -> None:
    """Write a pre-training run of two rounds."""
    recipe = Recipe.from_table({"rounds": 2, "epochs": {"tinystories": 1}}, "the recipe")
    with RunWriter.create(path, kept(recipe, path)) as writer:
        write(writer, config(2), 2)
        writer.append(EndRecord(status="finished"))


def unknown(path: Path) -> None:
    """Write a run whose configuration a newer version wrote."""
    table = json.loads(config().model_dump_json()) | {"antenna": {"height": 3}}
    with RunWriter.create(path, json.dumps(table)) as writer:
        writer.append(start(writer, config()))
        write(writer, config(), 2)
        writer.append(EndRecord(status="finished"))


@pytest.fixture
def stay(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """Hold what is written until the end of a test; questions about models are answered at once."""
    instead(monkeypatch)
    st.cache_resource.clear()
    with ExitStack() as stack:
        yield stack
    st.cache_resource.clear()


def put(runs: Path, state: str, stay: ExitStack) -> None:
    """Put a run into a state."""
    path = runs / NAME
    match state:
        case "running":
            writer = stay.enter_context(RunWriter.create(path, config(9).model_dump_json()))
            write(writer, config(9), 4)
        case "finished" | "failed":
            record(path, done=6 if state == "finished" else 3, end=state)
        case "damaged":
            damage(record(path))
        case "pretraining":
            pretraining(path)
        case "unknown":
            unknown(path)


def query(page: str) -> dict[str, str]:
    """Say in the URL which run a page is about."""
    return {{"new": "like", "new_study": "of"}.get(page, "run"): NAME}


def said(app: AppTest) -> str:
    """Return what a page says in words, as people read it, and what stands in its first table."""
    table = app.dataframe[0].value.to_string() if app.dataframe else ""
    return f"{words(app)}\n{table}".replace("\\", "")


@pytest.mark.parametrize(
    ("page", "state", "says"),
    [(page, state, says) for page, states in SAID.items() for state, says in states.items()],
)
def test_page(
    open_page: Open, runs: Path, stay: ExitStack, page: str, state: str, says: str
) -> None:
    put(runs, state, stay)
    app = open_page(page, **({} if state == "empty" else query(page)))
    assert says in said(app)
    if state == "damaged":
        assert not {b.label for b in app.button if not b.disabled} & ACTS


def test_what_a_page_keeps_in_the_url_is_no_other_pages() -> None:
    pages = [path.stem for path in PAGES.glob("*.py")]
    keys = [key for page in pages for key in bound_of(PAGES / f"{page}.py")]
    assert len(keys) > 5 and len(keys) == len(set(keys)), sorted(keys)


def bound_of(script: Path) -> set[str]:
    """Find the keys of widgets that are bound to the URL."""
    calls = [x for x in ast.walk(ast.parse(script.read_text())) if isinstance(x, ast.Call)]
    words = [{k.arg: k.value for k in call.keywords} for call in calls]
    keys = [x["key"] for x in words if "bind" in x and "key" in x]
    return {key.value for key in keys if isinstance(key, ast.Constant)}
