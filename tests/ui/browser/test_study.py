"""A study from the page of a run: set up, started, stopped, gone on with, and its report kept."""

import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from agents.study.ledger import Study
from agents.study.spec import from_toml
from federation.runs.run import Run
from tests.ui.browser.conftest import training
from tests.ui.browser.served import Eyes, looking, serving
from ui.web.jobs import jobs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SHORT = 180.0  # seconds, on a machine with other work


def test_a_study_from_a_run(browser: Browser, runs: Path) -> None:
    assert training(runs, "short", rounds=2).wait(SHORT) == 0
    with serving(runs) as address:
        eyes = looking(browser, address)
        set_up(eyes)
        stopped(eyes, runs)
        gone_on_with(eyes, runs)
        reported(eyes, runs)
        eyes.settled()
        assert eyes.seen == []
        eyes.page.context.close()
    assert [job.code for job in jobs(runs)] == [0, 130]


def set_up(eyes: Eyes) -> None:
    """Two arms of the run, three pairs, a small budget; what is wrong is said in a line."""
    eyes.open("/live?run=short")
    eyes.link("Study from this run").click()
    eyes.until("Filled from run short")
    eyes.settled()
    assert "of=short" in eyes.page.url
    eyes.page.get_by_text("Its pilot decides in every run").click()
    eyes.settled()
    eyes.page.get_by_role("textbox", name="Question").fill("Is training worth it?")
    eyes.page.keyboard.press("Enter")
    eyes.settled()
    eyes.enter("Learning rate", "0.00001")
    eyes.enter("Rounds", "6")  # long enough to be seen and stopped on a quick machine
    eyes.enter("Paired seeds", "3")
    eyes.enter("Pairs of the noise floor", "2")
    eyes.enter("Most client-steps", "10")
    eyes.until("and the study needs 144 at least")
    eyes.enter("Most client-steps", "144")
    eyes.gone("and the study needs 144 at least")
    eyes.page.get_by_role("textbox", name="Name of arm 1").fill("Nearly frozen")
    eyes.page.keyboard.press("Enter")
    eyes.until('nearly-frozen = ["work.lr=1e-05"]')
    eyes.gone("checking …", SHORT)
    eyes.settled()
    eyes.shot("study-form")
    eyes.page.get_by_role("textbox", name="Name of the study").fill("worth")
    eyes.page.keyboard.press("Enter")
    eyes.settled()
    eyes.button("Start").click()


def stopped(eyes: Eyes, runs: Path) -> None:
    """It is told to stop, ends after the round in flight, and can be gone on with."""
    eyes.until("now: ", SHORT)  # a run; which one, the machine decides
    assert "study=worth" in eyes.page.url, "a page that is sent to somebody names its study"
    assert "Is training worth it?" in eyes.text()
    eyes.shot("study-running")
    eyes.button("Stop").click()
    eyes.button("Go on", SHORT)
    eyes.settled()
    eyes.shot("study-stopped")
    study = Study.open(runs / "worth")
    assert study.told.verdict is None and study.told.client_steps < 144
    assert study.spec == from_toml(runs / ".configs" / "worth.toml")


def gone_on_with(eyes: Eyes, runs: Path) -> None:
    """It ends with a verdict, within its budget."""
    eyes.button("Go on").click()
    eyes.until("finished", SHORT)
    eyes.until("Verdict", SHORT)
    eyes.settled()
    told = Study.open(runs / "worth").told
    assert told.verdict is not None and told.client_steps == 144
    judged = told.verdict.found["nearly-frozen"]
    text = eyes.text()
    assert "144 of 144 client-steps spent in 8 runs" in text and judged.verdict in text
    assert Run.open(runs / "worth" / "runs" / "nearly-frozen-seed-2").status == "finished"
    eyes.shot("study-finished")


def reported(eyes: Eyes, runs: Path) -> None:
    """Its report comes down in one file, with its pictures."""
    eyes.button("Report", SHORT)
    with eyes.page.expect_download() as coming:
        eyes.button("Report").click()
    with zipfile.ZipFile(coming.value.path()) as packed:
        assert set(packed.namelist()) == {
            f"worth/{name}" for name in ("report.md", "intervals.png", "curves.png")
        }
        report = packed.read("worth/report.md")
    assert report == (runs / "worth" / "report.md").read_bytes()
    assert report.startswith(b"# Is training worth it?")
