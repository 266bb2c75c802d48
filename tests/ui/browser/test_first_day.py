"""A new user's first day, from an empty directory to the copilot: real server, real training."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from agents.copilot.records import CHATS
from federation.runs.records import DecisionRecord, WhatIfRecord
from federation.runs.run import Run
from tests.ui.browser.served import Eyes, looking, serving
from ui.web import chats
from ui.web.jobs import jobs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]
LONG = 600.0  # seconds that the demo may take on a machine with other work
SHORT = 180.0
CHIP = re.compile(r"\bloss@\W?1 = ")


def test_the_first_day(browser: Browser, tmp_path: Path) -> None:
    runs = tmp_path / "day" / "runs"
    runs.parent.mkdir()
    with serving(runs) as address:
        eyes = looking(browser, address)
        the_demo(eyes)
        an_explanation(eyes, runs)
        a_run_that_asks(eyes)
        an_edited_decision(eyes, runs)
        an_approved_decision(eyes, runs)
        a_what_if(eyes, runs)
        a_comparison(eyes)
        the_copilot(eyes, runs)
        another_way(eyes, runs)
        eyes.settled()
        assert eyes.seen == []
        eyes.page.context.close()
    assert [job.title for job in jobs(runs) if job.alive] == []
    assert [job.said for job in jobs(runs) if job.code not in (0, 130)] == []
    nothing_stays(runs)


def the_demo(eyes: Eyes) -> None:
    """One button, then watch."""
    eyes.open("/")
    eyes.until("No runs yet")
    eyes.shot("empty")
    eyes.button("Start the demo").click()
    eyes.until("demo is starting")
    eyes.until("round 1 of 9", SHORT)
    assert "run=demo" in eyes.page.url, "a page that is sent to somebody names its run"
    eyes.shot("under-way")
    eyes.until("finished", LONG)
    eyes.settled()
    assert "round 9 of 9" in eyes.text()
    eyes.shot("finished")


def an_explanation(eyes: Eyes, runs: Path) -> None:
    """Why a round was as it was: of the newest, and of any other."""
    explained = {x.round: x.text for x in Run.open(runs / "demo").history.explanations}
    assert explained[8][:40] in eyes.text()
    eyes.link("Decisions").click()
    eyes.until("Round 9")
    eyes.enter("Round", "3")
    eyes.until(explained[2][:40])
    eyes.settled()
    assert "run=demo" in eyes.page.url and "round=3" in eyes.page.url
    eyes.shot("explanation")


def a_run_that_asks(eyes: Eyes) -> None:
    """Clone and edit the demo: smaller, and a person decides."""
    eyes.link("Runs").click()
    eyes.until("Select a run")
    eyes.row(0)
    eyes.link("Clone and edit").click()
    eyes.until("Filled from run demo")
    eyes.settled()
    for name, value in (("Organisations", "3"), ("Examples", "180")):
        eyes.enter(name, value)
    eyes.tab("Training")
    eyes.enter("Rounds", "2")
    eyes.tab("Cohort")
    eyes.enter("Clients a round", "3")
    eyes.tab("Measure")
    for baseline in ("local", "centralised"):
        eyes.button(baseline).click()
        eyes.settled()
    eyes.tab("Pilot")
    eyes.choose("Policy", "human")
    eyes.page.get_by_role("textbox", name="Name of the run").fill("asked")
    eyes.page.keyboard.press("Enter")
    eyes.until("What it takes", SHORT)
    eyes.settled()
    eyes.shot("new")
    eyes.button("Start").click()


def an_edited_decision(eyes: Eyes, runs: Path) -> None:
    """The run waits for a person, who changes a value."""
    eyes.until("A decision waits for you.", SHORT)
    eyes.link("Decide").click()
    eyes.until("Round 1 waits for you")
    eyes.shot("asked")
    eyes.page.get_by_text("Edit it first").click()
    eyes.page.get_by_role("spinbutton", name="lr").fill("0.004")
    eyes.button("Use these values").click()
    eyes.until("Round 2 waits for you", SHORT)
    first = decisions(runs / "asked")[0]
    assert first.source == "human" and first.work["lr"] == 0.004
    assert first.details["person"]["answer"] == "edit"  # type: ignore[index, call-overload]
    eyes.settled()
    assert "edited by person" in eyes.text()
    eyes.shot("edited")


def an_approved_decision(eyes: Eyes, runs: Path) -> None:
    """The next proposal is approved as it is; the value that was edited stays."""
    eyes.button("Approve").click()
    eyes.gone("Round 2 waits for you")
    eyes.link("Live").click()
    eyes.until("finished", SHORT)
    assert decisions(runs / "asked")[1].work["lr"] == 0.004


def decisions(path: Path) -> dict[int, DecisionRecord]:
    return Run.open(path).history.decisions


def a_what_if(eyes: Eyes, runs: Path) -> None:
    """What a kept round would have come to otherwise: a record, and what is said of it."""
    eyes.link("Compare and what-if").click()
    eyes.settled()
    eyes.page.get_by_role("radio", name="what-if").click()
    eyes.until("Nothing was asked of this run yet")
    eyes.choose("Combined by", "median")
    eyes.until("trains nothing")
    eyes.button("Play it again").click()
    eyes.until("The newest answer", SHORT)
    eyes.settled()
    found = what_ifs(runs / "asked")
    assert len(found) == 1 and found[0].change == {"algorithm": "median"}
    assert f"{abs(found[0].effect.mean):.4f} nats per token" in eyes.text()  # type: ignore[union-attr]
    eyes.shot("what-if")


def what_ifs(path: Path) -> list[WhatIfRecord]:
    return Run.open(path).history.whatifs


def a_comparison(eyes: Eyes) -> None:
    """Two runs over one another, and why nothing is proved of them."""
    eyes.page.get_by_role("radio", name="compare").click()
    eyes.until("Is the difference more than chance?")
    eyes.settled()
    text = eyes.text()
    assert "no verdict" in text and "not measured alike" in text
    eyes.shot("compare")


def the_copilot(eyes: Eyes, runs: Path) -> None:
    """Facts as chips that lead to the chart; what acts is approved first."""
    eyes.link("Playground").click()
    eyes.settled()
    eyes.page.get_by_role("radio", name="Copilot").click()
    eyes.page.get_by_role("radio", name="What is known?").click()
    chip = eyes.link(CHIP, SHORT)
    eyes.page.get_by_role("textbox", name="Say something").fill("propose lr=0.004")
    eyes.page.keyboard.press("Enter")
    eyes.until("propose_hyperparameters waits for you", SHORT)
    eyes.shot("copilot")
    eyes.button("Approve").click()
    eyes.until("The proposal was written", SHORT)
    eyes.settled()
    [chat] = (runs / "asked" / CHATS).iterdir()
    assert [step.decided.verdict for turn in chats.read(chat).turns for step in turn.steps
            if step.decided] == ["approve"]  # fmt: skip
    assert (runs / "asked" / "proposals" / "proposal-1.toml").is_file()
    chip.click()
    eyes.until("The chart marks the fact loss")
    eyes.settled()
    assert "run=asked" in eyes.page.url and "round=2" in eyes.page.url


def another_way(eyes: Eyes, runs: Path) -> None:
    """A fork from a round asks as its parent did, and is stopped."""
    eyes.link("Live").click()
    eyes.until("finished")
    eyes.settled()
    eyes.button("Fork").click()
    eyes.choose("After round", "1")
    eyes.page.get_by_test_id("stPopoverBody").get_by_role("button", name="Fork").click()
    eyes.until("A decision waits for you.", SHORT)
    eyes.settled()
    assert "run=asked-fork" in eyes.page.url and "round 1 of 2" in eyes.text()
    eyes.button("Stop").click()
    eyes.until("stopped by", SHORT)
    eyes.gone("A decision waits for you.")
    eyes.shot("stopped")
    run = Run.open(runs / "asked-fork")
    assert run.status == "stopped" and list(run.history.rounds) == [0]
    assert decisions(runs / "asked-fork")[0].work["lr"] == 0.004


def nothing_stays(runs: Path) -> None:
    """Whatever the interface started ends by itself, soon after it."""
    end = time.monotonic() + 20
    while processes(runs):
        assert time.monotonic() < end, processes(runs)
        time.sleep(0.1)


def processes(runs: Path) -> dict[int, str]:
    """Return the processes that name a folder."""
    lines = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    words = [line.split(maxsplit=1) for line in lines.splitlines() if str(runs) in line]
    return {int(pid): command for pid, command in words}
