"""Studies over a federation so small that a whole one takes seconds."""

import tomllib
from pathlib import Path
from typing import Any

from agents.study.ledger import Study, Told
from agents.study.records import sealed
from agents.study.spec import StudySpec, from_table
from tests.tiny_worlds import World


def table(world: World, **changes: Any) -> dict[str, Any]:
    """A study with a worse arm and the control again; one round a run."""
    base = tomllib.loads(world.config.read_text()) | {"rounds": 1}
    base["work"] |= {"steps": 4}
    base["engine"] = {"chunk": 3}
    return {
        "question": "Does a larger rate help?",
        "base": base,
        "control": "plain",
        "metric": {"name": "nll", "direction": "lower"},
        "seeds": [0, 1, 2, 3],
        "noise_pairs": 2,
        "max_client_steps": 1000,
        "arms": {"plain": [], "frozen": ["work.lr=0.001"], "again": ["work.lr=0.0101"]},
    } | changes


def spec(world: World, **changes: Any) -> StudySpec:
    return from_table(table(world, **changes), "study.toml")


SEARCH = {"bounds": {"lr": [1e-3, 0.1], "work.batch_size": [1, 4]}, "trials": 5}
SEARCH |= {"max_client_steps": 200}


def script(path: Path, *answers: str) -> str:
    """Write what a scripted model answers; return its spec."""
    path.write_text("".join(f"{line}\n" for line in answers))
    return f"scripted:{path}"


def said(told: Told, *, until: str = "") -> list[tuple[str, Any]]:
    """Every record as kind and body, up to the first of a kind."""
    records = [
        told.registered,
        *told.measured.values(),
        told.floor,
        *told.proposed,
        *told.tried,
        told.search_ended,
        *told.arms.values(),
        told.advice,
        *told.looks,
        told.stopped,
        *([] if until == "unsealed" else [told.unsealed, told.verdict]),
    ]
    known = [sealed(record) for record in records if record is not None]
    return [(x.kind, x.body) for x in known]


def figures(study: Study) -> list[float]:
    return [x.validation for x in study.told.measured.values()]
