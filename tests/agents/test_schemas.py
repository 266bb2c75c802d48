"""The exported schemas are those of the code, and servers can enforce what models are asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from agents.policies.model import schema_of
from agents.schemas import asked, example, export, schemas, text
from federation.runs.records import KINDS
from llm_tools import decodable

ROOT = Path(__file__).parents[2]
EXPORTED = ROOT / "docs" / "schemas"
REFUSED = {"uniqueItems", "multipleOf", "anyOf", "oneOf", "allOf", "not", "prefixItems"}


def test_the_files_are_those_of_the_code():
    there = {
        file.relative_to(EXPORTED).as_posix(): file.read_text() for file in EXPORTED.rglob("*.json")
    }
    wanted = {name: text(schema) for name, schema in schemas().items()}
    assert there == wanted, "run: python -m agents.schemas docs/schemas"


def test_every_kind_of_record_has_a_schema():
    names = set(schemas())
    assert {f"journal/{kind}.json" for kind in KINDS} <= names
    assert {"pilot/observation.json", "pilot/proposal.json", "asked/decision.json"} <= names


def keywords(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, inner in part.items():
            yield name
            yield from keywords(inner.values() if name == "properties" else inner)
    elif not isinstance(part, str):
        for inner in part if hasattr(part, "__iter__") else ():  # pyright: ignore[reportGeneralTypeIssues]
            yield from keywords(inner)


@pytest.mark.parametrize("name", sorted(asked()))
def test_what_a_model_is_asked_for_can_be_enforced(name):
    """Seen by another reading than the one that the export relies on."""
    schema = json.loads((EXPORTED / "asked" / f"{name}.json").read_text())
    assert REFUSED.isdisjoint(keywords(schema))
    assert decodable(asked()[name]) == schema


def test_an_answer_with_everything_open_is_read():
    answer = {
        **{"lr": 0.01, "steps": 8, "cohort_size": 5, "server_lr": 0.1, "mu": 0.01},
        **{"abstain": False, "expected": 1.5, "margin": 0.5, "rationale": "so"},
        "evidence": ["loss@0"],
        "selection": {"rule": "oort", "candidates": 2, "exploration": 0.2, "exclude": ["c2"]},
        "action": "stop",
    }
    model = schema_of(example())
    model.model_validate_json(json.dumps(answer), strict=True)
    for wrong in ({"lr": 1.0}, {"action": "ask"}, {"noise": 0.0}, {"evidence": ["loss@9"]}):
        with pytest.raises(ValidationError):
            model.model_validate_json(json.dumps(answer | wrong), strict=True)


def test_one_command_writes_them_and_deletes_what_is_none_any_more(tmp_path: Path):
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "gone.json").write_text("{}")
    (tmp_path / "notes.md").write_text("mine")
    command = [sys.executable, "-m", "agents.schemas", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    assert not (tmp_path / "journal" / "gone.json").exists()
    assert (tmp_path / "notes.md").exists()
    assert len(export(tmp_path)) == len(list(tmp_path.rglob("*.json"))) == len(schemas())
