"""What a policy is worth, where the answer is known: over a made-up federation of one equation.

A round takes a share off the loss that depends on the learning rate, with noise; nothing is
trained, so whole runs take a millisecond and there can be hundreds.
"""

import math
from dataclasses import dataclass

import numpy as np

from agents.facts import Observation, observe
from agents.guard import rule_on
from agents.knobs import bounds_now
from agents.policies.model import Hybrid
from agents.policies.optimizer import TPE
from agents.policies.rules import Fixed, Null
from agents.proposals import Answer, Policy
from agents.study.statistics import interval, noise_floor
from federation.address import generator
from tests.agents.histories import history

OUTER = {"lr": (1e-4, 1.0)}
START, BEST = 0.01, 0.05
PAIRS, REPEATS = 6, 400


def after(loss: float, lr: float, noise: float) -> float:
    """One round: least is gained far from the best rate, and nothing where training explodes."""
    gain = 0.12 * math.exp(-(math.log(lr / BEST) ** 2) / 4)
    return loss * (1 - gain + 0.01 * noise)


def played(policy: Policy, seed: int, own: int, rounds: int) -> float:
    """Return the log of the last loss: noise by the seed of the run, draws by the policy's own."""
    losses, rates, sources = [3.0], [], {}
    draw = generator("made-up federation", seed)
    for round in range(rounds):
        values = {"lr": rates[-1] if rates else START, "steps": 4.0, "cohort_size": 3.0}
        found = history(losses[1:], lrs=rates) if rates else history([])
        observation = observe(
            found,
            bounds_now(OUTER, values, 2.0),
            values,
            {},
            round=round,
            rounds=rounds,
            seed=own,
            smallest=2,
        ).model_copy(update={"sources": dict(sources)})
        answer = policy.decide(observation)
        ruled = rule_on(answer, observation)
        assert ruled.violations == () and answer.proposal is not None
        sources[answer.proposal.source] = sources.get(answer.proposal.source, 0) + 1
        rates.append(ruled.values.get("lr", values["lr"]))
        losses.append(after(losses[-1], rates[-1], draw.standard_normal()))
    return math.log(losses[-1])


def test_the_lift_of_the_control_over_itself_has_an_interval_around_zero():
    """Paired by the run's seed, as a benchmark pairs; 19 of 20 intervals hold the truth."""
    held = []
    for repeat in range(REPEATS):
        seeds = [repeat * PAIRS + i for i in range(PAIRS)]
        lift = [
            played(Null(), seed, 2 * seed, 3) - played(Null(), seed, 2 * seed + 1, 3)
            for seed in seeds
        ]
        low, high = interval(lift, 0.05, PAIRS)
        held.append(low <= 0 <= high)
    assert np.mean(held) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / REPEATS)


def test_drawing_is_never_said_to_beat_a_good_setting():
    """Where the configured rate is the best there is, the control only loses."""
    better = []
    for repeat in range(40):
        seeds = [repeat * PAIRS + i for i in range(PAIRS)]
        lift = [played(Fixed(), s, s, 6) - played(Null(), s, s, 6) for s in seeds]
        better.append(interval(lift, 0.05, PAIRS)[0] > 0.05)
    assert sum(better) <= 2


@dataclass(frozen=True)
class NullModel:
    """A model without a thought: draws within the schema, as an untrained one does under it."""

    name: str = "llm:null@1"

    def decide(self, observation: Observation) -> Answer:
        answer = Null().decide(observation)
        assert answer.proposal is not None
        return Answer(proposal=answer.proposal.model_copy(update={"source": "llm"}))


def test_a_hybrid_with_a_thoughtless_model_is_within_the_noise_of_its_optimizer():
    rounds, seeds = 16, range(10)
    hybrid = Hybrid(TPE(), NullModel(), share=0.3, warmup=4)
    alone = [played(TPE(), seed, seed, rounds) for seed in seeds]
    again = [played(TPE(), seed, seed + 1000, rounds) for seed in seeds]
    advised = [played(hybrid, seed, seed, rounds) for seed in seeds]
    floor = noise_floor(again, len(alone), 0.05)
    assert np.mean(advised) - np.mean(alone) <= floor
    assert np.mean([played(hybrid, s, s, rounds) != alone[s] for s in (0, 1)]) > 0
