"""What came of asking: a value or the kind of failure, and what it cost."""

import json
import math
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from llm_tools.errors import in_words, one_line

T = TypeVar("T", bound=BaseModel)

MAX_BYTES: ContextVar[int | None] = ContextVar("max_bytes", default=None)
"""How much of one reply is read; set while ``ask`` or ``talk`` wait for it, and only then."""

TOOLS: ContextVar[bool] = ContextVar("tools", default=False)
"""Whether tools were offered, so that a reply may call some."""


class Failure(StrEnum):
    """Why there is no value.  Closed: reports count by these names."""

    UNREACHABLE = "unreachable"  # refused, reset, no such host, no such certificate
    UNAUTHORISED = "unauthorised"  # 401, 403
    RATE_LIMITED = "rate_limited"  # 429
    REJECTED = "rejected"  # another status below 500: no such model, schema refused
    SERVER_ERROR = "server_error"  # 5xx
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"  # more bytes or tokens than allowed
    EMPTY = "empty"
    REFUSAL = "refusal"  # the model, or its provider's filter, declined
    MALFORMED = "malformed"  # no JSON, or a reply that is no chat completion
    INVALID = "invalid"  # JSON that the schema refuses


OF_SERVER = frozenset(
    {
        Failure.UNREACHABLE,
        Failure.UNAUTHORISED,
        Failure.RATE_LIMITED,
        Failure.REJECTED,
        Failure.SERVER_ERROR,
        Failure.TIMEOUT,
    }
)
"""Failures in which no model had its say; the others are a model's own."""


class CallFailed(Exception):
    """A language model that gave no value; becomes the failure of an :class:`Answer`."""

    def __init__(
        self, failure: Failure, reason: str, raw: str = "", tokens: tuple[int, int] | None = None
    ) -> None:
        """Say the kind and the reason, what was received, and the tokens in and out it cost."""
        self.failure, self.reason = failure, one_line(reason, 600)
        self.raw, self.tokens = raw, tokens
        super().__init__(f"{failure}: {self.reason}")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came of asking.  Either ``value`` or ``failure`` is there, never both.

    Attributes:
        value: the parsed answer.
        failure: why there is none.
        reason: the failure in one line; empty where there is a value.
        raw: the last answer's text as received, cut at the size cap.
        attempts: requests begun, repairs included.
        tokens_in: tokens of all prompts, where the server reported them for any attempt.
        tokens_out: tokens of all answers, likewise.
        seconds: wall-clock time of the whole call.
        prompt_sha256: of the prompt's UTF-8 bytes.
        model: the name the server knows.
    """

    value: T | None
    failure: Failure | None
    reason: str
    raw: str
    attempts: int
    tokens_in: int | None
    tokens_out: int | None
    seconds: float
    prompt_sha256: str
    model: str


def read(text: str, schema: type[T]) -> T:
    """Read an answer strictly: one JSON value, nothing around it, nothing coerced.

    The one thing forgiven is a tab or line break as it is within a text, where JSON wants it
    escaped: grammars of servers let them through, so that no repair would help.

    Raises:
        CallFailed: EMPTY, MALFORMED (also for NaN, numbers too large and keys given twice, which
            most readers let pass) or INVALID, with the reader's or validator's words.
    """
    if not text.strip():
        raise CallFailed(Failure.EMPTY, "the answer has no text")
    try:
        hooks = {"parse_float": _finite, "parse_constant": _no_number}
        value = json.loads(text, strict=False, object_pairs_hook=_once, **hooks)
        plain = json.dumps(value)
    except (ValueError, RecursionError) as error:
        raise CallFailed(Failure.MALFORMED, f"not one JSON value: {error}", text) from None
    try:
        return schema.model_validate_json(plain, strict=True)
    except ValidationError as error:
        raise CallFailed(Failure.INVALID, in_words(error), text) from None


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return table


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
