"""The ``[pilot]`` table of a configuration: who decides, and how far."""

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from agents.canary import FELT
from agents.knobs import limits
from agents.policies.choosing import Choosing, Stopping
from agents.policies.optimizer import CMAES, TPE
from agents.policies.rules import Fixed, Null, Plateau
from agents.proposals import Policy
from agents.selection import SelectionSpec
from federation.config import Config, describe
from federation.errors import ConfigError
from federation.specs import Names, Spec, as_tuple

Range = Annotated[tuple[float, float], BeforeValidator(as_tuple)]

POLICIES: dict[str, Any] = {
    "fixed": Fixed,
    "heuristic": Plateau,
    "null": Null,
    "optimizer": TPE,
    "optimizer:tpe": TPE,
    "optimizer:cmaes": CMAES,
}

NEEDS = {TPE: "optuna", CMAES: "cmaes"}
ASKING = ("hybrid", "llm")
"""Policies that ask a language model."""
HUMAN = "human"
"""Policy that asks a person about what another one proposes: ``human:NAME``."""


class SyntheticSpec(Spec):
    """What is made up before the first round, of the built-in organisations, for a warm start."""

    size: int = Field(
        default=60, ge=1, le=100_000, description="rows that are made up for every organisation"
    )
    steps: int = Field(
        default=40,
        ge=1,
        le=100_000,
        description="optimizer steps that the server takes on all of them before the first round",
    )
    controls: int = Field(
        default=5,
        ge=3,
        le=50,
        description="trials on the same rows with their answers dealt out anew; the adapter is"
        " admitted as a start if the whole 95 % interval of its gain in validation loss, over"
        " these and over a fresh adapter, lies above zero",
    )
    examples: int = Field(default=60, ge=1, description="most validation examples that judge it")


class PilotSpec(Spec):
    """Who decides what a round should be, within which bounds."""

    policy: str = Field(
        default="heuristic",
        min_length=1,
        description="fixed | heuristic | optimizer:tpe | optimizer:cmaes | hybrid | llm | null;"
        " human:NAME asks a person about what NAME proposes (human: heuristic)",
    )
    patience: float | None = Field(
        default=None,
        gt=0,
        le=1e7,
        description="human: seconds to wait for an answer, then on_failure decides; omitted: for"
        " ever",
    )
    model: str | None = Field(
        default=None,
        description="llm and hybrid: whom to ask, 'openai:MODEL@http://127.0.0.1:8000/v1' for any"
        " server of that protocol, or 'scripted:FILE'; a key comes from an environment variable",
    )
    deadline: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        description="seconds that one answer may take, repairs included; a server that failed four"
        " times in a row in the same way is asked in every second round, then in every fourth, and"
        " so on, in every sixteenth at least",
    )
    share: float = Field(
        default=0.3, ge=0, le=1, description="hybrid: share of the rounds that the model may decide"
    )
    warmup: int = Field(default=4, ge=0, description="hybrid: rounds before the model is asked")
    bounds: dict[str, Range] = Field(
        default={},
        description="lr, steps, cohort_size, server_lr, mu: [lowest, highest]; others stay",
    )
    trust: float = Field(
        default=2.0, gt=1, le=100, description="largest factor by which a value moves in a round"
    )
    shadows: Names = Field(
        default=("fixed", "heuristic"),
        description="policies that are also asked; recorded, never applied",
    )
    smallest: int = Field(
        default=2, ge=1, description="figures of fewer clients than this are not shown to a policy"
    )
    max_client_steps: int | None = Field(
        default=None, ge=1, description="client-steps that the run may take in all"
    )
    max_calls: int | None = Field(
        default=None, ge=1, description="requests to the model that the run may make in all"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="tokens, in and out, that the run may spend in all"
    )
    selection: SelectionSpec | None = Field(
        default=None, description="how clients are chosen may be changed; omitted: it stays"
    )
    synthetic: SyntheticSpec | None = Field(
        default=None,
        description="a warm start on rows made up for the built-in organisations, if a gate finds"
        " that it helps; omitted: none",
    )
    stop: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="end the run after so many rounds without a gain beyond noise, not before"
        " twice as many; omitted: it never ends early",
    )
    rollback: float | None = Field(
        default=None,
        gt=1,
        le=1000,
        description="undo a round whose training loss is no number, or above so many times the"
        " best smoothed one; omitted: none is undone",
    )
    canary: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of a cohort that tries a move of lr, steps or mu before the rest: one"
        " by more than half of the trust region, by ratio, and the first of a language model;"
        " if their training loss is worse beyond noise, the values before stay; omitted: none",
    )
    on_failure: Literal["heuristic", "fixed"] = Field(
        default="heuristic", description="who decides when the policy fails or is refused"
    )

    @classmethod
    def of(cls, config: Config) -> "PilotSpec | None":
        """Read the pilot of a configuration; None if it has none.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        if not config.pilot:
            return None
        try:
            spec = cls.model_validate(config.pilot)
        except ValidationError as error:
            raise ConfigError(f"pilot: {describe(error, cls)}") from None
        if spec.selection and spec.selection.exclude and spec.smallest > 1:
            raise ConfigError(
                "pilot.selection.exclude takes evidence about single clients, and pilot.smallest ="
                f" {spec.smallest} keeps it back: set it to 1 if you may look, or exclude to 0"
            )
        if spec.canary and config.upload.noise is not None:
            raise ConfigError(
                "pilot.canary contradicts upload.noise: clients that train a round twice give away"
                " what the noise hides; drop one"
            )
        if spec.synthetic and config.upload.noise is not None:
            raise ConfigError(
                "pilot.synthetic contradicts upload.noise: its gate chooses what a run begins from"
                " by losses on clients' rows, which no noise protects; drop one, or train an"
                " adapter on rows of `fedpilot synthesize` for adapter.start"
            )
        if spec.canary and spec.bounds and not spec.bounds.keys() & set(FELT):
            raise ConfigError(
                f"pilot.canary tries {', '.join(FELT)}, and pilot.bounds opens none of them: open"
                " one, or drop pilot.canary"
            )
        return spec

    @classmethod
    def of_run(cls, config: Config) -> "PilotSpec | None":
        """Read the pilot of a run that began: what was to be made up before it is not read again.

        Older runs were told of that in keys which are not there any more.
        """
        pilot = {**config.pilot, "synthetic": None} if config.pilot else {}
        return cls.of(config.model_copy(update={"pilot": pilot}))

    @property
    def asks(self) -> bool:
        """Whether a person is asked before a proposal is applied."""
        return self.policy.partition(":")[0] == HUMAN

    @property
    def proposer(self) -> str:
        """Name of the policy that proposes."""
        return (self.policy.partition(":")[2] or "heuristic") if self.asks else self.policy

    def outer(self, config: Config, population: int) -> dict[str, tuple[float, float]]:
        """Return the outer limits of the open knobs.

        Without ``bounds`` the learning rate alone is open, a factor of ten both ways.

        Raises:
            ConfigError: if limits cannot be used.
        """
        lr = config.work.lr
        return limits(config, self.bounds or {"lr": (lr / 10, min(10.0, lr * 10))}, population)


def build_policy(name: str, knobs: int, spec: PilotSpec | None = None) -> Policy:
    """Turn the name of a policy into a policy.

    Args:
        name: one of :data:`POLICIES`, or "llm" or "hybrid", which ask a language model.
        knobs: how many are open.
        spec: whom to ask; a policy without it asks nobody.

    Raises:
        ConfigError: if there is no such policy, it cannot search so few knobs, or the model it is
            to ask cannot be used.
    """
    if name in ASKING and spec is not None:
        return asking(name, knobs, spec)
    if name not in POLICIES:
        there = ", ".join([*POLICIES, *((*ASKING, f"{HUMAN}:NAME") if spec else ())])
        raise ConfigError(f"pilot.policy: {name!r} is unknown; there are {there}")
    if POLICIES[name] is CMAES and knobs < 2:
        raise ConfigError(
            "pilot.policy 'optimizer:cmaes' needs two open knobs: add to pilot.bounds"
        )
    needed = NEEDS.get(POLICIES[name])
    if needed and find_spec(needed) is None:
        raise ConfigError(f"pilot.policy {name!r} needs {needed}: pip install 'fedpilot[pilot]'")
    policy: Policy = POLICIES[name]()
    return completed(policy, spec) if spec else policy


def completed(policy: Policy, spec: PilotSpec) -> Policy:
    """Let rules decide what a policy leaves open; the fixed one and the control leave it so."""
    if isinstance(policy, Fixed | Null):
        return policy
    if spec.selection is not None:
        policy = Choosing(policy)
    return Stopping(policy, spec.stop) if spec.stop else policy


def asking(name: str, knobs: int, spec: PilotSpec) -> Policy:
    """Build a policy that asks a language model."""
    from agents.policies.model import Adviser, Hybrid
    from llm_tools import LLMError, chat_model, chat_spec

    if spec.model is None:
        raise ConfigError(
            f"pilot.policy {name!r} needs pilot.model, whom to ask:"
            " 'openai:MODEL@http://127.0.0.1:8000/v1' or 'scripted:FILE'"
        )
    try:
        asked = chat_spec(spec.model)
        if asked.kind == "openai":  # one reply may take as long as the whole answer may
            longest = max(asked.timeout_s, spec.deadline)
            asked = asked.model_copy(update={"timeout_s": longest})
        adviser = Adviser(chat_model(asked), spec.model, spec.deadline)
    except LLMError as error:
        raise ConfigError(f"pilot.model: {error}") from None
    if name == "llm":
        return adviser
    search = completed(build_policy("optimizer:tpe", knobs), spec)
    return Hybrid(search, adviser, spec.share, spec.warmup)
