"""Simulated devices: how fast, how often online, how reliable each client is, by seed.

Knows seconds, bytes and chance.  Does not know models, rules of selection or the journal; nothing
here sleeps: time is computed, not spent.

A client is its index in the registry sorted by id.  Its draws have the addresses (seed, purpose,
index) where they last for the run and (seed, round, purpose, index) where they last for a round;
they stay the same when clients are registered behind it.

Shape suffixes: N registered clients, C clients of a cohort.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from federation.address import generator
from federation.specs import Spec

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Reason = Literal["dropout", "deadline"]


class DevicesSpec(Spec):
    """What the clients run on: the ``[devices]`` table.  As it stands, equal and without fault."""

    seconds_per_step: float = Field(
        default=1.0, gt=0, le=1e6, description="seconds of a local step on the median device"
    )
    speed_sigma: float = Field(
        default=0.0,
        ge=0,
        le=5,
        description="log-normal spread of seconds per step; 0: all are equal",
    )
    bandwidth: float = Field(
        default=1e6,
        gt=0,
        le=1e15,
        description="bytes per second of the median device, both ways together",
    )
    bandwidth_sigma: float = Field(
        default=0.0, ge=0, le=5, description="log-normal spread of the bandwidth; 0: all are equal"
    )
    availability: float = Field(
        default=1.0, gt=0, le=1, description="mean share of rounds in which a client is online"
    )
    availability_spread: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how much that share differs: 0 not at all, 1 as far as it can",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a client that was asked does not report",
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        description="the server waits no longer than this for a round; omitted: for all",
    )
    late: Literal["partial", "drop"] = Field(
        default="partial",
        description="clients too slow for the deadline: `partial` do the steps they can,"
        " `drop` do not report",
    )


@dataclass(frozen=True, eq=False)
class Speeds:
    """How fast each client is, for the whole run.

    Attributes:
        seconds_per_step_N: ``(N,)`` float64.
        bandwidth_N: bytes per second, ``(N,)`` float64.
    """

    seconds_per_step_N: Floats
    bandwidth_N: Floats


def speeds(spec: DevicesSpec, seed: int, population: int) -> Speeds:
    """Draw the speed of every client: log-normal around the median device."""
    return Speeds(
        seconds_per_step_N=spec.seconds_per_step
        * np.exp(spec.speed_sigma * _normal(seed, "speed", population)),
        bandwidth_N=spec.bandwidth
        * np.exp(spec.bandwidth_sigma * _normal(seed, "bandwidth", population)),
    )


def availability_rates(spec: DevicesSpec, seed: int, population: int) -> Floats:
    """Return the share of rounds each client is online, ``(N,)``.

    Uniform around ``spec.availability``, and so wide that no share leaves [0, 1] at spread 1.
    """
    room = min(spec.availability, 1 - spec.availability)
    draw_N = generator(seed, "devices", "availability").random(population)
    return spec.availability + spec.availability_spread * room * (2 * draw_N - 1)


def available(spec: DevicesSpec, seed: int, round: int, population: int) -> Bools:
    """Say who is online in a round, ``(N,)`` bool; independent of all other rounds."""
    draw_N = generator(seed, round, "devices", "available").random(population)
    return draw_N < availability_rates(spec, seed, population)


def dropped(spec: DevicesSpec, seed: int, round: int, clients: Sequence[int]) -> dict[int, Reason]:
    """Say which of the clients that were asked fail to report this round.

    Costs by the cohort, not by the population; a client's fate does not depend on the others.
    """
    return {
        int(client): "dropout"
        for client in clients
        if generator(seed, round, "devices", "dropout", int(client)).random() < spec.dropout
    }


def simulated_seconds(
    speeds: Speeds, clients: ArrayLike, steps: ArrayLike, transferred: ArrayLike
) -> Floats:
    """Return what a round takes each client: steps x seconds per step + bytes / bandwidth.

    Args:
        speeds: of the population.
        clients: indices of the clients, ``(C,)``.
        steps: local steps of each, ``(C,)`` or one number for all.
        transferred: bytes down and up of each, ``(C,)`` or one number for all.
    """
    index = np.asarray(clients, dtype=np.int64)
    computing = np.asarray(steps) * speeds.seconds_per_step_N[index]
    return computing + np.asarray(transferred) / speeds.bandwidth_N[index]


def cut_stragglers(
    spec: DevicesSpec,
    speeds: Speeds,
    clients: Sequence[int],
    steps: ArrayLike,
    transferred: ArrayLike,
) -> tuple[Ints, dict[int, Reason]]:
    """Hold a cohort to the deadline.

    Who would be late does as many whole steps as leave time for its transfer (``late="partial"``,
    as in Li et al. 2020, arXiv:1812.06127) or does not report (``late="drop"``).  Who cannot make
    a single step in time does not report either way.

    Args:
        spec: the deadline and what happens to those over it.
        speeds: of the population.
        clients: indices of the cohort, ``(C,)``.
        steps: local steps asked of each, ``(C,)`` or one number for all.
        transferred: bytes down and up of each, ``(C,)`` or one number for all.

    Returns:
        The steps each client makes, ``(C,)`` (0 for those that do not report), and the reason for
        each that does not report.
    """
    index = np.asarray(clients, dtype=np.int64)
    asked = np.broadcast_to(np.asarray(steps, dtype=np.int64), index.shape).copy()
    if spec.deadline_seconds is None:
        return asked, {}
    late = simulated_seconds(speeds, index, asked, transferred) > spec.deadline_seconds
    left = spec.deadline_seconds - simulated_seconds(speeds, index, 0, transferred)
    per_step = speeds.seconds_per_step_N[index]
    # Capped before dividing: a deadline of a day holds more of some steps than an integer can.
    fitting = np.floor(np.clip(left, 0, asked * per_step) / per_step).astype(np.int64)
    made = np.where(late, fitting if spec.late == "partial" else 0, asked)
    missing: dict[int, Reason] = {int(c): "deadline" for c in index[late & (made == 0)]}
    return made, missing


def round_seconds(
    spec: DevicesSpec, seconds: Sequence[float], missing: Mapping[int, Reason]
) -> float:
    """Return how long the server's round lasts.

    Args:
        spec: the deadline, if any.
        seconds: of each client that reported.
        missing: those that did not.

    Returns:
        The slowest reporter's seconds; the deadline where one is set and somebody was waited for in
        vain.
    """
    if missing and spec.deadline_seconds is not None:
        return spec.deadline_seconds
    return float(max(seconds, default=0.0))


def _normal(seed: int, purpose: str, population: int) -> Floats:
    """Draw a standard normal for each client; the stream is sequential, so a prefix stays put."""
    return generator(seed, "devices", purpose).standard_normal(population)
