"""Tables for a terminal: what a run came to, and which runs there are."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federation.runs.run import Run
from federation.runs.storage import size_text
from ui.results import NAMES, Row, asked, baselines, compared, mean, own_subject

PIPE_WIDTH = 160  # of a table that goes to a file or another program
HIGHER_IS_BETTER = ("exact_match", "choice_accuracy", "rouge_l")
HEADINGS = {
    "exact_match": "exact match",
    "choice_accuracy": "choice accuracy",
    "rouge_l": "ROUGE-L",
    "nll": "loss",
}


def out() -> Console:
    """Return the console for results: stdout, as wide as it is, or wide enough when piped.

    What it prints is text and nothing else: clients and files may be called ``[/b]`` or ``:x:``.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_json(value: JsonValue) -> None:
    """Print a value for a script."""
    print(json.dumps(value, indent=2, allow_nan=False))


def results(run: Run) -> Table:
    """Put the models of a run side by side."""
    rows = compared(run)
    quality = next((m for m in HIGHER_IS_BETTER if any(m in row.test for row in rows)), None)
    judged = quality or "nll"
    table = Table(caption=caption(run, judged), caption_justify="left", title_justify="left")
    table.add_column("model", no_wrap=True)
    headings = ["loss, nats per token", *([HEADINGS[quality]] if quality else [])]
    headings += [
        f"worst decile of clients, {HEADINGS[judged]}",
        "bytes down",
        "bytes up",
        "seconds",
    ]
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [figure(row.test, "nll"), *([figure(row.test, quality)] if quality else [])]
        cells += [figure(row.clients, f"{judged}_worst_decile"), *cost(row)]
        style = "bold" if row.subject == "federated" else ""
        table.add_row(NAMES[row.subject], *cells, style=style)
    return table


def figure(metrics: Mapping[str, float], name: str) -> str:
    """Write a figure, or a dash where it was not measured."""
    value = metrics.get(name)
    if value is None:
        return "-"
    return f"{value:.3f}" if math.isfinite(value) else "diverged"


def cost(row: Row) -> list[str]:
    """Write what a model cost; a dash where a cost makes no sense."""
    sizes = [None if x is None else size_text(x) for x in (row.bytes_down, row.bytes_up)]
    seconds = None if row.seconds is None else f"{row.seconds:,.1f}"
    return [text or "-" for text in (*sizes, seconds)]


def caption(run: Run, judged: str) -> Text:
    """Explain what could be misread."""
    wanted = asked(run)
    direction = "lower" if judged == "nll" else "higher"
    lines = [f"global test set; {HEADINGS[judged]}: {direction} is better"]
    unseen = run.figures("unseen")
    metric = judged if any(judged in metrics for metrics in unseen.values()) else "nll"
    if unseen:
        shown = (f"{NAMES[s]} {figure(unseen[s], metric)}" for s in NAMES if s in unseen)
        lines.append(f"clients never trained on, {HEADINGS[metric]}: {', '.join(shown)}")
    if "local" in baselines(run):
        lines.append("each client alone: mean over the clients' own models; nothing travels")
    if "centralised" in baselines(run):
        lines.append("centralised: one model on everybody's text, which would have to travel")
    lines.append(f"{wanted.algorithm}, {len(run.history.rounds)} of {wanted.rounds} rounds")
    return Text("\n".join(lines))


def overview(found: Sequence[dict[str, JsonValue]]) -> Table:
    """List runs."""
    table = Table()
    table.add_column("run", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("algorithm")
    for heading in ("rounds", "tokens", "in training", "base", "loss", "exact", "up", "seconds"):
        table.add_column(heading, justify="right")
    for run in found:
        table.add_row(*(str(cell) for cell in overview_cells(run)))
    return table


def overview_cells(run: dict[str, JsonValue]) -> list[str]:
    """Write one run of the list."""
    name, status = str(run["path"]), str(run["status"])
    if status == "damaged":
        return [name, status, str(run["problem"])]
    metrics = run["evaluation"]
    figures = metrics if isinstance(metrics, dict) else {}
    own = str(run["subject"])
    cells = [
        number(figures, *where) for where in (("base", "nll"), (own, "nll"), (own, "exact_match"))
    ]
    loss, up, seconds = run["training_loss"], run["bytes_up"], run["seconds"]
    assert isinstance(up, int) and isinstance(seconds, int | float)
    done = [
        f"{run['rounds']}/{run['rounds_planned']}",
        f"{run['tokens']:,}",
        f"{loss:.3f}" if isinstance(loss, float) else "-",
    ]
    return [name, status, str(run["algorithm"]), *done, *cells, size_text(up), f"{seconds:,.1f}"]


def number(figures: Mapping[str, JsonValue], subject: str, metric: str) -> str:
    """Write one figure of a run in the list."""
    metrics = figures.get(subject)
    value = metrics.get(metric) if isinstance(metrics, dict) else None
    return f"{value:.3f}" if isinstance(value, float | int) else "-"


def rounds(run: Run, last: int = 10) -> Table:
    """Show the last rounds."""
    shown = run.rounds[-last:]
    title = "rounds" if len(shown) == len(run.rounds) else f"the last {len(shown)} rounds"
    table = Table(title=title, title_justify="left")
    headings = (
        "round",
        "clients",
        "missing",
        "loss",
        "test loss",
        "tokens",
        "down",
        "up",
        "seconds",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    own = own_subject(run)
    for x in shown:
        record, loss = x.record, mean(x.record.loss)
        table.add_row(
            str(x.round + 1),
            str(len(record.clients)),
            str(len(record.missing)),
            "-" if loss is None else f"{loss:.3f}",
            figure(x.evaluation.get(own, {}), "nll"),
            f"{record.tokens:,}",
            size_text(record.bytes_down),
            size_text(record.bytes_up),
            f"{record.seconds:,.1f}",
        )
    return table
