"""How quick the interface is on a long run: python -m tests.ui.browser.speed [--json FILE].

Writes a run of 10,000 records by itself, nothing trained, starts the real server and looks at it
with Chromium.  Then a small experiment is trained while a window with ten tabs shows it and while
none does, in turn.  Processor times are the operating system's and hold on a machine that does
other things; wall times do not.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import psutil
from playwright.sync_api import Browser

from federation.runs.run import Run
from federation.runs.writer import RunWriter
from tests.ui.browser.served import browsing, looking, serving
from tests.ui.browser.window import window
from tests.ui.web.recorded import config, write

ROUNDS, CLIENTS, COHORT = 2500, 1000, 20
PAGES = {
    "runs": "/",
    "new": "/new",
    "live": "/live?run=long",
    "decisions": "/decisions?run=long",
    "clients": "/clients?run=long",
    "playground": "/playground?run=long",
    "compare": "/compare?runs=long",
    "studies": "/studies",
    "studio": "/studio",
}
UPDATE = 0.3  # processor seconds of the server that an update may take
FOLLOWING = {"live": "round {} of", "decisions": "Round {}"}
"""Pages that follow a run by themselves -> what is to be read there after a round."""
THERE = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const ran = app && app.getAttribute('data-test-script-state') === 'notRunning';
  const title = document.querySelector('[data-testid="stMain"] h1');
  const drawing = '[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]';
  const charts = [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')];
  const drawn = charts.every(chart => chart.querySelector('canvas, svg'));
  return ran && title && drawn && !document.querySelector(drawing) && performance.now();
}"""
"""Milliseconds since the navigation began, once the page is drawn; false before."""
SMALL = """
rounds = 100000
[data]
count = 3
examples = 180
max_tokens = 128
[data.clients]
by = "key"
key = "client"
[work]
steps = 4
batch_size = 4
[cohort]
size = 3
[evaluation]
every = 1000
max_examples = 6
[engine]
chunk = 3
threads = 1
[pilot]
policy = "heuristic"
"""


class Used:
    """Processor seconds of processes since this was made, those that were started since included.

    Args:
        find: lists the processes that live.
    """

    def __init__(self, find: Callable[[], list[psutil.Process]]) -> None:
        self.find = find
        self.before, self.began = times(find()), time.monotonic()

    def seconds(self) -> float:
        return sum(t - self.before.get(pid, 0.0) for pid, t in times(self.find()).items())

    def share(self) -> float:
        """Of one core."""
        return self.seconds() / (time.monotonic() - self.began)


def times(processes: list[psutil.Process]) -> dict[int, float]:
    found = {}
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[each.pid] = sum(each.cpu_times()[:2])
    return found


def server_on(address: str) -> Callable[[], list[psutil.Process]]:
    """Return what finds the server that this process started, and what that started."""
    port = address.rpartition(":")[2]
    server = next(p for p in psutil.Process().children() if port in p.cmdline())
    return lambda: [server, *server.children(recursive=True)]


def chromium() -> list[psutil.Process]:
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if "chrom" in each.name() else []
    return found


@contextlib.contextmanager
def long_run(runs: Path) -> Iterator[RunWriter]:
    """Write a run of 10,000 records, which goes on."""
    cfg = config(2 * ROUNDS)
    # So many writes need not wait for the disk.
    with patch("os.fsync"), RunWriter.create(runs / "long", cfg.model_dump_json()) as writer:
        write(writer, cfg, ROUNDS, CLIENTS, COHORT)
        yield writer


def first_paints(browser: Browser, address: str, times: int) -> dict[str, dict[str, Any]]:
    """Open every page anew, so many times, the server being warm.

    Returns:
        Page -> seconds from the navigation until it is drawn, every time; and the processor seconds
        that server and browser took for it together, the least: more than a page takes to be drawn
        on a machine that does nothing else.
    """
    found: dict[str, dict[str, Any]] = {}
    server = server_on(address)
    for name, path in PAGES.items():
        took, spent = [], []
        for _ in range(times + 1):  # the first one warms the server
            eyes = looking(browser, address)
            used = Used(server), Used(chromium)
            eyes.page.goto(address + path, wait_until="commit")
            shown = eyes.page.wait_for_function(THERE, timeout=120_000).json_value()
            spent.append(sum(each.seconds() for each in used))
            took.append(shown / 1000)
            eyes.page.context.close()
        found[name] = {"wall": took[1:], "processor": min(spent[1:])}
        progress(f"{name}: {found[name]}")
    return found


def updates(
    browser: Browser, address: str, writer: RunWriter, times: int, idle: float
) -> dict[str, dict[str, Any]]:
    """Let the run go on while one tab shows a page.

    Returns:
        Page -> processor seconds: of the server for each update, from the record to the drawn page
        with all looks between, and a second, while nothing happens; of the browser for each update.
    """
    server, found, cfg = server_on(address), {}, config(2 * ROUNDS)
    for name, words in FOLLOWING.items():
        eyes = looking(browser, address)
        eyes.open(PAGES[name])
        time.sleep(idle)
        used = Used(server)
        time.sleep(idle)
        still = used.share()
        spent, drawn = [], []
        for _ in range(times):
            used, browsers = Used(server), Used(chromium)
            write(writer, cfg, writer.next_round + 1, CLIENTS, COHORT)
            eyes.until(words.format(writer.next_round), 120)
            eyes.settled()
            spent.append(used.seconds())
            drawn.append(browsers.seconds())
        found[name] = {"update": spent, "idle": still, "browser": drawn}
        progress(f"{name}: {found[name]}")
        eyes.page.context.close()
    return found


def beside_training(
    address: str, runs: Path, tabs: int, turns: int, rounds: int
) -> list[dict[str, float]]:
    """Train while the tabs of a window show it, one in front of the others, and while none does.

    Returns:
        For every turn: tabs, how many of them are seen, wall and processor seconds of training a
        round, and what server and browser took of a core.
    """
    (runs.parent / "small.toml").write_text(SMALL)
    words = ["-m", "ui.main", "run", str(runs.parent / "small.toml"), "--out", str(runs / "small")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(runs.parent / "small.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, env=environment
        )
    found: list[dict[str, float]] = []
    try:
        until_played(runs / "small", 2)  # the first ones warm up
        with window() as browser:
            for turn in range(2 * turns):
                # Opened first every other time, so that a machine that tires counts for neither.
                many = tabs if turn % 4 in (0, 3) else 0
                opened = [browser.open(f"{address}/live?run=small") for _ in range(many)]
                seen = sum(tab.seen() for tab in opened)
                figures = paced(runs / "small", process, address, rounds)
                found.append({"tabs": many, "seen": seen, **figures})
                progress(str(found[-1]))
                for tab in opened:
                    tab.close()
    finally:
        process.terminate()
        process.wait(60)
    return found


def paced(
    path: Path, process: "subprocess.Popen[bytes]", address: str, rounds: int
) -> dict[str, float]:
    """Measure so many rounds, from the end of one to the end of another."""
    first = until_played(path, played(path) + 1)
    training, server = Used(lambda: [psutil.Process(process.pid)]), Used(server_on(address))
    browser = Used(chromium)
    last = until_played(path, first + rounds)
    seconds = time.monotonic() - training.began
    return {
        "wall": seconds / (last - first),
        "processor": training.seconds() / (last - first),
        "server": server.share(),
        "browser": browser.share(),
    }


def played(path: Path) -> int:
    try:
        return (path / "journal.jsonl").read_bytes().count(b'"kind":"round"')
    except FileNotFoundError:
        return 0


def until_played(path: Path, rounds: int, seconds: float = 600) -> int:
    """Wait until so many rounds are played; return how many there are."""
    end = time.monotonic() + seconds
    while (done := played(path)) < rounds:
        assert time.monotonic() < end, "training takes too long"
        time.sleep(0.05)
    return done


def progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(argv: Sequence[str]) -> int:
    """Measure, and write what was found as JSON; 1 if an update takes too long."""
    parser = argparse.ArgumentParser("python -m tests.ui.browser.speed", description=__doc__)
    parts = ("update", "paint", "tabs")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="these parts")
    parser.add_argument("--loads", type=int, default=3, help="of every page (default: 3)")
    parser.add_argument("--updates", type=int, default=5, help="of a page (default: 5)")
    parser.add_argument("--idle", type=float, default=20, help="seconds of watching nothing")
    parser.add_argument("--tabs", type=int, default=10, help="beside training (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="with and without tabs (default: 3)")
    parser.add_argument("--rounds", type=int, default=10, help="of a turn (default: 10)")
    parser.add_argument("--json", type=Path, help="write it there")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="interface-") as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        found: dict[str, Any] = {}
        with serving(runs) as address, browsing() as browser:
            if set(args.only) & {"update", "paint"}:
                with long_run(runs) as writer:
                    found["records"] = len(Run.open(runs / "long").entries)
                    if "update" in args.only:
                        found["update"] = updates(browser, address, writer, args.updates, args.idle)
                    if "paint" in args.only:
                        found["paint"] = first_paints(browser, address, args.loads)
            if "tabs" in args.only:
                found["tabs"] = beside_training(address, runs, args.tabs, args.turns, args.rounds)
    text = json.dumps(found, indent=1)
    sys.stdout.write(f"{text}\n")
    if args.json:
        args.json.write_text(text + "\n")
    return int(any(median(each["update"]) > UPDATE for each in found.get("update", {}).values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
