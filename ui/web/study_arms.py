"""The arms of a study as a form has them: what they may change, written as overrides."""

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from agents.study.spec import MEASURED
from federation.config import set_key
from federation.errors import ConfigError
from ui.web.comparing import MACHINE
from ui.web.draft import configuration
from ui.web.forms import Control, Table, chosen
from ui.web.store import flattened
from ui.web.written import value_text

FIXED = (*MEASURED, *MACHINE)
"""Tables that no arm changes: what is measured, on what, and how the machine is used."""


@cache
def changeable() -> dict[str, Control]:
    """Return the keys that an arm may change."""
    return {c.key: c for c in configuration() if c.key.partition(".")[0] not in FIXED}


def slug(text: str, taken: Collection[str] = ()) -> str:
    """Make a text the name of an arm: lower-case letters, digits, - and _, 40 at most."""
    found = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:40] or "arm"
    names = (f"{found[:37]}-{n}" for n in range(2, len(taken) + 3))
    return next(name for name in (found, *names) if name not in taken)


def override(control: Control, value: object) -> str | None:
    """Write what a widget holds as an override; None if it holds nothing."""
    said = chosen(control, value)
    return None if said is None or said == "" else f"{control.key}={value_text(said)}"


def with_changes(base: Mapping[str, Any], overrides: Iterable[str]) -> Table:
    """Return a base with the changes of an arm."""
    table = copy.deepcopy(dict(base))
    for one in overrides:
        with suppress(ConfigError):  # what is none is said where the study is judged
            set_key(table, one)
    return table


def apart(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the overrides that make one configuration another, in all that arms may change.

    A table in which a key has to go is written whole: an override can set and not take away.
    """
    found: list[str] = []
    for name in sorted({*base, *other} - {*FIXED}):
        was, wanted = base.get(name, {}), other.get(name, {})
        if not isinstance(was, Mapping) or not isinstance(wanted, Mapping):
            found += [f"{name}={value_text(wanted)}"] if was != wanted else []
            continue
        before, after = dict(flattened(was)), dict(flattened(wanted))
        if before.keys() - after.keys():
            found.append(f"{name}={value_text(wanted)}")
        else:
            changed = [key for key, value in after.items() if before.get(key) != value]
            found += [f"{name}.{key}={value_text(after[key])}" for key in changed]
    return found
