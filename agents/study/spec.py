"""What a study is asked: one TOML file, one frozen value, everything said before anything runs.

    question = "Does a larger client learning rate help?"
    base = "first.toml"               # or a table [base] with a configuration
    control = "plain"
    seeds = [0, 1, 2, 3, 4]
    max_client_steps = 5000

    [metric]
    name = "nll"
    direction = "lower"

    [arms]
    plain = []
    hotter = ["work.lr=0.02"]         # as --set has them

Light: nothing here imports torch.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from agents.study.metric import MetricSpec
from agents.study.space import Bounds, Space, overrides, space_of
from agents.study.statistics import FEWEST
from federation.config import Config, describe, read_toml, set_key
from federation.errors import ConfigError
from federation.specs import Names, Spec, as_tuple

ARM = "^[a-z0-9][a-z0-9_-]{0,39}$"
RESERVED = ("trial-", "agent-")
MEASURED = ("seed", "data", "evaluation")
"""Tables that say what is measured, on what: the same for every arm."""

Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=2**53)], ...], BeforeValidator(as_tuple)]
Arms = dict[Annotated[str, Field(pattern=ARM)], Names]


class SearchSpec(Spec):
    """A search for hyperparameters; what it finds becomes an arm, on seeds it has not seen."""

    method: Literal["tpe", "cmaes", "halving", "hybrid"] = Field(
        default="tpe",
        description="halving: many configurations for a few rounds, the better ones for longer;"
        " hybrid: TPE in charge, overruled by the model of [agent]",
    )
    bounds: Bounds = Field(
        min_length=1,
        description="lr, steps, cohort_size or a dotted key of the configuration: [low, high]",
    )
    trials: int = Field(
        ge=1, le=10_000, description="configurations to try, at most; halving: to begin with"
    )
    seeds: int = Field(default=1, ge=1, le=30, description="seeds that each is tried under")
    max_client_steps: int = Field(ge=1, description="client-steps of the search, of the study's")
    share: float = Field(
        default=0.3, ge=0, le=1, description="hybrid: share of the trials that the model may decide"
    )
    warmup: int = Field(default=4, ge=0, description="hybrid: trials before the model is asked")

    @property
    def space(self) -> Space:
        """What it may set."""
        return space_of(self.bounds, "search")


class AgentSpec(Spec):
    """A language model that may propose arms."""

    model: str = Field(
        min_length=1, description="'openai:MODEL@http://127.0.0.1:8000/v1' or 'scripted:FILE'"
    )
    arms: int = Field(default=1, ge=0, le=8, description="arms that it may propose, at most")
    bounds: Bounds = Field(default={}, description="what they may set; the search's if omitted")
    deadline: float = Field(
        default=60.0, gt=0, le=3600, description="seconds for an answer, repairs included"
    )


class StudySpec(Spec):
    """A question, arms, and how they are compared: registered before anything runs."""

    question: str = Field(min_length=1, max_length=500, description="what is to be found out")
    base: dict[str, Any] = Field(description="the configuration that arms override")
    control: str = Field(description="the arm that the others are compared with")
    metric: MetricSpec
    seeds: Seeds = Field(
        min_length=FEWEST,
        max_length=30,
        description="of the pairs: arm and control under each.  With data.seed in the base all"
        " pairs are of that one federation, and so is the verdict; without it every seed draws"
        " clients and splits anew, and the verdict is about federations like these",
    )
    noise_pairs: int = Field(
        default=3, ge=2, le=30, description="pairs of the control with itself under another seed"
    )
    max_client_steps: int = Field(ge=1, description="client-steps that the study may take in all")
    alpha: float = Field(
        default=0.05, gt=0.001, le=0.2, description="probability of one wrong verdict or more"
    )
    arms: Arms = Field(description="arm -> overrides of the base, as --set has them")
    search: SearchSpec | None = None
    agent: AgentSpec | None = None

    @model_validator(mode="after")
    def _can_be_conducted(self) -> Self:
        """Refuse what could give no verdict."""
        if self.control not in self.arms:
            there = ", ".join(self.arms) or "none"
            raise ValueError(
                f"control: no arm is called {self.control!r} (there are {there}); a study compares"
                " with a control: add it under [arms], '[]' being the base as it is"
            )
        if len(self.arms) == 1 and not self.search and not (self.agent and self.agent.arms):
            raise ValueError(
                "arms: there is nothing to compare with the control; add an arm, [search] or"
                " [agent]"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice; a pair counts once")
        if self.noise_pairs > len(self.seeds):
            raise ValueError(
                f"noise_pairs is {self.noise_pairs} and there are {len(self.seeds)} seeds to pair"
            )
        for name in self.arms:
            if name.startswith(RESERVED) or name == SEARCHED:
                raise ValueError(f"arms.{name}: names like this are given by the study; rename it")
        self._models_suffice()
        return self

    def _models_suffice(self) -> None:
        if self.search and self.search.method == "hybrid" and not self.agent:
            raise ValueError("search.method 'hybrid' asks a model; say which in [agent]")
        if self.agent and self.agent.arms and not self.agent.bounds and not self.search:
            raise ValueError(
                "agent.bounds: say what its arms may set, for example lr = [1e-3, 0.1]"
            )

    @property
    def agent_space(self) -> Space:
        """What arms of the agent may set."""
        if self.agent and self.agent.bounds:
            return space_of(self.agent.bounds, "agent")
        return self.search.space if self.search else ()

    def config(self, overrides: tuple[str, ...], seed: int, origin: str) -> Config:
        """Return the configuration of one run.

        Args:
            overrides: of the base.
            seed: run seed.
            origin: whose they are, for errors.

        Raises:
            ConfigError: if it cannot be used, or changes what is measured.
        """
        table = copy.deepcopy(self.base)
        for override in overrides:
            root = override.partition("=")[0].strip().split(".")[0]
            if root in MEASURED:
                raise ConfigError(
                    f"{origin}: {override!r} changes what is measured; {', '.join(MEASURED)} belong"
                    " to the base"
                )
            try:
                set_key(table, override)
            except ConfigError as error:
                raise ConfigError(f"{origin}: {error}") from None
        table["seed"] = seed
        config = Config.from_table(table, origin)
        evaluation = config.evaluation.model_copy(update={"baselines": ()})
        return config.model_copy(update={"evaluation": evaluation})

    def with_values(self, space: Space, values: Mapping[str, float]) -> tuple[str, ...]:
        """Return the overrides of the control with other values."""
        return (*self.arms[self.control], *overrides(space, values))

    @property
    def other_seeds(self) -> tuple[int, ...]:
        """Seeds under which the control meets itself."""
        first = max(self.seeds) + 1
        return tuple(range(first, first + self.noise_pairs))

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """Seeds of the search's trials: none of the pairs', or its winner would be flattered."""
        first = self.other_seeds[-1] + 1
        return tuple(range(first, first + self.search.seeds)) if self.search else ()


SEARCHED = "searched"
"""The arm that a search found."""


def from_toml(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study; a base that is a file is read beside it.

    Args:
        path: TOML file.
        overrides: ``"base.rounds=4"`` strings, TOML on the right.

    Raises:
        ConfigError: if something in it cannot be used, in one line.
    """
    table = read_toml(path, "examples/study.toml shows what one says")
    if isinstance(table.get("base"), str):
        table["base"] = read_toml(path.parent / table["base"])
    for override in overrides:
        set_key(table, override)
    return from_table(table, str(path))


def from_table(table: Mapping[str, Any], origin: str) -> StudySpec:
    """Read a study from nested tables, and check every configuration that it can come to.

    Raises:
        ConfigError: naming key, value and what is allowed, in one line.
    """
    try:
        spec = StudySpec.model_validate(dict(table))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {complaint(error)}") from None
    for _ in configurations(spec, origin):
        pass
    return spec


def complaint(error: ValidationError) -> str:
    """Say the first thing that is wrong, in one line."""
    first = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{at}: is missing; say {MISSING.get(at, 'it')}"
    if at == "seeds" and first["type"] == "too_short":
        return f"seeds: a verdict needs {FEWEST} paired seeds at least; add some"
    return describe(error, StudySpec)


MISSING = {
    "question": "what is to be found out",
    "base": "which configuration arms override: a file, or a table [base]",
    "control": "which arm is the control, for example control = 'plain' with plain = [] in [arms]",
    "arms": "what is compared: [arms] with plain = [] and others",
    "metric": "what is compared by: [metric] with name and direction",
    "seeds": "under which seeds, for example seeds = [0, 1, 2, 3, 4]",
    "max_client_steps": "how many client-steps the study may take",
}


def configurations(spec: StudySpec, origin: str) -> Iterator[tuple[str, Config]]:
    """Yield a configuration of every arm, and of both ends of every bound of search and agent.

    Raises:
        ConfigError: if one cannot be used, does not measure the metric or has no validation split.
    """
    for name, arm in spec.arms.items():
        config = spec.config(arm, spec.seeds[0], f"{origin}: arms.{name}")
        spec.metric.check(config, f"{origin}: arms.{name}")
        yield name, config
    try:
        spaces = {"search": spec.search.space if spec.search else (), "agent": spec.agent_space}
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    for table, space in spaces.items():
        for x in space:
            for value in (x.low, x.high):
                where = f"{origin}: {table}.bounds.{x.key}"
                ends = spec.with_values((x,), {x.key: value})
                yield table, spec.config(ends, spec.seeds[0], where)
