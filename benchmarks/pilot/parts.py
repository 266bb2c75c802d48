"""What a track came to: words, tables and figures, made into Markdown and JSON elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Grid:
    """A table of a report.

    Attributes:
        title: what it shows, with units.
        columns: headings; the first names the rows.
        rows: cells, already written.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Write it for a document."""
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        return f"{self.title}\n\n" + "\n".join([lines[0], rule, *lines[1:]])


@dataclass(frozen=True)
class Part:
    """One track.

    Attributes:
        name: as it is chosen: tune, online, select, diagnose, experiment, synthesis, robust.
        heading: in the document.
        says: paragraphs: what was done, what it came to.
        grids: tables.
        figures: everything, as JSON values.
        command: that repeats the track alone.
    """

    name: str
    heading: str
    says: Sequence[str]
    grids: Sequence[Grid] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def json(self) -> dict[str, Any]:
        """Give it as plain values."""
        grids = [
            {"title": x.title, "columns": list(x.columns), "rows": [list(row) for row in x.rows]}
            for x in self.grids
        ]
        return {
            "heading": self.heading,
            "says": list(self.says),
            "grids": grids,
            "figures": self.figures,
            "command": self.command,
        }

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> "Part":
        """Read what :meth:`json` gave."""
        grids = tuple(Grid(**grid) for grid in values["grids"])
        rest = values["figures"], values.get("command", "")
        return cls(name, values["heading"], values["says"], grids, *rest)

    def markdown(self) -> str:
        """Write it for a document."""
        blocks = [f"## {self.heading}", *self.says, *(grid.markdown() for grid in self.grids)]
        return "\n\n".join(blocks)


ANSWER_TOKENS = 400
"""Most tokens of one answer of a model; a decision with its reason takes some 150."""


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        repeats: of every policy on every cell of the table.
        calibrations: repeats of the null policy against random search.
        pairs: A/A studies; a quarter as many with a true difference, for each size of it.
        seeds: of every federation that is steered; selection has three times, diagnosis twice as
            many.
        rounds: of runs that are steered.
        models: spec -> language model, to be scored beside the plain policies.
        tokens: of one answer of a model, at most.
        cells: of every scenario of the table, in which policies search that ask a model.
        quick: whether it is a trial whose figures mean little.
    """

    repeats: int = 3
    calibrations: int = 2000
    pairs: int = 2000
    seeds: int = 2
    rounds: int = 12
    models: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = ANSWER_TOKENS
    cells: int = 1
    quick: bool = False

    @property
    def asking(self) -> dict[str, str]:
        """Policies that ask a model -> its spec."""
        return {f"{kind}{spec}": spec for spec in self.models for kind in ("llm:", "hybrid+")}


QUICK = Effort(repeats=1, calibrations=40, pairs=100, seeds=1, rounds=3, quick=True)
