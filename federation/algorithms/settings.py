"""Settings from outside become arguments of a function, validated by the function's own signature.

A setting is declared once, as an annotated parameter with its bounds and its meaning; validation,
schemas and forms are all derived from that line.  Light: nothing here imports torch.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from federation.errors import ConfigError
from federation.specs import got, wanted

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@cache
def settings_model(function: Callable[..., object]) -> type[BaseModel]:
    """Return the model of a function's keyword arguments: those that have a default."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return create_model(function.__name__, __config__=STRICT, **fields)


def validated(
    function: Callable[..., object], settings: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Check settings against the signature of the function they are meant for.

    Args:
        function: whose parameters with a default are the settings.
        settings: values by name.
        where: what the settings belong to, for the error, such as ``"algorithm 'fedprox'"``.

    Raises:
        ConfigError: naming the first setting that is unknown or out of bounds.
    """
    model = settings_model(function)
    unknown = [name for name in settings if name not in model.model_fields]
    if unknown:
        raise ConfigError(f"{where}: {unknown_name('setting', unknown[0], model.model_fields)}")
    try:
        checked = model.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        same = [x for x in error.errors() if x["loc"][0] == name]
        must = wanted(same, model.model_fields[name])
        raise ConfigError(f"{where}: {name} {must}, got {got(first['input'])}") from None
    return {name: getattr(checked, name) for name in settings}


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, which one may have been meant, and which there are."""
    known = sorted(known)
    if not known:
        return f"unknown {kind} {name!r}; there are none"
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{meant} known: {', '.join(known)}"
