"""The network side of one structured call: bounded reading, checked replies, named failures.

Everything a server can do wrong becomes a :class:`CallFailed` here, below the client library: what
reaches the library is a clean, small chat completion.  Calls of tools are let through where they
were offered.  What is asked outside of these functions, and may stream, passes untouched.
"""

from typing import Any

import httpx2
from pydantic import BaseModel, Field, JsonValue, ValidationError
from pydantic_core import from_json

from llm_tools.answers import MAX_BYTES, TOOLS, CallFailed, Failure
from llm_tools.errors import in_words, one_line

WORDS_OF_ERROR = 2048  # bytes of the body of a failing status that are read
NAMED = {401: Failure.UNAUTHORISED, 403: Failure.UNAUTHORISED, 429: Failure.RATE_LIMITED}
CUT = {"length": Failure.TOO_LARGE, "content_filter": Failure.REFUSAL}


class Function(BaseModel):
    """Which tool is called, and how: arguments are the JSON of a table."""

    name: str = Field(min_length=1)
    arguments: str = "{}"


class Call(BaseModel):
    """A call of a tool."""

    id: str = ""
    function: Function


class Message(BaseModel):
    """What the model said."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(BaseModel):
    """One of the answers, and why it ended."""

    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens, as the server counts them."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class Completion(BaseModel):
    """As much of a chat completion as is used; whatever else came is dropped."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


class BoundedClient(httpx2.AsyncClient):
    """Sends as its parent does; a structured question's reply is read and checked here."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request.

        Raises:
            CallFailed: for whatever is not a chat completion, while MAX_BYTES is set.
        """
        max_bytes = MAX_BYTES.get()
        if max_bytes is None:
            return await super().send(request, **options)
        try:
            return await self._checked(request, max_bytes, options | {"stream": True})
        except httpx2.TimeoutException as error:
            where = request.url.netloc.decode()
            raise CallFailed(Failure.TIMEOUT, f"{where}: {type(error).__name__}") from None
        # The library lets some TLS and socket errors through as they are.
        except (httpx2.RequestError, OSError) as error:
            where = request.url.netloc.decode()
            raise CallFailed(Failure.UNREACHABLE, f"{where}: {error}") from None

    async def _checked(
        self, request: httpx2.Request, max_bytes: int, options: dict[str, Any]
    ) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await super().send(request, **options)
        try:
            ok = response.status_code == 200
            body = await _read(response, max_bytes if ok else WORDS_OF_ERROR)
        finally:
            await response.aclose()
        body = _without_key(body, request)
        if not ok:
            raise _of_status(response.status_code, body)
        if len(body) > max_bytes:
            words = f"the reply is longer than {max_bytes} bytes"
            raise CallFailed(Failure.TOO_LARGE, words, _text(body[:max_bytes]))
        return httpx2.Response(200, json=_completion(body), request=request)


async def _read(response: httpx2.Response, limit: int) -> bytes:
    """Return the body, or a little more than ``limit`` bytes of it; never unpacked."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            break
    return body


def _without_key(body: bytes, request: httpx2.Request) -> bytes:
    """Strike out the key: replies are kept, and some servers repeat it."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return body.replace(key.encode(), b"***") if len(key) > 4 else body


def _of_status(status: int, body: bytes) -> CallFailed:
    kind = Failure.SERVER_ERROR if status >= 500 else NAMED.get(status, Failure.REJECTED)
    return CallFailed(kind, f"status {status}: {one_line(_text(body), 200)}")


def _completion(body: bytes) -> dict[str, object]:
    """Check a reply and return it as the client library likes it."""
    raw = _text(body)
    try:
        read = Completion.model_validate_json(body)
    except ValidationError as error:
        words = f"the reply is no chat completion: {in_words(error, most=2)}"
        raise CallFailed(Failure.MALFORMED, words, raw) from None
    choice, usage = read.choices[0], read.usage
    text, refusal = choice.message.content or "", choice.message.refusal
    tokens = usage and (usage.prompt_tokens, usage.completion_tokens)
    if refusal:
        raise CallFailed(Failure.REFUSAL, refusal, refusal, tokens)
    if choice.finish_reason in CUT:
        words = f"the answer was cut off ({choice.finish_reason})"
        raise CallFailed(CUT[choice.finish_reason], words, text, tokens)
    message: dict[str, object] = {"role": "assistant", "content": text}
    calls = choice.message.tool_calls if TOOLS.get() else None
    if calls:
        message["tool_calls"] = [_call(call, number, raw) for number, call in enumerate(calls)]
    return {
        "id": "",
        "object": "chat.completion",
        "created": 0,
        "model": "",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": usage and usage.model_dump() | {"total_tokens": 0},
    }


def _call(call: Call, number: int, raw: str) -> dict[str, JsonValue]:
    """Check a call of a tool; servers' ids are replaced, some give every call the same."""
    name, arguments = call.function.name, call.function.arguments or "{}"
    try:
        table = from_json(arguments, allow_inf_nan=False)
    except ValueError as error:
        words = f"the arguments for {name} are not JSON: {error}"
        raise CallFailed(Failure.MALFORMED, words, raw) from None
    if not isinstance(table, dict):
        raise CallFailed(Failure.MALFORMED, f"the arguments for {name} are no table", raw)
    function: dict[str, JsonValue] = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
