"""What-ifs as a page asks for them: checked by the same code as the command line, played there.

Knows what is asked and what came of it; plays nothing, and draws nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from federation.changes import REPEATS, Change
from federation.config import describe
from federation.errors import ConfigError, FedpilotError
from federation.kindred import spoilers, worst_first
from federation.runs.records import ContributionsRecord, Effect, WhatIfRecord
from federation.runs.run import Run, checkpoint_files, updates_files
from federation.specs import Spec
from ui.commands.whatif import lines
from ui.results import configuration
from ui.web.charts.intervals import Row
from ui.web.store import Opened

COMBINES = (
    "fedavg",
    "median",
    "trimmedmean:trim=0.2",
    "krum:byzantine=1",
    "multikrum:byzantine=1",
    "fedadam",
    "fednova",
)
"""Combines that people try; any other may be written, as the command line takes it."""
NEW_TRAINING = ("scale_lr", "steps")


class Effort(Spec):
    """How a what-if is found out."""

    rounds: int = Field(default=1, ge=1, description="rounds played with the change")
    repeats: Annotated[int, Field(ge=1, le=REPEATS)] = Field(
        default=1, description="times it is done, with other draws from the second on"
    )


def playable(run: Run) -> list[int]:
    """List the rounds, from 1, that can be played again: the state before them is there."""
    files = checkpoint_files(run.path, run.history)
    after = {n for n, file in files.items() if file.exists()}
    rounds = run.history.rounds
    return [n + 1 for n in rounds if rounds[n].clients and (n == 0 or n - 1 in after)]


def why_not(opened: Opened) -> str:
    """Say why no what-if can be asked of a run; empty if one can."""
    if opened.damage:
        return "A damaged run is only looked at."
    if opened.status == "running":
        return "The run goes on; what-ifs are asked of runs that have ended."
    run = opened.run
    try:
        config = configuration(run)
    except FedpilotError:
        return "This is no fine-tuning run: nothing of it can be played again."
    if config.upload.noise is not None:
        return (
            "The run protects its clients with noise: a round that is played twice under the same "
            "noise gives away whoever is changed."
        )
    if not playable(run):
        return "No round can be played again: there is none, or the states before them are gone."
    return ""


def checked(
    run: Run, round: int, rounds: int, repeats: int, **changes: Any
) -> tuple[Change, Effort]:
    """Check what is asked.

    Args:
        run: of which.
        round: the first with the change, from 1.
        rounds: how many.
        repeats: how often.
        changes: what is otherwise, as :class:`federation.changes.Change` has it.

    Raises:
        ConfigError: naming what cannot be.
    """
    change = Change.of(**changes)
    if not change.described:
        raise ConfigError("say what is to be otherwise: nothing is changed so far")
    effort = effort_of(rounds=rounds, repeats=repeats)
    there = playable(run)
    if round not in there:
        raise ConfigError(f"round {round} cannot be played again; rounds that can: {spans(there)}")
    last = round - 1 + effort.rounds
    if last > len(run.history.rounds):
        raise ConfigError(f"the run has {len(run.history.rounds)} rounds; lower the rounds")
    records = [run.history.rounds[n] for n in range(round - 1, last)]
    change.check_clients([c for x in records for c in x.clients], f"round {round} to {last}")
    return change, effort


def effort_of(**values: int) -> Effort:
    """Check how a what-if is found out.

    Raises:
        ConfigError: naming what is out of bounds.
    """
    try:
        return Effort.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"what-if: {describe(error, Effort)}") from None


def spans(numbers: list[int]) -> str:
    """Write numbers as ranges: 1 to 4, 7."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    said = (f"{p[0]} to {p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
    return ", ".join(said) or "none"


def arguments(path: Path, round: int, change: Change, effort: Effort) -> list[str]:
    """Write a what-if as it is typed after ``fedpilot``."""
    args = ["whatif", str(path), f"--round={round}"]
    args += [f"--drop={client}" for client in change.drop]
    args += [f"--reweight={client}={factor!r}" for client, factor in change.reweight.items()]
    for name in ("algorithm", "clip", "scale_lr", "steps"):
        value = getattr(change, name)
        if value is not None:
            args.append(f"--{name.replace('_', '-')}={value}")
    return args + [f"--{name}={value}" for name, value in effort.model_dump().items() if value != 1]


def contribution_arguments(path: Path, round: int, repeats: int) -> list[str]:
    """Write the question what each client of a round contributed."""
    args = ["whatif", str(path), f"--round={round}", "--contributions"]
    return args if repeats == 1 else [*args, f"--repeats={repeats}"]


def training(run: Run, round: int, change: Change, effort: Effort) -> float:
    """Estimate how long clients train for it, in seconds, at the pace of the run's own rounds.

    0 where the run kept what its clients reported; another algorithm may need training all the
    same, which is not seen here.
    """
    rounds = range(round - 1, round - 1 + effort.rounds)
    own = sum(run.history.rounds[n].seconds for n in rounds)
    file = updates_files(run.path, run.history).get(round - 1)
    kept = file is not None and file.exists()
    changed = effort.rounds > 1 or any(getattr(change, name) is not None for name in NEW_TRAINING)
    if changed:
        return own * 2 * effort.repeats
    return own * (effort.repeats - (1 if kept else 0))


def words(record: WhatIfRecord, client: Callable[[str], str] = str) -> str:
    """Say what was otherwise, in which rounds.

    Args:
        record: of the what-if.
        client: what a client is called here.
    """
    change = {name: named(value, client) for name, value in record.change.items()}
    return lines(record.model_copy(update={"change": change}))["what if"]


def named(value: object, client: Callable[[str], str]) -> object:
    """Call the clients of a change by other names."""
    if isinstance(value, Mapping):
        return {client(str(name)): factor for name, factor in value.items()}
    return [client(str(name)) for name in value] if isinstance(value, list | tuple) else value


def verdict(effect: Effect) -> str:
    """Say what an effect on the loss proves: nothing, if there is no interval or 0 is in it."""
    if effect.low is None or effect.high is None or effect.low <= 0 <= effect.high:
        return "inconclusive"
    return "better" if effect.high < 0 else "worse"


def said(effect: Effect) -> str:
    """Say an effect on the loss in words."""
    if effect.mean != effect.mean or abs(effect.mean) == float("inf"):
        return "it diverges"
    way = "lower" if effect.mean < 0 else "higher"
    size = f"{abs(effect.mean):.4f} nats per token {way}"
    if effect.low is None or effect.high is None:
        return f"{size}; played once, so nothing says how much of it is chance"
    interval = f"95 % interval {effect.low:+.4f} to {effect.high:+.4f}"
    proof = {
        "better": "better than as it was",
        "worse": "worse than as it was",
        "inconclusive": "which includes zero",
    }
    return f"{size}, {interval}: {proof[verdict(effect)]}"


def rows(run: Run, client: Callable[[str], str] = str) -> list[Row]:
    """Return the what-ifs of a run for a picture, the newest first."""
    return [
        Row(
            f"{number}: {words(record, client)}",
            record.effect.mean,
            record.effect.low,
            record.effect.high,
            verdict(record.effect),
            said(record.effect),
            record.effect.values if len(record.effect.values) > 1 else (),
        )
        for number, record in reversed(list(enumerate(run.history.whatifs, 1)))
    ]


def contributions(
    record: ContributionsRecord, client: Callable[[str], str] = str, own: bool = False
) -> list[Row]:
    """Return what clients contributed for a picture, who hurt most first; right of 0 it helped.

    Args:
        record: of a round.
        client: what a client is called here.
        own: on others' rows like its own; else on all test rows.
    """
    if own:
        return [
            Row(client(name), x.mean, x.low, x.high, judged(record, name), loud(x))
            for name in worst_first(record)
            if (x := record.own.get(name))
        ]
    found = []
    for name, effect in record.effects.items():
        # Without a client the loss rises: the client helped.
        proved = {"better": "worse", "worse": "better"}.get(verdict(effect), "inconclusive")
        values = effect.values if len(effect.values) > 1 else ()
        text = f"without it {said(effect)}"
        found.append(Row(client(name), effect.mean, effect.low, effect.high, proved, text, values))
    return sorted(found, key=lambda row: row.mean)


def judged(record: ContributionsRecord, client: str) -> str:
    """Say what a client does to rows like its own: harm only where it stands out from the others.

    The report of one client alone is noisy, and may do a little harm that the mean does not.
    """
    if client in spoilers(record):
        return "worse"
    low = record.own[client].low
    return "better" if low is not None and low > 0 else "inconclusive"


def loud(effect: Effect) -> str:
    """Say in words what a client as loud as all others does to rows like its own."""
    way = "raises" if effect.mean < 0 else "lowers"
    text = f"{way} the loss on others' rows like its own by {abs(effect.mean):.4f} nats per token"
    if effect.low is None or effect.high is None:
        return f"{text}; too few such rows for an interval"
    return f"{text}, 95 % interval of its help {effect.low:+.4f} to {effect.high:+.4f}"
