"""Quantities that are declared once: type, bound, unit and meaning.

Validation, ``--help``, the configuration file's comments and forms are all derived from these
fields.
Light: nothing here imports torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WORDS = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "missing": "given",
}
"""What pydantic's complaints mean to a person."""


class Spec(BaseModel):
    """A frozen table of bounded fields; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def as_tuple(value: Any) -> Any:
    """Let TOML's arrays be tuples."""
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)]


def wanted(errors: Sequence["ErrorDetails"], field: FieldInfo | None = None) -> str:
    """Say what a value should have been, in our words.

    Args:
        errors: pydantic's about one value: several, if it may be one thing or another.
        field: what the value was for; its bounds are named, and its meaning.

    Returns:
        As ``"must be a number above 0 and at most 10 (client learning rate)"``.
    """
    meant = " or ".join(dict.fromkeys(_wanted(error, field) for error in errors))
    why = f" ({field.description})" if field and field.description else ""
    return f"must be {meant}{why}"


def _wanted(error: "ErrorDetails", field: FieldInfo | None) -> str:
    """Say what one branch of a field's type takes."""
    kind, ctx = error["type"], error.get("ctx", {})
    limits = {x: ctx[x] for x in ("gt", "ge", "lt", "le") if x in ctx}
    for mark in field.metadata if field else ():
        found = {x: getattr(mark, x, None) for x in ("gt", "ge", "lt", "le")}
        limits |= {x: bound for x, bound in found.items() if bound is not None}
    types = (field.annotation, *get_args(field.annotation)) if field and limits else ()
    types = types or (type(error["input"]),)  # an item of a list
    whole = kind.startswith("int") or int in (getattr(x, "__origin__", x) for x in types)
    if limits or kind.startswith(("int", "float", "finite")):
        return f"a {'whole' if whole else 'finite'} number{between(limits)}"
    if kind in ("literal_error", "enum"):
        return str(ctx["expected"])
    if kind == "string_pattern_mismatch":
        return f"text of the form {ctx['pattern']}"
    if kind == "string_too_long":
        return f"text of at most {ctx['max_length']} characters"
    if kind.startswith("too_"):
        return f"a list of {ctx.get('min_length', ctx.get('max_length'))} or more"
    return WORDS.get(kind) or lower_first(error["msg"].removeprefix("Input should be "))


def between(limits: Mapping[str, Any]) -> str:
    """Write bounds: ``" from 1 to 10"``, ``" above 0 and below 1"``."""
    shown = {name: f"{x:.15g}" if isinstance(x, float) else f"{x}" for name, x in limits.items()}
    if {"ge", "le"} <= shown.keys():
        return f" from {shown['ge']} to {shown['le']}"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    parts = [f"{word} {shown[name]}" for name, word in words.items() if name in shown]
    return f" {' and '.join(parts)}" if parts else ""


def lower_first(sentence: str) -> str:
    """Lower the first letter of a sentence."""
    return sentence[:1].lower() + sentence[1:]


def got(value: Any) -> str:
    """Show a value as a person wrote it; of a list or a table only that it is one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return "a table" if isinstance(value, Mapping) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}\u2026"


class ModelSpec(Spec):
    """The frozen base model."""

    base: str = Field(
        default="nano",
        min_length=1,
        description="'nano' (built in), a folder in Hugging Face format, or a hub id",
    )
    dtype: Literal["auto", "bfloat16", "float32", "float64"] = Field(
        default="auto",
        description="of weights and activations; auto: bfloat16 where it is native",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where clients train; auto: a CUDA GPU where there is one"
    )


class LoRASpec(Spec):
    """A LoRA adapter: where it sits and how large it is."""

    kind: Literal["lora"] = Field(default="lora", description="what is trained")
    rank: int = Field(default=8, ge=1, le=512, description="rank r of every adapted module")
    alpha: float = Field(
        default=16.0, gt=0, le=4096, description="numerator of the scale alpha / rank"
    )
    rslora: bool = Field(
        default=False, description="scale by alpha / sqrt(rank) instead of alpha / rank"
    )
    targets: Literal["all-linear"] | Names = Field(
        default=("q_proj", "v_proj"), description="names of the modules to adapt, or 'all-linear'"
    )
    start: str | None = Field(
        default=None,
        min_length=1,
        description="folder of a PEFT adapter of this rank to start from (a warm start)",
    )

    @field_validator("targets")
    @classmethod
    def _something_is_adapted(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Refuse an adapter without a single module."""
        if not targets:
            raise ValueError("is empty; name one module at least, or 'all-linear'")
        return targets

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class FullSpec(Spec):
    """Training of all parameters of the model."""

    kind: Literal["full"] = Field(default="full", description="what is trained")


class LocalWork(Spec):
    """What one client does in one round."""

    lr: float = Field(
        default=1e-3, gt=0, le=10, description="client learning rate, per optimizer step"
    )
    steps: int = Field(
        default=10, ge=0, le=100_000, description="optimizer steps per client and round"
    )
    batch_size: int = Field(default=8, ge=1, le=4096, description="examples per optimizer step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="local optimizer")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="SGD momentum (AdamW ignores it)")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW decay of the second moment")
    eps: float = Field(default=1e-8, ge=1e-30, le=1, description="AdamW denominator offset")
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, description="decoupled weight decay, per unit of lr"
    )
    max_grad_norm: float | None = Field(
        default=None, gt=0, description="clip each client's gradient to this L2 norm at every step"
    )
    keep_optimizer: bool = Field(
        default=False, description="optimizer moments stay with the client between rounds (DiLoCo)"
    )


class ScheduleSpec(Spec):
    """The client learning rate over rounds: a factor on ``work.lr``."""

    kind: Literal["constant", "cosine", "linear", "wsd"] = Field(
        default="constant",
        description="shape after warm-up; wsd: constant, then linear decay in the last part",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the rounds spent warming up linearly"
    )
    decay: float = Field(
        default=0.2, gt=0, le=1, description="wsd: share of the rounds after warm-up spent decaying"
    )
    floor: float = Field(default=0.0, ge=0, le=1, description="factor at the end of the decay")

    def factor(self, round: int, rounds: int) -> float:
        """Return the factor on the learning rate in round ``round`` of ``rounds``."""
        warmup = self.warmup * rounds
        if round + 1 <= warmup:
            return (round + 1) / (warmup + 1)
        # At most 1: a warm-up may end within a round, behind whose middle it would be more.
        left = min(1.0, 1 - (round + 0.5 - warmup) / (rounds - warmup))
        if self.kind == "cosine":
            share = (1 - math.cos(math.pi * left)) / 2
        elif self.kind == "constant":
            share = 1.0
        else:
            share = min(1.0, left / self.decay) if self.kind == "wsd" else left
        return self.floor + (1 - self.floor) * max(0.0, share)


class EngineSpec(Spec):
    """How the local engine uses this machine; never changes what is computed."""

    chunk: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="clients trained in one pass; auto: measured once at the start of a run",
    )
    token_budget: int = Field(
        default=65_536,
        ge=128,
        description="most tokens, padding included, in memory at once when chunk is auto",
    )
    keep_updates: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="newest rounds whose updates stay on disk, client by client, for what-if",
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads; 0: as many as torch finds"
    )
