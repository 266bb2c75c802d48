"""Invented people, codes, amounts, phone numbers, dates: how they are drawn and found again.

Every kind comes with a pattern that finds it again in a text, so an answer can be recomputed.
People are random pairs of a given and a family name; phone numbers use the fictional 555 exchange.
"""

import re
from datetime import date

import numpy as np

from federation.data.organisations.phrases import between, pick
from federation.data.organisations.vocabulary import read, words

_PEOPLE = read("people")
GIVEN, FAMILY = words(_PEOPLE["given"]), words(_PEOPLE["family"])
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
FIRST_DAY = date(2024, 1, 1).toordinal()
LAST_DAY = date(2027, 12, 31).toordinal()

_MONTH = f"(?:{'|'.join(MONTHS)})"
FOUND = {
    "name": re.compile(rf"\b(?:{'|'.join(GIVEN)}) (?:{'|'.join(FAMILY)})\b"),
    "date": re.compile(
        rf"\b(?:\d{{4}}-\d\d-\d\d|\d\d/\d\d/\d{{4}}|\d{{1,2}} {_MONTH}(?: \d{{4}})?"
        rf"|{_MONTH} \d{{1,2}}(?:, \d{{4}})?)\b"
    ),
    "amount": re.compile(r"(?:\bEUR |[$£])\d+(?:\.\d\d)?\b|\b\d+(?:\.\d\d)? EUR\b"),
    "number": re.compile(r"\b[A-Z]{2,3}-?\d{4,6}\b"),
    "phone": re.compile(r"\b0\d\d 555 \d{4}\b"),
    "time": re.compile(r"\b\d{1,2}:\d\d(?: [ap]m)?\b"),
}


def person(rng: np.random.Generator) -> str:
    """Draw an invented person: given and family name."""
    return f"{pick(rng, GIVEN)} {pick(rng, FAMILY)}"


def code(rng: np.random.Generator, prefixes: tuple[str, ...]) -> str:
    """Draw a reference such as ``PT-48213`` or ``KN5530``."""
    digits = between(rng, 1000, 99999)
    return f"{pick(rng, prefixes)}{pick(rng, ('-', ''))}{digits}"


def money(rng: np.random.Generator) -> str:
    """Draw an amount in one of the ways in which people write them."""
    units = between(rng, 5, 950)
    value = str(units) if rng.random() < 0.5 else f"{units}.{between(rng, 0, 19) * 5:02d}"
    return pick(rng, ("EUR {}", "{} EUR", "${}", "£{}")).format(value)


def phone(rng: np.random.Generator) -> str:
    """Draw a phone number of the fictional 555 exchange: ``020 555 0142``."""
    return f"0{between(rng, 10, 99)} 555 {between(rng, 0, 9999):04d}"


def clock(rng: np.random.Generator) -> str:
    """Draw a time of day: ``14:20`` or ``2:20 pm``."""
    hour, minute = between(rng, 7, 21), between(rng, 0, 11) * 5
    return f"{hour:02d}:{minute:02d}" if rng.random() < 0.5 else twelve(hour, minute)


def twelve(hour: int, minute: int) -> str:
    """Write a time of day on the twelve-hour clock."""
    return f"{(hour - 1) % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"


def day(rng: np.random.Generator) -> date:
    """Draw a day of the years 2024 to 2027."""
    return date.fromordinal(between(rng, FIRST_DAY, LAST_DAY))


def written(when: date) -> str:
    """Write a date in words: ``12 May 2025``."""
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}"


def calendar(rng: np.random.Generator) -> str:
    """Draw a date in one of the ways in which people write them."""
    when = day(rng)
    month = MONTHS[when.month - 1]
    return pick(
        rng,
        (
            written(when),
            when.isoformat(),
            f"{when:%d/%m/%Y}",
            f"{when.day} {month}",
            f"{month} {when.day}",
            f"{month} {when.day}, {when.year}",
        ),
    )
