"""Small forms made of JSON Schemas: what a person may answer is what whoever checks it declared.

They are not made of :mod:`ui.web.forms`: a configuration leaves out what is as by default and has a
control for every key of its tables; an answer says every value, and what is nested in it is JSON.

The widgets keep people from mistakes; they check nothing.  What was filled in is judged again by
the guard, the inbox or the tool that it is for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import streamlit as st
from pydantic import JsonValue

from federation.errors import ConfigError

Kind = Literal["number", "integer", "choice", "text", "words", "json"]


@dataclass(frozen=True)
class Field:
    """One value of a form.

    Attributes:
        name: its key.
        kind: how it is shown; what is nested is written as JSON.
        help: what it means.
        value: what stands there at first.
        low: smallest number; None: no bound.
        high: largest number.
        choices: words to choose from.
        most: longest text.
    """

    name: str
    kind: Kind
    help: str = ""
    value: JsonValue = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    most: int | None = None

    @property
    def label(self) -> str:
        """What it is called, with its bounds."""
        word = self.name.replace("_", " ")
        if self.low is None or self.high is None or self.high >= 1e6:
            return word
        return f"{word} ({self.low:g} to {self.high:g})"


def fields_of(schema: Mapping[str, JsonValue], values: Mapping[str, JsonValue]) -> list[Field]:
    """Read the fields of a JSON Schema of an object.

    Args:
        schema: as pydantic writes it.
        values: what stands in the fields at first; the schema's defaults where there is none.
    """
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    return [
        field_of(name, known, values.get(name, known.get("default")))
        for name, known in properties.items()
        if isinstance(known, dict)
    ]


def field_of(name: str, known: Mapping[str, JsonValue], value: JsonValue) -> Field:
    """Read one property."""
    help = str(known.get("description", ""))
    choices, items = known.get("enum"), known.get("items")
    match known.get("type"):
        case "number" | "integer" as kind if value is None or isinstance(value, int | float):
            low, high = bound(known, "inimum", 1), bound(known, "aximum", -1)
            return Field(name, kind, help, value, low, high)
        case "string" if isinstance(choices, list):
            return Field(name, "choice", help, value, choices=tuple(map(str, choices)))
        case "string":
            most = known.get("maxLength")
            return Field(name, "text", help, value, most=most if isinstance(most, int) else None)
        case "array" if isinstance(items, dict) and items.get("type") == "string":
            return Field(name, "words", help, value)
        case _:
            return Field(name, "json", help, value)


def bound(known: Mapping[str, JsonValue], ending: str, inside: int) -> float | None:
    """Return a bound; one that excludes itself is moved by one, for whole numbers."""
    value, excluded = known.get(f"m{ending}"), known.get(f"exclusiveM{ending}")
    if isinstance(value, int | float):
        return float(value)
    return float(excluded) + inside if isinstance(excluded, int | float) else None


def draw(fields: list[Field], key: str) -> dict[str, object]:
    """Show fields; return what stands in them, as the widgets have it.

    Args:
        fields: what is asked.
        key: of the form, unique on its page.
    """
    return {field.name: widget(field, f"{key}-{field.name}") for field in fields}


def widget(field: Field, key: str) -> object:
    """Show one field."""
    value = field.value
    match field.kind:
        case "number" | "integer":
            return number(field, key)
        case "choice":
            at = field.choices.index(str(value)) if value in field.choices else 0
            return st.selectbox(field.label, field.choices, at, help=field.help, key=key)
        case "text":
            text = "" if value is None else str(value)
            return st.text_input(field.label, text, help=field.help, key=key, max_chars=field.most)
        case "words":
            words = ", ".join(map(str, value)) if isinstance(value, list) else ""
            note = f"{field.help}; separated by commas"
            return st.text_input(field.label, words, help=note, key=key)
        case "json":
            text = json.dumps(value) if value is not None else ""
            return st.text_area(f"{field.label}, as JSON", text, help=field.help, key=key)


def number(field: Field, key: str) -> float | int | None:
    """Show a number: whole ones by steps of one, others as they are written."""
    kind = int if field.kind == "integer" else float
    low, high = (None if x is None else kind(x) for x in (field.low, field.high))
    given = field.value if isinstance(field.value, int | float) else low
    first = kind(0 if given is None else given)
    first = first if low is None else max(first, low)  # a widget refuses to begin out of bounds
    first = first if high is None else min(first, high)
    step = 1 if kind is int else max(float(f"{abs(first) / 10:.1g}"), 1e-6)
    return st.number_input(
        field.label, low, high, first, step, "%d" if kind is int else "%.6g", key, field.help
    )


def filled(fields: list[Field], drawn: Mapping[str, object]) -> dict[str, JsonValue]:
    """Turn what stands in a form into values; what was left as the schema has it stays out.

    Raises:
        ConfigError: if a field of JSON holds none.
    """
    found: dict[str, JsonValue] = {}
    for field in fields:
        value = read(field, drawn.get(field.name))
        if value is not None:
            found[field.name] = value
    return found


def read(field: Field, value: object) -> JsonValue:
    """Turn what a widget holds into a value.

    Raises:
        ConfigError: if it is no JSON where it should be.
    """
    if field.kind == "words":
        return [word.strip() for word in str(value or "").split(",") if word.strip()]
    if field.kind == "integer" and isinstance(value, float):
        return int(value)
    if field.kind != "json":
        return value if isinstance(value, str | int | float) else None
    try:
        return json.loads(str(value)) if value else None
    except ValueError as error:
        raise ConfigError(f"{field.name}: this is no JSON ({error}); mend it") from None
