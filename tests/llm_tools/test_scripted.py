"""The scripted model: lists, functions, files; tools and streams as a conversation needs them."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from llm_tools import CallFailed, Failure, SpecError, ask, chat_model
from llm_tools.scripted import ScriptedChat
from tests.llm_tools.conftest import Decision
from tests.llm_tools.fault_server import GOOD

CALL = {"name": "get_facts", "args": {"round": 3}, "id": "call_1_0", "type": "tool_call"}


def script(tmp_path, *lines):
    file = tmp_path / "script.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def test_a_list_is_said_in_order_and_then_ends():
    model = ScriptedChat(script=["nonsense", GOOD])
    assert ask(model, "?", Decision).value == Decision(**GOOD)
    answer = ask(model, "again", Decision)
    assert (answer.failure, answer.value) == (Failure.EMPTY, None)
    assert "only 2 answers" in answer.reason
    assert [m[0].content for m in model.asked] == ["?", "?", "again"]


def test_a_list_may_repeat():
    model = ScriptedChat(script=[GOOD, GOOD | {"steps": 5}], repeat=True)
    assert [ask(model, "?", Decision).value.steps for _ in range(4)] == [3, 5, 3, 5]


def test_a_function_sees_the_conversation():
    model = ScriptedChat(script=lambda messages: GOOD | {"steps": len(messages)})
    assert ask(model, "?", Decision).value.steps == 1


def test_a_file(tmp_path):
    file = script(
        tmp_path,
        '{"answer": {"lr": 0.01, "steps": 3, "rule": "oort"}}',
        "",
        '{"failure": "timeout", "reason": "slow"}',
        '{"calls": [{"name": "get_facts", "args": {"round": 3}}]}',
        '{"answer": "good bye"}',
    )
    model = chat_model(f"scripted:{file}")
    answer = ask(model, "?", Decision)
    assert (answer.value, answer.model) == (Decision(**GOOD), "scripted")
    answer = ask(model, "?", Decision)
    assert (answer.failure, answer.reason) == (Failure.TIMEOUT, "slow")
    assert model.invoke("?").tool_calls == [CALL | {"id": "call_4_0"}]
    assert model.invoke("?").content == "good bye"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: "),
        ("{}", "one of answer, failure and calls"),
        ('{"answer": 1, "failure": "empty"}', "one of answer"),
        ('{"failure": "tired"}', "failure"),
        ('{"reply": 1}', "reply"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, words):
    file = script(tmp_path, '{"answer": 1}', line)
    with pytest.raises(SpecError) as error:
        chat_model(f"scripted:{file}")
    assert "line 2" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_script_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        chat_model(f"scripted:{tmp_path}/absent")


@tool
def get_facts(round: int) -> str:
    """Return the facts of a round."""
    return f"F1 loss of round {round}"


def test_tools_can_be_bound_and_streamed():
    message = AIMessage("I will look.", tool_calls=[CALL])
    model = ScriptedChat(script=[message, message]).bind_tools([get_facts], tool_choice="any")
    whole = model.invoke([HumanMessage("why?")])
    pieces = list(model.stream([HumanMessage("why?")]))
    streamed = sum(pieces[1:], pieces[0])
    assert len(pieces) >= 4
    assert (streamed.content, streamed.tool_calls) == (whole.content, [CALL])


def test_an_agent_can_be_driven():
    from langchain.agents import create_agent

    model = ScriptedChat(script=[AIMessage("", tool_calls=[CALL]), "The loss fell. "] * 2)
    agent = create_agent(model, [get_facts])
    question = {"messages": [("human", "why?")]}
    said = agent.invoke(question)["messages"]
    assert [m.content for m in said] == ["why?", "", "F1 loss of round 3", "The loss fell. "]
    tokens = [m.content for m, _ in agent.stream(question, stream_mode="messages")]
    assert "".join(tokens) == "F1 loss of round 3The loss fell. "


def test_a_question_inside_a_conversation_is_not_overheard():
    @tool
    def decide() -> str:
        """Ask another question."""
        return str(ask(ScriptedChat(script=[GOOD]), "secret", Decision).value)

    from langchain.agents import create_agent

    call = {"name": "decide", "args": {}, "id": "c", "type": "tool_call"}
    agent = create_agent(ScriptedChat(script=[AIMessage("", tool_calls=[call]), "done"]), [decide])
    stream = agent.stream({"messages": [("human", "?")]}, stream_mode="messages")
    heard = [m for m, _ in stream if m.type != "tool"]
    assert '"lr"' not in "".join(str(m.content) for m in heard)
    assert "done" in "".join(str(m.content) for m in heard)


def test_exceptions_of_a_script_are_raised():
    with pytest.raises(CallFailed, match="rate_limited: later"):
        ScriptedChat(script=[CallFailed(Failure.RATE_LIMITED, "later")]).invoke("?")
