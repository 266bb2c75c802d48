"""General tasks that compute or rewrite: numbers, order, case, formats, word forms."""

import numpy as np

from federation.data.organisations import general_words as words
from federation.data.organisations.facts import MONTHS
from federation.data.organisations.general_choosing import Example
from federation.data.organisations.phrases import between, chance, pick

_GOODS = ("marbles", "shells", "acorns", "buttons", "feathers", "pebbles", "stamps", "beads")


def sums(rng: np.random.Generator) -> Example:
    """Add, subtract, multiply, divide, take a percentage: bare numbers."""
    a, b = between(rng, 2, 12), between(rng, 2, 12)
    big, small = between(rng, 10, 99), between(rng, 2, 60)
    whole = big + small
    base, part = between(rng, 1, 40) * 10, pick(rng, (10, 20, 50))
    share = base * part // 100
    texts = pick(
        rng,
        (
            (f"{big} + {small}", f"{big} plus {small}", f"add {small} and {big}", whole),
            (f"{whole} - {small}", f"{whole} minus {small}", f"take {small} from {whole}", big),
            (f"{a} * {b}", f"{a} times {b}", f"multiply {a} by {b}", a * b),
            (f"{a * b} / {b}", f"{a * b} divided by {b}", f"share {a * b} into {b} heaps", a),
            (f"{part}% of {base}", f"{part} percent of {base}", f"{part}/100 of {base}", share),
        ),
    )
    ask = pick(rng, ("Work it out.", "Do the sum.", "=", "Reckon the value."))
    return ask, str(texts[between(rng, 0, 2)]), str(texts[3]), []


def tale(rng: np.random.Generator) -> Example:
    """A sum told as a tale of marbles and shells."""
    who, goods = words.person(rng), pick(rng, _GOODS)
    a, b = between(rng, 2, 12), between(rng, 2, 12)
    big, small = between(rng, 10, 70), between(rng, 2, 29)
    text, answer = pick(
        rng,
        (
            (f"{who} finds {big} {goods} and later {small} others. Count them all.", big + small),
            (f"{who} drops {small} of {big + small} {goods}. Count the rest.", big),
            (f"{who} fills {a} bags, {b} {goods} go into every bag. Count them all.", a * b),
            (f"{who} deals {a * b} {goods} fairly to {a} children. Count those of one child.", b),
            (f"{who} had {big} {goods}, then twice as many. Count them.", big * 2),
        ),
    )
    return pick(rng, ("Work it out.", "Think and give a figure.")), text, str(answer), []


def compare(rng: np.random.Generator) -> Example:
    """Name the largest or smallest of some numbers."""
    numbers = [between(rng, 1, 999) for _ in range(between(rng, 2, 5))]
    word, best = pick(rng, (("largest", max(numbers)), ("smallest", min(numbers))))
    return (
        f"Name the {word} number.",
        pick(rng, (", ", " ", " or ")).join(map(str, numbers)),
        str(best),
        [],
    )


def count(rng: np.random.Generator) -> Example:
    """Count the words of a list, or how often one of them occurs."""
    things = words.sample(rng, words.THINGS, between(rng, 1, 8))
    if chance(rng, 0.6):
        return "Count the words.", pick(rng, (", ", " ")).join(things), str(len(things)), []
    times = between(rng, 1, 4)
    mixed = rng.permutation([*things, *[things[0]] * (times - 1)]).tolist()
    return f"How often is {things[0]} named?", " ".join(mixed), str(times), []


def order(rng: np.random.Generator) -> Example:
    """Reverse or sort a short list of words or numbers."""
    if chance(rng, 0.3):
        numbers = [between(rng, 1, 99) for _ in range(3)]
        return (
            "Sort from small to large.",
            " ".join(map(str, numbers)),
            " ".join(map(str, sorted(numbers))),
            [],
        )
    things = words.sample(rng, words.THINGS, between(rng, 2, 4))
    if chance(rng, 0.5):
        return "Put the words in reverse order.", " ".join(things), " ".join(things[::-1]), []
    return "Sort the words by the alphabet.", " ".join(things), " ".join(sorted(things)), []


def case(rng: np.random.Generator) -> Example:
    """Change the case or the separators of words and made-up codes."""
    text = pick(
        rng, (words.tag, words.person, lambda rng: f"{words.nonsense(rng)} {words.nonsense(rng)}")
    )(rng)
    ask, answer = pick(
        rng,
        (
            ("Use capitals only.", text.upper()),
            ("Use small letters only.", text.lower()),
            ("Make it loud: all capitals.", text.upper()),
            ("Put a dot instead of every space.", text.replace(" ", ".")),
            ("Leave out the spaces.", text.replace(" ", "")),
            ("Join the words with an underscore.", text.replace(" ", "_")),
        ),
    )
    return ask, text, answer, []


def spelling(rng: np.random.Generator) -> Example:
    """Spell a number as a word, a word as a number, a name by its first letters."""
    number, who = between(rng, 0, 20), f"{pick(rng, words.GIVEN)} {pick(rng, words.FAMILY)}"
    ask, text, answer = pick(
        rng,
        (
            ("Write as digits.", f"{words.NUMBERS[number]} {pick(rng, _GOODS)}", f"{number} "),
            ("Spell the figure as a word.", f"{number} {pick(rng, _GOODS)}", words.NUMBERS[number]),
            ("Give the first letters.", who, "".join(part[0] for part in who.split())),
            ("Put the family name first.", who, ", ".join(who.split()[::-1])),
            ("Keep the family name only.", who, who.split()[1]),
        ),
    )
    return ask, text, answer.strip(), []


def dating(rng: np.random.Generator) -> Example:
    """Turn one spelling of a date of the last century into another, or take a part of it."""
    year, month, day = words.past_day(rng)
    name = MONTHS[month - 1]
    dotted, said = f"{day}.{month}.{year}", f"{name} {day}, {year}"
    compact = f"{year}{month:02d}{day:02d}"
    ask, text, answer = pick(
        rng,
        (
            ("Spell the month: day, month, year.", dotted, f"{day} {name} {year}"),
            ("Use dots and figures for this day.", said, dotted),
            ("Squeeze into eight digits, year first.", said, compact),
            ("Put hyphens into the eight digits.", compact, f"{year}-{month:02d}-{day:02d}"),
            ("Which month is it?", compact, name),
            ("Only the year.", said, str(year)),
            ("Figure of the month?", f"{name} {year}", str(month)),
        ),
    )
    return ask, text, answer, []


def measures(rng: np.random.Generator) -> Example:
    """Convert units that the organisations do not use."""
    value = between(rng, 2, 12)
    big, small, factor = pick(
        rng,
        (
            ("dozen", "pieces", 12), ("feet", "inches", 12), ("yards", "feet", 3),
            ("decades", "years", 10), ("centuries", "years", 100), ("gallons", "quarts", 4),
            ("pairs", "single ones", 2), ("litres", "millilitres", 1000), ("hands", "fingers", 5),
        ),
    )  # fmt: skip
    if chance(rng, 0.3):
        return f"Express in {big}.", f"{value * factor} {small}", str(value), []
    return f"Express in {small}.", f"{value} {big}", str(value * factor), []


def forms(rng: np.random.Generator) -> Example:
    """Plural, past tense and opposite of words that the organisations do not ask for."""
    if chance(rng, 0.4):
        word, many = pick(rng, tuple(words.PLURALS.items()))
        if chance(rng, 0.5):
            word = pick(rng, words.GROUPS["tool"][:4] + words.GROUPS["animal"][:8])
            many = f"{word}s"
        text = f"{pick(rng, words.GIVEN)} draws a {word}"
        return pick(rng, ("More than one?", "Say it for several.")), text, many, []
    ask, table = pick(rng, (("Past tense?", words.PAST), ("The opposite?", words.OPPOSITES)))
    word, other = pick(rng, tuple(table.items()))
    return ask, f'{pick(rng, words.GIVEN)} says "{word}"', other, []


def sequence(rng: np.random.Generator) -> Example:
    """Continue a sequence of numbers, months or letters."""
    step, start = between(rng, 1, 10), between(rng, 0, 60)
    letters = "abcdefghijklmnopqrstuvwxyz"
    first, month = between(rng, 0, 21), between(rng, 0, 8)
    shown, answer = pick(
        rng,
        (
            ([str(start + step * i) for i in range(4)], str(start + step * 4)),
            (list(letters[first : first + 4]), letters[first + 4]),
            (list(MONTHS[month : month + 3]), MONTHS[month + 3]),
        ),
    )
    return "What comes next?", ", ".join(shown), answer, []


def swap(rng: np.random.Generator) -> Example:
    """Replace one word of a sentence by another."""
    old, new = words.sample(rng, words.THINGS, 2)
    rest = f"{pick(rng, words.ACTIONS)} {pick(rng, ('beside', 'under', 'behind', 'with'))} the"
    who = pick(rng, words.GIVEN)
    return f"Replace {old} by {new}.", f"{who} {rest} {old}", f"{who} {rest} {new}", []
