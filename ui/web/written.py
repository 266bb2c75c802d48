"""An experiment as people write it: as TOML, as a command, as Python; all three say the same."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from federation.errors import ConfigError

BARE = re.compile(r"[A-Za-z0-9_-]+")
WIDTH = 76
PYTHON = """\
from federation import Config
from {module} import run_experiment

config = Config.from_table(
{table}
)
run = run_experiment(config, {out!r})
print(run.rounds[-1].evaluation, run.bytes_up)
"""


def sendable(text: str) -> str:
    """Return a text that a browser can be sent: half a surrogate pair is no sign of any."""
    return text.encode("utf-8", "replace").decode()


def toml_text(table: Mapping[str, Any], name: str = "") -> str:
    """Write nested tables as TOML, plain keys before the tables in them.

    Raises:
        ConfigError: if a text cannot be written as UTF-8.
    """
    text = "\n".join(toml_lines(table, name)).strip() + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("a text holds half a surrogate pair; mend it") from None
    return text


def toml_lines(table: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the lines of a table that is called NAME; the outermost has no name."""
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    if name and (plain or not inner):
        yield f"\n[{name}]"
    for key, value in plain.items():
        yield f"{key_text(key)} = {value_text(value)}"
    for key, value in inner.items():
        yield from toml_lines(value, f"{name}.{key_text(key)}" if name else key_text(key))


def key_text(key: str) -> str:
    """Write a key, in quotes where it needs them."""
    return key if BARE.fullmatch(key) else value_text(key)


def value_text(value: object) -> str:
    """Write a value; a table in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # TOML has JSON's escapes, but no pairs of surrogates
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{key_text(k)} = {value_text(x)}" for k, x in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    return repr(value)


def command_text(config: Path, out: Path) -> str:
    """Write the command that runs a configuration."""
    return f"fedpilot run {shlex.quote(str(config))} --out {shlex.quote(str(out))}"


def python_text(table: Mapping[str, Any], out: Path) -> str:
    """Write the Python that runs a configuration."""
    shown = pformat(dict(table), width=WIDTH, sort_dicts=False)
    indented = "\n".join(f"    {line}" for line in shown.splitlines())
    module = "agents.experiment" if table.get("pilot") else "federation"
    text = PYTHON.format(module=module, table=indented, out=str(out))
    if module == "federation":
        text = text.replace(
            "from federation import Config\nfrom federation import run_experiment",
            "from federation import Config, run_experiment",
        )
    return text
