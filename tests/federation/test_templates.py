"""Rendering: exact text, and errors that name option, field and row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.data.templates import chat_format, parse_template, parse_templates
from federation.errors import ConfigError, DataError

DOLLY = parse_templates(
    prompt="{instruction}\n{context}", response="{response}", key="client", label="category"
)
ROW = {"instruction": "Why?", "context": "", "response": "So. ", "client": 3, "category": "qa"}


def test_a_row_becomes_an_example():
    example = DOLLY.render({**ROW, "context": "Because."}, "d.jsonl row 17")
    assert (example.prompt, example.response) == ("Why?\nBecause.", "So. ")
    assert (example.key, example.label, example.choices) == ("3", "qa", ())
    assert example.origin == "d.jsonl row 17"


@pytest.mark.parametrize("context", ["", " \n", None])
def test_an_empty_optional_field_leaves_no_rubbish(context):
    assert DOLLY.render({**ROW, "context": context}, "row").prompt == "Why?"


def test_plain_text_has_no_prompt_and_keeps_its_white_space():
    example = parse_templates(text="{text}").render({"text": "a \n"}, "row")
    assert (example.prompt, example.response) == ("", "a \n")


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=5)))
def test_rendering_equals_format(row):
    source = "{{x}} " + " | ".join(f"{{{name}}}" for name in row)
    assert parse_template(source, "data.prompt").render(row, "row") == source.format(**row)


@pytest.mark.parametrize("source", ["{a.b}", "{a[0]}", "{}", "{a!r}", "{a:>5}", "{a", "a}", "{ }"])
def test_only_plain_names(source):
    with pytest.raises(ConfigError, match=r"data\.prompt = "):
        parse_template(source, "data.prompt")


@pytest.mark.parametrize(
    ("option", "templates"),
    [
        ("data.prompt", parse_templates(prompt="{instructon}", response="{response}")),
        ("data.response", parse_templates(prompt="{context}", response="{instructon}")),
        ("data.text", parse_templates(text="{instructon}")),
        ("data.clients.key", parse_templates(text="{response}", key="instructon")),
        ("data.clients.label", parse_templates(text="{response}", label="instructon")),
    ],
)
def test_an_unknown_field_names_the_nearest(option, templates):
    with pytest.raises(ConfigError, match=rf"^{option}: .*'instructon'.* mean instruction\?"):
        templates.check(tuple(ROW))


def test_a_known_field_passes():
    DOLLY.check(tuple(ROW))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": ...}, r"^d\.jsonl row 17: has no field 'response'; it has instruction"),
        ({"response": ["x"]}, "row 17: field 'response' must hold text or a number, got list"),
        ({"response": "\ud800"}, "row 17: field 'response' holds half a surrogate pair"),
        ({"client": None}, "row 17: field 'client' names a client or class and is empty"),
        ({"category": ...}, "row 17: has no field 'category'"),
    ],
)
def test_a_bad_row_is_named(change, message):
    row = {name: value for name, value in {**ROW, **change}.items() if value is not ...}
    with pytest.raises(DataError, match=message):
        DOLLY.render(row, "d.jsonl row 17")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt": "{a}"},
        {"response": "{a}"},
        {"prompt": "{a}", "response": "{b}", "text": "{c}"},
        {"text": "{a}", "choices": ["x"]},
        {"prompt": "{a}", "response": "always the same"},
        {"prompt": "{a}", "response": "{b}", "choices": "{c} {d}"},
        {"prompt": "{a}", "response": "{b}", "choices": "c"},
    ],
)
def test_templates_that_do_not_belong_together(options):
    with pytest.raises(ConfigError):
        parse_templates(**options)


def test_choices_from_the_configuration_or_from_the_row():
    fixed = parse_templates(prompt="{q}", response="{a}", choices=["yes", "no"])
    assert fixed.render({"q": "?", "a": "no"}, "row").choices == ("yes", "no")
    own = parse_templates(prompt="{q}", response="{a}", choices="{options}")
    assert own.render({"q": "?", "a": "1", "options": [1, 2]}, "row").choices == ("1", "2")
    with pytest.raises(DataError, match="row 9: response 'maybe' is not one of its choices"):
        fixed.render({"q": "?", "a": "maybe"}, "x.csv row 9")
    with pytest.raises(DataError, match="row 9: field 'options' must hold a list"):
        own.render({"q": "?", "a": "1", "options": "1"}, "x.csv row 9")


def test_the_signature_tells_renderings_apart():
    options = {"prompt": "{a}", "response": "{b}"}
    changes = [{}, {"prompt": "{a} "}, {"response": "{a}"}, {"key": "k"}, {"label": "k"}]
    changes += [{"choices": ["x"]}, {"choices": "{x}"}]
    assert len({parse_templates(**{**options, **c}).signature for c in changes}) == len(changes)


class Chatty:
    """What :func:`chat_format` needs of a tokenizer."""

    chat_template = "any"
    eos_token = "</e>"

    def __init__(self, lead: str = "", opening: str = "A:"):
        self.lead, self.opening = lead, opening

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        text = f"<s>U:{turns[0]['content']}<end>"
        if len(turns) == 2:
            text += f"A:{self.lead}{turns[1]['content']}<turn></e>\n"
        return text + (self.opening if add_generation_prompt else "")


@pytest.mark.parametrize("lead", ["", "<think></think>"])
def test_a_chat_format_is_read_off_the_tokenizer(lead):
    chat = chat_format(Chatty(lead))  # pyright: ignore[reportArgumentType]
    assert chat.tail == "<turn>"
    templates = parse_templates(prompt="{q}", response="{a}", chat=chat)
    example = templates.render({"q": "why", "a": "so"}, "row")
    tokenizer = Chatty(lead)
    turns = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]
    written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
    assert example.prompt + example.response + chat.tail + "</e>\n" == written


def test_a_chat_format_that_cannot_be_used():
    with pytest.raises(ConfigError, match="does not continue"):
        chat_format(Chatty(opening="B:"))  # pyright: ignore[reportArgumentType]
    silent = Chatty()
    silent.chat_template = ""
    with pytest.raises(ConfigError, match="no chat template"):
        chat_format(silent)  # pyright: ignore[reportArgumentType]


def test_nan_is_as_empty_as_null():
    template = parse_template("{a}|{b}|{c}", "data.prompt")
    assert template.render({"a": None, "b": float("nan"), "c": 0.5}, "row 1") == "||0.5"
