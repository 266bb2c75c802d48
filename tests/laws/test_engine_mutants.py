"""Every broken part of local training makes its law fail, and the law holds without it."""

from collections.abc import Iterator

import pytest

from tests.laws.engine_laws import lora_on_base
from tests.laws.mutants.engine import MUTANTS


@pytest.fixture(autouse=True)
def own_base() -> Iterator[None]:
    """Some mutants train the base itself: no other law may meet what they leave of it."""
    lora_on_base.cache_clear()
    yield
    lora_on_base.cache_clear()


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.law()
    for owner, part, broken in mutant.patches:
        if isinstance(owner, dict):
            monkeypatch.setitem(owner, part, broken)
        else:
            monkeypatch.setattr(owner, part, broken, raising=part != "sorted")
    with pytest.raises(AssertionError):
        mutant.law()
