"""One structured question to a language model, with a deadline that holds.

The request runs on an event loop in a thread of its own while the caller waits for the result, no
longer than the deadline.  Then the request is cancelled, which closes its connection wherever it
stands: resolving a name, connecting, waiting for the first byte or receiving one byte a second.
What cannot be cancelled (a name server that does not answer, a script that sleeps) is abandoned.
"""

import asyncio
import os
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from llm_tools.answers import MAX_BYTES, Answer, CallFailed, Failure, read
from llm_tools.prompts import Prompt, fill
from llm_tools.schemas import decodable

if TYPE_CHECKING:
    from llm_tools.models import ChatModel

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

_STARTING = Lock()
REPAIRABLE = (Failure.MALFORMED, Failure.INVALID)


@dataclass
class Talk:
    """A question and what has been said so far; outlives a deadline that cuts it off."""

    model: "ChatModel"
    form: dict[str, Any]
    max_bytes: int
    messages: list[tuple[str, str]]
    raw: str = ""
    attempts: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None

    async def next(self) -> str:
        """Ask, and return what the model says."""
        self.attempts += 1
        message = await self.model.ainvoke(self.messages, response_format=self.form)
        self.raw = str(message.text)
        if usage := message.usage_metadata:
            self.count(usage["input_tokens"], usage["output_tokens"])
        if len(_bytes(self.raw)) > self.max_bytes:
            raise CallFailed(Failure.TOO_LARGE, f"the answer is longer than {self.max_bytes} bytes")
        return self.raw

    def count(self, tokens_in: int, tokens_out: int) -> None:
        """Add the tokens of one attempt."""
        self.tokens_in = (self.tokens_in or 0) + tokens_in
        self.tokens_out = (self.tokens_out or 0) + tokens_out


def ask(
    model: "ChatModel",
    prompt: str | Prompt,
    schema: type[T],
    *,
    deadline_s: float = 20.0,
    repairs: int = 2,
    max_bytes: int = 65_536,
) -> Answer[T]:
    """Ask for one value of ``schema``.  What the model or its server does wrong is in the answer.

    The schema is sent along (``response_format``, strict) and checked again here.  An answer that
    is no JSON or that the schema refuses is asked for again with the validator's words; after any
    other failure it is not.

    Args:
        model: made by :func:`llm_tools.chat_model`.
        prompt: the request, complete.
        schema: a pydantic class that :func:`llm_tools.decodable` accepts.
        deadline_s: seconds for everything: connecting, waiting, reading and all repairs.
        repairs: how often an answer is asked for again, at most.
        max_bytes: of one reply as it is received; reading stops there.

    Raises:
        SchemaError: servers cannot enforce the schema.
        ValueError: a deadline or cap that leaves no room to ask.
    """
    if deadline_s <= 0 or repairs < 0 or max_bytes < 1:
        raise ValueError("ask: deadline_s and max_bytes have to be positive, repairs at least 0")
    started = monotonic()
    text = prompt.text if isinstance(prompt, Prompt) else prompt
    talk = Talk(model, _response_format(schema), max_bytes, [("human", text)])
    value, failed = None, None
    try:
        value = within(deadline_s, _converse(talk, schema, repairs))
    except CallFailed as failure:
        failed = failure
        if failed.tokens:
            talk.count(*failed.tokens)
    raw = (failed and failed.raw) or talk.raw
    return Answer(
        value=value,
        failure=failed.failure if failed else None,
        reason=failed.reason if failed else "",
        raw=_bytes(raw)[:max_bytes].decode("utf-8", "ignore"),
        attempts=talk.attempts,
        tokens_in=talk.tokens_in,
        tokens_out=talk.tokens_out,
        seconds=monotonic() - started,
        prompt_sha256=sha256(text.encode()).hexdigest(),
        model=getattr(model, "model_name", model._llm_type),
    )


async def _converse(talk: Talk, schema: type[T], repairs: int) -> T:
    MAX_BYTES.set(talk.max_bytes)
    while True:
        text = await talk.next()
        try:
            return read(text, schema)
        except CallFailed as failed:
            if failed.failure not in REPAIRABLE or talk.attempts > repairs:
                raise
            again = fill("repair", words=failed.reason)
            talk.messages += [("ai", text), ("human", again.text)]


def _response_format(schema: type[BaseModel]) -> dict[str, Any]:
    named = {"name": schema.__name__, "strict": True, "schema": decodable(schema)}
    return {"type": "json_schema", "json_schema": named}


def within(seconds: float, work: Coroutine[Any, Any, R]) -> R:
    """Run ``work`` for at most ``seconds``."""
    # In an empty context: callbacks of a conversation around this call would see what is said.
    future = Context().run(asyncio.run_coroutine_threadsafe, work, _loop())
    try:
        return future.result(seconds)
    except TimeoutError:
        raise CallFailed(Failure.TIMEOUT, f"no answer within {seconds:g} seconds") from None
    finally:
        future.cancel()


def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process; a forked one has its parent's loop, but not the thread."""
    with _STARTING:
        return _loop_of(os.getpid())


@lru_cache(maxsize=1)
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="llm_tools", daemon=True).start()
    return loop


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
