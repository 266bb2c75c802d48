"""Vocabulary files: TOML texts in the folder ``domains`` of this package."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def read(name: str) -> dict[str, Any]:
    """Read ``domains/<name>.toml``."""
    file = files("federation.data.organisations") / "domains" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def words(text: str) -> tuple[str, ...]:
    """Split a text into its words."""
    return tuple(text.split())


def tuples(table: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Freeze a table of lists."""
    return {key: tuple(values) for key, values in table.items()}
