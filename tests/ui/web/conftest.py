"""Pages in this process, on folders of recorded runs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from ui.web import jobs

APP = Path(__file__).parents[3] / "ui" / "web" / "app.py"
Open = Callable[..., AppTest]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def open_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a page with query parameters; whatever it shows, it shows no exception."""
    monkeypatch.setenv("FEDPILOT_RUNS", str(runs))

    def opened(page: str = "runs", **query: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in query.items():
            app.query_params[name] = value
        if page != "runs":
            app.run()
            app.switch_page(str(APP.parent / "app_pages" / f"{page}.py"))
        app.run()
        assert not app.exception, app.exception
        return app

    return opened


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Write jobs down without starting a process; return what was asked for."""
    found: list[list[str]] = []

    def popen(args: list[str], **_: object) -> SimpleNamespace:
        found.append(args)
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(jobs.subprocess, "Popen", popen)
    return found


def words(app: AppTest) -> str:
    """Everything a page says in words."""
    kinds = ("title", "markdown", "caption", "error", "warning", "info", "success", "metric")
    found = [str(getattr(x, "value", "")) for kind in kinds for x in getattr(app, kind)]
    labels = [x.label for kind in ("button", "metric", "selectbox") for x in getattr(app, kind)]
    return "\n".join(found + labels)
