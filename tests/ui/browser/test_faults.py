"""What may go wrong between a person, a tab, a server and a run changes nothing in the run."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator

from federation.runs.inbox import Pause, post
from federation.runs.records import computed
from federation.runs.run import Run
from tests.ui.browser.conftest import training
from tests.ui.browser.served import looking, serving
from tests.ui.web.recorded import record

pytestmark = pytest.mark.browser
STOPPED = 130  # exit code of a run that a person stopped
EVIL = "<script>document.title='owned'</script> ![x](http://example.com/x.png) <b>bold</b> $x$"


def finished(process: "subprocess.Popen[bytes]", path: Path, seconds: float = 200) -> Run:
    assert process.wait(seconds) == 0
    return Run.open(path)


def bits(run: Run) -> list[object]:
    return [computed(entry.record) for entry in run.entries if entry.record.kind != "command"]


def adapter(run: Run) -> bytes:
    return (run.path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_markup_from_data_is_shown_as_it_is_and_nothing_is_fetched(
    browser: Browser, runs: Path
) -> None:
    path = record(runs / "one", done=5, rounds=6, end=None)
    journal = (path / "journal.jsonl").read_text().splitlines()
    assert len(journal) > 3
    evil = record(runs / EVIL.replace("/", "|"), end="failed")
    with serving(runs) as address:
        eyes = looking(browser, address)
        eyes.open("/")
        eyes.page.goto(f"{address}/live")
        eyes.settled()
        eyes.page.goto(f"{address}/live?run=" + "%3Cscript%3Ealert(1)%3C/script%3E")
        eyes.settled()
        assert "<script>alert(1)</script>" in eyes.text()
        assert eyes.page.title() != "owned"
        assert eyes.page.locator("[data-testid=stMain] img").count() == 0
        assert eyes.seen == []
    assert evil.exists()


def test_a_killed_server_and_a_closed_tab_change_nothing_in_a_run(
    browser: Browser, runs: Path, tmp_path: Path
) -> None:
    process = training(runs, "one", rounds=6, steps=2)
    with serving(runs) as address:
        eyes = looking(browser, address)
        eyes.open("/")
        eyes.until("one", 90)
        eyes.open("/live?run=one")
        eyes.until("round", 120)
        eyes.page.reload()
        eyes.settled()
        eyes.page.context.close()
        port = address.rpartition(":")[2]
        os.kill(server_of(port), signal.SIGKILL)
    run = finished(process, runs / "one")
    quiet = finished(training(runs, "two", rounds=6, steps=2), runs / "two")
    assert bits(run)[1:] == bits(quiet)[1:]
    assert adapter(run) == adapter(quiet)
    with serving(runs) as address:
        eyes = looking(browser, address)
        eyes.open("/live?run=one")
        eyes.until("round 6 of 6")
        assert eyes.seen == []


def server_of(port: str) -> int:
    """Find the server that was started for a port."""
    found = subprocess.run(["pgrep", "-f", f"ui.main ui .*--port {port}$"], capture_output=True)
    return int(found.stdout.split()[0])


def test_two_tabs_and_double_clicks_are_one_command_and_the_bits_stay(
    browser: Browser, runs: Path
) -> None:
    process = training(runs, "one", rounds=12, steps=2)
    until(lambda: (runs / "one" / "journal.jsonl").exists() and rounds(runs / "one") >= 1)
    post(runs / "one", Pause())
    with serving(runs) as address:
        tabs = [looking(browser, address), looking(browser, address)]
        for tab in tabs:
            tab.open("/live?run=one")
            tab.button("Go on")
        held = rounds(runs / "one")
        at_once([tab.button("Stop") for tab in tabs])
        assert process.wait(100) == STOPPED
        assert rounds(runs / "one") == held < 12
        for tab in tabs:
            tab.until("stopped")
        # Both tabs ask at once that the run goes on: it does, in one process.
        at_once([tab.button("Go on") for tab in tabs])
        until(lambda: Run.open(runs / "one").status == "finished")
        tabs[0].until("round 12 of 12")
        assert [eye for tab in tabs for eye in tab.seen] == []
    run = Run.open(runs / "one")
    assert [c.command for c in run.history.commands.values()] == ["pause", "stop"]
    quiet = finished(training(runs, "two", rounds=12, steps=2), runs / "two")
    assert adapter(run) == adapter(quiet)


def at_once(buttons: list[Locator]) -> None:
    """Click every button twice, before any of them can go away."""
    for there in [button.element_handle() for button in buttons]:
        there.evaluate("button => { button.click(); button.click() }")


def rounds(path: Path) -> int:
    return len(Run.open(path).history.rounds)


def until(true: object, seconds: float = 120) -> None:
    """Wait for something, not for ever."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
