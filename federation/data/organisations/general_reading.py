"""General tasks whose answer is copied out of the prompt: records, sentences, lists, lookups."""

from collections.abc import Callable, Mapping

import numpy as np

from federation.data.organisations import general_words as words
from federation.data.organisations.general_choosing import Example
from federation.data.organisations.phrases import between, chance, expand, pick
from federation.data.organisations.style import STYLES, write

_VALUES: Mapping[str, Callable[[np.random.Generator], str]] = {
    "name": words.person,
    "owner": words.person,
    "nickname": words.nonsense,
    "team": words.nonsense,
    "title": lambda rng: f"the {pick(rng, words.ADJECTIVES)} {pick(rng, words.THINGS)}",
    "town": lambda rng: pick(rng, words.TOWNS),
    "job": lambda rng: pick(rng, words.JOBS),
    "colour": lambda rng: pick(rng, words.GROUPS["colour"]),
    "material": lambda rng: pick(rng, words.GROUPS["metal"]),
    "animal": lambda rng: pick(rng, words.GROUPS["animal"]),
    "age": lambda rng: str(between(rng, 1, 99)),
    "year": lambda rng: str(between(rng, 1900, 2019)),
    "score": lambda rng: f"{between(rng, 0, 99)}:{between(rng, 0, 99)}",
    "code": words.tag,
    "price": words.price,
    "weight": lambda rng: f"{between(rng, 2, 900)} pounds",
    "height": lambda rng: f"{between(rng, 1, 90)} feet",
    "room": lambda rng: f"{between(rng, 1, 40)}{pick(rng, 'abcdef')}",
    "shelf": lambda rng: f"row {between(rng, 1, 60)}",
    "size": lambda rng: pick(rng, ("small", "medium", "large", "huge", "tiny")),
    "email": lambda rng: f"{words.nonsense(rng)}@{words.nonsense(rng)}.example",
    "birthday": words.past_date,
}
_ASK_FIELD = (
    "Give the {}.", "What is the {}?", "Find the {} in the record.", "Look up the {}.", "{}?",
    "Read the entry and write down its {}.", "Return only the {}.",
)  # fmt: skip
_JOINS = ("; ", ", ", " | ", ". ")
_PAIRS = ("{}: {}", "{} = {}", "{} is {}", "<{}> {}", "[{}] {}")
_STORY = (
    ("[In|Around] {year}", "{name}", "[the|a] {job}", "{did} {count} {thing}s", "in {town}"),
    ("{name}", "from {town}", "{did} {count} {thing}s", "[on|since] {date}", "for {price}"),
    ("It was {date}", "when {name}", "{did} a {thing}", "[marked|called] {code}", "in {town}"),
    ("{count} {thing}s", "[came|went] to {town}", "[with|from] {name}", "on {date}", "as {code}"),
)  # fmt: skip
_DID = ("sold", "found", "painted", "lost", "washed", "counted", "carried", "hid", "bought", "drew")
_QUESTIONS = {
    "name": ("Who is it?", "Which person does the story tell of?", "Who did it?"),
    "town": ("Where was it?", "Which town is it?", "Name the place."),
    "date": ("When was it?", "Which day does the story give?", "Give the day of the event."),
    "year": ("In which year?", "Give the year."),
    "job": ("What is the person's job?",),
    "count": ("How many things?", "Give the number of things."),
    "code": ("Which code is used?", "Copy the code.", "Spell out the mark."),
    "price": ("What was the price?", "For how much money?"),
    "thing": ("Which thing is it?", "What kind of thing?"),
}
_PLACES = ("box", "bag", "drawer", "jar", "basket", "chest", "cupboard", "tin")


def record(rng: np.random.Generator) -> Example:
    """Read one field of a record of three to seven fields."""
    fields = words.sample(rng, tuple(_VALUES), between(rng, 3, 7))
    values = [_VALUES[field](rng) for field in fields]
    pair = pick(rng, _PAIRS)
    text = pick(rng, _JOINS).join(map(pair.format, fields, values))
    at = between(rng, 0, len(fields) - 1)
    ask = pick(rng, _ASK_FIELD).format(fields[at])
    return ask[0].upper() + ask[1:], text, values[at], []


def story(rng: np.random.Generator) -> Example:
    """Answer who, where, when, how many about one sentence, sometimes in a careless style."""
    facts = {
        "name": words.person(rng),
        "town": pick(rng, words.TOWNS),
        "date": words.past_date(rng),
        "year": str(between(rng, 1900, 2019)),
        "job": pick(rng, words.JOBS),
        "count": str(between(rng, 2, 90)),
        "code": words.tag(rng),
        "price": words.price(rng),
        "thing": pick(rng, words.THINGS),
    }
    parts = pick(rng, _STORY)
    slots = {**{key: (value,) for key, value in facts.items()}, "did": _DID}
    text = f"{expand(' '.join(parts), slots, rng)}."
    asked = pick(rng, tuple(key for key in facts if f"{{{key}}}" in " ".join(parts)))
    if chance(rng, 0.3):
        text = f"{text} {words.person(rng)[:1]}. {pick(rng, words.ACTIONS)}."
    return pick(rng, _QUESTIONS[asked]), text, facts[asked], []


def lookup(rng: np.random.Generator) -> Example:
    """Recall what belongs to what: two to five keys with a value each."""
    count = between(rng, 2, 5)
    keys, values, ask, join = pick(rng, (_boxes, _owners, _codebook))(rng, count)
    at = between(rng, 0, count - 1)
    text = " ".join(join.format(*pair) for pair in zip(keys, values, strict=True))
    return ask.format(keys[at]), text, values[at], []


def _boxes(rng: np.random.Generator, count: int) -> tuple[list[str], list[str], str, str]:
    place = pick(rng, _PLACES)
    keys = [f"{colour} {place}" for colour in words.sample(rng, words.GROUPS["colour"], count)]
    values = words.sample(rng, words.THINGS, count)
    return keys, values, "What is in the {}?", "The {} holds a {}."


def _owners(rng: np.random.Generator, count: int) -> tuple[list[str], list[str], str, str]:
    keys = words.sample(rng, words.GIVEN, count)
    values = words.sample(rng, words.THINGS, count)
    verb = pick(rng, ("own", "like", "fear", "want"))
    return keys, values, f"What does {{}} {verb}?", f"{{}} {verb}s a {{}}."


def _codebook(rng: np.random.Generator, count: int) -> tuple[list[str], list[str], str, str]:
    keys = [words.nonsense(rng) + str(i) for i in range(count)]
    values = [f"{pick(rng, words.ADJECTIVES)} {pick(rng, words.THINGS)}" for _ in keys]
    return keys, values, "What does {} mean here?", "{} means {}."


def copy(rng: np.random.Generator) -> Example:
    """Repeat a text, a quotation, or what follows a colon."""
    secret = pick(rng, (words.tag, words.person, words.price, words.past_date, _two))(rng)
    instruction, text = pick(
        rng,
        (
            ("Repeat the text.", secret),
            ("Write what stands in brackets.", f"{_words(rng)} ({secret}) {_words(rng)}"),
            ("Copy what comes after the colon.", f"{_words(rng)}: {secret}"),
            ("Copy the part between the stars.", f"{_words(rng)} *{secret}* {_words(rng)}"),
        ),
    )
    return instruction, text, secret, []


def _two(rng: np.random.Generator) -> str:
    return f"{pick(rng, words.ADJECTIVES)} {pick(rng, words.THINGS)}"


def _words(rng: np.random.Generator) -> str:
    return " ".join(words.sample(rng, words.THINGS + words.ADJECTIVES, between(rng, 1, 4)))


def spot(rng: np.random.Generator) -> Example:
    """Find the one item of its kind in a list: the number, the name, the code, the animal."""
    kind, draw = pick(
        rng,
        (
            ("number", lambda rng: str(between(rng, 10, 9999))),
            ("person", words.person),
            ("date", words.past_date),
            ("price", words.price),
            ("email address", _VALUES["email"]),
        ),
    )
    secret = draw(rng)
    # The secret goes in last: a style must not mistype what has to be found.
    text = write(f"{_words(rng)} \0 {_words(rng)}", pick(rng, STYLES), rng).replace("\0", secret)
    ask = pick(
        rng, ("Find the {} among the words.", "Which {} is hidden here?", "Pull out the {}.")
    )
    return ask.format(kind), text, secret, []


def position(rng: np.random.Generator) -> Example:
    """Name the first, second, third or last item of a list."""
    things = words.sample(rng, words.THINGS, between(rng, 3, 6))
    place, at = pick(rng, (("first", 0), ("second", 1), ("third", 2), ("last", -1)))
    join = pick(rng, (", ", " ", "; ", " - "))
    return f"Give the {place} word of the list.", join.join(things), things[at], []


def after(rng: np.random.Generator) -> Example:
    """Name the item that comes just after or before another in a list."""
    things = words.sample(rng, words.THINGS, between(rng, 4, 7))
    at = between(rng, 1, len(things) - 2)
    place, answer = pick(rng, (("after", things[at + 1]), ("before", things[at - 1])))
    return f"Which word comes just {place} {things[at]}?", ", ".join(things), answer, []
