"""Commands in this process, on a federation so small that a whole run takes a second."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tiny_worlds import World, tiny_world
from ui.main import main


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> str:
        """Insist on one line of complaint, without a traceback, and return it."""
        assert self.code == code, self
        lines = self.err.splitlines()
        assert lines, "nothing was said"
        assert sum(line.startswith("fedpilot: ") for line in lines) == 1
        assert lines[-1].startswith("fedpilot: ")
        assert "Traceback" not in self.err
        for word in words:
            assert word in lines[-1], lines[-1]
        return lines[-1]


Call = Callable[..., Said]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep tokenised data out of the user's own cache."""
    folder, before = tmp_path_factory.mktemp("home"), os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    yield folder
    if before is not None:
        os.environ["HOME"] = before


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], home: Path) -> Call:
    def run(*argv: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished(world: World, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with baselines and unseen clients.  Only to be read."""
    out = tmp_path_factory.mktemp("runs") / "first"
    more = ['evaluation.baselines=["local","centralised"]', "data.clients.unseen=1"]
    more.append('evaluation.metrics=["nll","exact_match"]')
    assert main(["run", str(world.config), "--out", str(out), "--set", *more]) == 0
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def not_a_terminal(monkeypatch):
    """Write tables as for a file, whatever ran the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)
