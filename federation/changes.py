"""What could have been otherwise in a round, and what that makes of its parts.

Knows configurations, decisions and reports.  Plays nothing: that is replays.py.  What is asked can
be checked without torch, which is imported where reports are at hand.

Shape suffixes: C clients, P flat parameters.
"""

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from federation.algorithms.settings import CENTRALISED, AlgorithmSpec
from federation.config import Config, describe
from federation.errors import ConfigError
from federation.runs.records import DecisionRecord
from federation.specs import LocalWork, Spec

if TYPE_CHECKING:
    from federation.algorithms.algorithm import Algorithm
    from federation.plan import Reports
    from federation.tree import Tree

REPEATS = 1000  # most of them
MOST_FACTOR = 1e6
Factor = Annotated[float, Field(gt=0, le=MOST_FACTOR)]
SHOWN = 10  # names of clients in an error
CLIENTS_PARTS = ("memory", "start", "correct", "report")  # what of an algorithm clients execute
NO_GLOBAL_MODEL = "has no global model that a what-if could judge: each client has its own"


class Change(Spec):
    """What is otherwise in the rounds that are played again; nothing, unless said."""

    drop: tuple[str, ...] = Field(default=(), description="clients that do not report")
    reweight: dict[str, Factor] = Field(
        default={}, description="client -> factor on its weight in the combine"
    )
    algorithm: str | None = Field(
        default=None,
        min_length=1,
        description="name of another algorithm, and its settings: krum:byzantine=2,...",
    )
    clip: float | None = Field(
        default=None, gt=0, description="largest L2 norm of a client's update (upload.clip)"
    )
    scale_lr: float | None = Field(
        default=None, gt=0, le=1e6, description="factor on the clients' learning rate"
    )
    steps: int | None = Field(
        default=None, ge=0, le=100_000, description="optimizer steps per client and round"
    )

    @model_validator(mode="after")
    def _who_is_dropped_has_no_weight(self) -> Self:
        """Refuse a client that is both left out and weighed."""
        both = sorted(set(self.drop) & self.reweight.keys())
        if both:
            raise ValueError(f"{both[0]} is dropped and reweighted; choose one of the two")
        return self

    @classmethod
    def of(cls, **changes: Any) -> Self:
        """Make a change of values that come from outside.

        Raises:
            ConfigError: naming the first that cannot be.
        """
        try:
            return cls.model_validate(changes)
        except ValidationError as error:
            raise ConfigError(f"what-if: {describe(error, cls)}") from None

    @property
    def described(self) -> dict[str, JsonValue]:
        """What is otherwise, as JSON values; empty if nothing is."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if value not in (None, [], {})}

    def config(self, config: Config) -> Config:
        """Change the algorithm and the upload of a configuration.

        Raises:
            ConfigError: if the settings of the algorithm cannot be read.
        """
        update: dict[str, Any] = {}
        if self.algorithm is not None:
            update["algorithm"] = algorithm_spec(self.algorithm)
        if self.clip is not None:
            update["upload"] = config.upload.model_copy(update={"clip": self.clip})
        return config.model_copy(update=update)

    def decision(self, decision: DecisionRecord) -> DecisionRecord:
        """Change what clients are asked for, and who is asked.

        Raises:
            ConfigError: if no client can be asked for that.
        """
        work = dict(decision.work)
        if self.scale_lr is not None:
            work["lr"] = float(str(work["lr"])) * self.scale_lr
        if self.steps is not None:
            work["steps"] = self.steps
        try:
            LocalWork.model_validate(work)
        except ValidationError as error:
            raise ConfigError(f"what-if: {describe(error, LocalWork)}") from None
        asked = tuple(client for client in decision.clients if client not in self.drop)
        at = [decision.clients.index(client) for client in asked]
        sizes, steps = decision.batch_sizes, decision.steps if self.steps is None else None
        return decision.model_copy(
            update={
                "work": work,
                "clients": asked,
                "batch_sizes": sizes and tuple(sizes[i] for i in at),
                "steps": steps and tuple(steps[i] for i in at),
            }
        )

    def reports(self, reports: "Reports") -> "Reports":
        """Change who reported and with which weight."""
        import torch

        stay = reports.only([client for client in reports.clients if client not in self.drop])
        factors = [self.reweight.get(client, 1.0) for client in stay.clients]
        factor_C = torch.tensor(factors, dtype=stay.weight_C.dtype)
        return replace(stay, weight_C=stay.weight_C * factor_C)

    def clipped(self, reports: "Reports") -> "Reports":
        """Clip updates that were reported as they are."""
        if self.clip is None:
            return reports
        from federation.algorithms.transforms import clip

        tree_C = {group: clip(x_C, self.clip) for group, x_C in reports.tree_C.items()}
        return replace(reports, tree_C=tree_C)

    def spares_training(self, config: Config) -> bool:
        """Tell whether clients would have trained just the same, so that their reports will do.

        Clipping leaves local training alone, but not the report: it can be made up for afterwards
        where the plain update is reported, and nothing packs or clips it.
        """
        if self.scale_lr is not None or self.steps is not None:
            return False
        from federation.algorithms.algorithm import report_delta
        from federation.training.build import plain_algorithm

        was, other = plain_algorithm(config), plain_algorithm(self.config(config))
        if not all(getattr(was, part) is getattr(other, part) for part in CLIENTS_PARTS):
            return False
        upload = config.upload
        untouched = upload.clip is None and upload.top_k is None and upload.bits is None
        return self.clip is None or (was.report is report_delta and untouched)

    def built(self, config: Config) -> "Algorithm":
        """Build the algorithm of the changed configuration.

        Raises:
            ConfigError: as :func:`federation.training.build.build_algorithm`, or if its clients
                have models of their own.
        """
        from federation.training.build import build_algorithm

        other = self.config(config)
        if self.algorithm is not None and other.algorithm.name == CENTRALISED:
            raise ConfigError(
                f"what-if: {CENTRALISED} trains one model on everybody's rows, which makes nothing"
                " of clients' reports; choose another algorithm"
            )
        algorithm = build_algorithm(other)
        if algorithm.is_personal:
            raise ConfigError(f"{self.algorithm or config.algorithm.name} {NO_GLOBAL_MODEL}")
        return algorithm

    def state(self, algorithm: "Algorithm", state: "Tree") -> "Tree":
        """Let the server of another algorithm begin at a state: what it alone has is fresh."""
        if self.algorithm is None:
            return state
        fresh = algorithm.init(state["params"])
        return {group: state.get(group, x) for group, x in fresh.items()}

    def check_clients(self, reported: Iterable[str], where: str) -> None:
        """Refuse clients that did not report.

        Raises:
            ConfigError: naming the first of them, and who did.
        """
        reported = sorted(set(reported))
        for name in (*self.drop, *self.reweight):
            if name not in reported:
                near = difflib.get_close_matches(name, reported, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                more = ", ..." if len(reported) > SHOWN else ""
                there = ", ".join(reported[:SHOWN]) + more
                raise ConfigError(f"no client {name} reported in {where}{hint} (it had {there})")


def algorithm_spec(text: str) -> AlgorithmSpec:
    """Read ``name`` or ``name:setting=value,setting=value``.

    Raises:
        ConfigError: if it is neither.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, sign, value = part.partition("=")
        try:
            settings[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            sign = ""
        if not (sign and key.strip()):
            raise ConfigError(
                f"what-if: {text!r} is no algorithm; write NAME or NAME:SETTING=NUMBER,...,"
                " for example krum:byzantine=2"
            )
    try:
        return AlgorithmSpec.of(name.strip() or text, settings)
    except ConfigError as error:
        raise ConfigError(f"what-if: {error}") from None


NOTHING = Change()
