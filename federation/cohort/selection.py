"""Who is asked to train this round: client selection rules as pure functions over the population.

Knows how a rule turns what the server knows of every client (:class:`Standing`) into a cohort.
Does not know models, data, how a client is reached, nor why one is away.

A client is its index in the registry sorted by id.  Its random draw in a round has the address
(seed, round, "select", index): it does not depend on who else is available, and stays the same when
clients are registered behind it.

Shape suffixes: N registered clients, n those that may be chosen.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from federation.address import generator
from federation.cohort.standing import Bools, Floats, Ints, Standing, client_indices
from federation.errors import ConfigError
from federation.specs import Names, Spec

CLIP_QUANTILE = 0.95  # Oort: larger utilities are taken for outliers
CUT_OFF = 0.95  # Oort: who comes this near to the last one admitted is admitted too
BONUS = 0.1  # Oort: weight of what was last heard long ago


class CohortSpec(Spec):
    """How many clients are asked in a round, and by which rule: the ``[cohort]`` table."""

    size: int = Field(
        default=5, ge=1, le=1_000_000, description="clients whose reports make a round"
    )
    rule: Literal["uniform", "round_robin", "power_of_choice", "oort", "deadline"] = Field(
        default="uniform", description="how the clients of a round are chosen"
    )
    over_select: float = Field(
        default=1.0, ge=1, le=10, description="ask this many times `size`, against drop-outs"
    )
    candidates: int | None = Field(
        default=None,
        ge=1,
        description="power_of_choice: clients drawn, of which those with the largest loss are kept;"
        " omitted: twice as many as are asked",
    )
    exploration: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="oort: first share of a cohort kept for clients never trained",
    )
    exploration_decay: float = Field(
        default=0.98, gt=0, le=1, description="oort: factor on that share, every round"
    )
    exploration_floor: float = Field(
        default=0.2, ge=0, le=1, description="oort: that share at the least"
    )
    alpha: float = Field(
        default=2.0,
        ge=0,
        le=10,
        description="oort: exponent of the penalty on clients over the deadline",
    )
    exclude: Names = Field(default=(), description="clients that are never asked, by name")
    deadline: float | None = Field(
        default=None,
        gt=0,
        description="seconds a round may take; deadline: slower clients are not asked;"
        " oort: slower clients are penalised (omitted: none is)",
    )

    @property
    def asked(self) -> int:
        """How many clients are asked: ``size`` times ``over_select``, rounded up."""
        # Rounded first: 1.1 * 10 is a little more than 11 in floating point.
        return math.ceil(round(self.size * self.over_select, 9))

    @model_validator(mode="after")
    def _consistent(self) -> "CohortSpec":
        if self.rule == "deadline" and self.deadline is None:
            raise ValueError(
                "rule 'deadline' needs a deadline: set `deadline` to seconds per round"
            )
        if self.candidates is not None and self.candidates < self.asked:
            raise ValueError(
                f"candidates is {self.candidates} but {self.asked} clients are asked every round:"
                f" set `candidates` to at least {self.asked}"
            )
        if self.exploration_floor > self.exploration:
            raise ValueError(
                f"exploration_floor {self.exploration_floor} is above exploration"
                f" {self.exploration}: lower it"
            )
        return self


@dataclass(frozen=True, eq=False)
class Request:
    """What a rule is asked.

    Attributes:
        spec: the rule's settings.
        standing: what is known of the N clients.
        round: number of the round, from 0.
        pool: indices of the clients that may be chosen, ``(n,)``.
        draw_N: each client's draw of this round, uniform in [0, 1).
        order_N: each client's draw of the whole run, uniform in [0, 1).
    """

    spec: CohortSpec
    standing: Standing
    round: int
    pool: Ints
    draw_N: Floats
    order_N: Floats


def uniform(request: Request) -> Ints:
    """Choose without replacement, every client alike (McMahan et al. 2017, arXiv:1602.05629)."""
    pool = request.pool
    return pool[_smallest(request.draw_N[pool], request.spec.asked)]


def round_robin(request: Request) -> Ints:
    """Choose who was asked longest ago; ties fall by turns had, then by the run's shuffled order.

    With all clients available this is a fixed cycle: nobody is asked twice before everybody was
    asked once.  Who is away keeps its place and comes first when back.
    """
    pool = request.pool
    asked, turns = request.standing.asked_N[pool], request.standing.turns_N[pool]
    # One number, rounds before and ties behind the point: selecting is cheaper than sorting.  Turns
    # come first among ties since a cohort may end one cycle and begin the next.
    tie = (turns + request.order_N[pool]) / (turns.max(initial=0) + 1)
    return pool[_smallest(asked + tie, request.spec.asked)]


def power_of_choice(request: Request) -> Ints:
    """Draw candidates by data size, keep those with the largest loss.

    Cho, Wang and Joshi 2020, arXiv:2010.01243: d candidates without replacement with probability
    proportional to examples, of which the m of largest local loss train.  d = m is plain
    size-weighted sampling, d = N the deterministic top m.  In the paper's pow-d the candidates
    compute their loss on the server's current model, which costs d forward passes and a message;
    here it is the loss they reported last, the paper's variant rpow-d.  Who never trained counts as
    infinitely bad, who trained and never had a finite loss comes last; ties fall by the order of
    the draw.
    """
    spec, standing, pool = request.spec, request.standing, request.pool
    race = _race(request.draw_N[pool], standing.examples_N[pool])
    drawn = _smallest(race, spec.candidates or 2 * spec.asked)
    candidates = pool[drawn]
    loss = np.where(np.isnan(standing.loss_N[candidates]), -np.inf, standing.loss_N[candidates])
    loss[standing.trained_N[candidates] < 0] = np.inf
    return candidates[np.lexsort((race[drawn], -loss))[: spec.asked]]


def deadline(request: Request) -> Ints:
    """Choose among the clients that make it in time, as many as are asked.

    FedCS, Nishio and Yonetani 2018, arXiv:1804.08333, algorithm 3.  There one channel carries the
    uploads one after another, so each client admitted takes time from the next and the greedy rule
    takes the cheapest first.  Here clients upload side by side and a round lasts as long as its
    slowest, so each one fits or not by itself, and if more fit than are asked chance decides, lest
    the fastest train alone.  Who was never timed is given the benefit of the doubt.
    """
    pool, limit = request.pool, request.spec.deadline
    assert limit is not None  # CohortSpec: the rule needs it
    in_time = pool[~(request.standing.seconds_N[pool] > limit)]
    return uniform(replace(request, pool=in_time))


def oort(request: Request) -> Ints:
    """Choose mostly by utility, and keep a share for clients never trained.

    Oort, Lai et al. 2020, arXiv:2010.06081, algorithm 1.  Clients over 95 % of the cut-off utility
    are sampled by utility (:func:`oort_utility`); those never trained are sampled by speed.  The
    number of these is an integer whose sum over the rounds follows :func:`exploration_share`, so
    everybody trains within about N / (floor x asked) rounds (paper: chance decides).  The
    paper's pacer is left out (T is ``spec.deadline``), and so is its limit of participations.
    """
    asked, standing, pool = request.spec.asked, request.standing, request.pool
    seen = standing.trained_N[pool] >= 0
    known, unknown = pool[seen], pool[~seen]
    exploit = min(
        asked - min(exploration_quota(request.spec, request.round), len(unknown)), len(known)
    )
    return np.concatenate(
        [
            _exploit(replace(request, pool=known), exploit),
            _explore(replace(request, pool=unknown), asked - exploit),
        ]
    )


def oort_utility(spec: CohortSpec, standing: Standing, round: int, clients: Ints) -> Floats:
    """Return Oort's utility of clients that trained before, ``(n,)``.

    ``(U / c + sqrt(0.1 ln t / l)) x (T / s)^alpha``, the last factor only for those with ``s > T``:
    U = min(c, |B| sqrt(mean loss^2)), c the 95th percentile of U over ``clients``, t and l this
    round and the last one trained in (from 1), s the seconds of a round, T ``spec.deadline``.

    Lai et al. 2020, arXiv:2010.06081, algorithm 1.  Clients report their mean loss and not the
    losses of examples, so its magnitude stands for the root mean square (a lower bound).  U is
    divided by c, as only then the second term means the same whatever the unit of loss or size.
    """
    loss = np.abs(np.nan_to_num(standing.loss_N[clients], nan=0.0))
    bonus = np.sqrt(BONUS * math.log(round + 1) / (standing.trained_N[clients] + 1))
    examples = standing.examples_N[clients].astype(np.float64)
    utility = _clipped(examples * loss) + bonus
    if spec.deadline is None:
        return utility
    seconds = standing.seconds_N[clients]
    slow = seconds > spec.deadline
    utility[slow] *= (spec.deadline / seconds[slow]) ** spec.alpha
    return utility


def oort_admitted(utility: Floats, count: int) -> Bools:
    """Say who reaches 95 % of the ``count``-th largest utility; those are sampled from."""
    cut_off = np.partition(utility, len(utility) - count)[len(utility) - count]
    return utility >= CUT_OFF * cut_off


def exploration_share(spec: CohortSpec, round: ArrayLike) -> Floats:
    """Return Oort's share of a cohort for clients never trained: decays to its floor."""
    decayed = spec.exploration * spec.exploration_decay ** np.asarray(round, dtype=np.float64)
    return np.maximum(decayed, spec.exploration_floor)


def exploration_quota(spec: CohortSpec, round: int) -> int:
    """Return how many clients Oort explores this round; what rounding leaves is carried over."""
    shares = exploration_share(spec, np.arange(round + 1))
    before, now = (math.floor(spec.asked * x.sum() + 1e-9) for x in (shares[:-1], shares))
    return min(now - before, spec.asked)


RULES: Mapping[str, Callable[[Request], Ints]] = {
    "uniform": uniform,
    "round_robin": round_robin,
    "power_of_choice": power_of_choice,
    "oort": oort,
    "deadline": deadline,
}


def select(
    spec: CohortSpec,
    standing: Standing,
    seed: int,
    round: int,
    exclude: Collection[int] = frozenset(),
) -> Ints:
    """Choose the clients to ask in a round.

    Args:
        spec: the rule and its settings.
        standing: what is known of the N registered clients.
        seed: run seed, the first part of the random address.
        round: number of the round, from 0.
        exclude: indices that may not be chosen.

    Returns:
        Distinct indices, ascending: ``spec.asked`` of them, or fewer where fewer may be chosen,
        down to none; whether that is enough for a round is for the caller to say.

    Raises:
        ConfigError: if the cohort or its candidates outnumber the registered clients.
    """
    check_population(spec, len(standing))
    eligible = standing.available_N.copy()
    eligible[client_indices(exclude, len(standing))] = False
    request = Request(
        spec=spec,
        standing=standing,
        round=round,
        pool=np.flatnonzero(eligible),
        draw_N=generator(seed, round, "select").random(len(standing)),
        order_N=generator(seed, "select", "order").random(len(standing)),
    )
    return np.sort(RULES[spec.rule](request))


def check_population(spec: CohortSpec, population: int) -> None:
    """Refuse a cohort that can never come together.

    Raises:
        ConfigError: if the cohort or its candidates outnumber the registered clients.
    """
    registered = "1 client is" if population == 1 else f"{population} clients are"
    wanted = {"size": spec.size, "candidates": spec.candidates or 0}
    for key, value in wanted.items():
        if value > population:
            raise ConfigError(
                f"cohort.{key} is {value} but only {registered} registered:"
                f" set it to at most {population}"
            )


def _smallest(key: Floats, count: int) -> Ints:
    """Return the positions of the ``count`` smallest keys, of all if there are fewer."""
    if count >= len(key):
        return np.arange(len(key))
    return np.argpartition(key, count)[:count]


def _race(draw: Floats, weight: Ints | Floats) -> Floats:
    """Return arrival times whose first k are a draw of k by weight without replacement.

    Efraimidis and Spirakis 2006 (Information Processing Letters 97:5): exponential clocks at rates
    proportional to weight.  Weight 0 runs at 1e-12 of the largest: after everybody else, by chance.
    """
    largest = weight.max(initial=0)
    rate = weight / largest if largest > 0 else np.ones(len(weight))
    return -np.log1p(-draw) / np.maximum(rate, 1e-12)


def _exploit(request: Request, count: int) -> Ints:
    pool = request.pool
    if count == 0:
        return pool[:0]
    utility = oort_utility(request.spec, request.standing, request.round, pool)
    admitted = oort_admitted(utility, count)
    race = _race(request.draw_N[pool[admitted]], utility[admitted])
    return pool[admitted][_smallest(race, count)]


def _explore(request: Request, count: int) -> Ints:
    pool, seconds = request.pool, request.standing.seconds_N[request.pool]
    timed = np.isfinite(seconds)
    # Nothing speaks for or against a client that was never timed: it runs at the median speed.
    usual = np.median(seconds[timed]) if timed.any() else 1.0
    speed = 1 / np.where(timed, seconds, usual)
    return pool[_smallest(_race(request.draw_N[pool], speed), count)]


def _clipped(utility: Floats) -> Floats:
    """Clip at the 95th percentile and divide by it."""
    limit = np.quantile(utility, CLIP_QUANTILE)
    return np.minimum(utility / limit, 1.0) if limit > 0 else np.zeros_like(utility)
