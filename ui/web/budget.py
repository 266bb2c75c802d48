"""What an experiment will take: counted where it can be, estimated from earlier runs where not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from federation.config import Config
from federation.runs.run import Run
from ui.web.forms import got

OPTIMIZER = {"adamw": 2, "sgd": 0}  # numbers that it keeps beside every parameter
WIDE = 4  # bytes of a trained number


@dataclass(frozen=True)
class Budget:
    """What an experiment takes.

    Attributes:
        client_steps: optimizer steps of all clients in all rounds.
        examples: that these steps read, with repetition.
        tokens: of those examples; None: their lengths are not known.
        most_tokens: if every example were as long as it may be.
        down, up: bytes to and from all clients in all rounds; None: sizes are not known.
        seconds: of the rounds, from earlier runs; None: there is none to go by.
        like: name of the run that the seconds are from.
    """

    client_steps: int
    examples: int
    tokens: int | None
    most_tokens: int
    down: int | None
    up: int | None
    seconds: float | None
    like: str


def budget(
    config: Config,
    sizes: Mapping[str, Any],
    runs: Iterable[Run] = (),
    tokens_per_example: float | None = None,
) -> Budget:
    """Say what an experiment takes, its evaluations and baselines left aside.

    Args:
        config: the experiment.
        sizes: what :func:`ui.web.expert.check` said.
        runs: earlier ones of this machine.
        tokens_per_example: mean length, where the data was looked at.
    """
    steps = config.rounds * config.cohort.size * config.work.steps
    examples = steps * config.work.batch_size
    pace, like = seconds_per_example(config, runs)
    known = tokens_per_example is not None
    return Budget(
        client_steps=steps,
        examples=examples,
        tokens=round(examples * tokens_per_example) if known else None,
        most_tokens=examples * config.data.max_tokens,
        down=config.rounds * config.cohort.asked * sizes["down"] if sizes else None,
        up=config.rounds * config.cohort.size * sizes["up"] if sizes else None,
        seconds=None if pace is None else pace * examples,
        like=like,
    )


def seconds_per_example(config: Config, runs: Iterable[Run]) -> tuple[float | None, str]:
    """Return the pace of the newest run that trained the same kind of adapter on the same base.

    Args:
        config: the experiment.
        runs: earlier ones, the newest first.
    """
    for run in runs:
        if alike(config, run.config) and (pace := pace_of(run)) is not None:
            return pace, run.path.name
    return None, ""


def alike(config: Config, other: Mapping[str, Any]) -> bool:
    """Tell whether a step of another run takes about as long: same base, same kind, same length."""
    return (
        got(other, "model.base") == config.model.base
        and got(other, "adapter.kind", "lora") == config.adapter.kind
        and got(other, "data.max_tokens", 512) == config.data.max_tokens
    )


def pace_of(run: Run) -> float | None:
    """Return the seconds that a run took for an example of a client-step, in the median round."""
    batch = got(run.config, "work.batch_size", 8)
    rounds = run.history.rounds.values()
    paces = [r.seconds / (r.client_steps * batch) for r in rounds if r.client_steps]
    return median(paces) if paces else None


def memory(config: Config, sizes: Mapping[str, Any], clients: int) -> int:
    """Return bytes of weights and of what is trained, activations left aside.

    Args:
        config: the experiment.
        sizes: what :func:`ui.web.expert.check` said.
        clients: that share a pass.
    """
    states = 2 + OPTIMIZER.get(config.work.optimizer, 2)  # the parameters and their gradient
    return sizes["base_bytes"] + clients * sizes["trained"] * WIDE * states
