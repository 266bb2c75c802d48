"""The interface served for real, and a browser that looks at it and may go nowhere else."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    TimeoutError,
    sync_playwright,
)

SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)
CHROMIUM = shutil.which("chromium")
WAITING = ("checking …", "measuring what", "reading the tokenizer", "loading the algorithms")
"""What a page says while it goes on without an answer."""
PATIENCE = 60.0  # seconds, on a machine with other work
PROBES = ("/_stcore/health", "/_stcore/host-config")
"""Where Streamlit's own page looks first for its server, below the page's address: not there."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(runs: Path, seconds: float = 60) -> Iterator[str]:
    """Start ``fedpilot ui`` and give its address; it ends with the block."""
    port = free_port()
    command = [sys.executable, "-m", "ui.main", "ui", str(runs), "--port", str(port)]
    log = runs.parent / "server.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, time.monotonic() + seconds)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(address: str, process: "subprocess.Popen[bytes]", until: float) -> None:
    """Wait until the server answers."""
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not answer in time")


@dataclass
class Eyes:
    """A page in a browser, and everything about it that should not be.

    Attributes:
        page: the page.
        address: of the interface.
        seen: errors on the console, and requests to anybody else.
    """

    page: Page
    address: str
    seen: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go somewhere and wait until the page is drawn."""
        self.page.goto(self.address + path)
        self.settled()

    def settled(self, seconds: float = 60) -> None:
        """Wait until the script has run and charts are drawn; complain of exception boxes."""
        state = '[data-testid="stApp"][data-test-script-state="notRunning"]'
        drawing = '[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]'
        still = "s => document.querySelectorAll(s).length === 0"
        with self.patience("the script goes on, or something is still drawn"):
            self.page.wait_for_selector(state, timeout=seconds * 1000)
            self.page.wait_for_function(still, arg=drawing, timeout=seconds * 1000)
        self.page.wait_for_timeout(700)
        assert self.page.locator('[data-testid="stException"]').count() == 0, self.text()

    def answered(self, seconds: float = 180) -> None:
        """Wait until a page has the answers without which it was drawn first."""
        for waiting in WAITING:
            self.gone(waiting, seconds)
        self.settled(seconds)

    def text(self) -> str:
        """Everything that can be read; a space that does not break a line is a space."""
        return self.page.get_by_test_id("stAppViewContainer").inner_text().replace("\u00a0", " ")

    def until(self, words: str, seconds: float = 60) -> None:
        """Wait until some words can be read."""
        self.there(self.page.get_by_text(words).first, words, seconds)

    def gone(self, words: str, seconds: float = 60) -> None:
        """Wait until some words cannot be read any more."""
        with self.patience(f"{words!r} is still there"):
            self.page.get_by_text(words).first.wait_for(state="hidden", timeout=seconds * 1000)

    def button(self, name: str, seconds: float = 60) -> Locator:
        """Wait for a button."""
        found = self.page.get_by_role("button", name=name).first
        self.there(found, f"button {name}", seconds)
        return found

    def link(self, name: str | re.Pattern[str], seconds: float = 60) -> Locator:
        """Wait for a link."""
        found = self.page.get_by_role("link", name=name).first
        self.there(found, f"link {name}", seconds)
        return found

    def tab(self, name: str) -> None:
        """Turn to a tab of the page."""
        with self.patience(f"no tab {name!r}"):
            self.page.get_by_role("tab", name=name).click()
        self.page.wait_for_timeout(300)

    def enter(self, name: str, value: str) -> None:
        """Type a number and confirm it by keyboard."""
        field = self.page.get_by_role("spinbutton", name=name).first
        with self.patience(f"{name!r} cannot be filled"):
            field.fill(value)
        self.page.keyboard.press("Enter")
        self.settled()

    def choose(self, name: str, option: str) -> None:
        """Open a list and choose."""
        with self.patience(f"{option!r} of {name!r} cannot be chosen"):
            self.page.get_by_role("combobox", name=name).click()
            self.page.get_by_role("option", name=option, exact=True).click()
        self.settled()

    def row(self, number: int) -> None:
        """Tick a line of the first table, which is a canvas."""
        table = self.page.get_by_test_id("stDataFrame").first
        with self.patience("no table"):
            table.click(position={"x": 17, "y": 35 + 35 * number + 17})
        self.settled()

    def shot(self, name: str) -> None:
        """Take a picture for somebody who wants to look: into the folder that SHOTS names."""
        if folder := os.environ.get("SHOTS"):
            self.page.screenshot(path=f"{folder}/{name}.png")

    def there(self, what: Locator, name: str, seconds: float) -> None:
        """Wait until something is there."""
        with self.patience(f"no {name!r}"):
            what.wait_for(timeout=seconds * 1000)

    @contextmanager
    def patience(self, problem: str) -> Iterator[None]:
        """Say what is there instead of what a wait was for, and take a picture."""
        began = time.monotonic()
        try:
            yield
        except TimeoutError:
            self.shot("in-vain")
            app = self.page.get_by_test_id("stApp")
            # Not by :meth:`text`: there may be no page to wait for.
            state = [found.get_attribute("data-test-script-state") for found in app.all()]
            text = self.page.locator("body").inner_text()
            waited = f"after {time.monotonic() - began:.0f} s at {self.page.url}"
            raise AssertionError(f"{problem} {waited}, script {state}, but: {text}") from None


def looking(browser: Browser, address: str, width: int = 1280, scheme: str = "light") -> Eyes:
    """Open a fresh browser session that notes what should not be."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    context.set_default_timeout(PATIENCE * 1000)
    eyes = Eyes(context.new_page(), address)

    def request(request: Request) -> None:
        own = (address, address.replace("http", "ws"), "data:", "blob:")
        if not request.url.startswith(own):
            eyes.seen.append(f"request to {request.url[:200]}")

    def console(message: ConsoleMessage) -> None:
        probe = message.location.get("url", "").endswith(PROBES)
        if message.type == "error" and not probe:
            eyes.seen.append(f"console: {message.text[:300]}")

    eyes.page.on("request", request)
    eyes.page.on("console", console)
    eyes.page.on("pageerror", lambda error: eyes.seen.append(f"page: {error}"))
    return eyes


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start Chromium without a window."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        try:
            yield browser
        finally:
            browser.close()
