"""What tools stand on: the run as it is now, what may be told of it, and what may be spent."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.copilot.names import Names
from agents.facts import Fact
from agents.knobs import configured
from agents.spec import PilotSpec
from federation.config import Config
from federation.errors import ConfigError
from federation.pretraining.recipe import recipe_of
from federation.runs.run import Run

ARGS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""Of every tool's arguments: nothing that is not declared gets through."""


Watching = Callable[[int], AbstractContextManager[Any]]
"""Given a number of rounds: gives a ``Watch`` that is told of them, or None."""


def unwatched(rounds: int) -> AbstractContextManager[None]:
    """Tell nobody."""
    return nullcontext()


class Unusable(Exception):
    """Arguments that a tool cannot use; a model may be told why: no name, no word of a client."""


@dataclass(frozen=True)
class Ground:
    """A run as a tool finds it.

    Attributes:
        run: as it stands now.
        config: its configuration.
        spec: its pilot, whose bounds hold here too; the defaults if it has none.
        names: pseudonyms of clients and other runs.
        facts: what the tools of this chat returned so far, by id.
        left: client-steps that this chat may still spend.
        cache: folder for tokenised data; the user's cache folder if None.
        watching: shows the progress of so many rounds.
    """

    run: Run
    config: Config
    spec: PilotSpec
    names: Names
    facts: Mapping[str, Fact]
    left: int
    cache: Path | None
    watching: Watching = unwatched

    @classmethod
    def of(
        cls,
        run: Run,
        facts: Mapping[str, Fact] | None = None,
        left: int = 0,
        cache: Path | None = None,
        watching: Watching = unwatched,
    ) -> "Ground":
        """Look at a run.

        Raises:
            ConfigError: if it is not a fine-tuning run.
        """
        if recipe_of(run) is not None:
            raise ConfigError(f"{run.path} pre-trains a base model; chat is about fine-tuning")
        config = Config.from_table(run.asked, f"{run.path}/config.json")
        spec = PilotSpec.of_run(config) or PilotSpec()
        return cls(run, config, spec, Names.of(run), facts or {}, left, cache, watching)

    @property
    def values(self) -> dict[str, float]:
        """What the run has for every knob, as configured."""
        return configured(self.config)


@dataclass(frozen=True)
class Found:
    """What a tool returns.

    Attributes:
        facts: numbers with ids.
        text: what else a model may be told; no name, no word of a client.
        note: for the person alone.
        client_steps: that it cost.
    """

    facts: tuple[Fact, ...] = ()
    text: str = ""
    note: str = ""
    client_steps: int = 0

    @property
    def shown(self) -> str:
        """What a model is told."""
        return "\n".join([*map(line, self.facts), *([self.text] if self.text else [])]) or "nothing"


def line(fact: Fact) -> str:
    """Write a fact in a line; people count rounds from 1."""
    of_round = "" if fact.round is None else f" (round {fact.round + 1})"
    return f"{fact.id} = {fact.value:g} {fact.unit}{of_round}"


def nothing(ground: Ground, args: Any) -> Iterator[str]:
    """Find no fault, and nothing to add."""
    yield from ()


@dataclass(frozen=True)
class Tool:
    """Something that can be called.

    Attributes:
        name: how it is called.
        help: what it does, for a model and a person.
        args: its arguments; unknown ones are refused.
        do: does it.
        acts: whether a person has to approve every call.
        faults: the guard: why a call is refused, before a person is asked and again after.
        notes: what a person should know before approving, names included.
    """

    name: str
    help: str
    args: type[BaseModel]
    do: Callable[[Ground, Any], Found]
    acts: bool = False
    faults: Callable[[Ground, Any], Iterator[str]] = nothing
    notes: Callable[[Ground, Any], Iterator[str]] = nothing
