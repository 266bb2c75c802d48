"""Browser tests need Chromium; they look at a real server and, where they train, at a real run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.ui.browser.served import CHROMIUM, browsing

SMALL = """
rounds = {rounds}
[data]
count = 3
examples = 180
max_tokens = 128
[data.clients]
by = "key"
key = "client"
[work]
steps = {steps}
batch_size = 2
lr = 5e-3
[cohort]
size = 3
[evaluation]
every = 20
max_examples = 6
[engine]
chunk = 3
keep_updates = 50
[pilot]
policy = "{policy}"
[pilot.bounds]
lr = [1e-3, 1e-2]
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the path; make test-ui installs it")
    with browsing() as found:
        yield found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def training(
    runs: Path, name: str, rounds: int = 3, steps: int = 1, policy: str = "heuristic"
) -> "subprocess.Popen[bytes]":
    """Start a real run on the built-in model: seconds for every round."""
    config = runs.parent / f"{name}.toml"
    config.write_text(SMALL.format(rounds=rounds, steps=steps, policy=policy))
    command = [sys.executable, "-m", "ui.main", "run", str(config), "--out", str(runs / name)]
    log = open(runs.parent / f"{name}.log", "wb")  # noqa: SIM115
    with log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
