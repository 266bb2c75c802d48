"""A configuration file in which every key is explained, derived from the typed configuration.

Knows pydantic's fields and TOML; knows no key by name.
"""

import json
import re
import textwrap
from collections.abc import Collection, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agents.spec import PilotSpec
from federation.algorithms.settings import SETTINGS, AlgorithmSpec, declared, settings_model
from federation.config import Config, models_in

WIDTH = 92
HEAD = """\
# A configuration of fedpilot: every key with its meaning, its bounds and its default.
# Take the # away from a key to change it, and from its [table] if there is one.
# Run it with: fedpilot run FILE
"""
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def template() -> str:
    """Write every key of :class:`Config` as TOML, commented out: it loads as the defaults."""
    core = table(Config, Config.model_validate({}), "", elsewhere={"pilot"})
    return "\n".join([HEAD, *core, *table(PilotSpec, PilotSpec(), "pilot")]) + "\n"


def table(
    model: type[BaseModel], defaults: BaseModel, name: str, elsewhere: Collection[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table: its own keys first, as TOML wants it, then the tables in it.

    Args:
        model: what the table is of.
        defaults: its values.
        name: of the table, dotted.
        elsewhere: keys that another model explains.
    """
    values = {k: getattr(defaults, k) for k in model.model_fields if k not in elsewhere}
    if name:
        yield f"\n[{name}]"
        yield from comment(summary(type(defaults)))
    inner: list[str] = []
    for key, value in values.items():
        field, of = model.model_fields[key], f"{name}.{key}" if name else key
        if isinstance(value, BaseModel):
            inner += table(type(value), value, of)
        elif value is None and (optional := next(models_in(field.annotation), None)):
            inner += left_out(optional, of, field.description or "")
        else:
            yield from line(key, field, value)
    if isinstance(defaults, AlgorithmSpec):
        yield from settings()
    yield from inner


def left_out(model: type[BaseModel], name: str, meaning: str) -> Iterator[str]:
    """Yield a table that is not there unless its head is uncommented too."""
    head, *lines = table(model, model(), name)
    yield f"\n#{head.strip()}"
    yield from comment(meaning)
    yield from lines


def settings() -> Iterator[str]:
    """Yield what can be set of each algorithm."""
    for name in SETTINGS:
        model = settings_model(declared(name))
        if model.model_fields:
            yield from ["", f"# Settings of {name}:"]
        for key, field in model.model_fields.items():
            yield from line(key, field, field.default)


def line(key: str, field: FieldInfo, value: object) -> Iterator[str]:
    """Yield a key and its default, with what it means and what it may be above it."""
    allowed = [*choices(field.annotation), *bounds(field.metadata)]
    meaning = field.description or ""
    yield from comment(f"{meaning} ({', '.join(allowed)})" if allowed else meaning)
    yield f"#{key} =" + ("" if value is None else f" {toml(value)}")


def summary(model: type[BaseModel]) -> str:
    """Take the first sentence of a model's docstring."""
    return re.split(r"(?<=\.)\s", model.__doc__ or "")[0].replace("``", "`")


def comment(text: str) -> list[str]:
    """Wrap a comment."""
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def bounds(metadata: list[Any]) -> Iterator[str]:
    """Yield the bounds of a quantity."""
    for constraint in metadata:
        for name, sign in SIGNS.items():
            limit = getattr(constraint, name, None)
            if limit is not None:
                yield f"{sign} {limit:{',' if isinstance(limit, int) else 'g'}}"


def choices(annotation: Any) -> Iterator[str]:
    """Yield what a key may be, where that is a choice, and whether it may be left out."""
    origin = get_origin(annotation)
    inner = list(get_args(annotation))
    if origin is Literal:
        yield (
            "one of " + " ".join(toml(choice) for choice in inner)
            if len(inner) > 1
            else toml(inner[0])
        )
    elif origin is Annotated:
        yield from choices(inner[0])
    elif origin is tuple:
        yield from (f"list: {words}" for words in choices(inner[0]))
    elif origin in (Union, UnionType):
        for part in inner:
            yield from choices(part)
        if NoneType in inner:
            yield "unset unless given"
    elif annotation in (int, float):
        yield "integer" if annotation is int else "number"


def toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else repr(value)
