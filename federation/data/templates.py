"""From a row's fields to prompt and response.

This module knows template strings and chat formats.  It does not know files, token ids or clients.
"""

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

from federation.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One row, rendered.

    Attributes:
        prompt: what the model reads; empty for plain text.
        response: what the model learns to write.
        choices: answers to choose from, ``response`` among them; empty if it is no choice task.
        key: client the row belongs to by its own data, or None.
        label: class or topic of the row, or None.
        origin: where the row came from, as "dolly.jsonl row 17".
    """

    prompt: str
    response: str
    choices: tuple[str, ...]
    key: str | None
    label: str | None
    origin: str


@dataclass(frozen=True)
class Template:
    """Text with named holes, parsed once.

    Attributes:
        source: the template as written, ``"{instruction}\\n{context}"``.
        parts: (literal text, name of the field after it or None), in order.
    """

    source: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order of first use."""
        return tuple(dict.fromkeys(field for _, field in self.parts if field is not None))

    def render(self, row: Mapping[str, object], origin: str) -> str:
        """Fill the holes.  A null field, or one that is NaN, is empty text.

        Raises:
            DataError: if the row lacks a field or holds no text or number in it, naming ``origin``.
        """
        return "".join(
            literal if field is None else literal + _text(row, field, origin)
            for literal, field in self.parts
        )


# A prompt may be the same for all rows; what is learnt may not.
_NEED_A_FIELD = ("data.response", "data.text")


def parse_template(source: str, option: str) -> Template:
    """Parse a template whose holes are plain field names.  ``{{`` and ``}}`` are literal braces.

    Args:
        source: the template.
        option: name of the option it comes from, for the error.

    Raises:
        ConfigError: if braces do not match or a hole is not a plain name.
    """
    try:
        parsed = list(string.Formatter().parse(source))
    except ValueError as error:
        raise ConfigError(
            f"{option} = {source!r}: {error}; write {{{{ and }}}} for literal braces"
        ) from error
    if not any(field for _, field, _, _ in parsed) and option in _NEED_A_FIELD:
        raise ConfigError(f"{option} = {source!r}: has no field; name one as {{field}}")
    for _, field, spec, conversion in parsed:
        plain = field is None or (field.strip() and not set(field) & set(".[]{}"))
        if not plain or spec or conversion:
            raise ConfigError(
                f"{option} = {source!r}: {{{field or ''}}} must hold the plain name of a field"
            )
    return Template(source, tuple((literal, field) for literal, field, _, _ in parsed))


def _field(row: Mapping[str, object], field: str, origin: str) -> object:
    if field not in row:
        has = ", ".join(row) or "nothing"
        todo = "give it one, or leave the row out"
        raise DataError(f"{origin}: has no field {field!r}; it has {has}; {todo}")
    return row[field]


def _text(row: Mapping[str, object], field: str, origin: str) -> str:
    value = _field(row, field, origin)
    if value is None or value != value:  # a column of numbers has NaN for null
        return ""
    if not isinstance(value, str | int | float):
        got = type(value).__name__
        raise DataError(f"{origin}: field {field!r} must hold text or a number, got {got}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half a surrogate pair, which no tokenizer accepts.
        raise DataError(
            f"{origin}: field {field!r} holds half a surrogate pair; mend the text"
        ) from error
    return text


def _name(row: Mapping[str, object], field: str, origin: str) -> str:
    """Read the name of a client or a class; unlike text in a prompt it cannot be empty."""
    name = _text(row, field, origin)
    if not name.strip():
        raise DataError(f"{origin}: field {field!r} names a client or class and is empty")
    return name


@dataclass(frozen=True)
class ChatFormat:
    """How a tokenizer writes one question and its answer.

    Attributes:
        prompt: turns a user's message into the text up to where the answer begins.
        tail: what follows an answer, up to the end-of-sequence token, that token excluded.
        source: the chat template itself.
    """

    prompt: Callable[[str], str]
    tail: str
    source: str


def chat_format(tokenizer: "PreTrainedTokenizerBase") -> ChatFormat:
    """Read the chat format of a tokenizer off a probe.

    Raises:
        ConfigError: if the tokenizer has no chat template, or one that fails or whose answers do
            not continue the prompt it makes.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ConfigError(
            "data.chat = true, but the tokenizer has no chat template; set it to false"
        )

    def write(answer: str | None, message: str) -> str:
        turns = [{"role": "user", "content": message}]
        turns += [] if answer is None else [{"role": "assistant", "content": answer}]
        try:
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer is None
            )
        except TemplateError as error:
            raise ConfigError(
                f"data.chat = true, but the tokenizer's chat template fails: {error}; set it to"
                " false and write the format into data.prompt"
            ) from error
        return str(text)

    probe = "ANSWER"
    opened, closed = write(None, "question"), write(probe, "question")
    lead, found, tail = closed.removeprefix(opened).partition(probe)
    if not closed.startswith(opened) or not found:
        raise ConfigError(
            "data.chat = true, but the tokenizer's chat template does not continue its own "
            "generation prompt; set data.chat = false and write the format into data.prompt"
        )
    tail = tail.split(str(tokenizer.eos_token))[0] if tokenizer.eos_token else tail
    source = json.dumps(tokenizer.chat_template)
    return ChatFormat(lambda message: write(None, message) + lead, tail, source)


@dataclass(frozen=True)
class Templates:
    """What is made of a row.

    Attributes:
        prompt: template of the prompt, or None for plain text, every token of which is learnt.
        response: template of the response, or of the text.
        choices: the answers to choose from, or the name of a field that holds their list.
        key: field that names the client, or None.
        label: field that names the class, or None.
        chat: the tokenizer's chat format to wrap prompts in, or None.
    """

    prompt: Template | None
    response: Template
    choices: tuple[str, ...] | str = ()
    key: str | None = None
    label: str | None = None
    chat: ChatFormat | None = None

    @cached_property
    def signature(self) -> str:
        """All that decides a rendering, as one string to hash."""
        prompt = self.prompt and self.prompt.source
        chat = self.chat and self.chat.source
        return json.dumps([prompt, self.response.source, self.choices, self.key, self.label, chat])

    def check(self, fields: Sequence[str]) -> None:
        """Refuse templates that use a field which no row has.

        Args:
            fields: names that occur in the data.

        Raises:
            ConfigError: naming the option, the field and the nearest that exist.
        """
        used = [("data.prompt", field) for field in (self.prompt.fields if self.prompt else ())]
        used += [("data.response" if self.prompt else "data.text", f) for f in self.response.fields]
        used += [("data.choices", self.choices)] if isinstance(self.choices, str) else []
        used += [("data.clients.key", self.key)] if self.key else []
        used += [("data.clients.label", self.label)] if self.label else []
        for option, field in used:
            if field not in fields:
                near = get_close_matches(field, fields, cutoff=0.5)
                there = "there are " + ", ".join(fields)
                hint = f"did you mean {' or '.join(near)}?" if near else there
                raise ConfigError(f"{option}: no row has a field {field!r}; {hint}")

    def render(self, row: Mapping[str, object], origin: str) -> Example:
        """Render one row.  Trailing white space of the prompt is dropped: an optional field that is
        empty leaves no rubbish behind.

        Raises:
            DataError: if the row cannot be rendered, naming ``origin``.
        """
        prompt = self.prompt.render(row, origin).rstrip() if self.prompt else ""
        response = self.response.render(row, origin)
        return Example(
            prompt=self.chat.prompt(prompt) if self.chat else prompt,
            response=response,
            choices=self._choices(row, response, origin),
            key=_name(row, self.key, origin) if self.key else None,
            label=_name(row, self.label, origin) if self.label else None,
            origin=origin,
        )

    def _choices(self, row: Mapping[str, object], response: str, origin: str) -> tuple[str, ...]:
        if not self.choices:
            return ()
        choices = self.choices
        if isinstance(choices, str):
            value = _field(row, choices, origin)
            if not isinstance(value, list):
                got = type(value).__name__
                raise DataError(
                    f"{origin}: field {choices!r} must hold a list of answers, got {got}"
                )
            choices = tuple(str(answer) for answer in value)
        if response not in choices:
            raise DataError(f"{origin}: response {response[:40]!r} is not one of its choices")
        return choices


def parse_templates(
    *,
    prompt: str | None = None,
    response: str | None = None,
    text: str | None = None,
    choices: Sequence[str] | str = (),
    key: str | None = None,
    label: str | None = None,
    chat: ChatFormat | None = None,
) -> Templates:
    """Parse the templates of ``[data]``: ``prompt`` and ``response``, or ``text`` alone.

    Args:
        prompt: template such as ``"{instruction}\\n{context}"``.
        response: template such as ``"{response}"``.
        text: template of plain text, instead of the two.
        choices: list of answers, or a field that holds one, as ``"{options}"``.
        key: field that names the client.
        label: field that names the class.
        chat: see :func:`chat_format`.

    Raises:
        ConfigError: if they cannot be parsed or do not belong together.
    """
    if (prompt is None) != (response is None) or (text is None) == (prompt is None):
        raise ConfigError("data: give prompt and response, or text alone")
    if text is not None and (chat or choices):
        raise ConfigError("data.text: plain text has neither chat nor choices; give a prompt")
    learnt, option = (text, "data.text") if response is None else (response, "data.response")
    return Templates(
        prompt=None if prompt is None else parse_template(prompt, "data.prompt"),
        response=parse_template(learnt or "", option),
        choices=_parse_choices(choices),
        key=key,
        label=label,
        chat=chat,
    )


def _parse_choices(choices: Sequence[str] | str) -> tuple[str, ...] | str:
    if not isinstance(choices, str):
        return tuple(choices)
    parts = parse_template(choices, "data.choices").parts
    if len(parts) != 1 or parts[0][0] or parts[0][1] is None:
        raise ConfigError(
            f"data.choices = {choices!r}: give a list of answers or one field, {{name}}"
        )
    return parts[0][1]
