"""Arithmetic: word problems whose numbers stand in the text and whose answer is one whole number.

The label names the operation, so an answer is recomputed from the label and the numbers of the
text, in any order in which they stand.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from federation.data.organisations.domain import Domain
from federation.data.organisations.phrases import Slots, between, expand, pick
from federation.data.organisations.style import Style, write

Numbers = tuple[int, ...]

_DIGITS = re.compile(r"\d+")
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "total": (
        "invoice for {name}: {service} {a} EUR, {other} {b} EUR. [what is the total|total]?",
        "{name} [pays|owes] {a} EUR for {service} and {b} EUR for {other}. how much in all?",
        "we had {a} {nouns} and [got|bought] {b} more. how many {nouns} [now|in all]?",
        "[on {weekday}|first] {a} {person}s came, [later|then] {b}. how many in all?",
        "the {service} costs {a} EUR, [plus|and] {b} EUR [tax|fee|tip]. what does {name} pay?",
    ),
    "difference": (
        "the bill of {name} is {a} EUR, {b} EUR [is|was] paid. how much is [left|open]?",
        "{name} pays a bill of {b} EUR with {a} EUR. how much change?",
        "we had {a} {nouns} and [used|sold|lost] {b}. how many {nouns} are left?",
        "the {service} cost {a} EUR, now [it is|only] {b} EUR. how much cheaper?",
        "{a} {person}s [booked|were invited], {b} came. how many [stayed away|were missing]?",
    ),
    "product": (
        "{a} {nouns} at {b} EUR each. what [is the price|do they cost]?",
        "{name} [orders|buys] {a} {nouns} for {b} EUR each. how much [in all|to pay]?",
        "each of {a} {person}s gets {b} {nouns}. how many {nouns} [in all|do we need]?",
        "{a} boxes with {b} {nouns} each. how many {nouns}?",
        "the {service} costs {a} EUR [a day for {b} days|a month for {b} months]. in all?",
    ),
    "share": (
        "{a} EUR for the {service} [shared|split] among {b} {person}s. how much [each|per person]?",
        "{a} {nouns} in {b} equal boxes. how many in each [box|]?",
        "{name} pays {a} EUR in {b} equal [rates|parts]. how much is one?",
        "{b} {nouns} cost {a} EUR. what does one cost?",
    ),
    "percent": (
        "the {service} costs {a} EUR. a discount of {b} % is how many EUR?",
        "{b} % of {a} {person}s [answered|complained|came]. how many [is that|people]?",
        "tax of {b} % on {a} EUR. how much tax?",
        "{name} pays {b} % of {a} EUR [now|for the {service}]. how much is that?",
    ),
    "dosage": (
        "{a} tablets [{b} times a day|every meal, {b} meals a day]. how many tablets a day?",
        "{name} takes {a} ml [of syrup |]{b} times a day. how many ml a day?",
        "{a} drops {b} times a day[ for {name}|]. how many drops [a day|daily]?",
    ),
    "interest": (
        "{name} [lends|saves] {a} EUR at {b} % a year. how much interest after one year?",
        "a loan of {a} EUR [to {name} |]costs {b} % a year. interest for one year?",
        "{a} EUR at {b} % for one year[, saved by {name}|]. how much interest?",
    ),
}
_INSTRUCTIONS = (
    "Calculate. Answer with a number.",
    "Solve and give only the number.",
    "What is the result?",
    "Compute the answer.",
)
_SPECIAL = {
    "hospital": ("dosage",),
    "pharmacy": ("dosage",),
    "bank": ("interest",),
    "insurer": ("interest",),
}
_COMMON = ("total", "difference", "product", "share", "percent")


def _sum(rng: np.random.Generator) -> Numbers:
    return between(rng, 2, 60), between(rng, 2, 39)


def _difference(rng: np.random.Generator) -> Numbers:
    left, taken = between(rng, 1, 50), between(rng, 2, 49)
    return left + taken, taken


def _product(rng: np.random.Generator) -> Numbers:
    return between(rng, 2, 9), between(rng, 2, 12)


def _share(rng: np.random.Generator) -> Numbers:
    parts, each = between(rng, 2, 9), between(rng, 2, 12)
    return parts * each, parts


def _percent(rng: np.random.Generator) -> Numbers:
    return between(rng, 1, 20) * 20, pick(rng, (5, 10, 20, 50))


def _dosage(rng: np.random.Generator) -> Numbers:
    return between(rng, 1, 10), between(rng, 2, 6)


def _interest(rng: np.random.Generator) -> Numbers:
    return between(rng, 1, 12) * 100, between(rng, 1, 9)


_NUMBERS: Mapping[str, Callable[[np.random.Generator], Numbers]] = {
    "total": _sum,
    "difference": _difference,
    "product": _product,
    "share": _share,
    "percent": _percent,
    "dosage": _dosage,
    "interest": _interest,
}


def _per_cent(numbers: Sequence[int]) -> int:
    return prod(numbers) // 100


_FORMULAS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "total": sum,
    "difference": lambda numbers: max(numbers) - min(numbers),
    "product": prod,
    "share": lambda numbers: max(numbers) // min(numbers),
    "percent": _per_cent,
    "dosage": prod,
    "interest": _per_cent,
}


def labels(domain: Domain) -> tuple[str, ...]:
    """List the operations that occur in a domain."""
    return _COMMON + _SPECIAL.get(domain.name, ())


def draw(
    domain: Domain, label: str, style: Style, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw (instruction, context, response); the text is written in the organisation's style."""
    numbers = _NUMBERS[label](rng)
    problem = expand(pick(rng, _TEMPLATES[label]), _slots(domain, numbers, rng), rng)
    return pick(rng, _INSTRUCTIONS), write(problem, style, rng), str(_FORMULAS[label](numbers))


def _slots(domain: Domain, numbers: Numbers, rng: np.random.Generator) -> Slots:
    services = domain.words["service"]
    first = between(rng, 0, len(services) - 1)
    return {
        **domain.slots,
        "a": (str(numbers[0]),),
        "b": (str(numbers[1]),),
        "service": (services[first],),
        "other": (services[first - 1],),
        "nouns": (pick(rng, tuple(domain.plurals.values())),),
    }


def answer(label: str, instruction: str, context: str) -> str:
    """Recompute the answer from the label and the numbers in the text."""
    return str(_FORMULAS[label]([int(digits) for digits in _DIGITS.findall(context)]))
