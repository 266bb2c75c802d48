"""One plain completion from a server that speaks the OpenAI protocol: a prompt in, its end out.

For models that were never taught to chat.  Only servers on this machine are asked, and no key is
sent.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_tools.errors import ServerError, SpecError, one_line
from llm_tools.specs import chat_spec

LARGEST = 1_000_000  # bytes of an answer that are read


class Completion(NamedTuple):
    """What a model wrote.

    Attributes:
        text: what follows the prompt.
        tokens: of it, as the server counts; None if it does not say.
        seconds: that it took.
        ended: whether the model ended by itself.
    """

    text: str
    tokens: int | None
    seconds: float
    ended: bool


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nobody elsewhere."""


def complete(url: str, model: str, prompt: str, *, max_tokens: int, timeout_s: float) -> Completion:
    """Ask for one greedy completion.

    Args:
        url: where /completions lies, as http://127.0.0.1:8000/v1.
        model: name that the server knows.
        prompt: text, as it is.
        max_tokens: longest completion.
        timeout_s: seconds one network operation may wait.

    Raises:
        SpecError: if the address cannot be used, or is not on this machine.
        ServerError: if the server cannot be reached or gives no completion.
    """
    spec = chat_spec({"kind": "openai", "model": model, "url": url})
    if spec.kind != "openai" or not spec.loopback:
        raise SpecError(f"{url} is not on this machine; only servers here are asked")
    began = time.perf_counter()
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    answer = _posted(f"{spec.url}/completions", body, timeout_s)
    took = time.perf_counter() - began
    try:
        choice = answer["choices"][0]
        tokens = (answer.get("usage") or {}).get("completion_tokens")
        text, ended = str(choice["text"]), choice.get("finish_reason") == "stop"
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ServerError(f"{url} gave no completion: {one_line(answer)}") from None
    return Completion(text, tokens if isinstance(tokens, int) else None, took, ended)


def _posted(url: str, body: Mapping[str, object], timeout_s: float) -> Any:
    request = urllib.request.Request(
        url, json.dumps(dict(body)).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return json.loads(response.read(LARGEST))
    except urllib.error.HTTPError as error:
        why = one_line(error.read(2000).decode("utf-8", "replace"))
        raise ServerError(f"{url} refused: {error.code} {why}") from None
    except (OSError, ValueError) as error:
        raise ServerError(f"{url} cannot be asked ({one_line(error)}); is it running?") from None
