"""Errors a user can mend: what is wrong, where, what to do; one line, a stable exit code.

What a language model does wrong is no exception: it is data, the ``failure`` of an ``Answer``.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError


class LLMError(Exception):
    """Something the user can mend.  ``str(error)`` is one line; ``exit_code`` is stable."""

    exit_code = 10


class SpecError(LLMError):
    """A description of a model, server or script that cannot be used."""

    exit_code = 2


class PromptError(LLMError):
    """A prompt file that is missing or malformed, or values that do not fit its placeholders."""

    exit_code = 2


class SchemaError(LLMError):
    """A schema that servers with grammar-constrained decoding refuse."""

    exit_code = 2


class ServerError(LLMError):
    """A model server that did not start or died."""


def one_line(text: object, limit: int = 300) -> str:
    """Return ``text`` in one line of at most ``limit`` printable characters."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def in_words(error: ValidationError, *, most: int = 8, values: bool = True) -> str:
    """Return what pydantic found wrong, in one line: ``field: complaint, not value; ...``.

    Args:
        error: what pydantic raised.
        most: complaints that are listed.
        values: say what was found; not where that may be a secret.
    """
    found = error.errors(include_url=False, include_context=False)
    words = [
        _complaint(fault["loc"], fault["msg"], fault["input"] if values else {})
        for fault in found[:most]
    ]
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return "; ".join(words + more)


def _complaint(where: Sequence[str | int], message: str, value: Any) -> str:
    place = ".".join(str(part) for part in where)
    # A table as value would repeat the whole answer.
    said = message.removeprefix("Value error, ")
    got = "" if isinstance(value, dict | list) else f", not {value!r}"
    return one_line(f"{place + ': ' if place else ''}{said}{got}", 200)
