"""Every broken part of local training makes its law fail, and the law holds without it."""

import pytest

from tests.laws.mutants.engine import MUTANTS


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
