"""Prompts are files: ``NAME.md`` beside this module, ``version: N`` in the first line.

Placeholders are written ``{{name}}`` and filled strictly and once: a value that looks like a
placeholder stays as it is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from llm_tools.errors import PromptError

FIRST_LINE = re.compile(r"version: ([1-9][0-9]*)\n+")
PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")


@dataclass(frozen=True)
class Prompt:
    """A prompt ready to be sent.

    Attributes:
        name: of its file.
        version: the number in the file's first line.
        text: filled.
        sha256: of the text's UTF-8 bytes, as in ``Answer.prompt_sha256``.
        template_sha256: of the file's bytes.
    """

    name: str
    version: int
    text: str
    sha256: str
    template_sha256: str


def names() -> list[str]:
    """Return the names of all prompts."""
    return sorted(file.name[:-3] for file in files(__name__).iterdir() if _is_prompt(file.name))


def fill(name: str, /, **values: str) -> Prompt:
    """Fill the prompt ``name``.

    Args:
        name: of a file in ``llm_tools/prompts``, without its ending.
        values: text for every placeholder of the file, no more and no fewer.

    Raises:
        PromptError: no such prompt, no version in its first line, braces that are no placeholder,
            or a placeholder without a value or a value without a placeholder.
    """
    if name not in names():
        raise PromptError(f"there is no prompt {name!r}: choose one of {_listed(names())}")
    source = (files(__name__) / f"{name}.md").read_bytes()
    version, template = _split(name, source.decode("utf-8"))
    _check(name, template, values.keys())
    text = PLACEHOLDER.sub(lambda found: values[found[1]], template)
    return Prompt(name, version, text, _hash(text.encode()), _hash(source))


def _is_prompt(file: str) -> bool:
    return file.endswith(".md")


def _split(name: str, source: str) -> tuple[int, str]:
    first = FIRST_LINE.match(source)
    if first is None:
        raise PromptError(f"prompt {name!r} has no version: begin its file with 'version: 1'")
    return int(first[1]), source[first.end() :].rstrip("\n")


def _check(name: str, template: str, given: Iterable[str]) -> None:
    wanted = set(PLACEHOLDER.findall(template))
    if "{{" in PLACEHOLDER.sub("", template):
        raise PromptError(f"prompt {name!r} has braces that are no placeholder: write {{{{name}}}}")
    if missing := wanted - set(given):
        raise PromptError(f"prompt {name!r} needs {_listed(missing)}: give each a value")
    if unknown := set(given) - wanted:
        raise PromptError(
            f"prompt {name!r} has no place for {_listed(unknown)}: leave it out"
            f" (its placeholders: {_listed(wanted)})"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()
