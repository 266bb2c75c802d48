"""What was decided before the first round on made-up rows, as the first decision keeps it.

Knows the record and where a run keeps it; the rows are made in :mod:`agents.synthesis.fill`.
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


class Filling(BaseModel):
    """Whether clients that hold little train on made-up rows too.

    Attributes:
        source: who decided, as of any decision.
        policy: name and version of the rule.
        population: clients that train.
        mean: training rows that they hold on average.
        asked: client -> made-up rows it was to have; empty if none holds little.
        made: rows that came of it.
        admitted: whether clients train on them.
        gain: by how much the loss of the gate's runs on the validation split is lower with the
            rows, nats per token; None if a run diverged, or there was nothing to judge.
        low: lower end of its interval; None if the first pair alone said enough.
        high: upper end; None where the lower is.
        pairs: of the gate's runs, with and without the rows.
        rounds: of each of them.
    """

    model_config = RECORD

    source: str = "heuristic"
    policy: str
    population: int = Field(ge=1)
    mean: float = Field(gt=0)
    asked: dict[str, int]
    made: int = Field(default=0, ge=0)
    admitted: bool = False
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = Field(default=0, ge=0)
    rounds: int = Field(default=0, ge=0)

    @property
    def words(self) -> str:
        """Say it in one line."""
        if not self.asked:
            return f"nothing: no client holds much less than the {self.mean:.0f} rows of the mean"
        what = f"{self.made} rows for {', '.join(self.asked)}"
        verdict = "admitted" if self.admitted else "not admitted, so nobody trains on them"
        if self.gain is None:
            return f"{what}; {verdict}: a run of the gate diverged"
        gain = f"{what}; {verdict}: gain {self.gain:+.4f} nats per token of validation"
        runs = f"runs of {self.rounds} round{'s' * (self.rounds != 1)}"
        if self.low is None or self.high is None:
            return f"{gain} in a first pair of {runs}; no further pair could have them admitted"
        return f"{gain}, {self.low:+.4f} to {self.high:+.4f} over {self.pairs} pairs of {runs}"


def of_details(details: Mapping[str, JsonValue]) -> Filling | None:
    """Read it from the details of a decision; a newer fedpilot may say more."""
    try:
        return Filling.model_validate(details.get(DETAIL), extra="ignore")
    except ValidationError:
        return None


def filling_of(run: Path) -> Filling | None:
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
        return Filling.model_validate_json(text)
    except ValidationError:
        raise CorruptError(f"{file} is damaged; restore it from a copy") from None
