"""What is asked of a generator, and what it makes: one example of instruction following."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Brief:
    """What rows should be like: those of one label of one client.

    Attributes:
        client: who is to hold them.
        domain: what they are about.
        task: what kind of work they ask for.
        label: their label.
        meaning: the label in words, for a model; may be empty.
        choices: where the response is the label itself: all that it might be; otherwise empty.
        style: how they are written.
        language: in which they are written.
        topics: what they may speak of, one for each batch in turn; may be empty.
        shortest: fewest characters of instruction, context and response together.
        longest: most of them.
    """

    client: str
    domain: str
    task: str
    label: str
    meaning: str = ""
    choices: tuple[str, ...] = ()
    style: str = "plain"
    language: str = "English"
    topics: tuple[str, ...] = ()
    shortest: int = 1
    longest: int = 2000


class Row(BaseModel):
    """A row, with the fields that rows of the built-in organisations have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    client: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    task: str = Field(min_length=1)
    label: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    context: str
    response: str = Field(min_length=1)
    choices: list[str]

    @property
    def text(self) -> str:
        """What is read and learnt of it."""
        return f"{self.instruction}\n{self.context}\n{self.response}"

    @property
    def question(self) -> str:
        """What is read of it."""
        return f"{self.instruction}\n{self.context}"
