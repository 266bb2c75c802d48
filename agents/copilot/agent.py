"""The copilot that asks a language model: LangChain's agent loop, held by the chat's records.

The loop is ``create_agent``'s.  Every turn of the model goes through :func:`llm_tools.talk` and
every call through the desk; what was said is made again from the records, so LangGraph's own
checkpoints are thrown away.  Approval is an interrupt of ours: LangChain's human-in-the-loop
middleware lets arguments through an edit that a tool does not declare, and keeps decisions in
checkpoints alone.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agents.copilot.desk import TOOLS, Desk
from agents.copilot.events import Event
from agents.copilot.ground import Tool
from agents.copilot.records import Asked, Call, ChatRecord, Refused, Result, Said
from llm_tools import CallFailed, Failure, fill, forbid_tracing, talk

TURNS = 12  # requests of the model for one thing that a person said
REMEMBERED = 60_000  # characters of a conversation that a model is shown; older turns are left out
PROMPT = "chat"


@dataclass(frozen=True)
class Agent:
    """A language model that calls tools.

    Attributes:
        model: made by :func:`llm_tools.chat_model`.
        spec: its description, as the journal keeps it.
        deadline_s: seconds for one turn.
    """

    model: Any
    spec: str
    deadline_s: float = 60.0

    @property
    def opened(self) -> dict[str, str]:
        """What the journal keeps of it."""
        prompt = fill(PROMPT)
        return {
            "model": self.spec,
            "prompt": f"{prompt.name}@{prompt.version}",
            "prompt_sha256": prompt.sha256,
        }

    def turn(self, desk: Desk) -> Iterator[Event]:
        """Let the model talk and call until it answers, fails or waits for a person."""
        forbid_tracing()
        graph = create_agent(
            self.model,
            [as_langchain(tool) for tool in TOOLS.values()],
            system_prompt=fill(PROMPT).text,
            middleware=[Held(desk, self.deadline_s)],
            checkpointer=InMemorySaver(),
        )
        config = {
            "configurable": {"thread_id": "1"},
            "recursion_limit": 4 * TURNS,
            "max_concurrency": 1,
        }
        for call in desk.chat.open_calls:  # left by a kill: nobody needs to be asked for them
            if not desk.waits(call):
                desk.perform(call)
        conversation = {"messages": remembered(desk)}
        try:
            for _ in graph.stream(conversation, config, stream_mode="updates"):  # type: ignore[arg-type]
                yield from desk.news()
        except CallFailed:  # it stands in the records
            yield from desk.news()


class Held(AgentMiddleware):
    """Puts the records between the loop and whatever it does."""

    def __init__(self, desk: Desk, deadline_s: float) -> None:
        """Hold a loop.

        Args:
            desk: carries calls out.
            deadline_s: seconds for one turn of the model.
        """
        super().__init__()
        self._desk = desk
        self._deadline_s = deadline_s

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Ask the model within its limits, and write down what came of it.

        Raises:
            CallFailed: if it gave nothing that can be used.
        """
        system = [request.system_message] if request.system_message else []
        messages: list[BaseMessage] = [*system, *request.messages]
        sha256 = digest(messages, request.tools)
        chat = self._desk.chat
        try:
            turns = [r for r in chat.since_said() if isinstance(r, Asked) and not r.failure]
            if len(turns) >= TURNS:
                raise out_of_turns()
            reply = talk(request.model, messages, request.tools, deadline_s=self._deadline_s)
        except CallFailed as failed:
            tokens = failed.tokens or (None, None)
            chat.append(
                Asked(
                    failure=f"{failed.failure}: {failed.reason}",
                    prompt_sha256=sha256,
                    tokens_in=tokens[0],
                    tokens_out=tokens[1],
                )
            )
            raise
        asked = Asked(
            text=reply.text,
            calls=tuple(self._desk.call(*call, ahead=n) for n, call in enumerate(reply.calls)),
            prompt_sha256=sha256,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            seconds=reply.seconds,
        )
        chat.append(asked)
        return ModelResponse(result=[of_model(asked)])

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Carry a call out at the desk, or stop the loop where a person has to decide."""
        call = Call(
            id=str(request.tool_call["id"]),
            name=request.tool_call["name"],
            args=request.tool_call["args"],
        )
        if self._desk.waits(call):
            interrupt(call.id)
        return of_tool(self._desk.perform(call))


def out_of_turns() -> CallFailed:
    """Say that a model goes on and on."""
    return CallFailed(Failure.TOO_LARGE, f"it called tools {TURNS} times without an answer")


def as_langchain(tool: Tool) -> StructuredTool:
    """Describe a tool to a model; it is carried out elsewhere."""

    def elsewhere(**args: Any) -> str:
        raise AssertionError("tools are carried out at the desk")

    acts = " Needs a person's approval." if tool.acts else ""
    return StructuredTool.from_function(
        elsewhere, name=tool.name, description=tool.help + acts, args_schema=tool.args
    )


def remembered(desk: Desk) -> list[AnyMessage]:
    """Make the conversation again from the records, without what is too long ago."""
    turns: list[list[AnyMessage]] = []
    hidden = desk.ground().names.hidden
    for record in desk.chat.records:
        message = as_message(record, hidden)
        if isinstance(record, Said):
            turns.append([])
        if message is not None and turns:
            turns[-1].append(message)
    kept, size = list[list[AnyMessage]](), 0
    for turn in reversed(turns):
        size += sum(len(str(message.content)) for message in turn)
        if kept and size > REMEMBERED:
            break
        kept.append(turn)
    return [message for turn in reversed(kept) for message in turn]


def as_message(record: ChatRecord, hidden: Callable[[str], str]) -> AnyMessage | None:
    """Turn a record into what a model is shown of it; None if it is shown nothing."""
    match record:
        case Said():
            return HumanMessage(hidden(record.text))
        case Asked(failure=""):
            return of_model(record)
        case Result():
            return of_tool(record)
        case Refused():
            return HumanMessage(record.told)
        case _:
            return None


def of_model(record: Asked) -> AIMessage:
    """Make a model's message of its record."""
    calls: list[Any] = [
        {"name": call.name, "args": call.args, "id": call.id, "type": "tool_call"}
        for call in record.calls
    ]
    return AIMessage(record.text, tool_calls=calls)


def of_tool(record: Result) -> ToolMessage:
    """Make a tool's message of its record."""
    status = "success" if record.status == "done" else "error"
    return ToolMessage(record.shown, tool_call_id=record.call, status=status)


def digest(messages: Sequence[BaseMessage], tools: Sequence[Any]) -> str:
    """Hash all that is sent to a model."""
    said = [
        [message.type, message.content, getattr(message, "tool_calls", [])] for message in messages
    ]
    offered = [[tool.name, tool.description, tool.args] for tool in tools]
    text = json.dumps([said, offered], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
