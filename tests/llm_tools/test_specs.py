"""Which model is meant: strings, tables, keys; one line for whatever cannot be used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from llm_tools import ChatSpec, OpenAISpec, ScriptedSpec, SpecError, chat_model, chat_spec

ROOT = Path(__file__).resolve().parents[2]


def test_the_string_forms():
    spec = chat_spec("openai:Qwen/Qwen3-0.6B@http://127.0.0.1:8000/v1/")
    assert spec == OpenAISpec(model="Qwen/Qwen3-0.6B", url="http://127.0.0.1:8000/v1")
    assert chat_spec("openai:fed@r12@https://host/v1").model == "fed@r12"
    assert chat_spec("scripted:a:b.jsonl") == ScriptedSpec(file="a:b.jsonl")


def test_how_a_server_samples_may_stand_behind_its_address():
    """And without it the likeliest answer is asked for, whatever the server's default is."""
    plain = chat_spec("openai:m@https://h/v1")
    assert isinstance(plain, OpenAISpec) and (plain.temperature, plain.seed) == (0.0, None)
    spec = chat_spec("openai:m@https://h/v1?temperature=0.7&seed=3")
    assert spec == plain.model_copy(update={"temperature": 0.7, "seed": 3})
    assert chat_spec("openai:m@https://h/v1?seed=3") == plain.model_copy(update={"seed": 3})


def test_the_table_form():
    table = {"kind": "openai", "model": "m", "url": "https://h/v1", "key_env": "K", "seed": 3}
    assert chat_spec(table) == OpenAISpec(model="m", url="https://h/v1", key_env="K", seed=3)


def test_a_field_of_a_configuration_takes_both():
    class Config(BaseModel):
        model: ChatSpec

    table = {"kind": "openai", "model": "m", "url": "http://[::1]:1/v1"}
    text = Config.model_validate({"model": "openai:m@http://[::1]:1/v1"})
    assert text == Config.model_validate({"model": table})
    assert Config.model_validate_json(text.model_dump_json()) == text
    assert Config.model_json_schema()


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        chat_spec("scripted:x").file = "y"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("openai:m@127.0.0.1:8000", "no URL"),
        ("openai:m@ftp://h/v1", "no URL"),
        ("openai:m@http://", "no URL"),
        ("openai:m@http://h:99999/v1", "no URL"),
        ("openai:m@http://[::1/v1", "no URL"),
        ("openai:m@https://h/v1?key=x", "query"),
        ("openai:m@https://h/v1#x", "fragment"),
        ("openai:m@https://h/v1?seed=x", "query"),
        ("openai:m@https://h/v1?seed=1&key=x", "query"),
        ("openai:m@https://h/v1?seed=1&seed=2", "query"),
        ("openai:m@https://h/v1?temperature=nan", "temperature"),
        ("openai:m@https://h/v1?temperature=3", "temperature"),
        ("openai:m@https://h/v1?seed=-1", "seed"),
        ("openai:m", "names no language model"),
        ("openai:@http://h/v1", "names no language model"),
        ("scripted:", "names no language model"),
        ("gpt-4", "names no language model"),
        ("", "names no language model"),
        ({"kind": "magic"}, "'openai', 'scripted'"),
        ({"model": "m", "url": "http://h"}, "kind"),
        ({"kind": "openai", "model": "m"}, "url"),
        ({"kind": "openai", "model": "m", "url": "http://h", "temperature": 3}, "temperature"),
        ({"kind": "openai", "model": "m", "url": "http://h", "timeout_s": 0}, "timeout_s"),
        ({"kind": "openai", "model": "m", "url": "http://h", "max_tokens": 0}, "max_tokens"),
        ({"kind": "openai", "model": "m", "url": "http://h", "key_env": "a b"}, "key_env"),
        ({"kind": "openai", "model": "m", "url": "http://h", "seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_used_is_one_line(wrong, words):
    with pytest.raises(SpecError) as error:
        chat_spec(wrong)
    assert words in str(error.value)
    assert "\n" not in str(error.value) and "Value error" not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "openai", "model": "m", "url": "http://h", "key": "sk-secret"},
        {"kind": "openai", "model": "m", "url": "http://me:sk-secret@h/v1"},
        {"kind": "openai", "model": "m", "url": "ftp://me:sk-secret@h/v1"},
        {"kind": "openai", "model": "m", "url": "http://h", "key_env": "sk-secret"},
        "openai:m@http://me:sk-secret@h/v1",
        "openai:m@http://h/v1?seed=1&key=sk-secret",
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(wrong):
    with pytest.raises(SpecError) as error:
        chat_spec(wrong)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("name", [None, "MY_KEY"])
def test_a_missing_key_is_named(name, monkeypatch):
    wanted = name or "FEDPILOT_API_KEY"
    monkeypatch.delenv(wanted, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    table = {"kind": "openai", "model": "m", "url": "https://example.org/v1", "key_env": name}
    with pytest.raises(SpecError, match=rf"^the key for https://\S+ is missing: .* {wanted}$"):
        chat_model(table)
    monkeypatch.setenv(wanted, "sk-1")
    assert chat_model(table).openai_api_key.get_secret_value() == "sk-1"


def test_a_key_named_for_loopback_is_wanted(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(SpecError, match="MY_KEY"):
        chat_model(OpenAISpec(model="m", url="http://localhost:1/v1", key_env="MY_KEY"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("localhost.evil.org", False),
        ("127.0.0.1.nip.io", False),
        ("10.0.0.1", False),
        ("127.1", False),
    ],
)
def test_what_loopback_is(host, loopback):
    assert OpenAISpec(model="m", url=f"http://{host}:8000/v1").loopback is loopback


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(SpecError, match=r"langchain_openai: pip install 'fedpilot\[pilot\]'"):
        chat_model("openai:m@http://127.0.0.1:1/v1")


def test_importing_loads_no_langchain_and_forbids_tracing():
    code = (
        "import json, os, sys, llm_tools; print(json.dumps([sorted({m.split('.')[0]"
        " for m in sys.modules}), {k: v for k, v in os.environ.items() if 'TRACING' in k}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    modules, switches = json.loads(run.stdout)
    heavy = {"langchain", "langchain_core", "langchain_openai", "langsmith", "openai", "torch"}
    assert heavy & set(modules) == set()
    assert "federation" not in modules
    assert set(switches.values()) == {"false"}
    assert {"LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"} <= set(switches)
