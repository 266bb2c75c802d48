"""``fedpilot whatif``: what a round would have come to if something had been otherwise."""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from federation.data.heterogeneity import counted
from federation.errors import ConfigError
from federation.kindred import spoilers, worst_first
from federation.runs.records import ContributionsRecord, Effect, WhatIfRecord
from federation.runs.run import Run
from ui import tables
from ui.progress import watching
from ui.results import listed

if TYPE_CHECKING:
    from federation.changes import Change

ONCE = "of one training each: small differences may be luck; --repeats 5 gives intervals"
UNLIKE = (
    "without a change, the run's own bits did not come out: another machine, or another version of"
    " a library; the two models compared are still of one kind"
)


def main(args: Namespace) -> int:
    """Ask one what-if, or for the contributions of all clients of a round."""
    if args.contributions:
        return shares(args)
    change = changed(args)
    rounds = 1 if args.rounds is None else args.rounds
    from federation.whatif import what_if

    with watching(rounds) as watch:
        record = what_if(
            args.directory,
            first(args, rounds),
            change,
            rounds=rounds,
            repeats=args.repeats,
            watch=watch,
        )
    if args.json:
        tables.print_json({"path": str(args.directory)} | listed(record))
    else:
        console = tables.out()
        for name, text in lines(record).items():
            console.print(f"{name:<10} {text}", soft_wrap=True, markup=False)
    return 0


def shares(args: Namespace) -> int:
    """Show by how much the test loss changes without each client.

    Raises:
        ConfigError: if something else is asked for as well.
    """
    if given := asked_for(args):
        raise ConfigError(f"--contributions leaves out each client in turn; drop {given[0]}")
    if args.rounds is not None:
        raise ConfigError("--contributions is about one round; drop --rounds")
    from federation.whatif import contributions

    with watching(1) as watch:
        record = contributions(args.directory, first(args, 1), repeats=args.repeats, watch=watch)
    if args.json:
        tables.print_json({"path": str(args.directory)} | listed(record))
    else:
        tables.out().print(table(record))
    return 0


def first(args: Namespace, rounds: int) -> int:
    """Return the first round that is played again, from 0."""
    if args.round is not None:
        return args.round - 1
    return max(0, Run.open(args.directory).history.last_round + 1 - rounds)


def asked_for(args: Namespace) -> list[str]:
    """List the flags of changes that were given."""
    names = ("drop", "reweight", "algorithm", "clip", "scale_lr", "steps")
    given = [name for name in names if getattr(args, name) not in (None, [])]
    return [f"--{name.replace('_', '-')}" for name in given]


def changed(args: Namespace) -> "Change":
    """Read what is to be otherwise.

    Raises:
        ConfigError: if that is nothing, or contradicts itself.
    """
    if not asked_for(args):
        raise ConfigError(
            "say what is otherwise: --drop, --reweight, --algorithm, --clip, --scale-lr or --steps;"
            " or ask for --contributions"
        )
    from federation.changes import Change

    return Change.of(
        drop=tuple(dict.fromkeys(args.drop)),
        reweight=weights(args.reweight),
        algorithm=args.algorithm,
        clip=args.clip,
        scale_lr=args.scale_lr,
        steps=args.steps,
    )


def weights(given: Sequence[str]) -> dict[str, float]:
    """Read ``CLIENT=FACTOR``; the name of a client may hold the sign.

    Raises:
        ConfigError: if one is written otherwise, or a client has two.
    """
    found: dict[str, float] = {}
    for text in given:
        client, sign, factor = text.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            sign, value = "", math.nan
        if not (sign and client):
            raise ConfigError(f"--reweight {text}: write CLIENT=FACTOR, for example c3=0.5")
        if client in found:
            raise ConfigError(f"--reweight gives {client} two weights; choose one")
        found[client] = value
    return found


def lines(record: WhatIfRecord) -> dict[str, str]:
    """Say what came of a what-if, by what it is about."""
    number = record.round + 1
    last = number + record.rounds - 1
    rounds = f"round {number}" if record.rounds == 1 else f"rounds {number} to {last}"
    found = {"what if": f"{rounds}, {', '.join(words(record))}"}
    found["test loss"] = compared(record)
    if record.effect.low is not None and record.effect.high is not None:
        found["effect"] = f"{interval(record.effect)}, nats per token"
    found["updates"] = had(record)
    if not record.reproduced:
        found["caution"] = UNLIKE
    return found


def words(record: WhatIfRecord) -> list[str]:
    """Say what was otherwise."""
    said = {
        "drop": "without {}",
        "reweight": "reweighted {}",
        "algorithm": "combined by {}",
        "clip": "updates clipped to {}",
        "scale_lr": "{} times the learning rate",
        "steps": "{} each",
    }
    return [said[name].format(shown(name, value)) for name, value in record.change.items()]


def shown(name: str, value: object) -> str:
    """Write a value of a change."""
    if name == "steps" and isinstance(value, int):
        return counted(value, "step")
    if isinstance(value, dict):
        return ", ".join(f"{name}={factor:g}" for name, factor in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def compared(record: WhatIfRecord) -> str:
    """Compare the two losses, means over the repeats."""
    if record.same:
        return f"{record.was[0]:.4f} either way: the model is the same to the bit"
    was, would_be = (math.fsum(x) / len(x) for x in (record.was, record.would_be))
    away = record.effect.mean
    if not math.isfinite(away):
        return f"{was:.4f} as it was; otherwise it diverges"
    direction = "lower, which is better" if away < 0 else "higher, which is worse"
    return f"{was:.4f} as it was, {would_be:.4f} otherwise: {abs(away):.4f} {direction}"


def interval(effect: Effect) -> str:
    """Write a mean and the interval around it."""
    if effect.low is None or effect.high is None:
        return f"{effect.mean:+.4f}"
    return f"{effect.mean:+.4f} ({effect.low:+.4f} to {effect.high:+.4f})"


def had(record: WhatIfRecord | ContributionsRecord) -> str:
    """Say how the updates were had, and how often it was done."""
    how = {"kept": "as the run kept them", "retrained": "trained again"}[record.updates]
    count = len(record.was)
    if count == 1:
        return how
    return f"{how}; {count} times, with other draws from the second on; intervals of 95 %"


def table(record: ContributionsRecord) -> Table:
    """Lay contributions out, the client that hurt most first."""
    laid = Table(
        title=f"round {record.round + 1}: test loss {record.was[0]:.4f} with all of them",
        title_justify="left",
        caption="\n".join(captions(record)),
        caption_justify="left",
    )
    laid.add_column("client")
    laid.add_column("test loss without it, difference", justify="right")
    laid.add_column("on others' rows like its own, difference", justify="right")
    for client in worst_first(record):
        own = interval(record.own[client]) if client in record.own else "nobody holds the like"
        laid.add_row(client, interval(record.effects[client]), own)
    return laid


def captions(record: ContributionsRecord) -> Iterator[str]:
    """Say how contributions are to be read."""
    yield f"below zero: the model would be better without; updates {had(record)}"
    if record.own:
        names = ", ".join(spoilers(record)) or "nobody"
        yield f"spoils rows like its own, far beyond the others: {names}"
    if not record.reproduced:
        yield UNLIKE
    if len(record.was) == 1:
        yield ONCE
