"""What a policy may propose for a round, and what became of it."""

from typing import Literal, Protocol

from pydantic import BaseModel, Field, JsonValue

from agents.facts import Observation
from agents.knobs import RECORD
from agents.selection import Selection

Source = Literal["llm", "optimizer", "heuristic", "replay", "human", "fallback"]
Verdict = Literal["accepted", "rejected", "abstained"]
Action = Literal["continue", "stop"]


class Proposal(BaseModel):
    """What a policy proposes for one round.

    Attributes:
        values: knob -> value; a knob that is not named stays where it is.
        evidence: ids of the facts it rests on.
        expected: training loss that is expected after the round, lowest and highest, nats per
            token; scored later against what happened.
        rationale: why, in a sentence; shown to people, read by no code.
        source: who made it.
        selection: how clients are chosen; None: as before.
        action: whether the run goes on after the round.
    """

    model_config = RECORD

    values: dict[str, float] = Field(default={}, description="knob -> value")
    evidence: tuple[str, ...] = Field(default=(), description="ids of facts")
    expected: tuple[float, float] | None = Field(default=None, description="loss, low and high")
    rationale: str = Field(default="", max_length=400, description="why, in a sentence")
    source: Source = Field(default="heuristic", description="who made it")
    selection: Selection | None = Field(default=None, description="how clients are chosen")
    action: Action = Field(default="continue", description="stop: the round is the last one")

    @property
    def abstains(self) -> bool:
        """Whether it leaves everything as it is."""
        return not self.values and self.selection is None and self.action == "continue"


class Answer(BaseModel):
    """A proposal, or why there is none, and what asking has cost.

    Attributes:
        proposal: None if the policy failed.
        failure: why, in a line.
        trace: prompt hash, raw answer, tokens, attempts: whatever an auditor asks for.
    """

    model_config = RECORD

    proposal: Proposal | None
    failure: str = ""
    trace: dict[str, JsonValue] = {}


class Policy(Protocol):
    """Proposes what a round should be: a function of the observation, but for models' whims."""

    @property
    def name(self) -> str:
        """Name and version, as the journal keeps it."""
        ...

    def decide(self, observation: Observation) -> Answer:
        """Propose; never raises for what an outside model did wrong."""
        ...
