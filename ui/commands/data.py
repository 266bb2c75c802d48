"""``fedpilot data``: how much the clients of a configuration differ."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from federation.config import Config
from federation.data.splits import left_out
from federation.errors import ConfigError, DataError
from federation.runs.run import Run
from ui import tables
from ui.results import configuration

if TYPE_CHECKING:
    from federation.data.dataset import FederatedData, Prompts
    from federation.data.heterogeneity import HeterogeneityReport
    from federation.data.partition import Column

TOPICS = 8  # topics that stand in for labels where there are none
TOPIC = (
    "topic: rows without a label, sorted by their words; a topic is named by its number and the two"
    " words that weigh most in it (data.clients.label names a field to count instead)"
)


def main(args: Namespace) -> int:
    """Report on the data of a configuration: a table or JSON, and a picture."""
    from federation.data.dataset import load_data
    from federation.experiment import default_cache
    from federation.training.base import load_tokenizer

    config = asked(args)
    tokenizer = load_tokenizer(config.model.base)
    data = load_data(config, tokenizer, Path.cwd(), default_cache())
    report = heterogeneity(config, data)
    if args.plot:
        from federation.data.heat_map import heat_map

        heat_map(report, args.plot)
    if args.json:
        tables.print_json(report.json() | {"rows": rows(data) | cut(data)})  # pyright: ignore[reportArgumentType]
    else:
        show(report, data, config.data.max_tokens, args.plot)
    return 0


def asked(args: Namespace) -> Config:
    """Read a configuration: a TOML file, or that of a run.

    Raises:
        ConfigError: if there is none, or overrides are meant for a run, whose data are what they
            are.
    """
    if not args.config.is_dir():
        return Config.from_toml(args.config, args.overrides)
    if args.overrides:
        raise ConfigError(f"{args.config} is a run, whose data are what they are; drop --set")
    return configuration(Run.open(args.config))


def heterogeneity(config: Config, data: "FederatedData") -> "HeterogeneityReport":
    """Count labels; where the data has none, topics."""
    from federation.data.dataset import Prompts
    from federation.data.heterogeneity import report

    labels, kind = data.labels, config.data.clients.label or "label"
    if labels is None:
        labels, kind = (
            by_topic(Prompts(data.corpus), len(data.corpus.tokens), config.data_seed),
            "topic",
        )
    return report(data.clients, labels, lengths=data.corpus.tokens.lengths, kind=kind)


def by_topic(texts: "Prompts", n: int, seed: int) -> "Column":
    """Sort rows into topics, or into one where they are too few or too alike to be told apart."""
    from federation.data.partition import Column
    from federation.data.topics import topics

    try:
        return topics(texts, n, min(TOPICS, n), seed=seed)
    except DataError as error:
        print(f"one topic for all rows: {error}", file=sys.stderr)
        return Column(np.zeros(n, dtype=np.int64), ("all",))


def rows(data: "FederatedData") -> dict[str, int]:
    """Say how many rows are used for what."""
    splits = data.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = {name: len(clients.order) for name, clients in parts.items()}
    counts |= {"unseen": len(splits.unseen.order), "set_aside": int(splits.set_aside.size)}
    return counts


def cut(data: "FederatedData") -> dict[str, int]:
    """Count the rows that are longer than a sequence may be, and those cut in the response."""
    report = data.corpus.report
    return {"cut": report.truncated, "cut_responses": report.cut_responses}


def show(
    report: "HeterogeneityReport", data: "FederatedData", max_tokens: int, picture: Path | None
) -> None:
    """Print the table, and what became of the rows."""
    console = tables.out()
    console.print(report.table())
    used = ", ".join(f"{name} {count:,}" for name, count in rows(data).items() if count)
    console.print(f"rows: {used}", soft_wrap=True, markup=False)
    if words := data.corpus.report.cut(max_tokens):
        console.print(words, soft_wrap=True, markup=False)
    if report.kind == "topic":
        console.print(TOPIC, soft_wrap=True, markup=False)
    for words in left_out(data.judged):
        console.print(f"not judged: {words}", soft_wrap=True, markup=False)
    for reason, count in data.corpus.report.dropped.items():
        console.print(f"left out: {count:,} rows {reason}", soft_wrap=True, markup=False)
    if picture:
        console.print(f"heat map: {picture}", soft_wrap=True, markup=False)
