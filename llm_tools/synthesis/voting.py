"""Private evolution: whoever holds private text votes for the invented text that is most like it.

Clients see the candidates and return a ballot; text never leaves them (Xie et al. 2024,
arXiv:2403.01749, algorithm 1; Hou et al. 2024, arXiv:2406.02958).  We differ in the unit: a whole
client, with all its text, not one record.  One client moves the histogram by at most ``bound`` in
L2, so Gaussian noise of ``noise_multiplier * bound`` on the sum makes a round of votes one Gaussian
mechanism, and rounds compose.

The float arithmetic of noise is not hardened (Mironov 2012).
Shape suffixes: C clients, K candidates, D dimensions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_tools.synthesis.embedding import Learn, Vectors
from llm_tools.synthesis.rows import Brief, Row

Floats = NDArray[np.floating]

SHRINK = 1 - 1e-12
"""Keeps a ballot's length below its bound, whatever rounding does."""
ACCOUNTANT = "analytic Gaussian mechanism"
ROUNDED_UP = 1 + 1e-9
"""Keeps what noise costs below what was wanted, whatever the search for it leaves over."""


def ballot(private: Vectors, candidates: Vectors, bound: float = 1.0) -> Floats:
    """Let one client vote: each of its texts for the nearest candidate, then scaled to ``bound``.

    Clients of every size count the same.  A text of which the space knows nothing does not vote.

    Args:
        private: the client's texts ``(n, D)``, of length one or zero.
        candidates: ``(K, D)``, likewise.
        bound: L2 norm of a ballot.

    Returns:
        Votes ``(K,)`` whose L2 norm is at most ``bound``; all zero if no text votes.
    """
    votes = np.zeros(len(candidates))
    known = private[np.any(private != 0, axis=1)]
    if len(known):
        nearest = (known @ candidates.T).argmax(axis=1)
        votes += np.bincount(nearest, minlength=len(candidates))
        votes *= bound * SHRINK / np.linalg.norm(votes)
    return votes


def tally(
    ballots_C: Floats, noise_multiplier: float, draw: np.random.Generator, bound: float = 1.0
) -> Floats:
    """Add ballots ``(C, K)`` up and add Gaussian noise of std ``noise_multiplier * bound``.

    Args:
        ballots_C: one row a client.
        noise_multiplier: std of the noise over the sensitivity.
        draw: where the noise comes from; nobody else may know it.
        bound: L2 norm that no ballot exceeds.

    Raises:
        ValueError: if a ballot is longer than ``bound`` or not finite.
    """
    if not np.all(np.linalg.norm(ballots_C, axis=1) <= bound):
        raise ValueError(f"a ballot is longer than {bound:g}: it would not be protected")
    noise = draw.normal(0.0, noise_multiplier * bound, ballots_C.shape[1])
    return ballots_C.sum(axis=0) + noise


def epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return what ``rounds`` of votes cost, by dp-accounting.

    Neighbours differ in one client, added or removed; every client votes in every round.  So many
    Gaussian mechanisms are exactly one whose noise is ``sqrt(rounds)`` times smaller (Dong, Roth
    and Su 2022, arXiv:1905.02383, corollary 3.3), whose cost is known in closed form (Balle and
    Wang 2018, arXiv:1805.06530).
    """
    if not rounds:
        return 0.0
    from dp_accounting import get_epsilon_gaussian

    return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(rounds), delta))


def noise_for(wanted: float, rounds: int, delta: float) -> float:
    """Return the least noise multiplier with which ``rounds`` of votes cost ``wanted`` at most."""
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(wanted, delta)) * math.sqrt(rounds) * ROUNDED_UP


@dataclass(frozen=True)
class Election:
    """How votes are held.

    Attributes:
        rounds: of votes; each costs.
        noise_multiplier: std of the noise over the sensitivity.
        learn: makes the space in which texts are near or far.
        noise: the generator of a round's noise, given the round and all that decides its votes;
            the same for the same, and to be guessed by nobody.
        bound: L2 norm of a client's ballot.
    """

    rounds: int
    noise_multiplier: float
    learn: Learn
    noise: Callable[[int, Sequence[str]], np.random.Generator]
    bound: float = 1.0


Pools = dict[Brief, list[Row]]
Vary = Callable[[Brief, list[Row]], list[Row]]


def evolve(
    pools: Pools, wanted: dict[Brief, int], voters: Sequence[Sequence[str]], election: Election,
    vary: Vary,
) -> Pools:  # fmt: skip
    """Keep of every brief's candidates those with most votes; vary them; vote again.

    Args:
        pools: candidates of each brief.
        wanted: how many of them are to be kept.
        voters: private texts of each client; they are embedded, and nothing else is done to them.
        election: how votes are held.
        vary: given a brief and what was kept, further candidates.

    Returns:
        What was kept in the last round.
    """
    kept = pools
    for round in range(election.rounds):
        if round:
            kept = {brief: rows + vary(brief, rows) for brief, rows in kept.items()}
        votes = iter(_round(kept, voters, election, round))
        kept = {
            brief: most_voted(rows, [next(votes) for _ in rows], wanted[brief])
            for brief, rows in kept.items()
        }
    return kept


def _round(pools: Pools, voters: Sequence[Sequence[str]], election: Election, round: int) -> Floats:
    """Hold one round of votes over all candidates together."""
    texts = [row.text for rows in pools.values() for row in rows]
    embed = election.learn(texts)
    candidates = embed(texts)
    ballots_C = np.stack([ballot(embed(mine), candidates, election.bound) for mine in voters])
    draw = election.noise(round, texts)
    return tally(ballots_C, election.noise_multiplier, draw, election.bound)


def most_voted(rows: Sequence[Row], votes: Sequence[float], count: int) -> list[Row]:
    """Choose the rows with most votes, in the order in which they stood."""
    best = sorted(range(len(rows)), key=lambda i: -votes[i])[:count]
    return [rows[i] for i in sorted(best)]
