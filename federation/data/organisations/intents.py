"""Intent classification: a customer's message, and the short name of what the customer wants."""

import numpy as np

from federation.data.organisations.domain import Domain
from federation.data.organisations.phrases import chance, expand, pick
from federation.data.organisations.style import Style, dress

_ASIDES = (
    "my name is {name}.",
    "this is {name}[ speaking|].",
    "my {document} number is {code}.",
    "reference {code}.",
    "i have been a {person} [for {few} years|since {date}].",
    "you can reach me on {phone}.",
    "[it is|this is] [quite |rather |]urgent.",
    "i already wrote to you {when}.",
    "i [tried|called] {few} times already.",
    "sorry [to bother you|for the trouble].",
)
_INSTRUCTIONS = (
    "What does the {person} want?",
    "Name the intent of this message.",
    "Which topic is the message about?",
    "Classify the request of the {person}.",
)


def labels(domain: Domain) -> tuple[str, ...]:
    """List the intents of a domain."""
    return tuple(domain.intents)


def draw(
    domain: Domain, label: str, style: Style, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw (instruction, context, response) of one intent."""
    body = expand(pick(rng, domain.intents[label]), domain.slots, rng)
    if chance(rng, style.asides):
        aside = expand(pick(rng, _ASIDES), domain.slots, rng)
        body = f"{aside} {body}" if chance(rng, 0.5) else f"{body} {aside}"
    instruction = pick(rng, _INSTRUCTIONS).replace("{person}", domain.person)
    return instruction, dress(body, style, rng), label
