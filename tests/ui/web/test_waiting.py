"""Pages that go on without an answer look again, whenever it comes."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import streamlit as st

from tests.ui.web.conftest import Open
from tests.ui.web.made_uinew import instead
from ui.web import new_side, new_state, written
from ui.web.checker import Answer, answer_of
from ui.web.forms import Table


def test_only_what_is_not_there_in_time_is_gone_without() -> None:
    there: Future[Answer] = Future()
    late: Future[Answer] = Future()
    there.set_result({"sizes": 1})
    without: list[Future[Answer]] = []
    assert answer_of(there, 0.0, without) == ({"sizes": 1}, "")
    assert answer_of(late, 0.0, without) == (None, "")
    late.set_result({})
    assert without == [late]


@pytest.mark.parametrize(("page", "question"), [("new", "check"), ("new_study", "study")])
def test_an_answer_that_comes_while_the_rest_is_drawn_is_looked_at_again(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, page: str, question: str
) -> None:
    """Else the page says that it is checking until somebody changes something."""
    instead(monkeypatch)
    st.cache_resource.clear()
    late: Future[Answer] = Future()
    asked: list[str] = []
    again: list[str] = []
    real, real_text = new_state.ask, written.toml_text

    def ask(what: str, **said: object) -> "Future[Answer]":
        asked.append(what)
        return late if what == question else real(what, **said)

    def toml_text(table: Table) -> str:  # drawn after the line that says that it is checked
        if question in asked and not late.done():
            late.set_result({})
        return real_text(table)

    def fragment(run_every: float) -> Callable[[Callable[[], None]], Callable[[], None]]:
        return lambda looking: lambda: again.append(looking.__name__)

    for place in (new_side, written):
        monkeypatch.setattr(place, "toml_text", toml_text)
    monkeypatch.setattr(new_state, "ask", ask)
    open_page()
    monkeypatch.setattr(st, "fragment", fragment)
    app = open_page(page)
    st.cache_resource.clear()
    assert any("checking" in caption.value for caption in app.caption) and late.done()
    assert again == ["until_answered"]
