"""The typed records of a run, one per journal line, told apart by ``kind``.

Knows what is recorded about a run and how a record becomes JSON and back.  Does not know how lines
are chained (journal.py) or what several records mean together (run.py); imports no torch, so a run
can be read without it.

Records are frozen.  JSON has no NaN, so non-finite figures are written as the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"`` and read back as the floats they were: a diverged loss is a fact.
"""

import json
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

SCHEMA = 7
"""Version of the records below; raised whenever a field changes its meaning, appears or goes."""

_RECORD = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

_SHA256 = "^[0-9a-f]{64}$"


class StartRecord(BaseModel):
    """What decides the bits of a run.  The first record of every journal."""

    model_config = _RECORD

    kind: Literal["start"] = "start"
    seed: int = Field(description="run seed, the first part of every random address")
    chunk_size: int = Field(ge=1, description="clients per pass; measured once, then reused")
    threads: int = Field(ge=1, description="threads of the arithmetic library")
    dtype: str = Field(description="dtype of the base model's arithmetic")
    versions: dict[str, str] = Field(description="library -> version")
    config_sha256: str = Field(pattern=_SHA256, description="of config.json")
    machine: dict[str, str] = Field(default={}, description="facts of the machine that decide bits")
    files: dict[str, str] = Field(
        default={}, description="file that stood in the run directory then -> its sha256"
    )


class Canary(BaseModel):
    """Some clients of a round trained first with what was proposed, and how that was judged.

    What it cost is part of the round's own figures if it was accepted, and comes on top of them if
    it was refused.
    """

    model_config = _RECORD

    clients: tuple[str, ...] = Field(description="who trained first, in the order of the cohort")
    values: dict[str, float] = Field(description="knob -> value that was tried, of those that move")
    loss: float = Field(description="their mean training loss, nats per token")
    before: float | None = Field(
        description="the mean of what they, or the last cohort, had before; none: nobody trained"
    )
    limit: float | None = Field(
        description="the most that was allowed, beyond noise; none: only to be a number"
    )
    accepted: bool = Field(description="whether the rest was trained with it")
    reason: str = Field(default="", description="why it was refused")
    bytes_down: int = Field(default=0, ge=0, description="server to these clients")
    bytes_up: int = Field(default=0, ge=0, description="these clients to server")
    tokens: int = Field(default=0, ge=0, description="supervised tokens they trained on")
    client_steps: int = Field(default=0, ge=0, description="their optimizer steps")


class DecisionRecord(BaseModel):
    """What was decided for a round, by whom.  Resume and replay read it instead of asking again."""

    model_config = _RECORD

    kind: Literal["decision"] = "decision"
    round: int = Field(ge=0)
    source: Literal["llm", "optimizer", "heuristic", "replay", "human", "fallback"]
    policy: str = Field(description="name of the policy that decided")
    clients: tuple[str, ...] = Field(description="the cohort")
    work: dict[str, JsonValue] = Field(description="what each client does (LocalWork, as JSON)")
    steps: tuple[int, ...] | None = Field(
        default=None, description="steps of each client, where unequal"
    )
    batch_sizes: tuple[int, ...] | None = Field(
        default=None, description="of each client, where unequal"
    )
    settings: dict[str, float] = Field(
        default={}, description="settings of the algorithm that are otherwise than configured"
    )
    last: bool = Field(default=False, description="whether the run ends after this round")
    canary: Canary | None = Field(
        default=None, description="who tried what was proposed before it was decided"
    )
    reason: str = ""
    details: dict[str, JsonValue] = Field(
        default={}, description="proposal, guard's verdict, cost, ..."
    )
    seconds: float = Field(default=0.0, ge=0, description="wall time that deciding took")


class RoundRecord(BaseModel):
    """What happened in a round.  Its line in the journal is the point at which the round counts."""

    model_config = _RECORD

    kind: Literal["round"] = "round"
    round: int = Field(ge=0, description="rounds are numbered from 0 without gaps")
    clients: tuple[str, ...] = Field(description="those that reported")
    missing: dict[str, str] = Field(default={}, description="client that did not report -> why")
    loss: dict[str, float] = Field(
        default={}, description="client -> mean training loss, nats per token"
    )
    update_norms: dict[str, float] = Field(
        default={}, description="client -> L2 norm of its update"
    )
    idle: dict[str, str] = Field(
        default={},
        description="client whose report holds no work of its own -> nothing, noise or copy",
    )
    bytes_down: int = Field(default=0, ge=0, description="server to clients, all of them together")
    bytes_up: int = Field(default=0, ge=0, description="clients to server, all of them together")
    seconds: float = Field(default=0.0, ge=0, description="wall time, decision to commit")
    tokens: int = Field(default=0, ge=0, description="supervised tokens trained on, all clients")
    client_steps: int = Field(default=0, ge=0, description="optimizer steps, all clients")
    checkpoint: str | None = Field(default=None, description="file under state/; none: not kept")
    checkpoint_sha256: str | None = Field(default=None, pattern=_SHA256)
    kept: dict[str, str] = Field(default={}, description="client -> sha256 of what it keeps now")
    updates: str | None = Field(
        default=None, description="file under state/ with what the clients reported; none: not kept"
    )
    updates_sha256: str | None = Field(default=None, pattern=_SHA256)


class EvaluationRecord(BaseModel):
    """Figures of one model on one split."""

    model_config = _RECORD

    kind: Literal["evaluation"] = "evaluation"
    round: int | None = Field(
        default=None, ge=0, description="after which round; none: of no round"
    )
    subject: str = Field(description="whose model: federated, base, local, centralised, ...")
    split: str = Field(default="test", description="test, validation, clients, unseen, ...")
    metrics: dict[str, float]
    per_client: dict[str, dict[str, float]] = Field(
        default={}, description="metric -> client -> value"
    )
    rows: int | None = Field(
        default=None, ge=0, description="that were judged, all clients together; none: not noted"
    )


class ExplanationRecord(BaseModel):
    """Why something went as it did, in words."""

    model_config = _RECORD

    kind: Literal["explanation"] = "explanation"
    round: int | None = Field(default=None, ge=0)
    source: str = Field(description="who explains")
    text: str
    details: dict[str, JsonValue] = Field(
        default={}, description="evidence, checked figures, cost, ..."
    )


class Effect(BaseModel):
    """By how much a figure would have been another: what would have been, minus what was.

    Attributes:
        mean: over the repeats.
        low: lower end of the 95 % interval of the mean; none of a single repeat.
        high: upper end.
        values: of every repeat; the first has the run's own random addresses.
    """

    model_config = _RECORD

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...]


Had = Literal["kept", "retrained"]
"""How the updates of a round were had: from the disk, or trained again at the same addresses."""


class WhatIfRecord(BaseModel):
    """What a round, or some of them, would have come to if something had been otherwise."""

    model_config = _RECORD

    kind: Literal["whatif"] = "whatif"
    round: int = Field(ge=0, description="the first round that is played otherwise")
    rounds: int = Field(ge=1, description="how many are; judged after the last")
    change: dict[str, JsonValue] = Field(description="what is otherwise: drop, reweight, ...")
    was: tuple[float, ...] = Field(description="test loss as it was, nats per token, every repeat")
    would_be: tuple[float, ...] = Field(description="test loss as it would have been")
    effect: Effect = Field(description="of the change on the test loss; negative: it is better")
    updates: Had
    reproduced: bool = Field(description="whether, without the change, the run's own bits came out")
    same: bool = Field(description="whether the change left the model as it was, to the bit")
    seconds: float = Field(default=0.0, ge=0, description="wall time")


class ContributionsRecord(BaseModel):
    """What every client of a round contributed: the test loss without its report, minus with it."""

    model_config = _RECORD

    kind: Literal["contributions"] = "contributions"
    round: int = Field(ge=0)
    was: tuple[float, ...] = Field(description="test loss as it was, nats per token, every repeat")
    effects: dict[str, Effect] = Field(
        description="client -> change of the test loss if it is left out; positive: it helped"
    )
    own: dict[str, Effect] = Field(
        default={},
        description="client -> the same on others' rows like its own, if it is left out instead of"
        " weighed as much as all others together; none of a client whose like nobody else holds",
    )
    updates: Had
    reproduced: bool = Field(description="whether, with all of them, the run's own bits came out")
    seconds: float = Field(default=0.0, ge=0, description="wall time")


class WarningRecord(BaseModel):
    """Something a person should know; the run went on."""

    model_config = _RECORD

    kind: Literal["warning"] = "warning"
    round: int | None = Field(default=None, ge=0)
    about: str = Field(description="what it concerns: journal, checkpoint, client, ...")
    text: str


class CommandRecord(BaseModel):
    """A command that a person or program gave to the run, and whether it was followed."""

    model_config = _RECORD

    kind: Literal["command"] = "command"
    id: str = Field(description="of the command; one id is followed once")
    command: str = Field(description="pause, resume, stop, more_rounds or answer")
    arguments: dict[str, JsonValue] = Field(default={}, description="what it says besides")
    by: str = Field(description="who gave it")
    accepted: bool = Field(description="whether it was followed")
    reason: str = Field(default="", description="why it was not")
    round: int = Field(ge=0, description="the round that was next then")


class AskedRecord(BaseModel):
    """A person was asked what a round should be; the run waits for the answer."""

    model_config = _RECORD

    kind: Literal["asked"] = "asked"
    id: str = Field(description="what an answer names")
    round: int = Field(ge=0)
    policy: str = Field(description="name of the policy whose proposal is shown")
    proposal: dict[str, JsonValue] | None = Field(description="what it proposes; none: it failed")
    violations: tuple[str, ...] = Field(
        default=(), description="why the proposal may not be approved as it stands"
    )
    values: dict[str, float] = Field(description="every knob's value now")
    bounds: dict[str, JsonValue] = Field(description="open knob -> how far it may be turned now")
    values_schema: dict[str, JsonValue] = Field(description="JSON Schema of the values of an edit")
    since: str = Field(description="when it was asked, UTC, ISO 8601")
    patience: float | None = Field(
        default=None, gt=0, description="seconds after which the fallback decides; none: never"
    )
    details: dict[str, JsonValue] = Field(default={}, description="what asking the policy cost")


class RollbackRecord(BaseModel):
    """A round that diverged was undone: state, clients' memory and knobs are an older round's."""

    model_config = _RECORD

    kind: Literal["rollback"] = "rollback"
    round: int = Field(ge=0, description="the round that was undone; it counts as played")
    to: int | None = Field(ge=0, description="round whose state holds again; none: the first state")
    loss: float = Field(description="mean training loss of the round, nats per token")
    limit: float | None = Field(description="the most that was allowed; none: only to be a number")
    reason: str


class ForkRecord(BaseModel):
    """The run is a fork: what stands before is its parent's, what follows is its own."""

    model_config = _RECORD

    kind: Literal["fork"] = "fork"
    parent: str = Field(description="run directory it began in")
    round: int = Field(ge=0, description="last round of the parent that counts")
    state_sha256: str = Field(pattern=_SHA256, description="of the parent's checkpoint of it")
    config_sha256: str = Field(pattern=_SHA256, description="of config.json, from here on")
    memory: bool = Field(description="whether what clients kept so far still holds")
    changed: tuple[str, ...] = Field(default=(), description="keys that are the fork's own")
    files: dict[str, str] = Field(
        default={}, description="file that stood in the run directory then -> its sha256"
    )


class ResumeRecord(BaseModel):
    """A rewind: the run goes on from the checkpoint of ``round``; what came after it is void."""

    model_config = _RECORD

    kind: Literal["resume"] = "resume"
    round: int | None = Field(ge=0, description="last round that counts; none: from the beginning")


class EndRecord(BaseModel):
    """How the run ended."""

    model_config = _RECORD

    kind: Literal["end"] = "end"
    status: Literal["finished", "stopped", "failed"]
    reason: str = ""
    files: dict[str, str] = Field(default={}, description="file that the run made -> its sha256")


class UnknownRecord(BaseModel):
    """A record that a newer fedpilot wrote: readable, not understood."""

    model_config = _RECORD

    kind: str
    body: JsonValue


KnownRecord = (
    StartRecord
    | DecisionRecord
    | RoundRecord
    | EvaluationRecord
    | ExplanationRecord
    | WhatIfRecord
    | ContributionsRecord
    | WarningRecord
    | CommandRecord
    | AskedRecord
    | RollbackRecord
    | ForkRecord
    | ResumeRecord
    | EndRecord
)
Record = KnownRecord | UnknownRecord

KINDS: dict[str, type[KnownRecord]] = {
    known.model_fields["kind"].default: known for known in get_args(KnownRecord)
}

MEASURED = frozenset({"seconds", "since"})
"""Fields that are measured, not computed: they differ between a run and its exact repetition."""


def body(record: Record) -> JsonValue:
    """Turn a record into JSON values, without its kind."""
    if isinstance(record, UnknownRecord):
        return record.body
    return json.loads(record.model_dump_json(exclude={"kind"}))


def computed(record: Record) -> tuple[str, JsonValue]:
    """Return kind and body of what an exact repetition must repeat: all but :data:`MEASURED`."""
    values = body(record)
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name not in MEASURED}
    return record.kind, values


def parse(kind: str, values: JsonValue, schema: int = SCHEMA) -> Record:
    """Turn JSON values back into a record.

    A kind that is not known, and a known kind that a newer schema changed beyond recognition,
    become an :class:`UnknownRecord`.  Fields that a newer schema added to a known kind are left
    out.

    Raises:
        ValidationError: if a known kind of this schema has an unknown or wrong field.
    """
    if kind not in KINDS:
        return UnknownRecord(kind=kind, body=values)
    newer = schema > SCHEMA
    try:
        return KINDS[kind].model_validate(values, extra="ignore" if newer else "forbid")
    except ValidationError:
        if newer:
            return UnknownRecord(kind=kind, body=values)
        raise
