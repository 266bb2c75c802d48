"""A language model that is scored: what it said is kept, and how often it is asked is bounded.

A request is addressed by all that it holds: model and settings, what was said before, the schema of
the answer.  What came back lies in a folder under that address, so a benchmark that broke off goes
on where it stood, and its figures can be made again without asking anybody.  An answer that the
model spoiled is an answer; a server that is not there is none, and stops the benchmark.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.pilot.parts import ANSWER_TOKENS
from federation.errors import ConfigError
from federation.runs.storage import atomic_write
from llm_tools import OF_SERVER, CallFailed, Failure, LLMError, OpenAISpec, chat_model, chat_spec


class Said(BaseModel):
    """What came of a request.

    Attributes:
        text: what the model said.
        tokens: in and out, where the server counts them.
        failure: why it is no answer; empty if it is one.
        reason: the failure in a line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = ""
    tokens: tuple[int, int] | None = None
    failure: str = ""
    reason: str = ""

    def message(self) -> Any:
        """Give it as the model gave it.

        Raises:
            CallFailed: if it is no answer.
        """
        if self.failure:
            raise CallFailed(Failure(self.failure), self.reason, self.text, self.tokens)
        used = self.tokens and {"input_tokens": self.tokens[0], "output_tokens": self.tokens[1]}
        return SimpleNamespace(text=self.text, usage_metadata=used)


@dataclass
class Asked:
    """A chat model whose answers are kept.

    Attributes:
        spec: which model.
        model: made of it.
        kept: folder of what it said.
        most: requests that may be sent to it; None: as many as there are.
        sent: requests so far.
    """

    spec: OpenAISpec
    model: Any
    kept: Path
    most: int | None = None
    sent: int = 0

    @property
    def model_name(self) -> str:
        """The name the server knows."""
        return self.spec.model

    _llm_type = "kept"

    async def ainvoke(self, messages: Sequence[tuple[str, str]], **how: Any) -> Any:
        """Answer as before; ask if it never was asked.

        Raises:
            CallFailed: what the model said is no answer.
            ConfigError: the server failed, no more may be asked, or what is kept is damaged.
        """
        place = self.kept / f"{self.address(messages, how)}.json"
        if not place.exists():
            said = await self.ask(messages, how)
            place.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(place, said.model_dump_json().encode())
        try:
            said = Said.model_validate_json(place.read_bytes())
        except ValidationError:
            raise ConfigError(f"{place} is damaged; delete it to ask again") from None
        return said.message()

    def address(self, messages: Sequence[tuple[str, str]], how: Any) -> str:
        """Hash all that a request holds."""
        spec = self.spec.model_dump(mode="json", exclude={"key_env", "timeout_s"})
        return sha256(json.dumps([spec, messages, how], sort_keys=True).encode()).hexdigest()

    async def ask(self, messages: Sequence[tuple[str, str]], how: Any) -> Said:
        """Send a request."""
        if self.most is not None and self.sent >= self.most:
            raise ConfigError(
                f"--calls: {self.sent} requests were sent to {self.spec.model} and no more may be;"
                " what it said is kept, the same command goes on from there"
            )
        self.sent += 1
        try:
            message = await self.model.ainvoke(messages, **how)
        except CallFailed as failed:
            if failed.failure not in OF_SERVER:
                return Said(
                    text=failed.raw,
                    tokens=failed.tokens,
                    failure=failed.failure,
                    reason=failed.reason,
                )
            if failed.failure == Failure.TIMEOUT:
                raise
            raise ConfigError(
                f"--model: {self.spec.model} cannot be scored, its server failed ({failed}); what"
                " it said is kept, the same command goes on from there"
            ) from None
        used = message.usage_metadata
        tokens = (used["input_tokens"], used["output_tokens"]) if used else None
        return Said(text=str(message.text), tokens=tokens)


def asked(spec: str, kept: Path, most: int | None = None, tokens: int = ANSWER_TOKENS) -> Any:
    """Make a model that is scored; a script is read as it stands, and nothing of it is kept.

    Args:
        spec: which one.
        kept: folder of what models said.
        most: requests that may be sent to it.
        tokens: of one answer, at most.

    Raises:
        ConfigError: if it cannot be used.
    """
    try:
        known = chat_spec(spec)
        if not isinstance(known, OpenAISpec):
            return chat_model(known)
        known = known.model_copy(update={"max_tokens": tokens})
        return Asked(known, chat_model(known), kept, most)
    except LLMError as error:
        raise ConfigError(f"--model: {error}") from None
