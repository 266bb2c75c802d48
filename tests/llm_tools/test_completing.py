"""A plain completion: what is sent, what comes back, and what a server may do wrong."""

import json

import pytest

from llm_tools.completing import complete
from llm_tools.errors import ServerError, SpecError
from tests.llm_tools.fault_server import MODES, fault_server, raw, status

WHOLE = {
    "choices": [{"text": " Paris.", "finish_reason": "stop"}],
    "usage": {"completion_tokens": 3},
}
CUT = {"choices": [{"text": " Par", "finish_reason": "length"}]}
OWN = {
    "whole": raw(json.dumps(WHOLE).encode()),
    "cut": raw(json.dumps(CUT).encode()),
    "no_choice": raw(b'{"choices": []}'),
    "a_list": raw(b"[]"),
    "no_json": raw(b"<html>"),
    "refused": status(404, {"error": {"message": "no such\nmodel"}}),
    "elsewhere": status(302, Location="http://192.0.2.1/v1/completions"),
}


@pytest.fixture(scope="module")
def server():
    before = dict(MODES)
    MODES.update(OWN)
    with fault_server() as (address, seen):
        yield address, seen
    MODES.clear()
    MODES.update(before)


def asked(server, mode: str):
    url = f"{server[0]}/{mode}/v1"
    return complete(url, "m", "The capital of France is", max_tokens=5, timeout_s=5)


def test_a_prompt_is_sent_as_it_is_and_its_end_comes_back(server):
    found = asked(server, "whole")
    assert (found.text, found.tokens, found.ended) == (" Paris.", 3, True)
    assert 0 < found.seconds < 5
    sent = json.loads(server[1].requests[-1][2])
    assert sent["prompt"] == "The capital of France is"
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("m", 5, 0)


def test_an_answer_cut_off_and_one_without_a_count_say_so(server):
    found = asked(server, "cut")
    assert (found.text, found.tokens, found.ended) == (" Par", None, False)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("no_choice", "gave no completion"),
        ("a_list", "gave no completion"),
        ("no_json", "cannot be asked"),
        ("refused", "refused: 404"),
        ("elsewhere", "refused: 302"),
    ],
)
def test_what_is_no_completion_is_an_error_of_one_line(server, mode, says):
    with pytest.raises(ServerError, match=says) as caught:
        asked(server, mode)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there():
    with pytest.raises(ServerError, match="is it running"):
        complete("http://127.0.0.1:9/v1", "m", "x", max_tokens=1, timeout_s=2)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000/v1", "https://models.example.com/v1"])
def test_only_this_machine_is_asked(url):
    with pytest.raises(SpecError, match="not on this machine"):
        complete(url, "m", "x", max_tokens=1, timeout_s=2)
