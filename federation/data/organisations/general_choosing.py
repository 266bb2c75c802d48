"""General tasks whose answer is one of a few choices that stand in the prompt."""

import numpy as np

from federation.data.organisations import general_words as words
from federation.data.organisations.phrases import between, chance, expand, pick
from federation.data.organisations.style import STYLES, write

Example = tuple[str, str, str, list[str]]

_LISTS = (
    "Choose one: {}.",
    "Options: {}.",
    "Pick a label: {}.",
    "Answer with one of these: {}.",
    "Labels are {}.",
    "Decide between {}.",
)
_ASKS = (
    "What should be done?",
    "What is asked for here?",
    "Find the label that fits.",
    "Sort this wish into a class.",
    "What is the text about?",
    "Tag the sentence.",
)
_MESSAGES = (
    "[could somebody|would someone|let us|we must] {wish} {thing}[ now| today| later|].",
    "{name} asks us to {wish} {thing}.",
    "[my plan|the plan|the next task|our job]: {wish} {thing}.",
    "[after lunch|before sunset|in {town}|when it rains] we {wish} {thing}.",
    "{name} from {town} said: {wish} {thing}, [if possible|at once|with care].",
    "[do not forget|remember|it would be nice] to {wish} {thing}.",
)


_OPENINGS = (
    "{name} here.", "hm,", "my aunt asks:", "good day to all.", "one thing, dear friends:",
    "just curious:", "oh well.", "may i know:", "it puzzles me:",
)  # fmt: skip
_ENDINGS = (
    "nobody knows.", "tell {name} too.", "we would love to know.", "it is for {name}.",
    "i have wondered all day.", "a short answer will do.",
)  # fmt: skip


def listed(labels: list[str], rng: np.random.Generator) -> str:
    """Write a list of choices in one of several ways."""
    return pick(rng, _LISTS).format(pick(rng, (", ", ", ", " | ", " / ")).join(labels))


def ask(question: str, labels: list[str], rng: np.random.Generator) -> str:
    """Join a question and its choices, either first."""
    choices = listed(labels, rng)
    return f"{question} {choices}" if chance(rng, 0.7) else f"{choices} {question}"


def wish(rng: np.random.Generator) -> Example:
    """Choose the intent of a message among three to eight labels made up for this row."""
    verbs = words.sample(rng, tuple(words.VERBS), between(rng, 3, 8))
    things = words.sample(rng, words.THINGS, len(verbs))
    if chance(rng, 0.2):  # one thing for all: the verb decides
        things = [things[0]] * len(verbs)
    labels = [f"{verb} {thing}" for verb, thing in zip(verbs, things, strict=True)]
    at = between(rng, 0, len(labels) - 1)
    return ask(pick(rng, _ASKS), labels, rng), _wish(verbs[at], things[at], rng), labels[at], labels


def question(rng: np.random.Generator) -> Example:
    """Choose what a question is after: the price, the place, the age of a thing."""
    aspects = words.sample(rng, tuple(words.ASPECTS), between(rng, 2, 7))
    things = words.sample(rng, words.THINGS, len(aspects))
    if chance(rng, 0.5):  # one thing for all: the aspect decides
        things = [things[0]] * len(aspects)
    labels = [f"{thing} {aspect}" for thing, aspect in zip(things, aspects, strict=True)]
    if chance(rng, 0.3):
        labels = aspects
    at = between(rng, 0, len(labels) - 1)
    text = expand(
        f"[{{opening}} |]{pick(rng, words.ASPECTS[aspects[at]])}[ {{ending}}|]",
        {"thing": (things[at],), "opening": _OPENINGS, "ending": _ENDINGS, "name": words.person},
        rng,
    )
    return (
        ask(pick(rng, _ASKS), labels, rng),
        write(text, pick(rng, STYLES), rng),
        labels[at],
        labels,
    )


def _wish(verb: str, thing: str, rng: np.random.Generator) -> str:
    wish = f"{verb} the" if chance(rng, 0.35) else pick(rng, words.VERBS[verb])
    adjective = pick(rng, words.ADJECTIVES) if chance(rng, 0.4) else ""
    slots = {
        "wish": (wish,),
        "thing": (f"{adjective} {thing}",),
        "name": words.person,
        "town": words.TOWNS,
    }
    return write(expand(pick(rng, _MESSAGES), slots, rng), pick(rng, STYLES), rng)


def keyword(rng: np.random.Generator) -> Example:
    """Choose the topic, a group of words, that a sentence belongs to."""
    groups = words.sample(rng, tuple(words.GROUPS), between(rng, 2, 5))
    label = groups[0]
    item = pick(rng, words.GROUPS[label])
    groups = [str(group) for group in rng.permutation(groups)]
    text = pick(
        rng,
        (
            f"{words.person(rng)} wrote the word {item}.",
            f"{item}",
            f"Today we talk about {item} in {pick(rng, words.TOWNS)}.",
            f"I dreamt of {item} again.",
            f'The word on card {between(rng, 1, 99)} is "{item}".',
        ),
    )
    return (
        ask(pick(rng, ("What kind of thing is it?", "Which group fits?")), groups, rng),
        text,
        label,
        groups,
    )


def feeling(rng: np.random.Generator) -> Example:
    """Choose whether somebody is glad or sad."""
    glad = chance(rng, 0.5)
    event = pick(
        rng,
        ("won the race", "found a friend", "got a gift", "heard a fine song", "ate a warm cake")
        if glad
        else (
            "lost a ring",
            "broke an arm",
            "missed the party",
            "fell into mud",
            "cried all night",
        ),
    )
    labels: list[str] = list(
        pick(rng, (("glad", "sad"), ("positive", "negative"), ("good news", "bad news")))
    )
    year = f"{pick(rng, ('it was', 'in'))} {between(rng, 1900, 2019)}"
    text = f"{words.person(rng)} {event} in {pick(rng, words.TOWNS)}, {year}."
    return ask("How does it sound?", labels, rng), text, labels[0 if glad else 1], labels


def by_example(rng: np.random.Generator) -> Example:
    """Continue a mapping of words to made-up labels that is shown by examples."""
    groups = words.sample(rng, tuple(words.GROUPS), between(rng, 2, 3))
    names = [words.nonsense(rng) if chance(rng, 0.5) else group for group in groups]
    order = rng.permutation(len(groups) * 2).tolist()
    shown = [f"{pick(rng, words.GROUPS[groups[i // 2]])} -> {names[i // 2]}" for i in order]
    at = between(rng, 0, len(groups) - 1)
    text = "; ".join([*shown, f"{pick(rng, words.GROUPS[groups[at]])} ->"])
    return "Continue the pattern.", text, names[at], names


def yes_no(rng: np.random.Generator) -> Example:
    """Say whether a list holds a thing, or a number is larger than another."""
    if chance(rng, 0.4):
        a, b = between(rng, 1, 999), between(rng, 1, 999)
        larger = chance(rng, 0.5)
        question = f"Is {a} {'larger' if larger else 'smaller'} than {b}?"
        true = a > b if larger else a < b
        return "Say yes or no.", question, "yes" if true else "no", ["yes", "no"]
    things = words.sample(rng, words.THINGS, between(rng, 3, 7))
    inside = chance(rng, 0.5)
    thing, shown = (pick(rng, things), things) if inside else (things[0], things[1:])
    owner = words.person(rng)
    text = f"{owner} has {', '.join(shown)}."
    question = pick(rng, (f"Is there a {thing}?", f"Does the list name {thing}?"))
    return f"{question} Yes or no?", text, "yes" if inside else "no", ["yes", "no"]
