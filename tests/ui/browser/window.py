"""One window of Chromium with many tabs, as a person has it: one of them is seen, the others not.

Playwright tells every page that it is seen; here the browser is spoken to without it.
"""

import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.ui.browser.served import CHROMIUM, SWITCHES

DRAWN = """(() => {
  const app = document.querySelector('[data-testid="stApp"]');
  return !!app && app.getAttribute('data-test-script-state') === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]');
})()"""


@dataclass(frozen=True)
class Window:
    """A window.

    Attributes:
        port: on which the browser is spoken to.
    """

    port: int

    def ask(self, path: str, method: str = "GET") -> Any:
        url = f"http://127.0.0.1:{self.port}/json/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as told:
            text = told.read().decode()
        return json.loads(text) if text[:1] in "[{" else text

    def open(self, url: str, seconds: float = 60) -> "Tab":
        """Open a tab in front of the others and wait until its page is drawn."""
        told = self.ask(f"new?{url}", "PUT")
        tab = Tab(self, told["id"], told["webSocketDebuggerUrl"])
        end = time.monotonic() + seconds
        while not tab.evaluate(DRAWN):
            assert time.monotonic() < end, f"{url} is not drawn"
            time.sleep(0.2)
        return tab


@dataclass(frozen=True)
class Tab:
    """A tab.

    Attributes:
        window: that it is in.
        id: of it.
        socket: address at which it is spoken to.
    """

    window: Window
    id: str
    socket: str

    def evaluate(self, expression: str) -> Any:
        call = {"expression": expression, "returnByValue": True}
        with connect(self.socket, max_size=None) as socket:
            socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": call}))
            while (told := json.loads(socket.recv(60))).get("id") != 1:
                pass
        # While the tab goes somewhere else, nobody answers.
        return told.get("result", {}).get("result", {}).get("value")

    def text(self) -> str:
        """Everything that can be read."""
        return str(self.evaluate("document.body.innerText"))

    def seen(self) -> bool:
        return self.evaluate("document.visibilityState") == "visible"

    def show(self) -> None:
        """Bring it to the front."""
        self.window.ask(f"activate/{self.id}")

    def close(self) -> None:
        self.window.ask(f"close/{self.id}")


@contextmanager
def window(seconds: float = 60) -> Iterator[Window]:
    """Start Chromium with a window that nobody sees; it ends with the block."""
    assert CHROMIUM, "Chromium is not installed"
    with tempfile.TemporaryDirectory(prefix="window-", ignore_cleanup_errors=True) as profile:
        own = (f"--user-data-dir={profile}", "--remote-debugging-port=0", "--no-first-run")
        process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--window-size=1280,1000", *own, *SWITCHES],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Window(port_of(Path(profile) / "DevToolsActivePort", process, seconds))
        finally:
            process.terminate()
            process.wait(30)


def port_of(file: Path, process: "subprocess.Popen[bytes]", seconds: float) -> int:
    """Wait until the browser has written down where it is spoken to."""
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
        time.sleep(0.1)
    return int(file.read_text().split()[0])
