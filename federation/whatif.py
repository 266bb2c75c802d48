"""What a round would have come to if something had been otherwise, and what each client gave to it.

A what-if plays rounds of a run again, once as they were and once with a change, from the same state
and with the same draws, and compares the two models on the run's global test set.  Where the
clients would have trained just the same, and what they reported was kept, nothing is trained; else
they train again, at the same addresses.  A repeat does so with other draws: then there is an
interval.  The answer is a record in the run's journal; nothing else of the run changes.

The test set judges here what happened; nothing that decides the rounds of a run may read it.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch

from federation.address import address
from federation.changes import NOTHING, REPEATS, Change
from federation.errors import ConfigError
from federation.replays import Stage, stage
from federation.runs.interrupts import uninterrupted
from federation.runs.records import ContributionsRecord, Effect, Had, WhatIfRecord
from federation.runs.run import Run
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.tree import Tree

CONFIDENCE = 0.95  # of an interval


def what_if(
    path: str | Path,
    round: int,
    change: Change,
    *,
    rounds: int = 1,
    repeats: int = 1,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> WhatIfRecord:
    """Say what rounds of a run would have come to with a change, and write it into its journal.

    Args:
        path: the run; nobody may be writing it.
        round: the first round with the change, from 0.
        change: what is otherwise, in all of these rounds.
        rounds: how many rounds; the models after the last are compared.
        repeats: how often; the first with the run's own draws, the others with draws of their own.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.

    Raises:
        ConfigError: if it cannot be asked of this run, saying why and what can.
        LockedError: if the run is being written.
        QuorumError: if with the change too few reports can be used.
    """
    began = time.perf_counter()
    with opened(path, round, rounds, repeats, cache, watch) as (writer, staged):
        check(staged, change)
        spared = rounds == 1 and change.spares_training(staged.setup.config)
        again = from_reports if spared else from_training
        found = [again(staged, [change], seed) for seed in seeds(staged, repeats)]
        was, would_be = (tuple(repeat.losses[i] for repeat in found) for i in (0, 1))
        record = WhatIfRecord(
            round=round,
            rounds=rounds,
            change=change.described,
            was=was,
            would_be=would_be,
            effect=effect([b - a for a, b in zip(was, would_be, strict=True)]),
            updates=found[0].updates,
            reproduced=found[0].reproduced,
            same=all(repeat.same for repeat in found),
            seconds=time.perf_counter() - began,
        )
        with uninterrupted():
            writer.append(record)
    return record


def contributions(
    path: str | Path,
    round: int,
    *,
    repeats: int = 1,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> ContributionsRecord:
    """Say by how much the test loss rises if a client's report is left out, for every client.

    Leave-one-out over the combine of one round; the models without each client are judged several a
    pass.  Arguments and errors are those of :func:`what_if`.
    """
    began = time.perf_counter()
    with opened(path, round, 1, repeats, cache, watch) as (writer, staged):
        clients = staged.run.history.rounds[round].clients
        without = [Change(drop=(client,)) for client in clients]
        found = [from_reports(staged, without, seed) for seed in seeds(staged, repeats)]
        record = ContributionsRecord(
            round=round,
            was=tuple(repeat.losses[0] for repeat in found),
            effects={
                client: effect([repeat.losses[i] - repeat.losses[0] for repeat in found])
                for i, client in enumerate(clients, start=1)
            },
            updates=found[0].updates,
            reproduced=found[0].reproduced,
            seconds=time.perf_counter() - began,
        )
        with uninterrupted():
            writer.append(record)
    return record


@dataclass(frozen=True)
class Repeat:
    """What rounds come to with the draws of one seed.

    Attributes:
        losses: test loss of the model as it was, then of the model with each change.
        updates: how the clients' updates were had.
        reproduced: whether the model as it was is the run's own, to the bit.
        same: whether every change leaves the model as it was, to the bit.
    """

    losses: tuple[float, ...]
    updates: Had
    reproduced: bool
    same: bool


def from_reports(staged: Stage, changes: Sequence[Change], seed: int) -> Repeat:
    """Let the server of one round make something else of what its clients reported."""
    own = seed == staged.setup.config.seed
    kept = staged.kept() if own else None
    if kept is None:
        staged.watch.phase("training the round again")
    reports = kept or staged.trained(seed)
    was = staged.concluded(reports, NOTHING, seed)
    others = [staged.concluded(reports, change, seed) for change in changes]
    return judged(staged, was, others, "retrained" if kept is None else "kept")


def from_training(staged: Stage, changes: Sequence[Change], seed: int) -> Repeat:
    """Let clients train again, as they did and with each change."""
    staged.watch.phase("training again, as it was")
    was = staged.played(NOTHING, seed)
    staged.watch.phase("training again, with the change")
    others = [staged.played(change, seed) for change in changes]
    return judged(staged, was, others, "retrained")


def judged(staged: Stage, was: Tree, others: Sequence[Tree], updates: Had) -> Repeat:
    """Judge models on the test set."""
    staged.watch.phase("evaluating")
    return Repeat(
        losses=tuple(staged.losses([was, *others])),
        updates=updates,
        reproduced=staged.reproduces(was),
        same=all(torch.equal(other["params"], was["params"]) for other in others),
    )


def seeds(staged: Stage, repeats: int) -> list[int]:
    """Return the seed of the run, and those of the repeats, which live at its addresses."""
    seed = staged.setup.config.seed
    return [seed, *(address(seed, "whatif", repeat) for repeat in range(1, repeats))]


def effect(values: Sequence[float]) -> Effect:
    """Return the mean of the repeats and the 95 % interval of Student's t around it.

    A single repeat has no interval; where a value is not finite, neither have many.
    """
    mean, n = fmean(values), len(values)
    if n < 2 or not math.isfinite(mean):
        return Effect(mean=mean, values=tuple(values))
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return Effect(mean=mean, low=mean - half, high=mean + half, values=tuple(values))


def check(staged: Stage, change: Change) -> None:
    """Refuse a change that cannot be, before anything is trained.

    Raises:
        ConfigError: saying why.
    """
    rounds = range(staged.round, staged.last + 1)
    records = [staged.run.history.rounds[n] for n in rounds]
    where = f"round {staged.round + 1}" + (f" to {staged.last + 1}" if len(rounds) > 1 else "")
    change.check_clients([client for x in records for client in x.clients], where)
    algorithm = change.built(staged.setup.config)
    for n in rounds:
        algorithm.check(staged.plan(n, change, 0).work)


@contextmanager
def opened(
    path: str | Path,
    round: int,
    rounds: int,
    repeats: int,
    cache: Path | None,
    watch: Watch | None,
) -> Iterator[tuple[RunWriter, Stage]]:
    """Hold a run, so that nobody goes on with it meanwhile, and set it up before a round."""
    for name, value, most in (("rounds", rounds, None), ("repeats", repeats, REPEATS)):
        if value < 1 or (most and value > most):
            bound = f"from 1 to {most}" if most else "at least 1"
            raise ConfigError(f"what-if: {name} must be {bound}, got {value}")
    with RunWriter.amend(path) as writer:
        yield writer, stage(Run.open(path), round, rounds, cache, watch or Watch())
