"""A second day: data made up and judged, a run brought along, trained on, its model taken away."""

import time
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from federation.runs.run import Run
from tests.ui.browser.conftest import training
from tests.ui.browser.served import Eyes, looking, serving
from tests.ui.browser.test_first_day import nothing_stays
from ui.web import made_sets
from ui.web.jobs import jobs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LONG = 240.0  # seconds, on a machine with other work
WEIGHTS = "adapter_model.safetensors"


def test_the_second_day(browser: Browser, runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = training(elsewhere, "small", rounds=2)
    with serving(runs) as address:
        eyes = looking(browser, address)
        a_made_up_set(eyes)
        assert process.wait(LONG) == 0
        a_run_from_elsewhere(eyes, elsewhere / "small")
        train_beside_real_data(eyes, runs)
        the_model_taken_away(eyes, runs, tmp_path / "model.zip")
        the_gate(eyes, runs)
        a_run_deleted(eyes, runs)
        eyes.settled()
        assert eyes.seen == []
        eyes.page.context.close()
    assert [job.title for job in jobs(runs) if job.alive] == []
    nothing_stays(runs)


def a_made_up_set(eyes: Eyes) -> None:
    """Describe, make, and read the card."""
    eyes.open("/studio")
    eyes.until("No made-up data yet")
    eyes.button("Describe a federation").click()
    eyes.until("Rows asked for")
    eyes.settled()
    eyes.button("Make it").click()
    eyes.until("Quality and leakage card", LONG)
    eyes.settled()
    text = eyes.text()
    assert "made, not judged" in text and "200 of 200" in text
    assert "Not judged yet: nothing says that training on it helps." in text
    eyes.shot("set")


def a_run_from_elsewhere(eyes: Eyes, source: Path) -> None:
    """Bring a run directory in, once."""
    eyes.link("Runs").click()
    eyes.until("No runs yet")
    for words in ("imported small", "there is a small here already"):
        if not eyes.page.get_by_role("textbox", name="Run directory").is_visible():
            eyes.button("Import").click()
        eyes.page.get_by_role("textbox", name="Run directory").fill(str(source))
        eyes.page.keyboard.press("Enter")
        eyes.settled()
        inside = eyes.page.get_by_test_id("stPopoverBody")
        inside.get_by_role("button", name="Import").click()
        eyes.until(words)
    eyes.shot("imported")


def train_beside_real_data(eyes: Eyes, runs: Path) -> None:
    """The set beside the data of the run; what is written survives a reload."""
    eyes.link("Data studio").click()
    eyes.link("Train on it beside real data").click()
    eyes.until("Filled from run small and the made-up set")
    eyes.settled()
    eyes.page.get_by_role("textbox", name="Name of the run").fill("both")
    eyes.page.keyboard.press("Enter")
    end = time.monotonic() + LONG
    while not any('"both"' in file.read_text() for file in runs.glob(".drafts/*.json")):
        assert time.monotonic() < end, "what was written is not kept"
        eyes.page.wait_for_timeout(100)
    eyes.settled()
    eyes.page.reload()
    eyes.settled()
    eyes.until("Filled from run small and the made-up set")
    name = eyes.page.get_by_role("textbox", name="Name of the run")
    assert name.input_value() == "both"
    eyes.until("What it takes", LONG)
    eyes.settled()
    eyes.shot("beside")
    eyes.button("Start").click()
    eyes.until("finished", LONG)
    eyes.settled()
    (name,) = made_sets.names(runs)
    made = made_sets.read(runs, name)
    config = Run.open(runs / "both").config
    assert config["data"]["extra"] == str(made.rows)  # type: ignore[index, call-overload]
    small = Run.open(runs / "small").config["data"]
    assert config["data"]["examples"] == small["examples"]  # type: ignore[index, call-overload]


def the_model_taken_away(eyes: Eyes, runs: Path, file: Path) -> None:
    """Write the adapter, download it: the very one that the run has learnt."""
    eyes.page.get_by_text("Export and serve the model").click()
    eyes.settled()
    eyes.shot("offered")
    eyes.button("Write the files").click()
    eyes.until("The model after round 2 of 2", LONG)
    eyes.settled()
    with eyes.page.expect_download() as download:
        eyes.button("Download (").click()
    download.value.save_as(file)
    archive = zipfile.ZipFile(file)
    (weights,) = (name for name in archive.namelist() if name.endswith(WEIGHTS))
    assert archive.read(weights) == (runs / "both" / "adapter" / WEIGHTS).read_bytes()
    eyes.settled()
    text = eyes.text()
    assert "peft.PeftModel.from_pretrained" in text
    eyes.shot("export")
    eyes.tab("Serve")
    eyes.until("fedpilot serve")


def the_gate(eyes: Eyes, runs: Path) -> None:
    """Paired runs judge the set; whatever they say, they can be asked again otherwise."""
    eyes.link("Data studio").click()
    eyes.until("Ask the gate")
    eyes.settled()
    eyes.choose("Judged by", "small")
    eyes.button("Ask the gate").click()
    eyes.until("before the gate")
    eyes.until("Gain in loss", LONG)
    eyes.settled()
    (name,) = made_sets.names(runs)
    made = made_sets.read(runs, name)
    assert made.status in ("admitted", "rejected") and f"{made.status}: a set is" in eyes.text()
    eyes.page.get_by_text("Judge it again, by another run or otherwise").click()
    eyes.button("Ask the gate")
    eyes.shot("judged")


def a_run_deleted(eyes: Eyes, runs: Path) -> None:
    """Nothing goes before it is confirmed; then all of it."""
    eyes.link("Runs").click()
    eyes.until("Select a run")
    eyes.settled()
    eyes.row(0)
    eyes.button("Delete").click()
    eyes.until("This cannot be undone.")
    assert (runs / "both").is_dir()
    eyes.button("Delete it").click()
    eyes.until("both is deleted")
    eyes.settled()
    assert not (runs / "both").exists() and (runs / "small").is_dir()
