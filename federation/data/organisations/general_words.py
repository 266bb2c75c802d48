"""Vocabularies of the pre-training rows, disjoint from those of the organisations.

Other people, places, things, codes, years (1900 to 2019) and ways to write an amount.
"""

from collections.abc import Mapping

import numpy as np

from federation.data.organisations.facts import MONTHS
from federation.data.organisations.phrases import between, pick
from federation.data.organisations.vocabulary import read, tuples, words

_TABLE = read("general")
GIVEN, FAMILY, TOWNS = (words(_TABLE[key]) for key in ("given", "family", "towns"))
ADJECTIVES, JOBS, ACTIONS = (words(_TABLE[key]) for key in ("adjectives", "jobs", "actions"))
NUMBERS = words(_TABLE["numbers"])  # zero to twenty, in order
VERBS: Mapping[str, tuple[str, ...]] = tuples(_TABLE["verbs"])
ASPECTS: Mapping[str, tuple[str, ...]] = tuples(_TABLE["aspects"])
GROUPS: Mapping[str, tuple[str, ...]] = {
    group: words(text) for group, text in _TABLE["groups"].items()
}
THINGS = tuple(
    thing
    for group in ("animal", "tool", "fruit", "instrument", "plant", "vehicle")
    for thing in GROUPS[group]
)
OPPOSITES: Mapping[str, str] = _TABLE["opposites"]
PAST: Mapping[str, str] = _TABLE["past"]
PLURALS: Mapping[str, str] = _TABLE["plurals"]
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def person(rng: np.random.Generator) -> str:
    """Draw an invented person: a given name, mostly with a family name."""
    return pick(rng, GIVEN) if rng.random() < 0.3 else f"{pick(rng, GIVEN)} {pick(rng, FAMILY)}"


def nonsense(rng: np.random.Generator) -> str:
    """Draw a word that is no word: ``tavilo``.  It can only be copied, never remembered."""
    syllables = range(between(rng, 2, 3))
    return "".join(pick(rng, CONSONANTS) + pick(rng, VOWELS) for _ in syllables)


def tag(rng: np.random.Generator) -> str:
    """Draw a code unlike those of the organisations: ``K7/442``, ``#5521``, ``tavilo_31``."""
    letter, digits = pick(rng, "ABCDEFGHJKLMNPQRSTVWXYZ"), between(rng, 10, 9999)
    return pick(
        rng,
        (
            f"{letter}{between(rng, 1, 9)}/{digits}",
            f"#{digits}",
            f"{nonsense(rng)}_{digits % 100}",
            f"{digits}{letter.lower()}",
            f"{letter}.{between(rng, 10, 99)}.{between(rng, 10, 99)}",
        ),
    )


def price(rng: np.random.Generator) -> str:
    """Draw an amount, never in the spelling of the organisations."""
    value = between(rng, 2, 990)
    return pick(rng, (f"{value} dollars", f"{value} pounds", f"€{value}", f"{value} crowns"))


def past_day(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw (year, month, day) of 1900 to 2019; every month has 28 days here."""
    return between(rng, 1900, 2019), between(rng, 1, 12), between(rng, 1, 28)


def past_date(rng: np.random.Generator) -> str:
    """Draw a date of 1900 to 2019 in one of several spellings."""
    year, month, day = past_day(rng)
    name = MONTHS[month - 1]
    return pick(
        rng,
        (
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day}.{month}.{year}",
            f"{day:02d}/{month:02d}/{year}",
        ),
    )


def sample(rng: np.random.Generator, items: tuple[str, ...], count: int) -> list[str]:
    """Draw distinct items, in random order."""
    chosen: list[str] = []
    while len(chosen) < count:
        item = pick(rng, items)
        if item not in chosen:
            chosen.append(item)
    return chosen
