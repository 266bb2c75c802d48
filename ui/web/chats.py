"""A chat as a page reads it: turns made of its journal; knows no tool, imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from agents.copilot import records
from agents.copilot.checks import ID, sentences
from agents.copilot.events import Approval
from agents.copilot.records import (
    Answered,
    Asked,
    Call,
    ChatRecord,
    Decided,
    Opened,
    Refused,
    Result,
    Said,
)
from agents.facts import Fact
from federation.runs import journal
from ui.web import mail

RULES = "rules"
WORKER = "ui.web.talking"
POST, WAITING = "post", "waiting.json"


@dataclass
class Step:
    """A call of a tool and what came of it.

    Attributes:
        call: what was called.
        decided: what a person said to it.
        result: None while it waits or is carried out.
    """

    call: Call
    decided: Decided | None = None
    result: Result | None = None


@dataclass
class Turn:
    """What a person said, and everything until he said something again.

    Attributes:
        said: his words; None before the first.
        parts: steps, words between them, refusals and failures, in order.
        answer: what was answered in the end; None as yet.
    """

    said: Said | None
    parts: list[Step | Asked | Refused] = field(default_factory=list)
    answer: Answered | None = None

    @property
    def steps(self) -> list[Step]:
        """Its calls."""
        return [part for part in self.parts if isinstance(part, Step)]


@dataclass(frozen=True)
class Talk:
    """A chat.

    Attributes:
        path: its folder.
        model: who answers; "rules" without a model.
        turns: what was said, oldest first.
        facts: every fact that a tool returned, by id.
        waiting: calls that a person has to decide on, as the worker wrote them down.
        unanswered: whether what was said last has no answer, and nobody has to decide.
        failure: why the model gave no answer; empty if it did, or was not asked.
        length: records of its journal.
    """

    path: Path
    model: str
    turns: list[Turn]
    facts: dict[str, Fact]
    waiting: list[Approval]
    unanswered: bool
    failure: str
    length: int


def read(chat: Path) -> Talk:
    """Read a chat as it stands.

    Raises:
        CorruptError: if its journal was changed.
        StorageError: if it cannot be read.
    """
    entries = list(journal.read(chat / records.JOURNAL))
    found = records.read_all(chat, entries)
    turns = turns_of(found)
    facts = {x.id: x for r in found if isinstance(r, Result) for x in r.facts}
    model = next((r.model for r in reversed(found) if isinstance(r, Opened)), RULES)
    last = next((r for r in reversed(found) if not isinstance(r, Opened)), None)
    waiting = waits(chat, turns)
    unanswered = not isinstance(last, Answered | None) and not waiting
    failure = last.failure if isinstance(last, Asked) else ""
    return Talk(chat, model, turns, facts, waiting, unanswered, failure, len(entries))


def post_of(chat: Path) -> Path:
    """Return where letters to a chat lie."""
    return chat / POST


def begin(run: Path) -> str:
    """Begin a chat about a run; nothing is said in it yet.

    Returns:
        Its name.

    Raises:
        StorageError: if it cannot be written.
    """
    with records.writing(run) as chat:
        return chat.path.name


def turns_of(found: Iterable[ChatRecord]) -> list[Turn]:
    """Put records in turns."""
    turns = [Turn(None)]
    steps: dict[str, Step] = {}
    for record in found:
        match record:
            case Said():
                turns.append(Turn(record))
            case Asked():
                if record.failure or record.text.strip():
                    turns[-1].parts.append(record)
                new = {call.id: Step(call) for call in record.calls}
                turns[-1].parts += new.values()
                steps |= new
            case Refused():
                turns[-1].parts.append(record)
            case Decided() if record.call in steps:
                steps[record.call].decided = record
            case Result() if record.call in steps:
                steps[record.call].result = record
            case Answered():
                turns[-1].answer = record
            case _:
                pass
    for turn in turns:
        last = turn.parts[-1] if turn.parts else None
        if turn.answer is not None and isinstance(last, Asked) and not last.failure:
            turn.parts.pop()  # the answer's own words: they are shown once
    return [turn for turn in turns if turn.said or turn.parts or turn.answer]


def waits(chat: Path, turns: Iterable[Turn]) -> list[Approval]:
    """Return what the worker wrote down as waiting and was not decided since."""
    still = {s.call.id for t in turns for s in t.steps if s.result is None and s.decided is None}
    told = (mail.table(post_of(chat) / WAITING) or {}).get("waiting")
    found = []
    for values in told if isinstance(told, list) else []:
        try:
            approval = Approval.model_validate(values)
        except ValidationError:
            continue
        if approval.call in still:
            found.append(approval)
    return found


def undecided(talk: Talk) -> bool:
    """Tell whether calls are open of which the worker wrote nothing down yet."""
    known = {approval.call for approval in talk.waiting}
    steps = [step for turn in talk.turns for step in turn.steps if step.result is None]
    return any(step.decided is None and step.call.id not in known for step in steps)


def marked(answer: Answered) -> list[tuple[str, tuple[str, ...]]]:
    """Cut an answer into sentences, each with what no fact supports in it."""
    doubts = {doubt.sentence: doubt.problems for doubt in answer.doubts}
    if not doubts:
        return [(answer.text, ())]
    return [(sentence, doubts.get(sentence, ())) for sentence in sentences(answer.text)]


def cited(text: str, facts: dict[str, Fact]) -> list[Fact]:
    """Return the facts that a text cites by id, in order."""
    return [facts[id] for id in dict.fromkeys(ID.findall(text)) if id in facts]
