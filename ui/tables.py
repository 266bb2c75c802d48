"""Tables for a terminal: what a run came to, and which runs there are."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federation.runs.run import Run
from federation.runs.storage import size_text
from ui.results import NAMES, Row, asked, baselines, compared, mean, own_subject

PIPE_WIDTH = 160  # of a table that goes to a file or another program
HIGHER_IS_BETTER = ("exact_match", "choice_accuracy", "rouge_l")
HEADINGS = {
    "nll": "loss",
    "exact_match": "exact match",
    "choice_accuracy": "choice accuracy",
    "rouge_l": "ROUGE-L",
}
MEASURES: tuple[tuple[str, Callable[[Row], Mapping[str, float]], str], ...] = (
    ("on everybody's test", lambda row: row.test, ""),
    ("on a client's own test", lambda row: row.clients, ""),
    ("there, worst decile", lambda row: row.clients, "_worst_decile"),
)
"""Title, where the figures are, what their names end in."""
COSTS = ("sent to clients", "sent by clients", "seconds of training")
WIDE = 120  # columns that the whole list of runs takes


class Results(Console):
    """A console that leaves a reader who went away to whoever knows the exit codes."""

    def on_broken_pipe(self) -> None:
        """Raise what rich, by itself, would turn into exit code 1."""
        raise BrokenPipeError


def out() -> Console:
    """Return the console for results: stdout, as wide as it is, or wide enough when piped.

    What it prints is text and nothing else: clients and files may be called ``[/b]`` or ``:x:``.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Results(width=width, highlight=False, markup=False, emoji=False)


def print_json(value: JsonValue) -> None:
    """Print a value for a script."""
    print(json.dumps(value, indent=2, allow_nan=False))


def plain(**words: Any) -> Table:
    """Begin a table that spends no width on lines."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, **words)


def results(run: Run) -> Table:
    """Put the models of a run side by side, a column each, so that it fits a narrow terminal."""
    models = compared(run)
    table = plain(caption=caption(run), caption_justify="left")
    table.add_column("", no_wrap=True)
    for row in models:
        style = "bold" if row.subject == "federated" else ""
        table.add_column(NAMES[row.subject], justify="right", style=style, min_width=9)
    for title, figures, suffix in MEASURES:
        names = [n for n in HEADINGS if any(f"{n}{suffix}" in figures(row) for row in models)]
        if names:
            table.add_row(title, style="dim")
        for name in names:
            cells = [figure(figures(row), f"{name}{suffix}") for row in models]
            table.add_row(f"  {HEADINGS[name]}", *cells)
    table.add_row("what it cost", style="dim")
    costs = [cost(row) for row in models]
    for i, heading in enumerate(COSTS):
        table.add_row(f"  {heading}", *(cells[i] for cells in costs))
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


def caption(run: Run) -> Text:
    """Explain what could be misread."""
    wanted = asked(run)
    lines = ["loss in nats per token, bytes and seconds: lower is better; other figures: higher"]
    unseen = run.figures("unseen")
    quality = (m for m in HIGHER_IS_BETTER if any(m in metrics for metrics in unseen.values()))
    metric = next(quality, "nll")
    if unseen:
        shown = (f"{NAMES[s]} {figure(unseen[s], metric)}" for s in NAMES if s in unseen)
        lines.append(f"clients never trained on, {HEADINGS[metric]}: {', '.join(shown)}")
    if "local" in baselines(run):
        lines.append("each client alone: the clients' own models; nothing travels")
    if "centralised" in baselines(run):
        lines.append("centralised: one model on everybody's text, which would have to travel")
    lines.append(f"{wanted.algorithm}, {len(run.history.rounds)} of {wanted.rounds} rounds")
    return Text("\n".join(lines))


def overview(found: Sequence[dict[str, JsonValue]], width: int) -> Table:
    """List runs, with all their figures where the terminal is wide enough."""
    table = plain()
    table.add_column("run", overflow="fold")
    shown = [name for name, always in COLUMNS.items() if always or width >= WIDE]
    for name in shown:
        words = name in ("status", "algorithm")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "status")
    for run in found:
        cells = overview_cells(run)
        table.add_row(str(run["path"]), *(cells.get(name, "") for name in shown))
    return table


COLUMNS = {
    "status": True,
    "algorithm": True,
    "rounds": True,
    "tokens": False,
    "in training": False,
    "base": False,
    "loss": True,
    "exact": True,
    "up": False,
    "seconds": True,
}
"""Of the list of runs: whether a narrow terminal has it, too."""


def overview_cells(run: dict[str, JsonValue]) -> dict[str, str]:
    """Write one run of the list, by column."""
    status = str(run["status"])
    if status == "damaged":
        return {"status": f"{status}: {run['problem']}"}
    metrics = run["evaluation"]
    figures = metrics if isinstance(metrics, dict) else {}
    own = str(run["subject"])
    loss, up, seconds = run["training_loss"], run["bytes_up"], run["seconds"]
    assert isinstance(up, int) and isinstance(seconds, int | float)
    return {
        "status": status,
        "algorithm": str(run["algorithm"]),
        "rounds": f"{run['rounds']}/{run['rounds_planned']}",
        "tokens": f"{run['tokens']:,}",
        "in training": f"{loss:.3f}" if isinstance(loss, float) else "-",
        "base": number(figures, "base", "nll"),
        "loss": number(figures, own, "nll"),
        "exact": number(figures, own, "exact_match"),
        "up": size_text(up),
        "seconds": f"{seconds:,.1f}",
    }


def number(figures: Mapping[str, JsonValue], subject: str, metric: str) -> str:
    """Write one figure of a run in the list."""
    metrics = figures.get(subject)
    value = metrics.get(metric) if isinstance(metrics, dict) else None
    return f"{value:.3f}" if isinstance(value, float | int) else "-"


def rounds(run: Run, last: int = 10) -> Table:
    """Show the last rounds."""
    shown = run.rounds[-last:]
    title = "rounds" if len(shown) == len(run.rounds) else f"the last {len(shown)} rounds"
    table = plain(title=title, title_justify="left")
    for heading in ("round", "clients", "lost", "loss", "test", "tokens", "down", "up", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
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
