"""What a pilot may turn, declared once: name, unit, meaning, and how far it may go.

Bounds, the language model's schema, the optimizers' search spaces and the interface's sliders are
all made of these lines.  A knob is open only where the algorithm has it.

The rank of an adapter is no knob.  What the server has learned lies in A and B of that rank, its
optimizer's moments as well, and clients may keep some of them: another rank in mid-run would mean
to project all of that, and a round would no longer follow from its records.  Rank is a matter of
whole runs: ``adapter.rank`` in the arms and searches of a study, from :data:`RANKS`.

Light: nothing here imports torch before an algorithm with settings of its own is asked for them.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, create_model

from federation.algorithms.settings import settings_schema
from federation.config import Config
from federation.errors import ConfigError

RECORD = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Knob(NamedTuple):
    """A quantity that may be changed between rounds.

    Attributes:
        unit: of its values.
        meaning: in a few words.
        whole: whether it counts something.
        path: where it stands in a configuration.
    """

    unit: str
    meaning: str
    whole: bool
    path: str


KNOBS = {
    "lr": Knob("per step", "client learning rate", whole=False, path="work.lr"),
    "steps": Knob("steps", "optimizer steps of a client in a round", whole=True, path="work.steps"),
    "cohort_size": Knob("clients", "clients asked in a round", whole=True, path="cohort.size"),
    "server_lr": Knob("per round", "server learning rate", whole=False, path="algorithm.server_lr"),
    "mu": Knob(
        "per squared norm",
        "pull of clients towards what was sent",
        whole=False,
        path="algorithm.mu",
    ),
}
"""All of them are positive and matter by ratio: twice as much is as far as half as much."""


SETTINGS = ("server_lr", "mu")
"""Knobs that are settings of an algorithm, where it has them."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of an adapter that a vLLM server holds without padding."""


class Bound(BaseModel):
    """How far one knob may be turned.

    Attributes:
        low: smallest value allowed in this round.
        high: largest value allowed in this round.
        least: smallest value allowed in any round.
        most: largest value allowed in any round.
        current: value of the round before, or the configured one before round 0.
    """

    model_config = RECORD

    low: float = Field(gt=0, description="smallest value allowed now")
    high: float = Field(gt=0, description="largest value allowed now")
    least: float = Field(gt=0, description="smallest value ever allowed")
    most: float = Field(gt=0, description="largest value ever allowed")
    current: float = Field(gt=0, description="value now")


Bounds = Mapping[str, Bound]


def configured(config: Config) -> dict[str, float]:
    """Return what a configuration says of every knob."""
    return {
        "lr": config.work.lr,
        "steps": float(config.work.steps),
        "cohort_size": float(config.cohort.size),
        **{name: value for name, value in settings(config).items() if value > 0},
    }


def settings(config: Config) -> dict[str, float]:
    """Return those knobs that are settings of the configured algorithm."""
    there = settings_schema(config.algorithm.name).get("properties", {})
    given = config.algorithm.settings
    return {
        name: float(given.get(name, there[name]["default"])) for name in SETTINGS if name in there
    }


def limits(
    config: Config, asked: Mapping[str, tuple[float, float]], population: int
) -> dict[str, tuple[float, float]]:
    """Return the outer limits of the knobs that a pilot may turn.

    Args:
        config: the run's configuration.
        asked: knob -> lowest and highest value.
        population: registered clients.

    Raises:
        ConfigError: if a knob is unknown, limits contradict each other, or the configured value
            lies outside of them.
    """
    for name, (low, high) in asked.items():
        value = configured(config).get(name)
        if name not in KNOBS:
            raise ConfigError(f"pilot.bounds.{name}: unknown knob; there are {', '.join(KNOBS)}")
        if value is None:
            raise ConfigError(
                f"pilot.bounds.{name}: {config.algorithm.name} has no such setting, or it is 0;"
                " choose another algorithm, or set it"
            )
        if name == "cohort_size" and config.upload.noise is not None:
            raise ConfigError(
                "pilot.bounds.cohort_size: it decides how well upload.noise protects; drop one"
            )
        if not 0 < low <= high:
            raise ConfigError(f"pilot.bounds.{name}: write [low, high] with 0 < low <= high")
        if not low <= value <= high:
            raise ConfigError(
                f"pilot.bounds.{name}: the configured {value:g} is outside {low:g} to {high:g}"
            )
    most = asked.get("cohort_size", (1, 1))[1]
    if most > population:
        raise ConfigError(
            f"pilot.bounds.cohort_size: {most:g} clients are more than the {population} there are"
        )
    return dict(asked)


def bounds_now(
    outer: Mapping[str, tuple[float, float]], current: Mapping[str, float], trust: float
) -> dict[str, Bound]:
    """Narrow outer limits to a trust region: a factor ``trust`` around what is applied now."""
    found = {}
    for name, (least, most) in outer.items():
        value = current[name]
        low, high = value / trust, value * trust
        if KNOBS[name].whole:  # a count may move by one at least, or a small one would be stuck
            low, high = min(math.ceil(low), value - 1), max(math.floor(high), value + 1)
        low, high = max(low, least), min(high, most)
        found[name] = Bound(low=low, high=high, least=least, most=most, current=value)
    return found


def knob_fields(bounds: Bounds) -> dict[str, Any]:
    """Return the fields of a schema: one value for every open knob, within its bounds.

    Required fields, numbers with bounds and nothing else: what grammar decoders can enforce.
    """
    fields: dict[str, Any] = {}
    for name, bound in bounds.items():
        knob = KNOBS[name]
        kind = int if knob.whole else float
        meaning = f"{knob.meaning}, {knob.unit}; now {bound.current:g}"
        fields[name] = (kind, Field(ge=kind(bound.low), le=kind(bound.high), description=meaning))
    return fields


def values_model(bounds: Bounds) -> type[BaseModel]:
    """Return the schema of one value for every open knob, and nothing else."""
    return create_model("Values", __config__=RECORD, **knob_fields(bounds))
