"""Prompts are files with a version; their placeholders are filled strictly."""

from hashlib import sha256

import pytest

from llm_tools import PromptError, fill, prompts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "files", lambda package: tmp_path)
    return tmp_path


def test_a_prompt_is_filled_and_hashed(folder):
    source = b"version: 12\n\nGo {{where}} and {{where}}: {{how}} {x}\n"
    (folder / "go.md").write_bytes(source)
    prompt = fill("go", where="home", how="{{where}}")
    assert prompt.text == "Go home and home: {{where}} {x}"
    assert (prompt.name, prompt.version) == ("go", 12)
    assert prompt.sha256 == sha256(prompt.text.encode()).hexdigest()
    assert prompt.template_sha256 == sha256(source).hexdigest()


@pytest.mark.parametrize(
    ("source", "values", "words"),
    [
        ("version: 1\n{{a}} {{b}}", {"a": "x"}, "needs b"),
        ("version: 1\n{{a}}", {"a": "x", "c": "y"}, "no place for c"),
        ("version: 1\n{{A}}", {}, "braces that are no placeholder"),
        ("version: 1\n{{ a }}", {"a": "x"}, "braces that are no placeholder"),
        ("{{a}}", {"a": "x"}, "no version"),
        ("version: 0\n", {}, "no version"),
        ("Version 1\n", {}, "no version"),
        ("", {}, "no version"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, source, values, words):
    (folder / "p.md").write_text(source)
    with pytest.raises(PromptError) as error:
        fill("p", **values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["absent", "../prompts/repair", ""])
def test_an_unknown_prompt_lists_those_there_are(name):
    with pytest.raises(PromptError, match="repair"):
        fill(name)


def test_every_prompt_has_a_version():
    for name in prompts.names():
        source = (prompts.files(prompts.__name__) / f"{name}.md").read_text(encoding="utf-8")
        values = dict.fromkeys(prompts.PLACEHOLDER.findall(source), "x")
        assert fill(name, **values).version >= 1
