"""A finished tiny run, trained once, for tests of run directories."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_runs import outcome, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    train(path)
    return path


@pytest.fixture(scope="session")
def undisturbed(finished: Path) -> dict:
    return outcome(finished)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))
