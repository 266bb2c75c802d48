"""Policies that are plain rules: keep everything, the plateau rule, and a control that draws."""

import math
from dataclasses import dataclass

from agents.facts import Observation
from agents.knobs import KNOBS, Bound
from agents.proposals import Answer, Proposal
from agents.selection import MOST_CANDIDATES, Selection, SelectionBounds
from federation.address import generator


@dataclass(frozen=True)
class Fixed:
    """Leaves everything as it was configured."""

    name: str = "fixed@1"

    def decide(self, observation: Observation) -> Answer:
        """Abstain."""
        return Answer(proposal=Proposal(rationale="everything stays as configured"))


@dataclass(frozen=True)
class Plateau:
    """Lowers the client learning rate when the loss stops falling, at once when it explodes.

    Attributes:
        patience: rounds without a new best before the rate is lowered.
        least_gain: relative fall of the loss that counts as a new best.
        explosion: relative rise above the best that counts as divergence.
        factor: what the rate is multiplied by on a plateau.
    """

    patience: int = 3
    least_gain: float = 0.005
    explosion: float = 0.25
    factor: float = 0.5
    name: str = "plateau@1"

    def decide(self, observation: Observation) -> Answer:
        """Propose a lower rate, or nothing."""
        metric, series = watched(observation)
        bound = observation.bounds.get("lr")
        if bound is None or not series:
            return Answer(proposal=Proposal(rationale="nothing to decide on yet"))
        rounds = list(series)
        best = min(series, key=series.__getitem__)
        cited = f"{metric}@{rounds[-1]}", f"{metric}@{best}"
        named = f"the {metric.replace('_', ' ')}"
        if exploded(observation):
            return lowered(bound, 0.0, cited, "a client's loss was no number")
        if series[rounds[-1]] > (1 + self.explosion) * series[best]:
            return lowered(bound, 0.0, cited, f"{named} rose far above its best")
        changed = last_change(observation)
        waited = [n for n in rounds if n > max(changed, self.last_best(series))]
        if len(waited) >= self.patience:
            why = f"no new best {metric.replace('_', ' ')} in {len(waited)} rounds"
            return lowered(bound, bound.current * self.factor, cited, why)
        if rounds[-1] != best:
            why = f"{named} is not at its best, and that is too recent to act on"
            return Answer(proposal=Proposal(evidence=cited, rationale=why))
        return Answer(proposal=Proposal(evidence=cited[:1], rationale=f"{named} still falls"))

    def last_best(self, series: dict[int, float]) -> int:
        """Return the last round whose loss was lower than all before by more than a trifle."""
        at, best = -1, math.inf
        for round, value in series.items():
            if value < best * (1 - self.least_gain):
                at, best = round, value
        return at


def watched(observation: Observation) -> tuple[str, dict[int, float]]:
    """Return the loss to steer by: on validation where there is one, else in training."""
    for metric in ("validation_loss", "loss"):
        if series := observation.series(metric):
            return metric, series
    return "loss", {}


def exploded(observation: Observation) -> bool:
    """Tell whether a client's loss was no number in the last round."""
    return observation.series("diverged").get(observation.round - 1, 0.0) > 0


def last_change(observation: Observation) -> int:
    """Return the first round at the learning rate that holds now."""
    series = observation.series("lr")
    rounds = [
        n
        for n, value in series.items()
        if not math.isclose(value, observation.bounds["lr"].current, rel_tol=1e-4)
    ]
    return max(rounds, default=-1)


def lowered(bound: Bound, value: float, cited: tuple[str, ...], why: str) -> Answer:
    """Propose a learning rate, as low as is allowed at most; nothing if it is there already."""
    value = max(value, bound.low)
    if value >= bound.current:
        return Answer(
            proposal=Proposal(evidence=cited, rationale=f"{why}; the rate is at its lowest")
        )
    return Answer(
        proposal=Proposal(values={"lr": value}, evidence=tuple(dict.fromkeys(cited)), rationale=why)
    )


@dataclass(frozen=True)
class Null:
    """The control: every value uniform by ratio within its bounds, whatever was seen."""

    name: str = "null@1"

    def decide(self, observation: Observation) -> Answer:
        """Draw by (run seed, round, knob)."""
        values = {
            name: drawn(name, bound, observation) for name, bound in observation.bounds.items()
        }
        selection = observation.selection and drawn_selection(observation.selection, observation)
        return Answer(
            proposal=Proposal(
                values=values, selection=selection, rationale="drawn within the bounds"
            )
        )


def drawn(name: str, bound: Bound, observation: Observation) -> float:
    """Draw one value."""
    place = generator(observation.seed, observation.round, "null policy", name).random()
    return placed(name, bound, bound.low * (bound.high / bound.low) ** place)


def drawn_selection(bounds: SelectionBounds, observation: Observation) -> Selection:
    """Draw a rule and its parameters; exclude nobody, which would need evidence."""
    draw = generator(observation.seed, observation.round, "null policy", "selection")
    return Selection(
        rule=bounds.rules[int(draw.integers(len(bounds.rules)))],
        candidates=int(draw.integers(1, MOST_CANDIDATES + 1)),
        exploration=bounds.exploration + (1 - bounds.exploration) * float(draw.random()),
    )


def placed(name: str, bound: Bound, value: float) -> float:
    """Bring a value into this round's bounds, whole where the knob counts something."""
    if KNOBS[name].whole:
        value = float(round(value))
    return min(max(value, bound.low), bound.high)
