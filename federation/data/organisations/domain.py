"""What a domain is, and the intents that many domains share.

A domain is what several organisations have in common: two banks have the same intents, products and
abbreviations, and differ in style, size and label mix.  Every domain is a text file in ``domains``;
its phrasings are in the grammar of ``phrases``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from federation.data.organisations import facts
from federation.data.organisations.phrases import Slots, between
from federation.data.organisations.vocabulary import read, tuples

NAMES = (
    "hospital", "bank", "law", "airline", "shop", "city", "insurer", "university", "hotel", "power",
    "telecom", "courier", "railway", "pharmacy", "landlord",
)  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """The vocabulary of one kind of organisation.

    Attributes:
        person: what its customers are called.
        prefixes: letters that its reference codes start with.
        shared: names of the intents of ``shared.toml`` that occur here.
        own: intents of this domain alone, each with its phrasings.
        words: vocabularies by slot; ``service``, ``document``, ``place`` and ``staff`` always,
            and whatever the phrasings of ``own`` name.
        abbreviations: short form to what it stands for.
        plurals: nouns of the trade, singular to plural.
    """

    name: str
    person: str
    prefixes: tuple[str, ...]
    shared: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]
    abbreviations: Mapping[str, str]
    plurals: Mapping[str, str]

    @cached_property
    def intents(self) -> Mapping[str, tuple[str, ...]]:
        """Every intent of this domain with its phrasings, shared ones first."""
        return {**{name: shared()[name] for name in self.shared}, **self.own}

    @cached_property
    def slots(self) -> Slots:
        """Vocabularies of this domain and the draws of names, codes, dates and amounts."""
        return {
            **FACTS,
            **self.words,
            "code": lambda rng: facts.code(rng, self.prefixes),
            "person": (self.person,),
            "noun": tuple(self.plurals),
        }


FACTS: Slots = {
    "name": facts.person,
    "amount": facts.money,
    "date": facts.calendar,
    "time": facts.clock,
    "phone": facts.phone,
    "reading": lambda rng: str(between(rng, 1000, 99999)),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "when": ("yesterday", "last week", "on {date}", "two days ago", "this morning", "on {weekday}"),
    "soon": ("tomorrow", "next week", "on {date}", "on {weekday}", "in a few days"),
    "few": ("two", "three", "four", "five", "six"),
}


@cache
def shared() -> Mapping[str, tuple[str, ...]]:
    """Read the intents that many domains share, with their phrasings."""
    return tuples(read("shared"))


@cache
def domain_named(name: str) -> Domain:
    """Read the domain of that name from its text file.

    Raises:
        KeyError: if the package has no such domain.
    """
    if name not in NAMES:
        raise KeyError(f"no domain {name!r}; there are {', '.join(NAMES)}")
    table = read(name)
    return Domain(
        name=name,
        person=table["person"],
        prefixes=tuple(table["prefixes"]),
        shared=tuple(table["shared"]),
        own=tuples(table["intents"]),
        words=tuples(table["words"]),
        abbreviations=table["abbreviations"],
        plurals=table["plurals"],
    )
