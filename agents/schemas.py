"""JSON Schema of everything that is written down or asked for: ``python -m agents.schemas FOLDER``.

``journal/``, ``study/`` and ``chat/`` hold the records of the three journals, ``pilot/`` what a
policy sees and says and what the guard makes of it, and ``asked/`` examples of what a language
model is given: the bounds in those are a round's own, so the numbers differ from run to run and the
shape does not.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agents.claims import Claim
from agents.copilot.records import KINDS as CHAT
from agents.facts import Fact, Observation
from agents.guard import Ruling
from agents.knobs import KNOBS, Bound
from agents.made_up import MadeUp
from agents.policies.model import schema_of
from agents.proposals import Answer, Proposal
from agents.selection import RULES, Selection, SelectionBounds
from agents.spec import PilotSpec
from agents.study.adviser import arms_schema, trial_schema
from agents.study.records import KINDS as STUDY
from agents.study.space import space_of
from agents.study.spec import StudySpec
from agents.synthesis.profile import Profile
from federation.config import Config
from federation.runs.records import KINDS as JOURNAL
from llm_tools import decodable
from llm_tools.synthesis.generation import Batch

PILOT = (
    MadeUp,
    Fact,
    Bound,
    SelectionBounds,
    Observation,
    Selection,
    Proposal,
    Answer,
    Ruling,
    Claim,
)
CONFIGURATIONS = {"config": Config, "pilot": PilotSpec, "study": StudySpec, "profile": Profile}


def example() -> Observation:
    """Return an observation with everything open that can be."""
    middle = {"lr": 0.01, "steps": 8.0, "cohort_size": 5.0, "server_lr": 0.1, "mu": 0.01}
    bounds = {
        name: Bound(low=x / 2, high=x * 2, least=x / 10, most=x * 10, current=x)
        for name, x in middle.items()
        if name in KNOBS
    }
    facts = (
        Fact(id="loss@0", name="loss", value=2.5, unit="nats per token", round=0, clients=5),
        Fact(id="diverged_c2", name="diverged_c2", value=1, unit="rounds", clients=1),
    )
    choice = SelectionBounds(
        rules=RULES,
        exploration=0.1,
        most_excluded=2,
        known=("c2",),
        population=12,
        current=Selection(rule="uniform", candidates=2, exploration=0.1),
    )
    return Observation(
        round=1,
        rounds_left=9,
        facts=facts,
        bounds=bounds,
        values=middle,
        seed=0,
        selection=choice,
        may_stop=True,
    )


def asked() -> dict[str, type[BaseModel]]:
    """Return what language models are asked to fill in, by name."""
    space = space_of({"lr": (1e-4, 0.1), "steps": (1, 20), "adapter.rank": (8, 64)}, "search")
    return {
        "decision": schema_of(example()),
        "trial": trial_schema(space),
        "arms": arms_schema(space, 2),
        "examples": Batch,
    }


def schemas() -> dict[str, dict[str, Any]]:
    """Return every schema by the name of its file.

    Raises:
        SchemaError: if a language model would be asked for what servers cannot enforce.
    """
    recorded: dict[str, Mapping[str, type[BaseModel]]] = {
        "journal": JOURNAL,
        "study": STUDY,
        "chat": CHAT,
        "pilot": {named(model): model for model in PILOT},
        "configuration": CONFIGURATIONS,
    }
    found = {
        f"{folder}/{name}.json": model.model_json_schema()
        for folder, models in recorded.items()
        for name, model in models.items()
    }
    return found | {f"asked/{name}.json": decodable(model) for name, model in asked().items()}


def named(model: type[BaseModel]) -> str:
    """Write the name of a class as that of a file."""
    letters = (f"_{x.lower()}" if x.isupper() else x for x in model.__name__)
    return "".join(letters).lstrip("_")


def text(schema: dict[str, Any]) -> str:
    """Write a schema so that a change of it is a few lines of a diff."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def export(folder: Path) -> list[Path]:
    """Write all schemas into a folder and delete those that are none any more.

    Returns:
        The files that are there now.
    """
    files = {folder / name: text(schema) for name, schema in schemas().items()}
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for stale in set(folder.rglob("*.json")) - files.keys():
        stale.unlink()
    return sorted(files)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("write: python -m agents.schemas FOLDER, for example docs/schemas")
    sys.stdout.write(f"{len(export(Path(sys.argv[1])))} schemas in {sys.argv[1]}\n")
