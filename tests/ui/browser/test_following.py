"""Tabs that follow a run: the one that is seen shows what is new, the others wait to be seen."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from federation.runs.writer import RunWriter
from tests.ui.browser.served import CHROMIUM, serving
from tests.ui.browser.window import Tab, window
from tests.ui.web.recorded import config, write
from ui.web.following import CLOCK

pytestmark = pytest.mark.browser
CLOCKS = """async ({ code, data }) => {
  const file = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }))
  const { default: wind } = await import(file)
  const parentElement = document.createElement('div')
  const looks = []
  const start = name => wind({ data, parentElement, setTriggerValue: () => looks.push(name) })
  const during = async () => {
    looks.length = 0
    await new Promise(resolve => setTimeout(resolve, 1000))
    return [...new Set(looks)]
  }
  const first = start('first'), late = start('late'), newest = start('newest')
  late() // as Streamlit does with one that was overtaken; the first one it forgets
  const both = await during()
  first()
  const one = await during()
  newest()
  return [both, one, await during()]
}"""
"""Winds up clocks as a page does that is drawn anew twice; returns who looked, each time."""


def shown(tab: Tab) -> int:
    """Which round a tab shows as the newest."""
    found = re.search(r"round (\d+) of", tab.text())
    return int(found[1]) if found else 0


def soon(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until something is so; false if it is not in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.2)
    return true()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path; make test-ui installs it")
def test_a_tab_that_nobody_sees_waits_and_catches_up_when_it_is_seen(runs: Path) -> None:
    cfg = config(99)
    with RunWriter.create(runs / "one", cfg.model_dump_json()) as writer, serving(runs) as address:
        write(writer, cfg, 5)
        with window() as browser:
            hidden, front = (browser.open(f"{address}/live?run=one") for _ in range(2))
            assert (hidden.seen(), front.seen()) == (False, True)
            for rounds in (6, 7):
                write(writer, cfg, rounds)
                assert soon(lambda n=rounds: shown(front) == n)
            assert shown(hidden) == 5
            hidden.show()
            assert soon(lambda: shown(hidden) == 7, 5)


def test_a_clock_that_is_stopped_late_stops_no_other(browser: Browser) -> None:
    page = browser.new_page()
    data = {"seconds": 0.05, "share": 0.02, "most": 0.0}
    looked = page.evaluate(CLOCKS, {"code": CLOCK, "data": data})
    page.close()
    assert looked == [["newest"], ["newest"], []]
