"""The configuration of a run: one TOML file, one frozen typed value, unknown keys refused.

Light: nothing here imports torch, so commands that only read or show a configuration start at once.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from federation.algorithms.settings import AlgorithmSpec
from federation.cohort.devices import DevicesSpec
from federation.cohort.selection import CohortSpec
from federation.data.partition import ClientsSpec
from federation.data.splits import SplitSpec
from federation.errors import ConfigError
from federation.specs import (
    EngineSpec,
    FullSpec,
    LocalWork,
    LoRASpec,
    ModelSpec,
    Names,
    ScheduleSpec,
    Spec,
    got,
    lower_first,
    wanted,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ORGANISATIONS = "organisations"  # data.source of the built-in client data
BY_LOSS = ("power_of_choice", "oort")  # rules that choose by what clients report


class DataSpec(Spec):
    """Where the text comes from, how a row becomes prompt and response, and who holds it."""

    source: str = Field(
        default=ORGANISATIONS,
        min_length=1,
        description="file, glob, folder or hub data set; 'organisations' is built in",
    )
    extra: str | None = Field(
        default=None,
        min_length=1,
        description="a further source whose rows are trained on and never tested on: those of the"
        ' client that their key names (clients.by = "key"); synthetic data, for example',
    )
    extra_fields: dict[str, str] = Field(
        default={},
        description="fields of this data under which those of extra rows are read, where names"
        ' differ: {site = "client", note = "instruction"}',
    )
    prompt: str | None = Field(default=None, description="template over a row's fields; not learnt")
    response: str | None = Field(default=None, description="template over a row's fields; learnt")
    text: str | None = Field(default=None, description="instead of both: all of it is learnt")
    text_unit: Literal["line", "document"] = Field(
        default="line", description="what one example of a plain text file is"
    )
    choices: str | Names = Field(
        default=(), description="answers of a choice task: a list, or '{field}'"
    )
    chat: bool = Field(
        default=False, description="write prompt and response as the tokenizer's chat turns"
    )
    separator: str = Field(default="\n", description="text between prompt and response")
    max_tokens: int = Field(default=512, ge=8, le=1_000_000, description="longest example")
    count: int = Field(default=12, ge=1, le=10_000, description="organisations: how many")
    examples: int = Field(
        default=6000, ge=1, le=100_000_000, description="organisations: rows in all"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="decides what the built-in organisations are, how rows become clients, splits,"
        " unseen clients and which examples are evaluated; the run's seed if omitted",
    )
    clients: ClientsSpec = Field(default_factory=lambda: ClientsSpec.model_validate({}))
    split: SplitSpec = Field(default_factory=lambda: SplitSpec.model_validate({}))

    @model_validator(mode="after")
    def _count_and_examples_are_of_the_built_in_data(self) -> Self:
        """Refuse what another source would ignore."""
        for name in ("count", "examples"):
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and self.source != ORGANISATIONS:
                raise ValueError(
                    f"{name} is of source = {ORGANISATIONS!r} alone; remove it"
                    " (clients.count is the number of clients, evaluation.max_examples of tests)"
                )
        return self


class UploadSpec(Spec):
    """What happens to a client's update before it travels."""

    clip: float | None = Field(
        default=None, gt=0, description="largest L2 norm of a client's update"
    )
    noise: float | None = Field(
        default=None,
        gt=0,
        description="noise multiplier: Gaussian noise of std noise * clip on the sum",
    )
    top_k: float | None = Field(default=None, gt=0, le=1, description="share of the values sent")
    bits: Literal[4, 8] | None = Field(
        default=None, description="stochastic quantisation of what is sent"
    )

    @model_validator(mode="after")
    def _noise_needs_clip(self) -> Self:
        """Noise is measured in units of the clipping norm."""
        if self.noise is not None and self.clip is None:
            raise ValueError("noise needs clip: its size is a multiple of the clipping norm")
        return self


class EvaluationSpec(Spec):
    """What is measured, on what, how often."""

    every: int = Field(
        default=5, ge=1, description="rounds between evaluations; the last always is"
    )
    metrics: Annotated[
        tuple[Literal["nll", "exact_match", "rouge_l", "choice"], ...],
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = Field(
        default=("nll",),
        min_length=1,
        description="exact_match and rouge_l generate; choice scores the choices",
    )
    max_examples: int = Field(
        default=512, ge=1, description="most examples of each split; the same ones every time"
    )
    max_new_tokens: int = Field(default=32, ge=1, le=4096, description="longest generated answer")
    baselines: Annotated[
        tuple[Literal["local", "centralised"], ...],
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = Field(default=(), description="also train each client alone, or one model on all data")


class Config(Spec):
    """Everything that decides a run."""

    seed: int = Field(
        default=0,
        ge=0,
        le=2**63 - 1,
        description="first part of every random address; data.seed holds the federation still",
    )
    rounds: int = Field(
        default=20, ge=1, le=1_000_000, description="rounds of send, train, combine, step"
    )
    model: ModelSpec = Field(default_factory=lambda: ModelSpec.model_validate({}))
    adapter: Annotated[LoRASpec | FullSpec, Field(discriminator="kind")] = Field(
        default_factory=lambda: LoRASpec.model_validate({})
    )
    data: DataSpec = Field(default_factory=lambda: DataSpec.model_validate({}))
    algorithm: AlgorithmSpec = Field(default_factory=lambda: AlgorithmSpec.model_validate({}))
    work: LocalWork = Field(default_factory=lambda: LocalWork.model_validate({}))
    schedule: ScheduleSpec = Field(default_factory=lambda: ScheduleSpec.model_validate({}))
    cohort: CohortSpec = Field(default_factory=lambda: CohortSpec.model_validate({}))
    devices: DevicesSpec = Field(default_factory=lambda: DevicesSpec.model_validate({}))
    upload: UploadSpec = Field(default_factory=lambda: UploadSpec.model_validate({}))
    evaluation: EvaluationSpec = Field(default_factory=lambda: EvaluationSpec.model_validate({}))
    engine: EngineSpec = Field(default_factory=lambda: EngineSpec.model_validate({}))
    pilot: dict[str, JsonValue] = Field(
        default={}, description="who decides what a round should be (agents.spec)"
    )

    @model_validator(mode="after")
    def _metrics_fit_the_data(self) -> Self:
        """Refuse metrics that the data has nothing for, before anything is trained."""
        metrics, data = self.evaluation.metrics, self.data
        generated = [name for name in metrics if name in ("exact_match", "rouge_l")]
        if data.text is not None and generated:
            raise ValueError(
                f"evaluation.metrics: {generated[0]} compares answers, and data.text has no"
                " questions; give data.prompt and data.response, or drop it"
            )
        if "choice" in metrics and not data.choices:
            raise ValueError(
                "evaluation.metrics: choice scores given answers; set data.choices or drop it"
            )
        return self

    @model_validator(mode="after")
    def _noise_protects_the_cohort_too(self) -> Self:
        """Who is chosen by what clients report gives away what noise on the updates hides."""
        if self.upload.noise is not None and self.cohort.rule in BY_LOSS:
            raise ValueError(
                f"upload.noise: cohort.rule = {self.cohort.rule!r} chooses clients by the losses"
                " they report, which no noise protects; choose uniform, round_robin or deadline"
            )
        return self

    @model_validator(mode="after")
    def _noise_protects_what_is_kept(self) -> Self:
        """A client's update on the disk is what noise on the sum of them is to hide."""
        if self.upload.noise is not None and self.engine.keep_updates:
            raise ValueError(
                "engine.keep_updates: single clients' updates would lie on the disk, which"
                " upload.noise is there to hide; set it to 0, or drop the noise"
            )
        return self

    @model_validator(mode="after")
    def _centralised_baseline_is_possible(self) -> Self:
        """The centralised baseline makes the steps of a whole cohort, within the same bound."""
        if "centralised" in self.evaluation.baselines:
            steps, size = self.work.steps, self.cohort.size
            try:
                LocalWork.model_validate({"steps": steps * size})
            except ValidationError as error:
                must = wanted(error.errors()[:1], LocalWork.model_fields["steps"])
                raise ValueError(
                    f"evaluation.baselines: centralised makes work.steps x cohort.size ="
                    f" {steps * size} steps a round, which {must}; lower one, or drop it"
                ) from None
        return self

    @property
    def data_seed(self) -> int:
        """The seed of the federation: who there is, who holds which row, what is judged."""
        return self.seed if self.data.seed is None else self.data.seed

    def under(self, seed: int) -> "Config":
        """Return the same federation's run under another seed: drawn anew is how it trains."""
        data = self.data.model_copy(update={"seed": self.data_seed})
        return self.model_copy(update={"seed": seed, "data": data})

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Config":
        """Read a TOML file; ``overrides`` are ``"work.lr=0.01"`` strings, TOML on the right.

        Raises:
            ConfigError: if the file cannot be read, is not TOML or holds what is not allowed.
        """
        table = read_toml(Path(path))
        for override in overrides:
            set_key(table, override)
        return cls.from_table(table, str(path))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], origin: str = "configuration") -> "Config":
        """Build a configuration from nested tables.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        tables = {"adapter": {"kind": "lora"}} | dict(table)
        if isinstance(tables["adapter"], Mapping):
            tables["adapter"] = {"kind": "lora"} | dict(tables["adapter"])
        try:
            return cls.model_validate(tables)
        except ValidationError as error:
            raise ConfigError(f"{origin}: {describe(error, cls)}") from None


def read_toml(path: Path, hint: str = "`fedpilot init` writes one") -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file.
        hint: where one comes from, if it is not there.

    Raises:
        ConfigError: if it is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def set_key(table: dict[str, Any], override: str) -> None:
    """Set ``a.b=value`` in nested tables; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: if there is no ``=`` or a part of the key is not a table.
    """
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {override!r}: write it as key=value, for example work.lr=0.01")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {parent} is not a table")
    table[last] = value


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first thing that is wrong, in one line."""
    first = error.errors()[0]
    known = list(keys(model))
    if first["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in first["loc"] if part not in ("lora", "full"))
        if key in known:
            return f"{key} is of no use with what else is set; remove it"
        return f"unknown key {key}{meant(key, known)}"
    # What pydantic says beside keys (which branch of a union it tried) is of no use to a person.
    names = {name for key in known for name in key.split(".")}

    def key_of(error: "ErrorDetails") -> tuple[str | int, ...]:
        found = tuple(x for x in error["loc"] if x in names or isinstance(x, int))
        return (*found, "kind") if error["type"].startswith("union_tag") else found

    if first["type"] in ("value_error", "assertion_error"):
        key, message = ".".join(map(str, key_of(first))), first["msg"].removeprefix("Value error, ")
        return f"{key}: {lower_first(message)}" if key else message
    # Of the branches of a union, the one that came furthest knows best what is wrong.
    about = [x for x in error.errors() if key_of(x)[: len(key_of(first))] == key_of(first)]
    deepest = max(map(key_of, about), key=len)
    same = [x for x in about if key_of(x) == deepest]
    must = wanted(same, field_at(model, deepest))
    key, value = ".".join(map(str, deepest)), same[0].get("input")
    if first["type"].startswith("union_tag") and isinstance(value, Mapping):
        value = value.get("kind")
    if same[0]["type"] == "missing":
        return f"{key} {must}"
    return f"{key} {must}, got {got(value)}"


def field_at(model: type[BaseModel], key: Sequence[str | int]) -> FieldInfo | None:
    """Find what a key, taken apart, is declared as; None of an item of a list."""
    field = model.model_fields.get(str(key[0])) if key else None
    if field is None or len(key) == 1:
        return field
    inner = (field_at(x, key[1:]) for x in models_in(field.annotation))
    return next((x for x in inner if x is not None), None)


def meant(key: str, known: Sequence[str]) -> str:
    """Say which key may have been meant, or else which ones its table has."""
    table, _, last = key.rpartition(".")
    parts = {name: name.rpartition(".") for name in known}
    beside = {own: name for name, (above, _, own) in parts.items() if above == table}
    anywhere = {own: name for name, (_, _, own) in parts.items()}
    for names in (beside, anywhere):
        if near := difflib.get_close_matches(last, names, n=1):
            return f"; did you mean {names[near[0]]}?"
    return f"; {table} has {', '.join(sorted(beside))}" if table and beside else ""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a model, nested ones included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in models_in(field.annotation):
            yield from keys(inner, f"{prefix}{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a field's annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)
