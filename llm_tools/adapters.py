"""Adapters of a vLLM server that runs: load, replace, unload, and what the server makes of them.

Every request has a deadline that holds and a cap on what is read; whatever goes wrong is one line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from llm_tools.answers import CallFailed
from llm_tools.asking import within
from llm_tools.errors import ServerError, in_words, one_line
from llm_tools.serving import Server

MAX_BYTES = 1 << 20  # of a reply
LOAD_S, ASK_S = 300.0, 300.0  # the first answer of a server takes long
SHOWN = 20  # most log-probabilities a token that vLLM gives, unless it is started otherwise


class Named(BaseModel):
    """A model, by its name."""

    id: str


class Models(BaseModel):
    """What a server serves."""

    data: list[Named]


class TopLogProbs(BaseModel):
    """Of each generated token, the most probable ones: name -> nats."""

    top_logprobs: list[dict[str, float]] = Field(min_length=1)


class Choice(BaseModel):
    """A continuation."""

    text: str
    logprobs: TopLogProbs | None = None


class Continuation(BaseModel):
    """What came of a prompt."""

    choices: list[Choice] = Field(min_length=1)


def load(server: Server, name: str, folder: Path, *, replace: bool = False) -> None:
    """Load an adapter.

    Args:
        server: a vLLM server that was started with adapters.
        name: under which it is asked for.
        folder: PEFT's files.  One that this server has not loaded under this name before: else it
            goes on answering repeated prompts by what it kept of the adapter that lay there.
        replace: whether the name stands for another adapter now, which this one replaces.

    Raises:
        ServerError: it refused, failed or did not answer.
    """
    body = {"lora_name": name, "lora_path": str(folder.absolute()), "load_inplace": replace}
    _request(server, "POST", "/load_lora_adapter", body, LOAD_S)


def unload(server: Server, name: str) -> None:
    """Unload an adapter.

    Raises:
        ServerError: it refused, failed or did not answer.
    """
    _request(server, "POST", "/unload_lora_adapter", {"lora_name": name}, LOAD_S)


def names(server: Server) -> list[str]:
    """List the models and adapters that a server answers for.

    Raises:
        ServerError: it failed or did not answer.
    """
    return [model.id for model in _read(server, "GET", "/models", None, Models).data]


def next_log_probs(server: Server, name: str, prompt: Sequence[int]) -> dict[int, float]:
    """Ask for the most probable next tokens after a prompt.

    Args:
        server: a vLLM server.
        name: of the model or adapter.
        prompt: token ids.

    Returns:
        Token id -> log-probability, nats, of the :data:`SHOWN` most probable ones.

    Raises:
        ServerError: it failed, did not answer, or answered something else.
    """
    body = {
        "model": name,
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": SHOWN,
        "return_tokens_as_token_ids": True,
    }
    found = _read(server, "POST", "/completions", body, Continuation).choices[0].logprobs
    tops = found.top_logprobs[0] if found else {}
    try:
        return {int(token.removeprefix("token_id:")): value for token, value in tops.items()}
    except ValueError:
        raise ServerError(f"the server gives no token ids: {one_line(list(tops), 80)}") from None


def continuation(server: Server, name: str, prompt: str, max_tokens: int = 64) -> str:
    """Continue a text greedily.

    Args:
        server: any server of the OpenAI protocol.
        name: of the model or adapter.
        prompt: the text.
        max_tokens: longest continuation.

    Raises:
        ServerError: it failed, did not answer, or answered something else.
    """
    body = {"model": name, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    return _read(server, "POST", "/completions", body, Continuation).choices[0].text


def _read(server: Server, method: str, path: str, body: Mapping[str, Any] | None, kind: Any) -> Any:
    data = _request(server, method, path, body, ASK_S)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        words = in_words(error, most=2)
        raise ServerError(f"the server's reply to {path} is of no use: {words}") from None


def _request(
    server: Server, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
) -> bytes:
    """Send a request and return the reply's body."""
    import httpx

    try:
        status, data = within(seconds, _send(server, method, path, body))
    except CallFailed:
        raise ServerError(f"the server did not answer {path} within {seconds:g} s") from None
    except (httpx.HTTPError, OSError) as error:
        why = one_line(error) or type(error).__name__
        raise ServerError(f"the server cannot be asked ({path}): {why}") from None
    words = one_line(data.decode("utf-8", "replace").replace(server.key, "***"), 300)
    if len(data) > MAX_BYTES:
        raise ServerError(f"the server's reply to {path} is longer than {MAX_BYTES} bytes")
    if status != 200:
        raise ServerError(f"the server refused {path} with status {status}: {words}")
    return data


async def _send(
    server: Server, method: str, path: str, body: Mapping[str, Any] | None
) -> tuple[int, bytes]:
    """Send a request; read a little more than what is allowed of the reply, at most."""
    import httpx

    headers = {"authorization": f"Bearer {server.key}", "accept-encoding": "identity"}
    # Certificates are not loaded: the server is on this machine and speaks plain HTTP.
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None, headers=headers, verify=False) as client,
        client.stream(method, server.url + path, json=body) as response,
    ):
        data = b""
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > MAX_BYTES:
                break
        return response.status_code, data
