"""What a search or a model may set: keys with bounds, as values, overrides and an answer's schema.

A key is a pilot's knob (lr, steps, cohort_size) or a dotted key of the configuration.  All values
are positive and matter by ratio.  A knob says itself whether it counts something; a dotted key
counts if both of its bounds are written without a point.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, create_model

from agents.knobs import KNOBS, RANKS, RECORD
from federation.errors import ConfigError

KEYS = {name: knob.path for name, knob in KNOBS.items()}
"""Where a knob stands in a configuration."""

Number = int | float
Values = dict[str, float]
"""Key -> value."""


def flat(value: Any, prefix: str = "") -> Any:
    """Turn TOML's nested tables into dotted keys: ``work.lr = [...]`` needs no quotes."""
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        found |= flat(inner, f"{name}.") if isinstance(inner, Mapping) else {name: inner}
    return {key: tuple(x) if isinstance(x, list) else x for key, x in found.items()}


Bounds = Annotated[dict[str, tuple[Number, Number]], BeforeValidator(flat)]


class Range(BaseModel):
    """One key and how far it may be set.

    Attributes:
        key: as it is written in the bounds.
        path: dotted key of the configuration.
        low: smallest value.
        high: largest value.
        whole: whether it counts something.
        choices: the only values there are; empty: all in between.
    """

    model_config = RECORD

    key: str
    path: str
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    whole: bool
    choices: tuple[int, ...] = ()

    @property
    def field(self) -> str:
        """Its name in a schema: letters, digits and underscores."""
        return self.key.replace(".", "_")

    def fits(self, value: float) -> bool:
        """Tell whether a value is allowed."""
        if self.choices:
            return value in self.choices
        return self.low <= value <= self.high and not (self.whole and value != round(value))

    def written(self, value: float) -> str:
        """Write a value as an override."""
        return f"{self.path}={int(value) if self.whole else repr(float(value))}"


Space = tuple[Range, ...]


def space_of(bounds: Mapping[str, tuple[Number, Number]], table: str) -> Space:
    """Read the bounds of a table of a study.

    Args:
        bounds: key -> lowest and highest value.
        table: the table's name, for errors.

    Raises:
        ConfigError: if they contradict each other.
    """
    found = []
    for key, (low, high) in bounds.items():
        where = f"{table}.bounds.{key}"
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high):
            raise ConfigError(
                f"{where}: [{low:g}, {high:g}] contradict each other;"
                " write [low, high] with 0 < low <= high"
            )
        whole = KNOBS[key].whole if key in KNOBS else isinstance(low, int) and isinstance(high, int)
        if whole and (low != round(low) or high != round(high)):
            raise ConfigError(
                f"{where}: [{low:g}, {high:g}] are not whole, and it counts something"
            )
        path = KEYS.get(key, key)
        choices = tuple(r for r in RANKS if low <= r <= high) if path == "adapter.rank" else ()
        if path == "adapter.rank" and not choices:
            raise ConfigError(
                f"{where}: no rank that servers hold lies within; there are"
                f" {', '.join(map(str, RANKS))}"
            )
        found.append(Range(key=key, path=path, low=low, high=high, whole=whole, choices=choices))
    if len({x.path for x in found}) < len(found):
        raise ConfigError(f"{table}.bounds: a key is bounded twice; keep one of its names")
    return tuple(found)


def overrides(space: Space, values: Mapping[str, float]) -> tuple[str, ...]:
    """Write values as ``--set`` takes them."""
    return tuple(x.written(values[x.key]) for x in space)


def within(space: Space, values: Mapping[str, float]) -> bool:
    """Tell whether there is an allowed value for every key, and nothing else."""
    return values.keys() == {x.key for x in space} and all(x.fits(values[x.key]) for x in space)


def placed(space: Space, places: Mapping[str, float]) -> Values:
    """Turn places in [0, 1], by ratio, into values."""
    found = {}
    for x in space:
        value = x.low * (x.high / x.low) ** min(max(places[x.key], 0.0), 1.0)
        value = float(round(value)) if x.whole else value
        if x.choices:
            value = float(min(x.choices, key=lambda choice: abs(math.log(choice / value))))
        found[x.key] = min(max(value, x.low), x.high)
    return found


def places(space: Space, values: Mapping[str, float]) -> Values:
    """Turn values into places in [0, 1], by ratio."""
    return {
        x.key: math.log(values[x.key] / x.low) / math.log(x.high / x.low) if x.high > x.low else 0.5
        for x in space
    }


def fields(space: Space) -> dict[str, Any]:
    """Return the fields of a schema: one required number with bounds for every key."""
    found: dict[str, Any] = {}
    for x in space:
        kind = int if x.whole else float
        meaning = KNOBS[x.key].meaning if x.key in KNOBS else x.path
        limits = Field(ge=kind(x.low), le=kind(x.high), description=meaning)
        found[x.field] = (kind, limits)
        if x.choices:
            found[x.field] = (Literal[x.choices], Field(description=meaning))
    return found


def record(name: str, space: Space, **more: Any) -> type[BaseModel]:
    """Make a schema of more fields, which are written first, and one value for every key."""
    return create_model(name, __config__=RECORD, **more, **fields(space))


def values_of(space: Space, answer: BaseModel) -> Values:
    """Read the values of an answer."""
    return {x.key: float(getattr(answer, x.field)) for x in space}


def listed(space: Space) -> str:
    """Write bounds for a person or a model, one key a line."""
    return "\n".join(
        f"{x.field}: {KNOBS[x.key].meaning if x.key in KNOBS else x.path},"
        f" {'whole, ' if x.whole else ''}{x.low:g} to {x.high:g}"
        + (f", one of {', '.join(map(str, x.choices))}" if x.choices else "")
        for x in space
    )
