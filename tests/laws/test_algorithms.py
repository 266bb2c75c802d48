"""Every algorithm and wrapper under every law, on the toy engine, however clients are grouped."""

import pytest

from tests.laws import laws
from tests.laws.toy_world import CASES, toy_world

CHUNKS = {"stacked": 0, "chunks of two": 2, "one by one": 1}


@pytest.fixture(params=CHUNKS.values(), ids=CHUNKS.keys())
def chunk(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.mark.parametrize("law", laws.ALWAYS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_law(case, law, chunk):
    law(toy_world(), case.make(), chunk)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.still])
def test_null_round_changes_nothing(name, chunk):
    laws.null_round_changes_nothing(toy_world(), CASES[name].make(), chunk)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plain])
def test_one_client_is_plain_training(name, chunk):
    laws.one_client_is_plain_training(toy_world(), CASES[name].make(), chunk)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.weighted])
def test_clones_count_once(name, chunk):
    laws.clones_count_once(toy_world(noise=0.0), CASES[name].make(), chunk)
