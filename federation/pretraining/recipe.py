"""Everything that decides a pre-training run: a TOML file, and what a run directory keeps of it.

Light: nothing here imports torch, so such a run can be shown without it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from federation.cohort.selection import CohortSpec
from federation.config import Config, describe, read_toml
from federation.errors import ConfigError
from federation.pretraining.texts import SOURCES
from federation.runs.folder import CONFIG
from federation.runs.run import Run
from federation.specs import LocalWork, ScheduleSpec, Spec

TEXTS = "texts"  # key beside the recipe's own in config.json: the folder of the public texts


class Architecture(Spec):
    """Shape of a Llama."""

    vocabulary: int = Field(default=4096, ge=300, le=200_000, description="tokens")
    hidden: int = Field(default=256, ge=16, le=8192, description="width of the residual stream")
    layers: int = Field(default=6, ge=1, le=200, description="decoder layers")
    heads: int = Field(default=4, ge=1, le=256, description="attention heads")
    intermediate: int = Field(default=688, ge=16, le=65_536, description="width of the MLP")
    context: int = Field(
        default=1024, ge=64, le=1_000_000, description="longest sequence in tokens"
    )
    init: str | None = Field(default=None, description="folder of a model to go on from")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where workers train; auto: a CUDA GPU where there is one"
    )


class OuterSpec(Spec):
    """The server's optimizer."""

    lr: float = Field(default=0.7, gt=0, le=10, description="outer learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="outer Nesterov momentum")


class Recipe(Spec):
    """Everything that decides a pre-training run."""

    seed: int = Field(default=0, ge=0, description="first part of every random address")
    rounds: int = Field(default=50, ge=1, description="outer steps")
    workers: int = Field(
        default=2, ge=1, le=1024, description="shards of the texts, one worker each"
    )
    block: int = Field(default=256, ge=16, description="tokens of a training sequence")
    epochs: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        min_length=1, description="source -> how often it is read (0.5: half of it)"
    )
    model: Architecture = Field(default_factory=lambda: Architecture.model_validate({}))
    work: LocalWork = Field(default_factory=lambda: LocalWork.model_validate({}))
    schedule: ScheduleSpec = Field(default_factory=lambda: ScheduleSpec.model_validate({}))
    outer: OuterSpec = Field(default_factory=lambda: OuterSpec.model_validate({}))

    @classmethod
    def from_toml(cls, path: Path) -> "Recipe":
        """Read a recipe.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        return cls.from_table(read_toml(path, "recipes/nano.toml is one"), str(path))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], origin: str) -> "Recipe":
        """Build a recipe from nested tables.  Raises as :meth:`from_toml` does."""
        try:
            recipe = cls.model_validate(table)
        except ValidationError as error:
            raise ConfigError(f"{origin}: {describe(error, cls)}") from None
        unknown = sorted(recipe.epochs.keys() - SOURCES.keys())
        if unknown:
            raise ConfigError(f"{origin}: epochs.{unknown[0]}: sources are {', '.join(SOURCES)}")
        return recipe

    def resolved(self) -> "Recipe":
        """Return the recipe as it is read from any folder."""
        if self.model.init is None:
            return self
        init = str(Path(self.model.init).expanduser().absolute())
        return self.model_copy(update={"model": self.model.model_copy(update={"init": init})})

    def federation(self) -> Config:
        """Say as a configuration what its rounds are: all workers, at the scheduled rate."""
        return Config(
            seed=self.seed,
            rounds=self.rounds,
            work=self.work,
            schedule=self.schedule,
            cohort=CohortSpec(size=self.workers),
        )


def kept(recipe: Recipe, texts: Path) -> str:
    """Write what a run directory keeps, as JSON: the recipe, and where its texts are."""
    return json.dumps(recipe.model_dump(mode="json") | {TEXTS: str(texts.absolute())}, indent=2)


def pretrains(run: Run) -> bool:
    """Tell whether a run is of pre-training, even by a recipe that a newer version wrote."""
    return "epochs" in run.config


def recipe_of(run: Run) -> Recipe | None:
    """Return the recipe of a run; None if it is no pre-training run.

    Raises:
        ConfigError: if a recipe is kept that this version does not understand.
    """
    if not pretrains(run):
        return None
    table = {key: value for key, value in run.config.items() if key != TEXTS}
    return Recipe.from_table(table, f"{run.path}/{CONFIG}")


def texts_of(run: Run) -> Path:
    """Return the folder of texts that a run was begun with.

    Raises:
        ConfigError: if the run does not say.
    """
    folder = run.config.get(TEXTS)
    if not isinstance(folder, str):
        command = f"fedpilot pretrain RECIPE --data FOLDER --out {run.path}"
        raise ConfigError(f"{run.path} does not say where its texts are; go on with: {command}")
    return Path(folder)


def refuse_other(run: Run, recipe: Recipe) -> None:
    """Refuse to go on with a run by another recipe than the one it was begun with.

    Raises:
        ConfigError: naming the first key that differs.
    """
    begun = recipe_of(run)
    if begun is None:
        raise ConfigError(f"{run.path} holds a run that is no pre-training; choose another --out")
    before, now = dict(flat(begun.model_dump())), dict(flat(recipe.model_dump()))
    others = [key for key in before | now if before.get(key) != now.get(key)]
    if others:
        key, more = others[0], f" (and {len(others) - 1} more keys)" if others[1:] else ""
        raise ConfigError(
            f"{run.path} was begun by another recipe: {key} was {before.get(key)} and is"
            f" {now.get(key)}{more}; restore the recipe, or choose another --out"
        )


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested tables by its dotted key."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
