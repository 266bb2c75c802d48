"""One turn of a conversation with a language model that may call tools, with a deadline that holds.

The request runs as a structured question's does (asking.py): no longer than the deadline, reading
no more than the cap.  Unlike there, what goes wrong is raised: a conversation has no fallback.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from llm_tools.answers import MAX_BYTES, TOOLS, CallFailed, Failure
from llm_tools.asking import within

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

    from llm_tools.models import ChatModel


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: its words; may be empty where it calls tools.
        calls: name and arguments of every tool that it calls.
        tokens_in: tokens of the prompt, where the server reported them.
        tokens_out: tokens of the reply, likewise.
        seconds: wall-clock time.
    """

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = field(default=0.0, compare=False)


def talk(
    model: "ChatModel",
    messages: "Sequence[BaseMessage]",
    tools: Sequence[Any],
    *,
    deadline_s: float = 60.0,
    max_bytes: int = 262_144,
) -> Reply:
    """Let a model say what comes next in a conversation.

    Args:
        model: made by :func:`llm_tools.chat_model`.
        messages: the conversation, system prompt included.
        tools: what it may call; nothing is called here.
        deadline_s: seconds for connecting, waiting and reading.
        max_bytes: of the reply as it is received; reading stops there.

    Raises:
        CallFailed: whatever the model or its server did wrong, as one of the named failures.
    """
    if deadline_s <= 0 or max_bytes < 1:
        raise ValueError("talk: deadline_s and max_bytes have to be positive")
    began = monotonic()
    message = within(deadline_s, _next(model.bind_tools(tools), messages, max_bytes))
    text = str(message.text)
    if len(text.encode("utf-8", "replace")) > max_bytes:
        raise CallFailed(Failure.TOO_LARGE, f"the answer is longer than {max_bytes} bytes")
    if not text.strip() and not message.tool_calls:
        raise CallFailed(Failure.EMPTY, "the answer has no text and calls no tool")
    usage = message.usage_metadata
    return Reply(
        text=text,
        calls=tuple((call["name"], call["args"]) for call in message.tool_calls),
        tokens_in=usage["input_tokens"] if usage else None,
        tokens_out=usage["output_tokens"] if usage else None,
        seconds=monotonic() - began,
    )


async def _next(model: Any, messages: "Sequence[BaseMessage]", max_bytes: int) -> "AIMessage":
    MAX_BYTES.set(max_bytes)
    TOOLS.set(True)
    return await model.ainvoke(list(messages))
