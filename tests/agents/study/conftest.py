"""One tiny world for all studies, and one study that only is read."""

from pathlib import Path

import pytest

from agents.study.conduct import run_study
from agents.study.ledger import Study
from tests.agents.study.studies import SEARCH, spec
from tests.tiny_worlds import World, tiny_world


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="package")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study with a search.  Only to be read."""
    out: Path = tmp_path_factory.mktemp("studies") / "whole"
    return run_study(spec(world, search=SEARCH), out, cache=world.folder / "cache")
