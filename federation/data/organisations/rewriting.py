"""Rewriting: expand an abbreviation, change the case of a code, form a plural, format a number."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from federation.data.organisations import facts
from federation.data.organisations.domain import Domain
from federation.data.organisations.phrases import between, expand, pick
from federation.data.organisations.style import Style, write

_QUOTED = re.compile(r'"([^"]+)"')
_NOTES = (
    'note [by|from] {name}, {date}: "{fact}" {code}.',
    '{name} [wrote|noted|typed] "{fact}" in the {document}.',
    'the {document} of {name} says "{fact}".',
    '[see|check|look at] "{fact}" in {document} {code}.',
    '"{fact}" [was|is] in the {document} from {date}.',
)
_CODES = (
    '[the {document} of|a note by] {name} says "{fact}".',
    '{name} [typed|sent|wrote] "{fact}" [for the {service}|] on {date}.',
    '[please |][look up|open|check] "{fact}" [for {name}|from {date}].',
)
_COUNTS = (
    '{name} [has|needs|asked for] one "{fact}", [we need|now] {few}.',
    'the {document} [of {name} |]says one "{fact}", but there are {few}.',
    'one "{fact}" [on {date}|for {name}], {few} more [later|{soon}].',
)
_EXPAND = ("What does the short form stand for?", "Write the short form in full.")
_PLURAL = ("Write the plural of the quoted word.", "Give the plural form.")


def labels(domain: Domain) -> tuple[str, ...]:
    """List the kinds of rewriting; the same in every domain."""
    return tuple(_DRAWS)


def _short_form(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    short, full = pick(rng, tuple(domain.abbreviations.items()))
    return pick(rng, _EXPAND), short, full


def _plural(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    single, many = pick(rng, tuple(domain.plurals.items()))
    return pick(rng, _PLURAL), single, many


def _code(domain: Domain, rng: np.random.Generator) -> str:
    letters = "".join(pick(rng, "ABCDEFGHKLMNPRSTUVWX") for _ in range(between(rng, 1, 3)))
    return f"{pick(rng, domain.prefixes)}-{between(rng, 10, 999)}-{letters}"


def _upper(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    code = _code(domain, rng)
    return "Write the code in upper case.", code.lower(), code


def _lower(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    code = _code(domain, rng)
    return "Write the code in lower case.", code, code.lower()


def _no_dashes(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    code = _code(domain, rng)
    return "Write the code without dashes.", code, code.replace("-", "")


def _phone(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    number = facts.phone(rng)
    return "Write the phone number with dashes.", number, number.replace(" ", "-")


def _initials(domain: Domain, rng: np.random.Generator) -> tuple[str, str, str]:
    name = facts.person(rng)
    return "Write the quoted name with an initial.", name, _initial(name)


def _initial(name: str) -> str:
    return f"{name[0]}. {name.split()[1]}"


_DRAWS: Mapping[str, Callable[[Domain, np.random.Generator], tuple[str, str, str]]] = {
    "short form": _short_form,
    "plural": _plural,
    "upper case": _upper,
    "lower case": _lower,
    "no dashes": _no_dashes,
    "phone format": _phone,
    "initials": _initials,
}
_TEXTS = {"short form": _NOTES, "plural": _COUNTS}


def draw(
    domain: Domain, label: str, style: Style, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw (instruction, context, response); what is to be rewritten stands in quotation marks."""
    instruction, fact, response = _DRAWS[label](domain, rng)
    slots = {**domain.slots, "fact": ("\0",)}
    text = expand(pick(rng, _TEXTS.get(label, _CODES)), slots, rng)
    # The quoted words go in last: a style must not mistype what has to be rewritten.
    return instruction, write(text, style, rng).replace("\0", fact), response


def answer(domain: Domain, label: str, context: str) -> str:
    """Recompute the answer from the quoted words of the context."""
    fact = _QUOTED.findall(context)[0]
    return {
        "short form": lambda: domain.abbreviations[fact],
        "plural": lambda: domain.plurals[fact],
        "upper case": fact.upper,
        "lower case": fact.lower,
        "no dashes": lambda: fact.replace("-", ""),
        "phone format": lambda: fact.replace(" ", "-"),
        "initials": lambda: _initial(fact),
    }[label]()
