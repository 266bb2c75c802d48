"""Track 8, canary rounds: how often a trial refuses what would have done no harm.

Honest runs, each round played from the same state in two ways.  Where nothing moves, the first
clients of a round are judged as if they tried something: what is refused then is refused by chance.
Where a policy moves far, its move is tried as the pilot tries it, and the whole round is played
with the move and without it: the validation losses say whether the move was harmful.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.canary import how_many, judged
from agents.pilot import PilotPlanner
from benchmarks.pilot.online import PLACES, START, again, piloted, played
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scenarios import BY_NAME, ROWS, config
from benchmarks.pilot.scores import wilson, written
from benchmarks.pilot.simulate import Simulation, prepared, reconfigured
from benchmarks.pilot.texts import rows, write_rows
from federation.experiment import Setup

SHARE = 0.3  # of a cohort that tries first
BOUNDS = {"lr": [1e-3, 0.1], "steps": [1, 4], "cohort_size": [2, 6]}
SIZE = {"cohort_size": 6.0}  # of which two try
MOVERS = ("null", "optimizer:cmaes")


@dataclass(frozen=True)
class Trial:
    """A move that some clients tried.

    Attributes:
        refused: whether it was.
        worse: by how much the round with it ended higher than the round without, nats per token.
    """

    refused: bool
    worse: float


@dataclass(frozen=True)
class Tried:
    """What came of honest runs.

    Attributes:
        still: whether clients that tried nothing were refused, once for every round but the first.
        repeats: by how much rounds differ from themselves under other draws, nats per token.
        moves: policy -> its far moves.
    """

    still: list[bool]
    repeats: list[float]
    moves: dict[str, list[Trial]]

    @property
    def floor(self) -> float:
        """Noise of one round, nats per token."""
        return 1.96 * float(np.std(self.repeats)) if self.repeats else 0.0

    def counts(self, policy: str) -> dict[str, list[int]]:
        """Count moves of a policy that were refused, by what they would have done."""
        floor, moves = self.floor, self.moves[policy]
        harmful = [x.refused for x in moves if x.worse > floor]
        harmless = [x.refused for x in moves if not x.worse > floor]
        return {"harmless": [sum(harmless), len(harmless)], "harmful": [sum(harmful), len(harmful)]}


def still(run: Simulation) -> Iterator[tuple[bool, float]]:
    """Yield for every round but the first whether clients that try nothing are refused.

    And by how much the round differs from itself under other draws.
    """
    while len(run.history.rounds) < run.setup.config.rounds:
        round, state = len(run.history.rounds), run.state
        decision = run.planner.decide(round)
        _, reports = run.outcome(run.planner.plan(decision)[0])
        first = reports.only(reports.clients[: how_many(SHARE, len(reports.clients))])  # pyright: ignore[reportOptionalMemberAccess]
        found = judged(run.history, {}, first.clients, first.loss_C.tolist(), {})
        if not run.play():
            return
        if round:
            after, run.state = run.state, state
            yield not found.accepted, again(run, decision) - run.losses[-1].validation
            run.state = after


def moved(run: Simulation) -> Iterator[Trial]:
    """Yield the far moves of a run; each is tried, and the run goes on with what is decided."""
    planner = run.planner
    assert isinstance(planner, PilotPlanner)
    while len(run.history.rounds) < run.setup.config.rounds:
        decision = planner.decide(len(run.history.rounds))
        found = run.tried(decision)
        if found.canary is not None:
            before = planner.cohort(decision.round, planner.current(decision.round))
            yield Trial(not found.canary.accepted, played(run, decision) - played(run, before))
        if not run.play():
            return


def federation(base: Path, cache: Path, place: str, seed: int, rounds: int) -> Setup:
    """Set up an honest federation."""
    source = str(write_rows(cache / f"rows-{seed}.jsonl", rows(seed, ROWS)))
    own = config(BY_NAME[place], seed, START | SIZE, str(base), source, rounds)
    return reconfigured(prepared(own, cache), own)


def tried(base: Path, cache: Path, places: Sequence[str], seeds: int, rounds: int) -> Tried:
    """Play honest runs that stay as they are, and runs whose policies move far."""
    found = Tried([], [], {policy: [] for policy in MOVERS})
    for place in places:
        for seed in range(seeds):
            setup = federation(base, cache, place, seed, rounds)
            for refused, apart in still(Simulation.of(setup)):
                found.still.append(refused)
                found.repeats.append(apart)
            for policy in MOVERS:
                table = {"policy": policy, "bounds": BOUNDS, "canary": SHARE}
                found.moves[policy] += moved(Simulation.of(setup, piloted(policy, table)))
    return found


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Count what trials refuse."""
    places = PLACES[:1] if effort.quick else PLACES
    rounds = 4 if effort.quick else 2 * effort.rounds
    seeds = effort.seeds
    found = tried(base, cache, places, seeds, rounds)
    return Part(
        "canary",
        "T8 Canary rounds",
        says(found, places, seeds, rounds),
        (grid(found),),
        {
            "still": [sum(found.still), len(found.still)],
            "round_noise_floor": found.floor,
            "moves": {policy: found.counts(policy) for policy in MOVERS},
        },
    )


def says(found: Tried, places: Sequence[str], seeds: int, rounds: int) -> list[str]:
    """Write what was done and what it came to."""
    return [
        f"Honest runs of {rounds} rounds ({', '.join(places)}; {seeds} seeds), 6 clients asked in"
        f" each at first, `pilot.canary = {SHARE}`. Where nothing moves, the clients that would"
        f" try first are refused in {share(found.still)} of the rounds after the first, by chance"
        " alone.",
        "Policies that turn learning rate, steps and cohort size have their far moves tried. A"
        " move is harmful if the round with it ends higher on validation than the round with the"
        f" values before by more than {found.floor:.3f} nats per token, the noise of a round (1.96"
        " standard deviations). A trial sees training loss alone, in the very round of the move."
        " Brackets are 95 % score intervals of shares; rounds of one run are not independent.",
        "A move whose harm does not show in the training loss of its own round passes, however"
        " harmful it is.",
    ]


def share(hits: Sequence[bool]) -> str:
    """Write how often something was so, with the interval of its share."""
    return f"{sum(hits)}/{len(hits)}, {written(wilson(sum(hits), len(hits)))}"


def grid(found: Tried) -> Grid:
    """Tabulate every policy that moves."""
    lines = []
    for policy in MOVERS:
        counts = found.counts(policy)
        cells = [
            f"{n}/{of}, {written(wilson(n, of), 2)}" if of else "0/0" for n, of in counts.values()
        ]
        lines.append([policy, str(len(found.moves[policy])), *cells])
    columns = ["policy", "moves tried", "harmless refused", "harmful refused"]
    return Grid("Far moves that a trial refused", columns, lines)
