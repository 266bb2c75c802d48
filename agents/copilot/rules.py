"""Chat without a language model: a small language of commands over the same tools.

A command is a call of a tool, written shortly; what acts passes the same guard and approval.  What
is no command may be a question in plain words (questions.py).
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from agents.copilot.desk import TOOLS, Desk
from agents.copilot.events import Event
from agents.copilot.ground import Unusable
from agents.copilot.questions import DIGITS, EXAMPLES, Reply, reply
from agents.copilot.records import Answered, Asked, Said

HELP = f"""\
Ask: {EXAMPLES}
Or write a command:
facts [ROUND]             what is known; of the last round and those before it, or of ROUND
explain ROUND             what happened in a round, in checked sentences
compare [RUN]             this run beside another; without RUN: which there are
whatif ROUND KEY=VALUE    play a round again: drop=c3,c5 scale_lr=0.5 steps=2 clip=1 repeats=3
propose KEY=VALUE ...     a configuration with other lr, steps or cohort_size
select KEY=VALUE ...      a configuration with other clients: exclude=c3,c5 rule=oort
run [KEY=VALUE ...]       a new run with other lr, steps, cohort_size, rounds or seed
synthesize DOMAIN=ROWS    made-up data, for example bank=100 hospital=50
help                      this
Clients are c1, c2, ... and other runs r1, r2, ...; what acts asks you first.
Rules answer here. To talk freely, connect a model:
  fedpilot chat DIR --model openai:MODEL@http://127.0.0.1:8000/v1"""
ELSE = f"see: help, or ask, for example: {EXAMPLES}"

LISTS = ("drop", "exclude", "evidence")


class NoCommand(Unusable):
    """What begins as no command does: a question, perhaps."""


@dataclass(frozen=True)
class Rules:
    """Turns commands into calls; asks nobody."""

    @property
    def opened(self) -> dict[str, str]:
        """What the journal keeps of it."""
        return {"model": "rules"}

    def turn(self, desk: Desk) -> Iterator[Event]:
        """Read the command that was said last, and call its tool."""
        since = desk.chat.since_said()
        said = since[0] if since else None
        if not isinstance(said, Said):
            return
        try:
            meant = understood(said.text, desk)
        except Unusable as error:
            desk.chat.append(Answered(text=str(error)))
            return
        asked = next((record for record in since if isinstance(record, Asked)), None)
        if asked is None and meant.calls:
            asked = Asked(calls=tuple(desk.call(*call) for call in meant.calls))
            desk.chat.append(asked)
        for call in asked.calls if asked else ():
            if not desk.waits(call):
                desk.perform(call)
        if not desk.chat.open_calls:
            desk.chat.append(Answered(text=meant.text))  # beside what the tools returned
        yield from desk.news()


def understood(text: str, desk: Desk) -> Reply:
    """Take what was said for a command, or else for a question.

    Raises:
        Unusable: if it is neither.
    """
    try:
        name, args = read(text)
    except NoCommand:
        if (answer := reply(text, desk.ground())) is None:
            raise
        return answer
    return Reply(((name, args),)) if name else Reply(text=HELP)


def read(text: str) -> tuple[str, dict[str, JsonValue]]:
    """Read a command: the tool it calls, empty for help, and the arguments.

    Raises:
        NoCommand: if it is none.
        Unusable: saying how it is written.
    """
    try:
        word, *rest = shlex.split(text)
    except ValueError as error:
        raise NoCommand(f"{error}; see: help") from None
    match word.lower():
        case "help" | "?":
            return "", {}
        case "facts":
            return "get_facts", {"round": whole(rest, word), "before": 0} if rest else {}
        case "explain":
            return "explain_round", {"round": whole(rest, word)}
        case "compare":
            return "compare_runs", {"run": " ".join(rest)}
        case "whatif":
            return "what_if", {"round": whole(rest[:1], word), **pairs(rest[1:])}
        case "propose":
            return "propose_hyperparameters", pairs(rest)
        case "select":
            return "select_clients", pairs(rest)
        case "run":
            return "run_experiment", pairs(rest)
        case "synthesize":
            rows = pairs(rest)
            clients: list[JsonValue] = [{"domain": x, "size": rows[x]} for x in rows]
            return "generate_synthetic_data", {"clients": clients}
        case _ if word in TOOLS:
            return word, pairs(rest)
        case _:
            raise NoCommand(f"there is no command {word!r}; {ELSE}")


def whole(words: Sequence[str], command: str) -> int:
    """Read a round.

    Raises:
        Unusable: if there is none.
    """
    words = words[1:] if words[:1] == ["round"] else words
    if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > DIGITS:
        raise Unusable(f"write {command} and a round, for example: {command} 3")
    return int(words[0])


def pairs(words: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words; lists are written with commas.

    Raises:
        Unusable: if one is written otherwise.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key or not value:
            raise Unusable(f"{word!r}: write KEY=VALUE, for example lr=0.005")
        found[key] = value.split(",") if key in LISTS else valued(value)
    return found


def valued(text: str) -> JsonValue:
    """Read a number, or leave a word as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text
