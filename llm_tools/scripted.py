"""A chat model that answers from a list, a function or a file: for tests and demonstrations.

A file has one JSON object a line, one of

    {"answer": {"lr": 0.01}}                        any JSON value; a string is sent as it is
    {"failure": "timeout", "reason": "..."}         a failure by its name in llm_tools.Failure
    {"calls": [{"name": "get_facts", "args": {}}]}  calls of tools, in a conversation
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from llm_tools.answers import CallFailed, Failure
from llm_tools.errors import SpecError, in_words
from llm_tools.specs import ScriptedSpec

Step = str | dict[str, Any] | AIMessage | Exception
"""A text, a table to be written as JSON, a whole message, or an exception to be raised."""


class ScriptedChat(BaseChatModel):
    """Answers with the next step of a script, whatever is asked.

    Attributes:
        script: the steps, or a function from the conversation to a step.
        repeat: start again after the last step; otherwise what follows is a failure.
        asked: every conversation it was asked to go on with, oldest first.
    """

    script: Sequence[Any] | Callable[[list[BaseMessage]], Any]
    repeat: bool = False
    model_name: str = "scripted"
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    _lock: Lock = PrivateAttr(default_factory=Lock)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Accept any tools; the script says which are called."""
        return self.bind(**kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._next(messages)):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            turn = len(self.asked)
            self.asked.append(list(messages))
        step = self.script(messages) if callable(self.script) else self._step(turn)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, AIMessage):
            return step
        return AIMessage(step if isinstance(step, str) else json.dumps(step))

    def _step(self, turn: int) -> Any:
        assert not callable(self.script)
        steps = self.script
        if turn >= len(steps) and not (self.repeat and steps):
            return CallFailed(Failure.EMPTY, f"the script has only {len(steps)} answers")
        return steps[turn % len(steps)]


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Cut a message into words, and its calls of tools into one chunk each, as servers do."""
    for word in re.findall(r"\s*\S+|\s+$", str(message.text)):
        yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    for index, call in enumerate(message.tool_calls):
        chunk = ToolCallChunk(
            name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index
        )
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))


class Call(BaseModel):
    """A call of a tool."""

    model_config = ConfigDict(extra="forbid")
    name: str
    args: dict[str, JsonValue]


class Line(BaseModel):
    """A line of a script."""

    model_config = ConfigDict(extra="forbid")
    answer: JsonValue = None
    failure: Failure | None = None
    reason: str = "as the script says"
    calls: list[Call] = []

    @model_validator(mode="after")
    def _one(self) -> "Line":
        given = self.model_fields_set & {"answer", "failure", "calls"}
        if len(given) != 1:
            raise ValueError("a line has one of answer, failure and calls")
        return self

    def step(self, number: int) -> Any:
        """Return the step the line stands for."""
        if self.failure is not None:
            return CallFailed(self.failure, self.reason)
        if self.calls:
            calls = [
                ToolCall(name=call.name, args=call.args, id=f"call_{number}_{i}")
                for i, call in enumerate(self.calls)
            ]
            return AIMessage("", tool_calls=calls)
        return self.answer if isinstance(self.answer, str) else json.dumps(self.answer)


def from_file(spec: ScriptedSpec) -> ScriptedChat:
    """Read a script.

    Raises:
        SpecError: it cannot be read, or names the line that is wrong.
    """
    try:
        lines = Path(spec.file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"script {spec.file} cannot be read: {error}; check its path") from None
    steps = [_step(spec.file, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    return ScriptedChat(script=steps, repeat=spec.repeat)


def _step(file: str, number: int, line: str) -> Any:
    try:
        return Line.model_validate_json(line).step(number)
    except ValidationError as error:
        raise SpecError(f"script {file}, line {number}: {in_words(error)}") from None
