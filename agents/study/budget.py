"""What a study takes, in client-steps: at least for a verdict, and at most.

Light: nothing here imports torch, so whoever asks before anything runs is told at once.
"""

import math

from agents.spec import PilotSpec
from agents.study.space import Space
from agents.study.spec import StudySpec
from agents.study.statistics import FEWEST
from federation.config import Config
from federation.errors import ConfigError


def most_client_steps(config: Config) -> int:
    """Return the client-steps that a run can take at most.

    Simulated devices only ever take away; a pilot may turn steps and cohort size up to its bounds,
    or what it may spend in all.
    """
    steps, size = float(config.work.steps), float(config.cohort.size)
    spec = PilotSpec.of(config)
    if spec is not None:
        steps = max(steps, spec.bounds.get("steps", (0, 0))[1])
        size = max(size, spec.bounds.get("cohort_size", (0, 0))[1])
    return math.ceil(steps * size * config.rounds)


def dearest(spec: StudySpec, space: Space, origin: str) -> Config:
    """Return the configuration of the dearest run within bounds."""
    ends = spec.with_values(space, {x.key: x.high for x in space})
    return spec.config(ends, spec.seeds[0], origin)


def arms(spec: StudySpec) -> dict[str, Config]:
    """Return the configuration of every arm, under the first seed."""
    return {
        name: spec.config(arm, spec.seeds[0], f"arms.{name}") for name, arm in spec.arms.items()
    }


def at_least(spec: StudySpec) -> dict[str, int]:
    """Return what any verdict needs: for what -> client-steps."""
    costs = {name: most_client_steps(config) for name, config in arms(spec).items()}
    search, searched = spec.search, 0
    if search:
        searched = most_client_steps(dearest(spec, search.space, "search.bounds"))
    return {
        "the noise floor": (max(FEWEST, spec.noise_pairs) + spec.noise_pairs)
        * costs.pop(spec.control),
        "the search": search.max_client_steps if search else 0,
        f"{FEWEST} pairs of every arm": FEWEST * sum(costs.values()),
        f"{FEWEST} pairs of what the search finds": FEWEST * searched,
    }


def all_runs(spec: StudySpec) -> list[tuple[Config, int]]:
    """Return what is run if every pair is played, trials aside: configurations, how often each.

    Of an arm that is not known yet, it is the dearest that it can be.
    """
    pairs = len(spec.seeds)
    found = [
        (config, pairs + spec.noise_pairs * (name == spec.control))
        for name, config in arms(spec).items()
    ]
    if spec.search:
        found.append((dearest(spec, spec.search.space, "search.bounds"), pairs))
    if spec.agent and spec.agent.arms:
        found.append((dearest(spec, spec.agent_space, "agent.bounds"), pairs * spec.agent.arms))
    return found


def at_most(spec: StudySpec) -> int:
    """Return the client-steps of a study in which every trial is made and every pair played."""
    search = spec.search.max_client_steps if spec.search else 0
    return search + sum(most_client_steps(config) * n for config, n in all_runs(spec))


def check_budget(spec: StudySpec) -> None:
    """Refuse a budget that holds no verdict.

    Raises:
        ConfigError: saying how much is needed for what.
    """
    need = at_least(spec)
    total = sum(need.values())
    if total > spec.max_client_steps:
        words = ", ".join(f"{what} {steps}" for what, steps in need.items() if steps)
        raise ConfigError(
            f"max_client_steps is {spec.max_client_steps} and the study needs {total} at least"
            f" ({words}): raise it, or lower rounds, work.steps or cohort.size of the base"
        )
