"""The records of a study's journal, in the order in which they come.

They are chained as a run's records are (federation.runs.journal), which keeps kinds that it does
not know as they are.  Figures of the test split have one record, written when everything else is
done: whoever decides anything before it has nothing to look at.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agents.study.statistics import Judgement
from federation.runs.records import Record, UnknownRecord

RECORD = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class StudyRecord(BaseModel):
    """A record of a study."""

    model_config = RECORD


class Registered(StudyRecord):
    """The study was written down; what its file says decides everything below."""

    spec_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of study.json")


class Measured(StudyRecord):
    """A run is finished: its cost and its figure on the validation split, of no other."""

    run: str = Field(description="folder under runs/")
    arm: str = Field(description="whose it is")
    seed: int
    client_steps: int = Field(ge=0)
    validation: float


class Floor(StudyRecord):
    """How much the control differs from itself."""

    figures: dict[int, float] = Field(description="seed -> validation figure of the control")
    planned: int = Field(description="pairs of an arm, at most")
    floor: float = Field(ge=0, description="smallest mean improvement that is worth a verdict")


class Proposed(StudyRecord):
    """A search chose what to try."""

    trial: int = Field(ge=0)
    values: dict[str, float]
    source: Literal["optimizer", "llm"]
    why: str = ""
    trace: dict[str, JsonValue] = {}
    rounds: int | None = Field(default=None, ge=1, description="none: as the control")


class Tried(StudyRecord):
    """What a trial came to."""

    trial: int = Field(ge=0)
    figure: float = Field(description="mean over the search's seeds, validation split")


class SearchEnded(StudyRecord):
    """No more trials."""

    why: str


class Arm(StudyRecord):
    """An arm enters the comparison."""

    name: str
    overrides: tuple[str, ...]
    source: Literal["registered", "search", "agent"]
    why: str = ""


class Advice(StudyRecord):
    """A language model was asked for arms, once."""

    model: str
    arms: tuple[Arm, ...] = Field(default=(), description="those that enter the comparison")
    refused: tuple[str, ...] = Field(default=(), description="proposals that were not taken, why")
    failure: str = ""
    trace: dict[str, JsonValue] = {}


class Look(StudyRecord):
    """Arms were compared on the validation split, to see which need no more pairs."""

    pairs: int = Field(ge=0)
    found: dict[str, Judgement]
    open: tuple[str, ...] = Field(description="arms that go on")


class Stopped(StudyRecord):
    """No more pairs."""

    why: str


class Unsealed(StudyRecord):
    """The figures of the test split, read once."""

    test: dict[str, float] = Field(description="folder under runs/ -> figure")


class Verdict(StudyRecord):
    """The end."""

    found: dict[str, Judgement]


KINDS: dict[str, type[StudyRecord]] = {
    "registered": Registered,
    "measured": Measured,
    "floor": Floor,
    "proposed": Proposed,
    "tried": Tried,
    "search_ended": SearchEnded,
    "arm": Arm,
    "advice": Advice,
    "look": Look,
    "stopped": Stopped,
    "unsealed": Unsealed,
    "verdict": Verdict,
}
PREFIX = "study."
NAMES = {kind: name for name, kind in KINDS.items()}


def sealed(record: StudyRecord) -> UnknownRecord:
    """Turn a record into one that the journal keeps as it is."""
    body = json.loads(record.model_dump_json())  # whose NaN is a string, as a journal's is
    return UnknownRecord(kind=PREFIX + NAMES[type(record)], body=body)


def opened(record: Record) -> StudyRecord | None:
    """Turn a journal's record back; None if it is of another kind, as warnings are.

    Raises:
        ValidationError: if it is not a record of its kind.
    """
    model = KINDS.get(record.kind.removeprefix(PREFIX))
    if not isinstance(record, UnknownRecord) or model is None:
        return None
    return model.model_validate(record.body)
