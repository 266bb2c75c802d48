"""Successive halving: many configurations for a few rounds, the better third of them for longer.

Jamieson and Talwalkar 2016, arXiv:1502.07943, with the fixed budget per rung of Hyperband's
innermost loop (Li et al. 2018, arXiv:1603.06560, algorithm 1): a rung trains every survivor for
``KEEP`` times as many rounds as the one before and keeps the best of them, until the last rung
trains for as many rounds as the study's control.  A rung trains anew: a run's configuration never
changes.  The first rung is drawn uniformly by ratio, at the address (seed, "halving", number).

What comes next follows from the journal alone, so a search that was killed goes on as it would
have.
"""

import math
from collections.abc import Sequence

from agents.study.records import Proposed, Tried
from agents.study.space import Space, Values, placed
from federation.address import generator

KEEP = 3
"""One of so many survives a rung."""

Rung = tuple[int, int]
"""Configurations, and the rounds that each is trained for."""


def rungs(configurations: int, rounds: int) -> list[Rung]:
    """Return the rungs of a search, the shortest first; the last trains for all rounds.

    Args:
        configurations: of the first rung.
        rounds: of the study's control.
    """
    count = min(floor_log(configurations), floor_log(rounds))
    return [
        (max(configurations // KEEP**k, 1), math.ceil(rounds / KEEP ** (count - k)))
        for k in range(count + 1)
    ]


def floor_log(n: int) -> int:
    """Return how many times a number can be divided by :data:`KEEP` and be 1 or more."""
    return next(k for k in range(n + 1) if KEEP ** (k + 1) > n)


def following(
    proposed: Sequence[Proposed],
    tried: Sequence[Tried],
    *,
    space: Space,
    ladder: Sequence[Rung],
    seed: int,
    higher: bool,
) -> Proposed | None:
    """Return what is to be tried next; None if the last rung is done.

    Args:
        proposed: what was proposed so far.
        tried: what it came to, all of it.
        space: what a configuration sets.
        ladder: the rungs.
        seed: of the draws.
        higher: whether a higher figure is better.
    """
    trial, first, best = len(proposed), 0, []
    for number, (count, rounds) in enumerate(ladder):
        if trial < first + count:
            values = best[trial - first] if number else drawn(space, seed, trial)
            why = f"rung {number + 1} of {len(ladder)}: {rounds} rounds"
            return Proposed(trial=trial, values=values, source="optimizer", why=why, rounds=rounds)
        best = ranked(proposed[first : first + count], tried[first : first + count], higher)
        first += count
    return None


def ranked(proposed: Sequence[Proposed], tried: Sequence[Tried], higher: bool) -> list[Values]:
    """Return the configurations of a rung, best first; what diverged comes last."""

    def cost(pair: tuple[Proposed, Tried]) -> tuple[float, int]:
        figure = -pair[1].figure if higher else pair[1].figure
        return (figure if math.isfinite(figure) else math.inf, pair[0].trial)

    return [one.values for one, _ in sorted(zip(proposed, tried, strict=True), key=cost)]


def drawn(space: Space, seed: int, number: int) -> Values:
    """Draw a configuration."""
    draw = generator(seed, "halving", number)
    return placed(space, {x.key: float(draw.random()) for x in space})
