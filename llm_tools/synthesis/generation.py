"""Rows from a source, through a sieve, until there are enough; a language model as source.

A batch is addressed by (seed, brief, number).  What a model wrote lies in a cache under the hash of
all that it was asked with, so an interrupted call goes on, and the same seed and cache give the
same rows.  Only briefs, and rows that were invented before, ever stand in a prompt.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_tools.answers import Answer, Failure
from llm_tools.asking import ask
from llm_tools.errors import LLMError, in_words
from llm_tools.models import chat_model
from llm_tools.prompts import Prompt, fill
from llm_tools.schemas import decodable
from llm_tools.specs import OpenAISpec, ScriptedSpec
from llm_tools.synthesis.filters import Fault, Sieve
from llm_tools.synthesis.rows import Brief, Row

if TYPE_CHECKING:
    from llm_tools.models import ChatModel

MOST = 20  # rows of one answer
PATIENCE = 3  # requests for one batch that a server may fail
SHOWN = 3  # rows that a variation goes by
UNMENDED = (Failure.EMPTY, Failure.MALFORMED, Failure.INVALID, Failure.REFUSAL, Failure.TOO_LARGE)
"""Failures of the model, which would be the same again; all others are the server's."""


class Item(BaseModel):
    """What a model writes of a row; the rest of it is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str = Field(max_length=2000, description="what is asked")
    context: str = Field(max_length=8000, description="the text it is asked about, or empty")
    response: str = Field(max_length=4000, description="the right answer")


class Batch(BaseModel):
    """What a model is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[Item] = Field(min_length=1, max_length=MOST)


class Entry(BaseModel):
    """What came of a batch, as the cache keeps it: rows, or how the model failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[Item]
    failure: str


class WriterFailed(LLMError):
    """A model's server that fails again and again."""


@dataclass(frozen=True)
class Drawn:
    """What came of one batch: rows as they came, or why there are none."""

    rows: tuple[Mapping[str, Any], ...]
    failure: str = ""


Source = Callable[[Brief, int, Sequence[Row]], Drawn]
"""Given a brief, the number of a batch and rows to vary (none: write freely): rows."""


@dataclass
class Made:
    """What came of a brief.

    Attributes:
        brief: what was asked for.
        wanted: how many rows of it.
        rows: those that were made.
        refused: reasons of the sieve, and how often.
        failures: why batches gave nothing, and how often.
        batches: how many were asked for; the next has this number.
    """

    brief: Brief
    wanted: int
    rows: list[Row] = field(default_factory=list)
    refused: Counter[Fault] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    batches: int = 0

    @property
    def missing(self) -> int:
        """Rows that were asked for and not made."""
        return max(0, self.wanted - len(self.rows))


def fill_up(made: Made, source: Source, sieve: Sieve, most: int, like: Sequence[Row] = ()) -> None:
    """Draw batches until there are as many rows as wanted, or ``most`` further batches were drawn.

    Args:
        made: what there is; is added to.
        source: where rows come from.
        sieve: what may stay.
        most: batches.
        like: rows to vary.
    """
    for _ in range(most):
        if not made.missing:
            return
        drawn = source(made.brief, made.batches, like)
        made.batches += 1
        if drawn.failure:
            made.failures[drawn.failure] += 1
        for raw in drawn.rows:
            if not made.missing:
                break  # what is left over was never looked at: it is not refused
            judged = sieve.admit(raw, made.brief)
            if isinstance(judged, Fault):
                made.refused[judged] += 1
            else:
                made.rows.append(judged)


@dataclass
class Writer:
    """A language model that writes rows.

    Attributes:
        spec: which one; ``temperature`` and ``seed`` count too.
        seed: first part of every batch's address.
        cache: folder of what was written before.
        model: the model; made of ``spec`` anew for each batch, with its seed, if omitted.
        size: rows of a batch.
        deadline: seconds for one answer, repairs included.
        calls, cached, tokens: of this writer so far.
        prompts: names, versions and hashes of the prompt files that were used.
    """

    spec: OpenAISpec | ScriptedSpec
    seed: int
    cache: Path
    model: "ChatModel | None" = None
    size: int = 8
    deadline: float = 120.0
    calls: int = 0
    cached: int = 0
    tokens: int = 0
    prompts: dict[str, str] = field(default_factory=dict)

    def __call__(self, brief: Brief, number: int, like: Sequence[Row] = ()) -> Drawn:
        """Write one batch, or read it from the cache.

        Raises:
            WriterFailed: if the server failed several times in a row.
            SpecError: if the model cannot be made.
        """
        prompt = self.prompt(brief, number, like)
        self.prompts[f"{prompt.name}@{prompt.version}"] = prompt.template_sha256
        seed = batch_seed(self.seed, brief, number)
        place = self.cache / f"{self.key(prompt, seed, number)}.json"
        entry = read_entry(place)
        if entry is not None:
            self.cached += 1
            return as_drawn(entry, brief)
        entry = self._write(prompt, seed)
        write_entry(place, entry)
        return as_drawn(entry, brief)

    def prompt(self, brief: Brief, number: int, like: Sequence[Row] = ()) -> Prompt:
        """Write the request for a batch."""
        common = described(brief) | {"count": str(self.size), "batch": str(number + 1)}
        if not like:
            topic = brief.topics[number % len(brief.topics)] if brief.topics else ""
            return fill("synthesize", topic=f"Topic: {topic}" if topic else "", **common)
        start = number * SHOWN % len(like)
        shown = [*like[start:], *like[:start]][:SHOWN]
        fields = ("instruction", "context", "response")
        texts = [{name: getattr(row, name) for name in fields} for row in shown]
        return fill("vary", examples=json.dumps(texts, ensure_ascii=False, indent=1), **common)

    def key(self, prompt: Prompt, seed: int, number: int) -> str:
        """Hash all that decides what a model writes in a batch."""
        asked = {
            "spec": identity(self.spec),
            "prompt": prompt.sha256,
            "template": prompt.template_sha256,
            "schema": decodable(Batch),
            "seed": seed,
            "batch": number,
        }
        return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _write(self, prompt: Prompt, seed: int) -> Entry:
        """Ask until there is an answer, good or bad, or the server has failed too often."""
        reason = ""
        for _ in range(PATIENCE):
            answer = self._ask(prompt, seed)
            if answer.value is not None:
                return Entry(rows=answer.value.rows, failure="")
            if answer.failure in UNMENDED:
                return Entry(rows=[], failure=str(answer.failure))
            reason = f"{answer.failure}: {answer.reason}"
        raise WriterFailed(
            f"the language model failed {PATIENCE} times in a row ({reason}); what it wrote is"
            " kept, run the same command again to go on"
        )

    def _ask(self, prompt: Prompt, seed: int) -> Answer[Batch]:
        self.calls += 1
        answer = ask(self._model(seed), prompt, Batch, deadline_s=self.deadline, max_bytes=1 << 20)
        self.tokens += (answer.tokens_in or 0) + (answer.tokens_out or 0)
        return answer

    def _model(self, seed: int) -> "ChatModel":
        if isinstance(self.spec, OpenAISpec) and self.model is None:
            return chat_model(self.spec.model_copy(update={"seed": seed}))
        if self.model is None:  # a script goes on where it stands
            self.model = chat_model(self.spec)
        return self.model


def described(brief: Brief) -> dict[str, str]:
    """Put a brief into words."""
    answer = (
        f"The response is exactly: {brief.label}"
        if brief.choices
        else "The response is a text of its own; it need not name the label."
    )
    return {
        "domain": brief.domain,
        "language": brief.language,
        "style": brief.style,
        "task": brief.task,
        "label": f"{brief.label} ({brief.meaning})" if brief.meaning else brief.label,
        "answer": answer,
        "shortest": str(brief.shortest),
        "longest": str(brief.longest),
    }


def batch_seed(seed: int, brief: Brief, number: int) -> int:
    """Return the seed that a server samples a batch with, 31 bits."""
    place = json.dumps([seed, brief.client, brief.label, number])
    return int.from_bytes(sha256(place.encode()).digest()[:4]) >> 1


def identity(spec: OpenAISpec | ScriptedSpec) -> dict[str, Any]:
    """Return what of a spec decides what is written: a script's text, not where it lies."""
    if isinstance(spec, ScriptedSpec):
        file = Path(spec.file)
        text = sha256(file.read_bytes()).hexdigest() if file.is_file() else spec.file
        return {"kind": spec.kind, "script": text, "repeat": spec.repeat}
    return spec.model_dump(mode="json", exclude={"key_env", "timeout_s", "seed"})


def as_drawn(entry: Entry, brief: Brief) -> Drawn:
    """Complete what a model wrote with what its brief says."""
    known = {
        "client": brief.client,
        "domain": brief.domain,
        "task": brief.task,
        "label": brief.label,
        "choices": list(brief.choices),
    }
    return Drawn(tuple(item.model_dump() | known for item in entry.rows), entry.failure)


def read_entry(place: Path) -> Entry | None:
    """Read a batch from the cache; None if it is not there.

    Raises:
        LLMError: if it is damaged.
    """
    try:
        return Entry.model_validate_json(place.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        words = in_words(error, most=1, values=False)
        raise LLMError(f"{place} is damaged ({words}); delete it to ask again") from None
    except OSError as error:
        raise LLMError(f"{place} cannot be read: {error.strerror}; check who owns it") from None


def write_entry(place: Path, entry: Entry) -> None:
    """Write a batch into the cache, whole or not at all.

    Raises:
        LLMError: if the folder cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            whole = Path(folder) / place.name
            whole.write_bytes(entry.model_dump_json().encode())
            os.replace(whole, place)
    except OSError as error:
        raise LLMError(
            f"{place.parent} cannot be written: {error.strerror}; make room or check who owns it"
        ) from None
