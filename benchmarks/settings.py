"""What is measured: settings (model, batch, lengths, adapters) and systems (theirs and ours).

Light: nothing here imports torch.
"""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from federation.specs import LoRASpec, Spec

Lengths = Literal["real", "128"]
Targets = Literal["q,v", "all-linear"]

# Hidden width, layers, heads, width of the MLP, vocabulary (output embedding tied to the input's).
SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    "5.9M": (256, 6, 4, 688, 4096),
    "27M": (512, 8, 8, 1376, 4096),
    "tiny": (32, 2, 4, 48, 96),
}

# Quantiles of the length of an example in tokens: the texts of Dolly 15k (Conover et al. 2023) at
# four bytes a token, cut at 512 tokens, which is what a run cuts them at if nothing else is asked.
QUANTILES = ((0.0, 8), (0.05, 19), (0.25, 50), (0.5, 113), (0.75, 237), (0.9, 426), (0.95, 512))
MEAN_LENGTH = {"real": 165, "128": 128}
PROMPT_SHARE = (0.2, 0.7)  # of an example that is prompt, so not supervised; drawn uniformly


class Setting(Spec):
    """One piece of work, given to every system."""

    shape: Literal["5.9M", "27M", "tiny"] = Field(description="size of the base model, a Llama")
    batch: int = Field(ge=1, description="examples a step")
    lengths: Lengths = Field(description="real: as in instruction data; 128: all of 128 tokens")
    targets: Targets = Field(description="modules with a LoRA adapter of rank 8")
    clients: int = Field(default=8, ge=1, description="clients of the round, all starting alike")
    steps: int = Field(ge=1, description="optimizer steps of each client")
    lr: float = Field(default=5e-4, gt=0, description="AdamW's learning rate")
    # With torch's 1e-8 the rounding error of a gradient that is almost zero would become a step.
    eps: float = Field(default=1e-6, gt=0, description="AdamW's denominator offset")

    @property
    def name(self) -> str:
        """Name the setting in a line."""
        lengths = "real lengths" if self.lengths == "real" else f"{self.lengths} tokens"
        return f"{self.shape}, batch {self.batch}, {lengths}, {self.targets}"

    @property
    def client_steps(self) -> int:
        """Optimizer steps of all clients together."""
        return self.clients * self.steps

    @property
    def lora(self) -> LoRASpec:
        """The adapters."""
        targets = "all-linear" if self.targets == "all-linear" else ("q_proj", "v_proj")
        return LoRASpec(rank=8, alpha=16, targets=targets)


class Peer(Spec):
    """A sequential PEFT loop: one client after another on one model that was loaded once."""

    side: Literal["peft"] = "peft"
    dtype: Literal["float32", "bfloat16"] = Field(description="of the base model")
    adapter: Literal["float32", "bfloat16", "autocast"] = Field(
        default="float32",
        description="dtype of adapters; autocast: float32 ones, the pass under torch.autocast",
    )
    attention: Literal["sdpa", "eager"] = "sdpa"
    logits: Literal["all", "supervised"] = Field(
        default="all",
        description="positions with logits; all: the model's own loss with labels of -100",
    )
    optimizer: Literal["default", "foreach", "fused"] = Field(
        default="default", description="implementation of torch.optim.AdamW"
    )

    @property
    def name(self) -> str:
        """Name the system in a line."""
        parts = [f"PEFT {self.dtype}"]
        if self.dtype == "bfloat16":
            parts.append(f"{self.adapter} adapters")
        parts += [self.attention, f"{self.logits} logits", f"{self.optimizer} AdamW"]
        return ", ".join(parts)


class Ours(Spec):
    """The local engine with so many clients a pass."""

    side: Literal["ours"] = "ours"
    dtype: Literal["float32", "bfloat16"] = Field(description="of the base model")
    chunk: int = Field(ge=1, description="clients a pass")

    @property
    def name(self) -> str:
        """Name the system in a line."""
        return f"ours {self.dtype}, {self.chunk} a pass"


System = Peer | Ours
SYSTEM = TypeAdapter[System](Annotated[System, Field(discriminator="side")])

OURS = tuple(Ours(dtype=d, chunk=c) for d, c in product(("float32", "bfloat16"), (1, 2, 4, 8)))
# Where the search for the fastest loop begins; the first is also what results are compared with.
PLAIN = Peer(dtype="float32")
STARTS = (
    PLAIN,
    *(Peer(dtype="bfloat16", adapter=a) for a in ("float32", "autocast", "bfloat16")),
)
CHOICES: dict[str, tuple[str, ...]] = {
    "attention": ("sdpa", "eager"),
    "logits": ("all", "supervised"),
    "optimizer": ("default", "foreach", "fused"),
}


def setting(shape: str, batch: int, lengths: Lengths, targets: Targets) -> Setting:
    """Make a setting of a few seconds a round: more steps where a step has few tokens."""
    steps = round(12_000 / (8 * batch * MEAN_LENGTH[lengths]))
    return Setting.model_validate(
        {
            "shape": shape,
            "batch": batch,
            "lengths": lengths,
            "targets": targets,
            "steps": min(max(steps, 3), 8),
        }
    )


def quick() -> list[Setting]:
    """List the settings of a few minutes."""
    return [setting("5.9M", batch, "real", "q,v") for batch in (1, 4)]


def full() -> list[Setting]:
    """List all settings."""
    shapes, batches = ("5.9M", "27M"), (1, 4, 8)
    narrow = [setting(*c, "q,v") for c in product(shapes, batches, ("real", "128"))]
    wide = [setting(*c, "real", "all-linear") for c in product(shapes, batches)]
    return narrow + wide
