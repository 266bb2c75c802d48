"""What a run's noise guarantees its clients so far, by a public accountant.

Client-level differential privacy: neighbours differ in one client, added or removed, with all its
rows.  Every round in which a client is asked is one Gaussian mechanism on a sum in which it weighs
at most the clipping norm (federation.algorithms.transforms.add_noise; McMahan et al. 2018,
arXiv:1710.06963, with a fixed denominator).  No amplification by subsampling is counted on: it
would need cohorts drawn blindly, and selection rules and pilots do not promise that.
"""

from collections import Counter
from typing import NamedTuple

from federation.runs.run import Run

DELTA = 1e-5


class Spent(NamedTuple):
    """What was spent, as (epsilon, delta) differential privacy of a client.

    Attributes:
        epsilon: of the client that was asked most often.
        delta: the probability that the guarantee of ``epsilon`` leaves out.
        rounds: how often that client was asked.
        multiplier: noise in units of the clipping norm.
    """

    epsilon: float
    delta: float
    rounds: int
    multiplier: float


def spent(run: Run, delta: float = DELTA) -> Spent | None:
    """Account for the rounds of a run; None without noise on what is sent.

    Args:
        run: whose committed rounds count.
        delta: between 0 and 1, well below one in the number of clients.
    """
    upload = run.config.get("upload")
    multiplier = upload.get("noise") if isinstance(upload, dict) else None
    if not isinstance(multiplier, int | float) or multiplier <= 0:
        return None
    rounds = most_asked(run)
    if not rounds:
        return Spent(0.0, delta, 0, float(multiplier))
    from llm_tools.synthesis.voting import epsilon

    return Spent(epsilon(float(multiplier), rounds, delta), delta, rounds, float(multiplier))


def most_asked(run: Run) -> int:
    """Return how many committed rounds the client took part in that was asked most often."""
    history = run.history
    asked = Counter(
        client
        for n in history.rounds
        for client in (history.decisions[n].clients if n in history.decisions else ())
    )
    return max(asked.values(), default=0)
