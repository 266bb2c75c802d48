"""The worker of the playground: loads a run's base model once and lets its models answer.

    python -m ui.web.answering FOLDER RUN

Bounded in tokens and seconds for every answer; ends by itself when nobody asked for a while.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.config import describe
from federation.errors import FedpilotError
from ui.web import mail

if TYPE_CHECKING:
    from federation.answers import Voices

MODULE = "ui.web.answering"
IDLE = 300.0  # seconds without a question after which it ends
FOLDER = ".answering"
EXAMPLES = "examples"
SHOWN = 6  # examples


class Speaker(BaseModel):
    """Whose model answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Literal["base", "federated", "local", "centralised"]
    round: int | None = Field(default=None, ge=0, description="from 0; none: the newest")
    client: str = Field(default="", max_length=400, description="local: whose")
    model: str = Field(default="", max_length=400, description="name at the endpoint; else none")


class Question(BaseModel):
    """A prompt, and who is to answer it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=8000, description="the prompt")]
    who: tuple[Speaker, ...] = Field(min_length=1, max_length=6, description="whose models")
    tokens: int = Field(default=48, ge=1, le=256, description="longest answer, tokens")
    seconds: float = Field(default=30.0, gt=0, le=120, description="longest wait for an answer")
    address: str = Field(default="", max_length=400, description="of an endpoint; empty: in here")


def folder_of(runs: Path, name: str, sha256: str) -> Path:
    """Return where questions to a run's models lie: another run of its name has another place.

    Args:
        runs: folder of the runs.
        name: of the run.
        sha256: of its configuration.
    """
    return runs / FOLDER / mail.key(name, sha256)


class Worker:
    """Answers; the model is loaded when it is first needed."""

    def __init__(self, folder: Path, run: Path) -> None:
        """Look at nothing yet.

        Args:
            folder: of the letters.
            run: whose models answer.
        """
        self._folder, self._run = folder, run
        self._voices: Voices | None = None

    @property
    def voices(self) -> "Voices":
        """The run's models."""
        if self._voices is None:
            from federation.answers import Voices

            self._voices = Voices.of(self._run)
        return self._voices

    def perform(self, id: str, letter: mail.Letter) -> Mapping[str, object]:
        """Answer a letter; every speaker's answer is told as soon as it is there."""
        if letter.get("want") == EXAMPLES:
            return attempted(lambda: {"examples": self.voices.examples(SHOWN)}) | {"done": True}
        try:
            question = Question.model_validate(letter)
        except ValidationError as error:
            return {"done": True, "failure": describe(error, Question), "parts": []}
        parts: list[dict[str, object]] = []
        for speaker in question.who:
            part = attempted(lambda speaker=speaker: self.one(question, speaker))
            parts.append(speaker.model_dump() | part)
            mail.say(self._folder, id, {"done": False, "parts": parts})
        return {"done": True, "parts": parts}

    def one(self, question: Question, speaker: Speaker) -> dict[str, object]:
        """Let one model answer."""
        if question.address:
            return self.elsewhere(question, speaker)
        from federation.answers import Who

        who = Who(speaker.subject, speaker.round, speaker.client)
        wrote = self.voices.answer(who, question.prompt, question.tokens, question.seconds)
        return {
            "text": wrote.text,
            "tokens": wrote.tokens,
            "took": wrote.seconds,
            "ended": wrote.ended,
            "of": wrote.round,
            "sha256": wrote.sha256,
        }

    def elsewhere(self, question: Question, speaker: Speaker) -> dict[str, object]:
        """Let a server on this machine answer."""
        from federation.config import Config
        from federation.runs.run import Run
        from llm_tools.completing import complete

        run = Run.open(self._run)
        separator = Config.from_table(run.config, f"{self._run}/config.json").data.separator
        wrote = complete(
            question.address,
            speaker.model or ("base" if speaker.subject == "base" else "fed"),
            question.prompt.rstrip() + separator,
            max_tokens=question.tokens,
            timeout_s=question.seconds,
        )
        return {
            "text": wrote.text,
            "tokens": wrote.tokens,
            "took": wrote.seconds,
            "ended": wrote.ended,
        }


def attempted(what: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Do something; a mistake of the user's becomes a line of the answer."""
    from llm_tools.errors import LLMError

    try:
        return what()
    except (FedpilotError, LLMError) as error:
        return {"failure": str(error)}


def main(folder: Path, run: Path, idle_s: float = IDLE) -> int:
    """Answer until nobody asks."""
    mail.serve(folder, Worker(folder, run).perform, idle_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
