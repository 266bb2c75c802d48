"""What is kept of serving a run: typed records in a journal of its own, chained as a run's are."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from agents.knobs import RECORD
from federation.runs import journal
from federation.runs.records import UnknownRecord

SERVING, JOURNAL, PREFIX = "serving", "journal.jsonl", "serving."
BASE, ALIAS = "base", "fed"
"""What servers call the base model, and the round that is served."""


class ServingRecord(BaseModel):
    """A record of serving."""

    model_config = RECORD


class Started(ServingRecord):
    """A server answers."""

    engine: Literal["vllm", "transformers"]
    base: str = Field(description="the base model, as the run's configuration says it")
    dtype: str = Field(description="that the server computes in")
    url: str
    tolerance: float | None = Field(
        gt=0, description="nats that an answer may be off, on average; none: texts are compared"
    )


class Served(ServingRecord):
    """A round is served from here on: what was loaded answers as the run's own model does."""

    round: int = Field(ge=0, description="from 0")
    folder: str = Field(description="name of the folder that was loaded")
    sha256: str = Field(description="of the adapter's parameters and configuration")
    distance: float | None = Field(
        ge=0, description="of its answers from the run's own, nats; none: texts are the same"
    )
    seconds: float = Field(ge=0)


class Kept(ServingRecord):
    """A round could not be served, and what was served before still is."""

    round: int = Field(ge=0, description="that could not be, from 0")
    reason: str
    serving: int | None = Field(description="the round that is served, from 0; none: no adapter")
    seconds: float = Field(ge=0)


class Ended(ServingRecord):
    """The server ended."""

    reason: str = Field(description="stopped, or what it died of")


def sealed(record: ServingRecord) -> UnknownRecord:
    """Turn a record into one that the journal keeps as it is."""
    body = json.loads(record.model_dump_json())
    return UnknownRecord(kind=PREFIX + type(record).__name__.lower(), body=body)


def problems(run: Path) -> list[str]:
    """Check the journal of serving a run.

    Returns:
        A line if it is not as it was written.
    """
    file = run / SERVING / JOURNAL
    fault = journal.verify(file).fault if file.exists() else None
    return [f"{file} {fault}"] if fault else []
