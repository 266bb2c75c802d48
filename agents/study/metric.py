"""What arms are compared by: figures that a run has, and which direction is better."""

from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from federation.config import Config
from federation.errors import ConfigError
from federation.specs import Spec

Direction = Literal["lower", "higher"]


class Metric(NamedTuple):
    """A figure of a global model on a split.

    Attributes:
        direction: which of two is better.
        needs: what ``evaluation.metrics`` has to name.
        unit: in words, for an axis.
    """

    direction: Direction
    needs: str
    unit: str


METRICS = {
    "nll": Metric("lower", "nll", "nats per token"),
    "nll_per_byte": Metric("lower", "nll", "nats per byte"),
    "bits_per_byte": Metric("lower", "nll", "bits per byte"),
    "perplexity": Metric("lower", "nll", "per token"),
    "exact_match": Metric("higher", "exact_match", "share of the answers"),
    "rouge_l": Metric("higher", "rouge_l", "F-measure"),
    "choice_accuracy": Metric("higher", "choice", "share of the questions"),
    "choice_accuracy_per_byte": Metric("higher", "choice", "share of the questions"),
}


class MetricSpec(Spec):
    """What arms are compared by."""

    name: str = Field(min_length=1, description=", ".join(METRICS))
    direction: Direction = Field(description="which of two figures is better")

    @model_validator(mode="after")
    def _exists(self) -> Self:
        """Refuse what is not measured, and a direction that is a slip."""
        if self.name not in METRICS:
            raise ValueError(f"name {self.name!r} is not measured; there are {', '.join(METRICS)}")
        right = METRICS[self.name].direction
        if self.direction != right:
            raise ValueError(
                f"direction {self.direction!r}: {self.name} is better when it is {right}; write"
                f" '{right}'"
            )
        return self

    @property
    def unit(self) -> str:
        """Of its figures, in words."""
        return METRICS[self.name].unit

    def improvement(self, arm: float, control: float) -> float:
        """Return by how much an arm is better than the control, or worse if negative."""
        return arm - control if self.direction == "higher" else control - arm

    def best(self, figures: dict[str, float]) -> str:
        """Return whose figure is the best; the first of equals."""
        sign = -1 if self.direction == "higher" else 1
        return min(figures, key=lambda name: sign * figures[name])

    def check(self, config: Config, where: str) -> None:
        """Refuse a configuration without the figures that a study lives on.

        Raises:
            ConfigError: saying which and what to do.
        """
        needed = METRICS[self.name].needs
        if needed not in config.evaluation.metrics:
            raise ConfigError(
                f"{where}: metric {self.name} is not measured; add {needed!r} to evaluation.metrics"
                " of the base"
            )
        split = config.data.split
        judged = split.test or split.global_test or config.data.clients.test_key
        for name, rows in (("validation", split.validation), ("test", judged)):
            if not rows:
                raise ConfigError(
                    f"{where}: data.split.{name} is 0; arms are steered by validation and judged on"
                    " test, so both need rows"
                )
        if config.algorithm.name == "local":
            raise ConfigError(f"{where}: algorithm.name 'local' has no global model to compare")
