"""A turn of a conversation is bounded as a question is, and may call tools."""

import json
from time import monotonic

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from llm_tools import CallFailed, Failure, ask, chat_model, talk
from llm_tools.scripted import ScriptedChat
from tests.llm_tools.conftest import Decision
from tests.llm_tools.fault_server import GOOD, GOOD_TEXT, MODES, completion, fault_server, raw


@tool
def get_facts(round: int) -> str:
    """Return the facts of a round."""
    raise AssertionError("nothing is called here")


def calling(*named: tuple[str, str], text: object = None) -> dict:
    """A chat completion that calls tools, all with the same id, as some servers do."""
    made = [
        {"id": "0", "type": "function", "function": {"name": n, "arguments": a}} for n, a in named
    ]
    return completion(text, finish="tool_calls", tool_calls=made)


REPLIES = {
    "calls": calling(("get_facts", '{"round": 3}'), ("get_facts", '{"round": 4}')),
    "no_arguments": calling(("get_facts", "")),
    "words_too": calling(("get_facts", '{"round": 3}'), text="I look."),
    "broken_call": calling(("get_facts", '{"round": ')),
    "list_call": calling(("get_facts", "[3]")),
    "nan_call": calling(("get_facts", '{"round": NaN}')),
    "broken_beside": calling(("get_facts", "{"), text=GOOD_TEXT),
    "nameless": calling(("", "{}")),
}


@pytest.fixture(scope="module")
def server():
    before = dict(MODES)
    MODES.update({name: raw(json.dumps(reply).encode()) for name, reply in REPLIES.items()})
    with fault_server() as (address, seen):
        yield address, seen
    MODES.clear()
    MODES.update(before)


def said(server, mode, **limits):
    model = chat_model({"kind": "openai", "model": "m", "url": f"{server[0]}/{mode}/v1"})
    return talk(model, [HumanMessage("how is round 3?")], [get_facts], **limits)


def test_tools_are_offered_and_calls_come_back(server):
    reply = said(server, "calls")
    assert reply.calls == (("get_facts", {"round": 3}), ("get_facts", {"round": 4}))
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("", 7, 5)
    sent = json.loads(server[1].requests[-1][2])
    assert [x["function"]["name"] for x in sent["tools"]] == ["get_facts"]
    assert said(server, "no_arguments").calls == (("get_facts", {}),)
    assert said(server, "words_too").text == "I look."


def test_words_alone(server):
    assert said(server, "good").calls == ()


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        ("broken_call", Failure.MALFORMED),
        ("list_call", Failure.MALFORMED),
        ("nan_call", Failure.MALFORMED),
        ("nameless", Failure.MALFORMED),
        ("empty", Failure.EMPTY),
        ("refusal", Failure.REFUSAL),
        ("cut", Failure.TOO_LARGE),
        ("huge", Failure.TOO_LARGE),
        ("status401", Failure.UNAUTHORISED),
        ("limited", Failure.RATE_LIMITED),
        ("status500", Failure.SERVER_ERROR),
        ("reset", Failure.UNREACHABLE),
    ],
)
def test_what_goes_wrong_has_a_name(mode, failure, server):
    with pytest.raises(CallFailed) as failed:
        said(server, mode)
    assert failed.value.failure == failure
    assert "\n" not in failed.value.reason


@pytest.mark.parametrize("mode", ["hang", "drip_body"])
def test_the_deadline_holds(mode, server):
    began = monotonic()
    with pytest.raises(CallFailed, match="timeout: no answer within "):
        said(server, mode, deadline_s=0.3)
    assert monotonic() - began < 3


def test_calls_that_nobody_asked_for_are_no_answer_to_a_question(server):
    url = f"{server[0]}/{{}}/v1"
    model, other = (
        chat_model({"kind": "openai", "model": "m", "url": url.format(mode)})
        for mode in ("calls", "broken_beside")
    )
    assert ask(model, "?", Decision).failure == Failure.EMPTY
    assert ask(other, "?", Decision).value == Decision(**GOOD)


def test_a_script_may_fail_or_say_too_much():
    for script, words in {
        "x" * 50: "longer than 40 bytes",
        "": "no text and calls no tool",
    }.items():
        with pytest.raises(CallFailed, match=words):
            talk(ScriptedChat(script=[script]), [HumanMessage("?")], [get_facts], max_bytes=40)
    with pytest.raises(ValueError, match="positive"):
        talk(ScriptedChat(script=["x"]), [], [], deadline_s=0)
