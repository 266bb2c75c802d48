"""What was decided before the first round on made-up rows, as the first decision keeps it.

Knows the record and where a run keeps it; the rows are made in :mod:`agents.synthesis.warm`.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue, ValidationError

from agents.knobs import RECORD
from federation.errors import CorruptError
from federation.runs import storage
from federation.runs.folder import MADE_UP

DECISION = "decision.json"
DETAIL = "synthetic"
"""Key of the first decision's details."""


class MadeUp(BaseModel):
    """Whether what a run begins from was trained on made-up rows.

    Older runs had rows made up for clients that hold little, to train on themselves
    (policy "fill-up@1"); what was decided on them is read as the same record.

    Attributes:
        source: who decided, as of any decision.
        policy: name and version of the rule.
        population: clients that train.
        asked: client -> made-up rows it was to have; empty if there was nothing to make.
        made: rows that came of it.
        steps: optimizer steps of the server on them.
        admitted: whether the run uses them.
        gain: by how much the loss on the validation split is lower with the rows than with the
            better control, nats per token; None if a trial diverged, or there was nothing to judge.
        low: lower end of its interval; None if an older run's first pair alone said enough.
        high: upper end; None where the lower is.
        pairs: of an older run's gate.
        controls: trials on the same rows with other answers.
        seconds: that making and judging took.
    """

    model_config = RECORD

    source: str = "heuristic"
    policy: str
    population: int = Field(ge=1)
    asked: dict[str, int]
    made: int = Field(default=0, ge=0)
    steps: int = Field(default=0, ge=0)
    admitted: bool = False
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = Field(default=0, ge=0)
    controls: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)

    @property
    def words(self) -> str:
        """Say it in one line."""
        if not self.asked:
            return "nothing: no client holds little"
        what = f"{self.made} rows for {', '.join(self.asked)}"
        how = f"as a warm start of {self.steps} steps" if self.steps else "to train on"
        took = f", in {self.seconds:.1f} s" if self.seconds else ""
        verdict = f"{'' if self.admitted else 'not '}admitted {how}"
        if self.gain is None:
            return f"{what}; {verdict}: a trial diverged{took}"
        gain = f"{what}; {verdict}: gain {self.gain:+.4f} nats per token of validation"
        if self.low is None or self.high is None:
            return f"{gain} in a first pair of trials; no further pair could have them admitted"
        ends = f"{self.low:+.4f} to {self.high:+.4f}"
        over = f"{self.controls} controls" if self.controls else f"{self.pairs} pairs of trials"
        return f"{gain}, {ends} over {over}{took}"


def of_details(details: Mapping[str, JsonValue]) -> MadeUp | None:
    """Read it from the details of a decision; another fedpilot may say more."""
    try:
        return MadeUp.model_validate(details.get(DETAIL), extra="ignore")
    except ValidationError:
        return None


def made_up_of(run: Path) -> MadeUp | None:
    """Read what was decided before a run began; None if nothing was.

    Raises:
        CorruptError: if it cannot be understood.
    """
    file = run / MADE_UP / DECISION
    if not file.exists():
        return None
    with storage.explained(file):
        text = file.read_bytes()
    try:
        return MadeUp.model_validate_json(text, extra="ignore")
    except ValidationError:
        raise CorruptError(f"{file} is damaged; restore it from a copy") from None
