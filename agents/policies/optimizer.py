"""Policies that search: TPE and CMA-ES by ask and tell over the rounds of one run.

What a round's values are worth is how much the training loss fell in it, relative to the round
before. The search lives in the ratio space of the outer limits; what it asks for is approached as
far as this round's trust region lets it, and it is told what was really tried.  Nothing is
remembered between calls: the rounds seen are told anew, so that a resumed run proposes what an
undisturbed one would have.
"""

import math
from dataclasses import dataclass

import numpy as np

from agents.facts import Observation
from agents.knobs import Bound
from agents.policies.rules import placed
from agents.proposals import Answer, Proposal
from federation.address import address

Tried = list[tuple[dict[str, float], float]]
"""Place of every knob in [0, 1], and what it cost."""


def tried(observation: Observation) -> Tried:
    """Return what was tried so far and how the loss of each round compares to the one before."""
    loss = observation.series("loss")
    found = []
    for round, value in loss.items():
        before = loss.get(round - 1)
        places = {
            name: at(observation, name, bound, round) for name, bound in observation.bounds.items()
        }
        if before and all(place is not None for place in places.values()):
            found.append(({k: v for k, v in places.items() if v is not None}, value / before - 1))
    return found


def at(observation: Observation, name: str, bound: Bound, round: int) -> float | None:
    """Return where between least (0) and most (1) a knob stood in a round, by ratio."""
    value = observation.series(name).get(round)
    if value is None or bound.most == bound.least:
        return None if value is None else 0.5
    place = math.log(value / bound.least) / math.log(bound.most / bound.least)
    return min(max(place, 0.0), 1.0)


def proposed(observation: Observation, places: dict[str, float], method: str, seen: int) -> Answer:
    """Turn places into values that this round's bounds allow."""
    values = {
        name: placed(name, bound, bound.least * (bound.most / bound.least) ** places[name])
        for name, bound in observation.bounds.items()
    }
    why = f"{method} after {seen} rounds"
    return Answer(proposal=Proposal(values=values, rationale=why, source="optimizer"))


@dataclass(frozen=True)
class TPE:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it.

    Attributes:
        startup: rounds drawn at random before densities are estimated.
    """

    startup: int = 4
    name: str = "optimizer:tpe@1"

    def decide(self, observation: Observation) -> Answer:
        """Tell what was tried; ask for the next."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = address(observation.seed, observation.round, "tpe") % 2**32
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        study = optuna.create_study(sampler=sampler)
        space = {
            name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in observation.bounds
        }
        seen = tried(observation)
        for places, cost in seen:
            trial = optuna.trial.create_trial(params=places, distributions=dict(space), value=cost)
            study.add_trial(trial)
        asked = study.ask(dict(space))
        return proposed(observation, dict(asked.params), "TPE", len(seen))


@dataclass(frozen=True)
class CMAES:
    """CMA-ES (Hansen 2016, arXiv:1604.00772), from the middle of the space.

    Attributes:
        spread: first standard deviation, of the whole range.
        generation: rounds of one generation.
    """

    spread: float = 0.3
    generation: int = 4
    name: str = "optimizer:cmaes@1"

    def decide(self, observation: Observation) -> Answer:
        """Live through the generations again; ask for the next place."""
        from cmaes import CMA

        names = list(observation.bounds)
        search = CMA(
            mean=np.full(len(names), 0.5),
            sigma=self.spread,
            bounds=np.array([[0.0, 1.0]] * len(names)),
            seed=address(observation.seed, "cmaes") % 2**32,
            population_size=self.generation,
        )
        seen = tried(observation)
        told = [(np.array([places[name] for name in names]), cost) for places, cost in seen]
        for start in range(0, len(told) - self.generation + 1, self.generation):
            for _ in range(self.generation):
                search.ask()
            search.tell(told[start : start + self.generation])
        for _ in range(len(told) % self.generation):
            search.ask()
        return proposed(
            observation, dict(zip(names, search.ask().tolist(), strict=True)), "CMA-ES", len(seen)
        )
