"""Extraction: one field of a message, copied exactly as it is written there."""

import numpy as np

from federation.data.organisations.domain import Domain
from federation.data.organisations.facts import FOUND
from federation.data.organisations.phrases import between, expand, pick
from federation.data.organisations.style import Style, dress

_CLAUSES = {
    "name": (
        "my name is {name}.",
        "this is {name}[ speaking|].",
        "[i am writing|i call] [for|on behalf of] {name}.",
        "[please ask for|the contact is] {name}.",
        "the {document} is [for|in the name of] {name}.",
    ),
    "date": (
        "[it|all this] [was|happened] on {date}.",
        "[i need it|please answer] [by|before] {date}.",
        "the {service} [is|was] on {date}.",
        "i [signed|sent] the {document} on {date}.",
        "[valid|starting] from {date}.",
    ),
    "amount": (
        "i paid {amount}[ for the {service}|].",
        "[you charged|the bill says|the total is] {amount}.",
        "the {service} [costs|was] {amount}.",
        "[please refund|i still owe|i transferred] {amount}.",
    ),
    "number": (
        "my {document} number is {code}.",
        "[the reference is|it is about|please look at] {code}.",
        "[ref|number|case|file] {code}.",
        "i [write|call] because of the {document} {code}.",
    ),
    "phone": (
        "[call me on|my number is|ring me at] {phone}.",
        "you can reach me on {phone}.",
        "[phone|mobile|tel] {phone}.",
    ),
    "time": (
        "[please call|i can come] at {time}.",
        "[we meet|it starts|i was there] at {time}.",
        "the {place} [told me to come|was closed] at {time}.",
    ),
}
_INSTRUCTIONS = {
    "name": ("Extract the name.", "Which name is in the message?", "Who is named here?"),
    "date": ("Extract the date.", "Which date is in the message?", "On which date?"),
    "amount": ("Extract the amount.", "Which amount of money is named?", "How much money?"),
    "number": (
        "Extract the reference number.",
        "Which reference number is given?",
        "Copy the {document} number.",
    ),
    "phone": ("Extract the phone number.", "Which phone number is given?"),
    "time": ("Extract the time of day.", "Which time of day is named?"),
}
LABELS = tuple(_CLAUSES)


def labels(domain: Domain) -> tuple[str, ...]:
    """List the fields that can be asked for; the same in every domain."""
    return LABELS


def draw(
    domain: Domain, label: str, style: Style, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw (instruction, context, response) with one to three other fields as distractors."""
    fields = _fields(label, rng)
    clauses = [expand(pick(rng, _CLAUSES[field]), domain.slots, rng) for field in fields]
    context = dress(" ".join(clauses), style, rng)
    instruction = expand(pick(rng, _INSTRUCTIONS[label]), domain.slots, rng)
    return instruction, context, answer(label, instruction, context)


def _fields(label: str, rng: np.random.Generator) -> list[str]:
    fields = [other for other in rng.permutation(LABELS).tolist() if other != label]
    fields = fields[: between(rng, 1, 3)]
    fields.insert(between(rng, 0, len(fields)), label)
    return fields


def answer(label: str, instruction: str, context: str) -> str:
    """Find the field again in the text.

    Raises:
        ValueError: if the field does not occur exactly once.
    """
    found = FOUND[label].findall(context)
    if len(found) != 1:
        raise ValueError(f"{len(found)} fields of kind {label!r} in {context!r}")
    return found[0]
