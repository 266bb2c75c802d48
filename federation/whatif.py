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

import numpy as np
import torch

from federation.address import address
from federation.changes import MOST_FACTOR, NOTHING, REPEATS, Change
from federation.errors import ConfigError, LockedError
from federation.evaluation.scores import NATS, TOKENS, Columns, metrics
from federation.kindred import kindred, weighed
from federation.plan import Reports
from federation.replays import Stage, replayable, stage, test_rows
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
    with opened(path, round, rounds, repeats, cache, watch, change) as (writer, staged):
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

    Leave-one-out over the combine of one round, judged twice.  On everybody's rows, the client
    having its own weight: what it gave to the model.  And on others' rows like its own, the client
    having as much weight as all others together: whether what it reports is right.  One of many
    moves a model by less than noise, so it is made louder; an algorithm that ignores weights hears
    it as it is.  Arguments and errors are those of :func:`what_if`.
    """
    began = time.perf_counter()
    with opened(path, round, 1, repeats, cache, watch) as (writer, staged):
        clients = staged.run.history.rounds[round].clients
        found = [left_out(staged, clients, seed) for seed in seeds(staged, repeats)]
        rows = test_rows(staged.setup)
        tokens_N = found[0].columns[0][TOKENS]
        like = kindred(staged.setup, clients, rows) if len(clients) > 1 else {}
        record = ContributionsRecord(
            round=round,
            was=tuple(repeat.losses[0] for repeat in found),
            effects={
                client: effect([repeat.losses[i] - repeat.losses[0] for repeat in found])
                for i, client in enumerate(clients, start=1)
            },
            own={
                client: weighed(
                    np.stack([x.added(i, i + len(clients)) for x in found]), tokens_N, like[client]
                )
                for i, client in enumerate(clients, start=1)
                if client in like
            },
            updates=found[0].updates,
            reproduced=found[0].reproduced,
            seconds=time.perf_counter() - began,
        )
        with uninterrupted():
            writer.append(record)
    return record


def left_out(staged: Stage, clients: Sequence[str], seed: int) -> "Repeat":
    """Judge a round as it was, without each of its clients, and with each as loud as the rest."""
    reports, had = reported(staged, seed)
    without = [Change(drop=(client,)) for client in clients]
    return concluded(staged, reports, had, without + louder(reports, clients), seed)


def louder(reports: Reports, clients: Sequence[str]) -> list[Change]:
    """Return changes that give each client as much weight as all others together have."""
    if len(clients) < 2:
        return []
    weight = dict(zip(reports.clients, reports.weight_C.tolist(), strict=True))
    total = math.fsum(weight.values())
    # With other draws a client may have diverged: then there is nobody to be louder.
    factor = {
        client: min(MOST_FACTOR, (total - own) / own)
        for client, own in weight.items()
        if 0 < own < total
    }
    return [Change(reweight={c: factor[c]} if c in factor else {}) for c in clients]


@dataclass(frozen=True)
class Repeat:
    """What rounds come to with the draws of one seed.

    Attributes:
        columns: what every test row costs the model as it was, then the model with each change.
        updates: how the clients' updates were had.
        reproduced: whether the model as it was is the run's own, to the bit.
        same: whether every change leaves the model as it was, to the bit.
    """

    columns: list[Columns]
    updates: Had
    reproduced: bool
    same: bool

    @property
    def losses(self) -> tuple[float, ...]:
        """Test loss of every model, nats per token."""
        return tuple(metrics(columns)["nll"] for columns in self.columns)

    def added(self, i: int, other: int) -> np.ndarray:
        """Return by how many nats model ``i`` is worse than another on every row, ``(N,)``."""
        return self.columns[i][NATS] - self.columns[other][NATS]


def from_reports(staged: Stage, changes: Sequence[Change], seed: int) -> Repeat:
    """Let the server of one round make something else of what its clients reported."""
    reports, had = reported(staged, seed)
    return concluded(staged, reports, had, changes, seed)


def reported(staged: Stage, seed: int) -> tuple[Reports, Had]:
    """Return what the clients of a round reported, and how it was had."""
    kept = staged.kept() if seed == staged.setup.config.seed else None
    if kept is not None:
        return kept, "kept"
    staged.watch.phase("training the round again")
    return staged.trained(seed), "retrained"


def concluded(
    staged: Stage, reports: Reports, had: Had, changes: Sequence[Change], seed: int
) -> Repeat:
    """Let the server make its next model of reports, as it was and with each change."""
    was = staged.concluded(reports, NOTHING, seed)
    others = [staged.concluded(reports, change, seed) for change in changes]
    return judged(staged, was, others, had)


def from_training(staged: Stage, changes: Sequence[Change], seed: int) -> Repeat:
    """Let clients train again, as they did and with each change."""
    staged.watch.phase("training again, as it was")
    was = staged.played(NOTHING, seed)
    staged.watch.phase("training again, with the change")
    others = [staged.played(change, seed) for change in changes]
    return judged(staged, was, others, "retrained")


def judged(staged: Stage, was: Tree, others: Sequence[Tree], updates: Had) -> Repeat:
    """Judge models on the test set."""
    return Repeat(
        columns=staged.columns([was, *others]),
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
    algorithm = change.built(staged.setup.config)
    for n in range(staged.round, staged.last + 1):
        algorithm.check(staged.plan(n, change, 0).work)


def refuse_strangers(run: Run, round: int, rounds: int, change: Change) -> None:
    """Refuse a change of clients that did not report, before anything is loaded.

    Raises:
        ConfigError: saying who reported.
    """
    last = round + rounds - 1
    replayable(run, round, rounds)
    records = [run.history.rounds[n] for n in range(round, last + 1)]
    where = f"round {round + 1}" + (f" to {last + 1}" if last > round else "")
    change.check_clients([client for x in records for client in x.clients], where)


def held(path: Path) -> RunWriter:
    """Take the lock of a run.

    Raises:
        LockedError: if another process has it, saying what it does there and what to do.
    """
    try:
        return RunWriter.amend(path)
    except LockedError as error:
        who = str(error).partition(";")[0]
    if Run.open(path).history.ended is None:
        why = f"what-ifs wait until it ends, or stop it: fedpilot steer {path} stop"
    else:
        why = "the run has ended, so that is another what-if: repeat this one when it is done"
    raise LockedError(f"{who}; {why}")


@contextmanager
def opened(
    path: str | Path,
    round: int,
    rounds: int,
    repeats: int,
    cache: Path | None,
    watch: Watch | None,
    change: Change = NOTHING,
) -> Iterator[tuple[RunWriter, Stage]]:
    """Hold a run, so that nobody goes on with it meanwhile, and set it up before a round."""
    for name, value, most in (("rounds", rounds, None), ("repeats", repeats, REPEATS)):
        if value < 1 or (most and value > most):
            bound = f"from 1 to {most}" if most else "at least 1"
            raise ConfigError(f"what-if: {name} must be {bound}, got {value}")
    with held(Path(path)) as writer:
        run = Run.open(path)
        refuse_strangers(run, round, rounds, change)
        yield writer, stage(run, round, rounds, cache, watch or Watch())
