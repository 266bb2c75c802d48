"""Dates and units: rewrite a date, count days, convert units and times of day."""

import re
from collections.abc import Callable, Mapping
from datetime import date

import numpy as np

from federation.data.organisations import facts
from federation.data.organisations.domain import Domain
from federation.data.organisations.facts import MONTHS
from federation.data.organisations.phrases import between, expand, pick
from federation.data.organisations.style import Style, write

Draw = Callable[[np.random.Generator], tuple[str, str]]

_EVENTS = (
    "the {service} [of {name} |][is|was] on {fact}.",
    "{name} [signed|sent|handed in] the {document} on {fact}.",
    "{document} {code} is [dated|from] {fact}.",
    "[next meeting|deadline|delivery|visit] [for {name}|at the {place}]: {fact}.",
    "the {place} [opened|was closed] on {fact}[ for {name}|].",
)
_SPANS = (
    "the {service} [of {name} |][is|was] from {fact}.",
    "{name} [is|was] away from {fact}.",
    "the {place} [is|was] closed from {fact}[ for {name}|].",
    "{document} {code} [is|was] valid from {fact}.",
    "[holiday|repair|visit|trial] [of {name}|at the {place}]: {fact}.",
)
_TIMES = (
    "{name} [comes|came|called] at {fact}.",
    "the {place} [opens|closes] at {fact}.",
    "[meeting|talk] with {name} at {fact}.",
    "the {service} [starts|begins] at {fact}.",
    "{document} {code} [came in|was sent] at {fact}.",
)
_LENGTHS = (
    "the {service} [takes|took|lasts] {fact}.",
    "{name} waited {fact}[ for the {service}|].",
    "{document} {code}: {fact}.",
    "the {staff} [worked|needed] {fact}.",
)
_WEIGHTS = (
    "[the parcel|the box|the bag] of {name} weighs {fact}.",
    "{document} {code}: {fact}.",
    "{name} [ordered|has|brought] {fact}.",
)
_WAYS = (
    "it is {fact} [to|from] the {place}[ for {name}|].",
    "{name} [lives|stands] {fact} from the {place}.",
    "{document} {code}: {fact}.",
)
UNITS: Mapping[str, tuple[str, int]] = {
    "weeks": ("days", 7),
    "days": ("hours", 24),
    "hours": ("minutes", 60),
    "minutes": ("seconds", 60),
    "years": ("months", 12),
    "kg": ("g", 1000),
    "km": ("m", 1000),
    "m": ("cm", 100),
}
_UNIT_TEXTS = {"kg": _WEIGHTS, "km": _WAYS, "m": _WAYS}
_WRITTEN = re.compile(rf"(\d{{1,2}}) ({'|'.join(MONTHS)})(?: (\d{{4}}))?")
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?: ([ap]m))?")


def _iso(rng: np.random.Generator) -> tuple[str, str]:
    return "Write the date as YYYY-MM-DD.", facts.written(facts.day(rng))


def _in_words(rng: np.random.Generator) -> tuple[str, str]:
    return "Write the date with the name of the month.", facts.day(rng).isoformat()


def _later(rng: np.random.Generator) -> tuple[str, str]:
    ask = pick(rng, ("Which date is {} days later?", "Add {} days to the date."))
    # Day 28 at most: the answer stays in the month, of which every one has 28 days.
    return ask.format(between(rng, 2, 10)), f"{between(rng, 1, 18)} {pick(rng, MONTHS)}"


def _between(rng: np.random.Generator) -> tuple[str, str]:
    start, length = between(rng, 1, 20), between(rng, 2, 8)
    month = pick(rng, MONTHS)
    ask = pick(rng, ("How many days lie between the dates?", "How many days from start to end?"))
    return ask, f"{start} {month} to {start + length} {month}"


def _unit(rng: np.random.Generator) -> tuple[str, str]:
    unit = pick(rng, tuple(UNITS))
    ask = pick(rng, ("How many {} is that?", "Convert to {}."))
    return ask.format(UNITS[unit][0]), f"{between(rng, 2, 9)} {unit}"


def _clock(rng: np.random.Generator) -> tuple[str, str]:
    time = facts.twelve(between(rng, 8, 21), between(rng, 0, 11) * 5)
    return "Write the time on the 24 hour clock.", time


def _minutes(rng: np.random.Generator) -> tuple[str, str]:
    hour, minute = between(rng, 8, 19), between(rng, 0, 5) * 5
    ask = pick(rng, ("What time is it {} minutes later?", "Add {} minutes to the time."))
    return ask.format(between(rng, 1, 8) * 5), f"{hour:02d}:{minute:02d}"


_DRAWS: Mapping[str, Draw] = {
    "iso date": _iso,
    "date in words": _in_words,
    "days later": _later,
    "days between": _between,
    "units": _unit,
    "24 hour clock": _clock,
    "minutes later": _minutes,
}
_TEXTS = {
    "days between": _SPANS,
    "24 hour clock": _TIMES,
    "minutes later": _TIMES,
    "units": _LENGTHS,
}


def labels(domain: Domain) -> tuple[str, ...]:
    """List the kinds of questions; the same in every domain."""
    return tuple(_DRAWS)


def draw(
    domain: Domain, label: str, style: Style, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw (instruction, context, response)."""
    instruction, fact = _DRAWS[label](rng)
    texts = _UNIT_TEXTS.get(fact.split()[-1], _TEXTS.get(label, _EVENTS))
    text = write(expand(pick(rng, texts), {**domain.slots, "fact": ("\0",)}, rng), style, rng)
    # The fact goes in last: a style must not mistype what the question is about.
    context = text.replace("\0", fact)
    return instruction, context, answer(label, instruction, context)


def _number(text: str) -> int:
    return int(re.findall(r"\d+", text)[0])


def _answer_later(instruction: str, context: str) -> str:
    day, month, _ = _WRITTEN.findall(context)[-1]
    return f"{int(day) + _number(instruction)} {month}"


def _answer_between(instruction: str, context: str) -> str:
    start, end = _WRITTEN.findall(context)[-2:]
    return str(int(end[0]) - int(start[0]))


def _answer_iso(instruction: str, context: str) -> str:
    day, month, year = _WRITTEN.findall(context)[-1]
    return date(int(year), MONTHS.index(month) + 1, int(day)).isoformat()


def _answer_words(instruction: str, context: str) -> str:
    return facts.written(date.fromisoformat(_ISO.findall(context)[-1]))


def _answer_unit(instruction: str, context: str) -> str:
    value, unit = re.findall(rf"\b(\d) ({'|'.join(UNITS)})\b", context)[-1]
    return str(int(value) * UNITS[unit][1])


def _answer_clock(instruction: str, context: str) -> str:
    hour, minute, half = _CLOCK.findall(context)[-1]
    return f"{int(hour) % 12 + (12 if half == 'pm' else 0):02d}:{minute}"


def _answer_minutes(instruction: str, context: str) -> str:
    hour, minute, _ = _CLOCK.findall(context)[-1]
    total = int(hour) * 60 + int(minute) + _number(instruction)
    return f"{total // 60:02d}:{total % 60:02d}"


_ANSWERS: Mapping[str, Callable[[str, str], str]] = {
    "iso date": _answer_iso,
    "date in words": _answer_words,
    "days later": _answer_later,
    "days between": _answer_between,
    "units": _answer_unit,
    "24 hour clock": _answer_clock,
    "minutes later": _answer_minutes,
}


def answer(label: str, instruction: str, context: str) -> str:
    """Recompute the answer from the two texts."""
    return _ANSWERS[label](instruction, context)
