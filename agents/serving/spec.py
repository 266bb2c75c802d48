"""How a run is served: what may be set, declared once."""

from typing import Literal

from pydantic import Field, ValidationError

from federation.config import describe
from federation.errors import ConfigError
from federation.specs import Spec


class ServeSpec(Spec):
    """How a run is served."""

    engine: Literal["vllm", "transformers"] = Field(default="vllm", description="which server")
    port: int = Field(default=0, ge=0, le=65535, description="where it listens (0: any free one)")
    keep: int = Field(
        default=2, ge=0, le=32, description="earlier rounds that stay loaded beside the one served"
    )
    start: float = Field(default=600.0, gt=0, le=7200, description="seconds until it answers")
    options: tuple[str, ...] = Field(
        default=(), description="further options of the server, as 'max-model-len=4096'"
    )

    @classmethod
    def of(cls, **values: object) -> "ServeSpec":
        """Read from values.

        Raises:
            ConfigError: naming what cannot be used.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"serve: {describe(error, cls)}") from None

    @property
    def arguments(self) -> list[str]:
        """The further options as arguments.

        Raises:
            ConfigError: if one is empty.
        """
        found: list[str] = []
        for option in self.options:
            name, sign, value = option.removeprefix("--").partition("=")
            if not name:
                raise ConfigError(f"--option {option!r}: write NAME or NAME=VALUE")
            found += [f"--{name}", value] if sign else [f"--{name}"]
        return found
