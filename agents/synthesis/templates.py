"""The generator of the built-in organisations as a source of invented rows: no model, no file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from federation.address import address
from federation.data.organisations import Organisation, example
from federation.data.organisations.domain import NAMES, domain_named
from federation.data.organisations.organisation import TASK_SHARE, labels_of
from federation.data.organisations.style import STYLES, Style
from federation.errors import ConfigError
from llm_tools.synthesis import Brief, Drawn, Row, Source

if TYPE_CHECKING:
    from agents.synthesis.profile import ClientProfile

BATCH = 16  # rows that are drawn at a time


def templates(seed: int) -> Source:
    """Return a source of rows by address: (seed, client, label, number of the row).

    Rows to vary are of no use to it: it draws others of the same label.
    """

    def draw(brief: Brief, number: int, like: Sequence[Row]) -> Drawn:
        who = Organisation(
            brief.client,
            brief.domain,
            style_named(brief.style, "style"),
            ((brief.task, brief.label),),
            (1.0,),
            BATCH,
        )
        # Away from the addresses of the built-in federation, whose rows may be tests.
        start = address(seed, "synthetic", brief.label)
        rows = (example(who, start, number * BATCH + i) for i in range(BATCH))
        return Drawn(tuple(dict(row) for row in rows))

    return draw


def style_named(name: str, where: str) -> Style:
    """Return the style of that name.

    Raises:
        ConfigError: if the templates have no such style.
    """
    styles = {style.name: style for style in STYLES}
    if name not in styles:
        raise ConfigError(
            f"profile: {where}: templates know no style {name!r}; choose one of"
            f" {', '.join(styles)}, or name a language model with --model"
        )
    return styles[name]


def choices_of(domain: str, task: str) -> tuple[str, ...]:
    """Return what the answers of a task may be, where they are labels."""
    return tuple(domain_named(domain).intents) if task == "intent" else ()


def shares_of(client: "ClientProfile", where: str) -> dict[tuple[str, str], float]:
    """Return the share of every (task, label) of a client; the usual mix if it names no label.

    Raises:
        ConfigError: if the templates have no such domain or label.
    """
    if client.domain not in NAMES:
        raise ConfigError(
            f"profile: {where}.domain: templates know no domain {client.domain!r}; choose one of"
            f" {', '.join(NAMES)}, or name a language model with --model"
        )
    there = labels_of(domain_named(client.domain))
    if not client.labels:
        count = {task: sum(task == other for other, _ in there) for task in TASK_SHARE}
        return {(task, label): TASK_SHARE[task] / count[task] for task, label in there}
    tasks = {label: task for task, label in there}
    for label in client.labels:
        if label not in tasks:
            raise ConfigError(
                f"profile: {where}.labels: templates of {client.domain} know no label {label!r};"
                f" there are {', '.join(tasks)}"
            )
    return {(tasks[label], label): share for label, share in client.labels.items()}
