"""What is written into the form of a new experiment is found again, and by its id alone."""

import json
import os
from pathlib import Path

import pytest

from federation.errors import ConfigError
from ui.web import drafts
from ui.web.draft import Draft, first_draft

ID = "0123456789abcdef"


def test_a_draft_is_read_as_it_was_kept_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    table = {**first_draft().table, "rounds": 0, "data": {"source": "\ud800", "prompt": "{"}}
    draft = Draft(table, "run x", "mine")
    drafts.keep(tmp_path, ID, Draft({}, "before"))
    drafts.keep(tmp_path, ID, draft)
    assert drafts.read(tmp_path, ID) == draft
    assert drafts.ID.fullmatch(drafts.new_id()) and drafts.new_id() != drafts.new_id()


@pytest.mark.parametrize("id", ["", "../../etc/passwd", ID.upper(), ID + "\n"])
def test_an_id_of_nothing_is_refused_in_a_line(tmp_path: Path, id: str) -> None:
    with pytest.raises(ConfigError, match="names no draft") as caught:
        drafts.read(tmp_path, id)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="not kept any more"):
        drafts.read(tmp_path, "f" * 16)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"table": 3, "origin": "x"}', '{"a": 1}'])
def test_a_file_that_is_no_draft_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    drafts.keep(tmp_path, ID, Draft({}, "x"))
    drafts.file_of(tmp_path, ID).write_text(text)
    with pytest.raises(ConfigError, match="filled anew"):
        drafts.read(tmp_path, ID)


def test_only_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "KEPT", 3)
    for n in range(5):
        drafts.keep(tmp_path, f"{n:016x}", Draft({"n": n}, "x"))
        os.utime(drafts.file_of(tmp_path, f"{n:016x}"), (n, n))
    left = sorted(json.loads(x.read_text())["table"]["n"] for x in tmp_path.glob(".drafts/*"))
    assert left == [2, 3, 4]
