"""Pictures of every page, both themes: python -m tests.ui.browser.screenshots RUNS --out DIR."""

import argparse
import sys
from pathlib import Path

from tests.ui.browser.served import Eyes, browsing, looking, serving

PAGES = {
    "runs": "/",
    "new": "/new",
    "live": "/live?run={run}",
    "export": "/live?run={run}&export=true",
    "decisions": "/decisions?run={run}",
    "clients": "/clients?run={run}",
    "playground": "/playground?run={run}",
    "compare": "/compare?runs={runs}",
    "studies": "/studies",
    "study": "/new_study?of={run}",
    "studio": "/studio",
    "describe": "/studio?studio-view=Describe",
}
TALLEST = 2600


def main(argv: list[str]) -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description="Screenshots of every page of the interface.")
    parser.add_argument("runs", type=Path, help="folder of recorded runs")
    parser.add_argument("--run", default="demo", help="the run that pages are about")
    parser.add_argument("--compare", default="", help="runs to compare, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"), help="where to")
    parser.add_argument("--width", type=int, default=1280, help="of the window, pixels")
    parser.add_argument("--only", nargs="*", choices=PAGES, default=[], help="these pages alone")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    bad: list[str] = []
    with serving(args.runs.absolute()) as address, browsing() as browser:
        for scheme in ("light", "dark"):
            eyes = looking(browser, address, args.width, scheme)
            for name in args.only or PAGES:
                path = PAGES[name].format(run=args.run, runs=args.compare or args.run)
                shoot(eyes, path, args.out / f"{name}-{scheme}.png", args.width)
            bad += eyes.seen
            eyes.page.context.close()
    sys.stderr.writelines(f"{line}\n" for line in bad)
    return 1 if bad else 0


def shoot(eyes: Eyes, path: str, file: Path, width: int) -> None:
    """Take one picture, as high as the page is."""
    eyes.page.set_viewport_size({"width": width, "height": 900})
    eyes.open(path)
    eyes.page.wait_for_timeout(1500)
    eyes.answered()
    height = eyes.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    if height > 900:
        eyes.page.set_viewport_size({"width": width, "height": min(TALLEST, int(height) + 20)})
        eyes.page.wait_for_timeout(1200)
    eyes.page.screenshot(path=str(file))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
