"""Proposals as files: a configuration that ``fedpilot run`` takes, with what is new in its head."""

import json
import re
import tomllib
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from federation.config import Config
from federation.errors import ConfigError
from federation.runs import storage

PROPOSALS = "proposals"


def free(folder: Path, name: str, suffix: str = "") -> Path:
    """Return the first of ``folder/name1``, ``folder/name2``, ... that is not taken."""
    return next(p for n in count(1) if not (p := folder / f"{name}{n}{suffix}").exists())


def write_config(run: Path, config: Config, what: str, why: str) -> Path:
    """Write a configuration beside a run, for a new one.

    Args:
        run: the run's directory.
        config: what is proposed.
        what: what is new in it, in a line.
        why: the reason given, which is anybody's words.

    Returns:
        The file.
    """
    file = free(run / PROPOSALS, "proposal-", ".toml")
    head = [f"proposed in a chat about {run.name}: {what}", *([f"because: {why}"] if why else [])]
    comments = "".join(f"# {re.sub(r'[^ -~]+', ' ', text)}\n" for text in head)
    with storage.explained(file.parent):
        file.parent.mkdir(exist_ok=True)
    storage.atomic_write(file, (comments + as_toml(config)).encode())
    return file


def as_toml(config: Config) -> str:
    """Write a configuration as TOML that reads back as the same.

    Raises:
        ConfigError: if it cannot be written so.
    """
    whole = config.model_dump(mode="json", exclude_none=True)
    text = "".join(f"{json.dumps(key)} = {value_of(value)}\n" for key, value in whole.items())
    if Config.from_table(tomllib.loads(text)) != config:
        raise ConfigError("this configuration cannot be written as TOML; use fedpilot run --set")
    return text


def value_of(value: Any) -> str:
    """Write a value; a table becomes an inline one."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {value_of(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_of, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
