"""Tabs that follow a run: the one that is seen shows what is new, the others wait to be seen."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.runs.writer import RunWriter
from tests.ui.browser.served import CHROMIUM, serving
from tests.ui.browser.window import Tab, window
from tests.ui.web.recorded import config, write

pytestmark = pytest.mark.browser


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
