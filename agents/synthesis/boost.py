"""More rows for the smallest of the built-in organisations, if the gate finds that they help.

What is asked for is its domain and a number of rows in the usual mix of that domain's questions,
and nothing that was counted in anybody's data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.synthesis.make import Say, quiet
from agents.synthesis.profile import Profile
from agents.synthesis.publish import Files, publish
from federation.config import ORGANISATIONS, Config
from federation.data.organisations import organisations
from federation.errors import ConfigError

STEPS = 6  # of the gate's runs, which only the smallest organisation trains in
EXAMPLES = 24  # that the gate judges on


@dataclass(frozen=True)
class Boost:
    """What came of making up rows.

    Attributes:
        client: who was to get them.
        card: of the set.
        rows: where they lie, whether or not they were admitted.
        config: what to run: with the rows, if they were admitted.
    """

    client: str
    card: dict[str, Any]
    rows: Path
    config: Config

    @property
    def admitted(self) -> bool:
        """Whether the gate let them in."""
        return bool(self.card["gate"]["admitted"])


def boost(config: Config, out: Path, rows: int, *, cache: Path, say: Say = quiet) -> Boost:
    """Make up rows for the smallest organisation and add them to what it trains on, if they help.

    Args:
        config: a run on the built-in organisations.
        out: file of the rows, ``.jsonl``, that does not exist.
        rows: how many.
        cache: folder for tokenised data.
        say: is told of progress.

    Raises:
        ConfigError: if the run is on other data, or something in it cannot be used.
    """
    if config.data.source != ORGANISATIONS:
        raise ConfigError("there is no smallest of the built-in organisations in other data")
    data = config.data
    every = organisations(config.seed, data.count, total=data.examples)
    smallest = min(every, key=lambda one: (one.size, one.id))
    wanted = {"domain": smallest.domain, "size": rows}
    profile = Profile.from_table({"clients": {smallest.id: wanted}, "gate": {"seeds": 3}})
    others = tuple(one.id for one in every if one.id != smallest.id)
    gate = alone(config, others)
    card = publish(profile, out, seed=config.seed, cache=cache, gate=gate, say=say)
    if not card["gate"]["admitted"]:
        return Boost(smallest.id, card, Files(out).rejected, config)
    more = data.model_copy(update={"extra": str(out.absolute())})
    return Boost(smallest.id, card, out, config.model_copy(update={"data": more}))


def alone(config: Config, others: tuple[str, ...]) -> Config:
    """Return a run of one round in which one client trains, judged by the loss on a few rows."""
    return Config.from_table(
        config.model_dump(mode="json")
        | {
            "rounds": 1,
            "pilot": {},
            "cohort": {"size": 1, "exclude": list(others)},
            "work": config.work.model_dump(mode="json")
            | {"steps": min(STEPS, 2 * config.work.steps)},
            "evaluation": {
                "every": 1,
                "metrics": ["nll"],
                "max_examples": min(EXAMPLES, config.evaluation.max_examples),
            },
        },
        "gate",
    )
