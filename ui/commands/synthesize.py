"""``fedpilot synthesize``: make up the data of a federation, and measure it."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from federation.config import Config
from federation.errors import ConfigError, DataError
from federation.runs.storage import atomic_write
from ui import tables

if TYPE_CHECKING:
    from agents.synthesis.profile import Profile
    from agents.synthesis.publish import Gate

NO_GUARANTEE = "; no guarantee: which rows were refused may tell of it"
EXAMPLE = Path(__file__).parents[1] / "profile.toml"
MIXES = "distance: of the labels got from those asked for, 0: equal, 1: nothing in common"
SHOWN = 10  # labels that lack rows


def main(args: Namespace) -> int:
    """Write an example profile, or make what a profile asks for."""
    return write_example(args.profile) if args.init else make(args)


def write_example(file: Path) -> int:
    """Write a profile with every key explained, unless there is a file."""
    if file.exists():
        raise ConfigError(
            f"{file} exists; name another file: fedpilot synthesize --init OTHER.toml"
        )
    atomic_write(file, EXAMPLE.read_bytes())
    print(f"{file} written; make its data with: fedpilot synthesize {file} --out set.jsonl")
    return 0


def make(args: Namespace) -> int:
    """Make a set and say what it is like."""
    if args.out is None:
        raise ConfigError("synthesize: name the file of the rows with --out FILE.jsonl")
    from agents.synthesis.card import gain
    from agents.synthesis.profile import Profile
    from agents.synthesis.publish import Files, publish
    from federation.experiment import default_cache

    profile, cache = Profile.from_toml(args.profile), default_cache()
    card = publish(
        profile,
        args.out,
        seed=args.seed,
        cache=cache,
        model=args.model,
        private=args.private,
        test=args.test,
        gate=gate_of(args.gate, profile, cache),
        say=say,
    )
    files = Files(args.out)
    gate = card["gate"]
    admitted = gate is None or gate["admitted"]
    rows = files.rows if admitted else files.rejected
    if args.json:
        tables.print_json(card | {"path": str(rows)})
    else:
        show(card, rows, files.readable)
    if gate is not None and not admitted:
        raise DataError(f"the gate did not admit the set, it lies in {rows}: {gain(gate)}")
    return 0


def gate_of(file: Path | None, profile: "Profile", cache: Path) -> "Gate | None":
    """Return the gate whose runs a file configures; none if there is no file."""
    if file is None:
        return None
    from agents.synthesis.gate import of_runs

    return of_runs(Config.from_toml(file), profile.gate, cache, say)


def say(text: str) -> None:
    """Tell of progress, apart from the result."""
    print(text, file=sys.stderr)


def show(card: dict[str, Any], rows: Path, readable: Path) -> None:
    """Print who holds what, what is missing, and where it all lies."""
    from agents.synthesis.card import gain

    console = tables.out()
    console.print(table(card))
    lines = [f"refused: {count:,} rows ({name})" for name, count in card["refused"].items()]
    lines += [f"failed: {count:,} batches ({name})" for name, count in card["failures"].items()]
    lines += missing(card["missing"])
    lines.append(f"privacy: {privacy(card)}")
    lines.append(
        f"gate     {gain(card['gate'])}" if card["gate"] else "gate     not asked for (--gate)"
    )
    lines += [f"rows     {rows}", f"card     {readable}"]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def table(card: dict[str, Any]) -> Table:
    """Lay out what every client asked for and got."""
    title = f"{card['rows']:,} made-up rows"
    laid = Table(title=title, title_justify="left", caption=MIXES, caption_justify="left")
    laid.add_column("client", overflow="fold")
    for heading in ("asked", "got", "labels", "distance of label mixes"):
        laid.add_column(heading, justify="right")
    for x in card["skew"]:
        asked, got = sum(x["asked"].values()), sum(x["got"].values())
        cells = f"{asked:,}", f"{got:,}", str(len(x["asked"])), f"{x['distance']:.3f}"
        laid.add_row(x["client"], *cells)
    return laid


def missing(found: list[dict[str, Any]]) -> Iterator[str]:
    """Say what was asked for and not made; the card lists all of it."""
    for x in found[:SHOWN]:
        short, what = x["asked"] - x["got"], f"{x['label']!r} for {x['client']}"
        yield f"missing: {short:,} of {x['asked']:,} rows of {what}"
    if rest := found[SHOWN:]:
        yield f"missing: {sum(x['asked'] - x['got'] for x in rest):,} rows of {len(rest):,} more"


def privacy(card: dict[str, Any]) -> str:
    """Say what private text was used for, and the price."""
    spent = card["privacy"]
    if spent["votes"] is None:
        free = "; none of it shaped the set" if spent["epsilon"] == 0 else NO_GUARANTEE
        return f"private text: {spent['private_text']}{free}"
    return (
        f"epsilon {spent['epsilon']:.3f} at delta {spent['delta']:g} for each of"
        f" {spent['votes']['clients']:,} clients, for their votes"
        " (the smaller epsilon, the less the votes can tell of a client: 1 is strong, 10 weak)"
    )
