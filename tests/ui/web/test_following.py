"""A page that follows a run: what a look and an update cost does not grow with the journal."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import pytest
import streamlit as st

from federation.runs import journal
from federation.runs.history import history_of
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.web.conftest import Open, words
from tests.ui.web.recorded import config, record, write
from ui.web import following
from ui.web.charts import curves, lanes
from ui.web.following import LONGEST, SHARE, pause
from ui.web.store import Shelf

OF_A_ROUND = 4  # records
UPDATE = 0.45  # processor seconds; an update of 10,000 records takes 0.18
AGAIN = 0.2  # of a page in which nothing changed; it takes 0.03


def counting(counts: Counter[str], name: str, real: Callable) -> Callable:
    def called(*args: object) -> object:
        counts[name] += 1
        return real(*args)

    return called


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count records that are read, and pictures that are drawn."""
    counts: Counter[str] = Counter()
    for module, name in ((journal, "_decode"), (curves, "loss"), (lanes, "lane_frame")):
        monkeypatch.setattr(module, name, counting(counts, name, getattr(module, name)))
    return counts


@pytest.fixture
def going_on(runs: Path) -> Iterator[Callable[[int], None]]:
    """A run that goes on, as far as one says."""
    cfg = config(5000)
    with patch("os.fsync"), RunWriter.create(runs / "one", cfg.model_dump_json()) as writer:
        yield lambda rounds: write(writer, cfg, rounds, population=1000, cohort=20)


@pytest.mark.parametrize("page", ["live", "decisions"])
def test_an_update_reads_what_was_appended_and_is_drawn_once_for_all_tabs(
    open_page: Open, going_on: Callable[[int], None], counted: Counter[str], page: str
) -> None:
    going_on(50)
    open_page(page, run="one")
    before = counted.copy()
    assert before["_decode"] >= 50 * OF_A_ROUND and before["loss"] == 1
    for _ in range(2):  # another tab, and a look that finds nothing
        open_page(page, run="one")
    assert counted == before
    going_on(51)
    app, again = open_page(page, run="one"), open_page(page, run="one")
    assert counted["_decode"] == before["_decode"] + OF_A_ROUND
    assert counted["loss"] == before["loss"] + 1
    assert words(app) == words(again)
    charts = [len(x.get("vega_lite_chart")) for x in (app, again)]
    assert charts[0] == charts[1] > 1


@pytest.mark.slow
@pytest.mark.parametrize("page", ["live", "decisions"])
def test_an_update_of_ten_thousand_records_is_quick(
    open_page: Open, going_on: Callable[[int], None], page: str
) -> None:
    going_on(2500)
    app = open_page(page, run="one")
    app.run()
    took = {"update": list[float](), "again": list[float]()}
    for n in range(3):
        going_on(2501 + n)
        for times in took.values():
            began = time.process_time()
            app.run()
            times.append(time.process_time() - began)
    assert min(took["update"]) < UPDATE
    assert min(took["again"]) < AGAIN


def test_pictures_of_a_long_run_hold_as_many_points_as_those_of_a_short_one(
    runs: Path, going_on: Callable[[int], None]
) -> None:
    going_on(600)
    run = Run.open(runs / "one")
    assert len(curves.loss_frame(run)) == curves.MOST
    assert len(curves.line_frame(run)) == curves.MOST + curves.DOTS
    assert len(curves.metric_frame(run, "nll")) <= curves.DOTS + 2  # and the base model, a line
    marks = curves.decision_frame(run)
    assert len(marks) == curves.MARKED and list(marks["round"]) == sorted(marks["round"])
    assert marks["round"].iloc[-1] == max(run.history.rounds) + 1  # the newest are marked


def test_what_is_read_later_adds_to_what_was_read_and_leaves_it_alone(
    runs: Path, going_on: Callable[[int], None]
) -> None:
    going_on(3)
    first = Run.open(runs / "one")
    before = history_of(first.entries)
    going_on(6)
    second = first.refresh()
    assert vars(first.history) == vars(before)
    assert vars(second.history) == vars(history_of(second.entries))


@pytest.mark.parametrize("cost", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("tabs", [1, 3, 10])
def test_tabs_take_no_more_than_their_share_together(cost: float, tabs: int) -> None:
    wait = pause(cost, tabs, every=1.0)
    assert 1.0 <= wait <= LONGEST
    assert wait == LONGEST or cost * tabs / wait <= SHARE * (1 + 1e-9)


def test_a_page_is_drawn_anew_when_something_changed_and_at_no_other_time(
    monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    looks: list[Callable[[], None]] = []
    drawn_anew: list[bool] = []
    asked = SimpleNamespace(look=False)

    def fragment(look: Callable[[], None]) -> Callable[[], None]:
        looks.append(look)
        return look

    monkeypatch.setattr(st, "fragment", fragment)
    monkeypatch.setattr(st, "rerun", lambda: drawn_anew.append(True))
    monkeypatch.setattr(st, "session_state", {})
    monkeypatch.setattr(following, "clock", lambda **how: asked)
    path = record(runs / "one")
    opened = Shelf(runs)
    state = opened.open("one").state
    following.follow(lambda: opened.open("one").state, state, 1.0, time.thread_time())
    (look,) = looks
    asked.look = True
    look()
    assert not drawn_anew
    with RunWriter.reopen(path) as writer:
        write(writer, config(9), 7)
    asked.look = False  # a tab that nobody sees
    look()
    assert not drawn_anew
    asked.look = True
    look()
    assert drawn_anew == [True]


def test_tabs_that_nobody_sees_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    waits: list[float] = []
    now = 0.0

    def clock(**how: Any) -> SimpleNamespace:
        waits.append(how["data"]["seconds"])
        return SimpleNamespace(look=False)

    monkeypatch.setattr(st, "fragment", lambda look: look)
    monkeypatch.setattr(following, "clock", clock)
    monkeypatch.setattr(following, "FOLLOWING", WeakKeyDictionary())
    monkeypatch.setattr(following.time, "monotonic", lambda: now)
    sessions = [{}, {}]
    for session in sessions:
        monkeypatch.setattr(st, "session_state", session)
        following.follow(lambda: 0, 0, 1.0, time.thread_time() - 0.1)
    now = 2 * LONGEST  # nobody looked meanwhile
    following.follow(lambda: 0, 0, 1.0, time.thread_time() - 0.1)
    assert waits == pytest.approx([0.1 / SHARE, 0.2 / SHARE, 0.1 / SHARE], rel=0.1)


@pytest.mark.parametrize("page", ["live", "decisions"])
def test_a_run_that_ends_while_it_is_drawn_is_followed_to_its_end(
    open_page: Open, runs: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """What was drawn as going on has to be drawn anew, though it has ended by then."""
    followed: list[str] = []
    monkeypatch.setattr(following, "follow", lambda seen, *rest: followed.append(page))
    cfg = config(9)
    writer = RunWriter.create(runs / "one", cfg.model_dump_json())
    with patch("os.fsync"):
        write(writer, cfg, 3)
    real = curves.loss

    def ending(*args: object) -> object:
        writer.close()
        return real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(curves, "loss", ending)
    app = open_page(page, run="one")
    assert not app.exception
    assert len(followed) == 2  # by Runs, which is opened first, and by this page
    open_page(page, run="one")
    assert len(followed) == 2  # it has ended
