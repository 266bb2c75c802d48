"""Which algorithms there are and what can be set of each, checked before anything is built.

A setting is declared once, here, with its default, its bounds and its meaning; validation, schemas,
forms and the algorithm's own defaults are all derived from that line.  Light: nothing here imports
torch.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from federation.errors import ConfigError
from federation.specs import got, wanted

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Mu = Annotated[float, Field(ge=0, le=1e6, description="strength of the pull to what was sent")]
ServerLR = Annotated[float, Field(gt=0, le=100, description="server learning rate")]
Decay = Annotated[float, Field(ge=0, lt=1, description="decay of a moving average, per round")]
Tau = Annotated[float, Field(gt=0, le=1, description="adaptivity: added to the root of v")]
FirstV = Annotated[
    float | None,
    Field(ge=0, description="v before the first round; tau squared, as in the paper, if omitted"),
]
BiasCorrection = Annotated[
    Literal["none", "flower"],
    Field(description="none: the paper's; flower: scale the step as Flower's FedAdam does"),
]
Trim = Annotated[
    float,
    Field(gt=0, lt=0.5, description="share of the clients left out at either end of every value"),
]
Byzantine = Annotated[
    int, Field(ge=0, le=10_000, description="f, how many clients of a round may be wrong")
]
Selected = Annotated[
    int | None,
    Field(ge=1, description="m, how many updates are averaged; all but f of them if omitted"),
]


@dataclass(frozen=True)
class Nothing:
    """Nothing is to be set."""


@dataclass(frozen=True)
class FedProx:
    """Settings of fedprox."""

    mu: Mu = 0.01


@dataclass(frozen=True)
class FedAvgM:
    """Settings of fedavgm."""

    server_lr: ServerLR = 1.0
    momentum: Decay = 0.9


@dataclass(frozen=True)
class FedAdagrad:
    """Settings of fedadagrad."""

    server_lr: ServerLR = 0.1
    beta1: Decay = 0.0
    tau: Tau = 1e-3
    v0: FirstV = None


@dataclass(frozen=True)
class FedYogi:
    """Settings of fedyogi."""

    server_lr: ServerLR = 0.1
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Tau = 1e-3
    v0: FirstV = None


@dataclass(frozen=True)
class FedAdam(FedYogi):
    """Settings of fedadam."""

    bias_correction: BiasCorrection = "none"


@dataclass(frozen=True)
class Scaffold:
    """Settings of scaffold."""

    server_lr: ServerLR = 1.0


@dataclass(frozen=True)
class FedNova:
    """Settings of fednova."""

    mu: Mu = 0.0


@dataclass(frozen=True)
class DiLoCo:
    """Settings of diloco."""

    server_lr: ServerLR = 0.7
    momentum: Decay = 0.9


@dataclass(frozen=True)
class TrimmedMean:
    """Settings of trimmedmean."""

    trim: Trim = 0.1


@dataclass(frozen=True)
class Krum:
    """Settings of krum."""

    byzantine: Byzantine = 1


@dataclass(frozen=True)
class MultiKrum(Krum):
    """Settings of multikrum."""

    selected: Selected = None


SETTINGS: Mapping[str, Callable[..., object]] = {
    "fedavg": Nothing,
    "fedprox": FedProx,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedyogi": FedYogi,
    "fedadam": FedAdam,
    "scaffold": Scaffold,
    "fednova": FedNova,
    "diloco": DiLoCo,
    "median": Nothing,
    "trimmedmean": TrimmedMean,
    "krum": Krum,
    "multikrum": MultiKrum,
    "local": Nothing,
}
"""Of every algorithm; ``catalogue.py`` has the functions of these names, with these defaults."""
CENTRALISED = "centralised"
"""FedAvg with one client that holds everything."""


class AlgorithmSpec(BaseModel):
    """The federated algorithm and its settings, which depend on its name."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field(
        default="fedavg", min_length=1, description=", ".join((*SETTINGS, CENTRALISED))
    )

    @field_validator("name")
    @classmethod
    def _there_is_one(cls, name: str) -> str:
        """Refuse what is none, before anything is imported that could build it."""
        if name not in (known := (*SETTINGS, CENTRALISED)):
            raise ValueError(unknown_name("algorithm", name, known))
        return name

    @model_validator(mode="after")
    def _settings_are_its_own(self) -> Self:
        """Refuse settings that it has not, or out of bounds."""
        try:
            validated(declared(self.name), self.settings, self.name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Make one of a name and settings that come from outside.

        Raises:
            ConfigError: as :func:`check_settings`.
        """
        check_settings(name, settings)
        return cls.model_validate({"name": name, **settings})

    @property
    def settings(self) -> dict[str, Any]:
        """Settings beside the name."""
        return dict(self.__pydantic_extra__ or {})


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an algorithm, checked.

    Raises:
        ConfigError: if the name or a setting is unknown, or a setting is out of bounds.
    """
    return validated(declared(name), settings, f"algorithm {name!r}")


def settings_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of an algorithm's settings.

    Raises:
        ConfigError: if the name is unknown.
    """
    return settings_model(declared(name)).model_json_schema()


def declared(name: str) -> Callable[..., object]:
    """Return what takes the settings of an algorithm.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name == CENTRALISED:
        return Nothing
    if name not in SETTINGS:
        raise ConfigError(unknown_name("algorithm", name, SETTINGS))
    return SETTINGS[name]


@cache
def settings_model(function: Callable[..., object]) -> type[BaseModel]:
    """Return the model of a function's keyword arguments: those that have a default."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return create_model(function.__name__, __config__=STRICT, **fields)


def validated(
    function: Callable[..., object], settings: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Check settings against the signature of the function they are meant for.

    Args:
        function: whose parameters with a default are the settings.
        settings: values by name.
        where: what the settings belong to, for the error, such as ``"algorithm 'fedprox'"``.

    Raises:
        ConfigError: naming the first setting that is unknown or out of bounds.
    """
    model = settings_model(function)
    unknown = [name for name in settings if name not in model.model_fields]
    if unknown:
        raise ConfigError(f"{where}: {unknown_name('setting', unknown[0], model.model_fields)}")
    try:
        checked = model.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        same = [x for x in error.errors() if x["loc"][0] == name]
        must = wanted(same, model.model_fields[name])
        raise ConfigError(f"{where}: {name} {must}, got {got(first['input'])}") from None
    return {name: getattr(checked, name) for name in settings}


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, which one may have been meant, and which there are."""
    known = sorted(known)
    if not known:
        return f"unknown {kind} {name!r}; there are none"
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{meant} known: {', '.join(known)}"
