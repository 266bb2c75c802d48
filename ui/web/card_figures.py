"""A quality card in words: every figure with its meaning, what is good, and how it stands."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

Verdict = Literal["good", "look", "bad", ""]
"""How a figure stands; empty: it is neither good nor bad."""


class Meaning(NamedTuple):
    """What a figure means.

    Attributes:
        name: for people.
        meaning: what is measured.
        good: what is good.
        verdict: how a value stands.
    """

    name: str
    meaning: str
    good: str
    verdict: Callable[[float], Verdict]


def below(good: float, bad: float) -> Callable[[float], Verdict]:
    """Judge a figure of which less is better."""
    return lambda x: "good" if x <= good else "bad" if x > bad else "look"


def above(good: float, bad: float) -> Callable[[float], Verdict]:
    """Judge a figure of which more is better."""
    return lambda x: "good" if x >= good else "bad" if x < bad else "look"


def neither(_: float) -> Verdict:
    """Judge nothing."""
    return ""


DIVERSITY = {
    "distinct_1": Meaning(
        "Distinct words", "different words over all words",
        "more is more varied; falls as a set grows", neither,
    ),
    "distinct_2": Meaning(
        "Distinct pairs", "different pairs of words over all pairs",
        "above 0.3; far below, sentences repeat", above(0.3, 0.1),
    ),
    "overlap": Meaning(
        "Overlap", "mean share of a row's 1- to 4-grams that stand in other rows too",
        "below 0.7; near 1, rows are variations of one another", below(0.7, 0.9),
    ),
    "spread": Meaning(
        "Spread", "one minus the mean cosine of two rows",
        "above 0.6; near 0, all rows speak of the same", above(0.6, 0.3),
    ),
}  # fmt: skip
LIKENESS = {
    "two_sample": Meaning(
        "Told apart", "accuracy of a classifier that tells made-up rows from real ones",
        "near 0.5, which is chance; 1: it always can", below(0.7, 0.9),
    ),
    "two_sample_p": Meaning(
        "Told apart, p", "probability of so high an accuracy by chance",
        "large; below 0.05 the difference is real", neither,
    ),
    "nearest": Meaning(
        "Distance to real rows", "median cosine distance of a made-up row to the nearest real one",
        "about as far as real rows are from each other", neither,
    ),
    "nearest_least": Meaning(
        "Nearest of all", "distance of the made-up row that is nearest to a real one",
        "above 0.05; near 0, a row is nearly a copy", above(0.05, 0.01),
    ),
    "nearest_real": Meaning(
        "Among real rows", "median distance of a real row to the nearest other real one",
        "the yardstick for the two above", neither,
    ),
}  # fmt: skip
LEAKAGE = {
    "longest_shared": Meaning(
        "Longest shared passage", "words of the longest passage that a private text has too",
        "below the passages that are refused (13 words by default)", below(8, 12),
    ),
    "near_copies": Meaning(
        "Near copies", "rows that are nearly a private text", "none", below(0, 0)
    ),
    "canary_hits": Meaning(
        "Canaries found", "rows that hold a text that was planted", "none", below(0, 0)
    ),
    "canaries": Meaning("Canaries planted", "texts that were planted to be looked for",
        "some: without any, finding none says little", neither),
}  # fmt: skip
GROUPS = {
    "diversity": ("Do rows differ?", DIVERSITY),
    "likeness": ("Are they like real ones?", LIKENESS),
    "leakage": ("Does private text leak?", LEAKAGE),
}
NOT_MEASURED = {
    "diversity": "Not measured: there is a single row.",
    "likeness": "Not measured: name private files, and rows are compared with them.",
    "leakage": "Not measured: no private text was read, so none of it can have leaked.",
}
VERDICTS = {
    "good": (":material/check_circle:", "green", "good"),
    "look": (":material/visibility:", "orange", "look at it"),
    "bad": (":material/error:", "red", "bad"),
    "": (":material/info:", "gray", "for information"),
}
"""Verdict -> icon, colour and word."""


class Figure(NamedTuple):
    """One figure of a card.

    Attributes:
        name: for people.
        value: as people read it.
        meaning: what is measured.
        good: what is good.
        verdict: how it stands.
    """

    name: str
    value: str
    meaning: str
    good: str
    verdict: Verdict


def figures(card: Mapping[str, Any], group: str) -> list[Figure]:
    """Return the figures of a group of a card; none if it was not measured.

    A figure that no meaning is written for is shown by its own name.
    """
    found = card.get(group) or {}
    known = GROUPS[group][1]
    return [figure(known.get(name), name, value) for name, value in found.items()]


def figure(meaning: Meaning | None, name: str, value: float) -> Figure:
    """Return one figure."""
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    if meaning is None:
        return Figure(name.replace("_", " ").capitalize(), text, "", "", "")
    return Figure(meaning.name, text, meaning.meaning, meaning.good, meaning.verdict(value))


def kept(card: Mapping[str, Any]) -> list[Figure]:
    """Return how well the profile was kept."""
    skew = card.get("skew") or []
    asked = sum(sum(x["asked"].values()) for x in skew)
    got = sum(sum(x["got"].values()) for x in skew)
    worst = max((x["distance"] for x in skew), default=0.0)
    share = got / asked if asked else 0.0
    return [
        Figure(
            "Rows", f"{got:,} of {asked:,}", "rows that were made of those that were asked for",
            "all of them; what is missing is listed below", above(1.0, 0.9)(share),
        ),
        Figure(
            "Label mixes", f"{worst:.3f}",
            "largest distance of a client's label mix to the one asked for: 0 equal, 1 disjoint",
            "below 0.05", below(0.05, 0.2)(worst),
        ),
    ]  # fmt: skip


def refusals(card: Mapping[str, Any]) -> Iterator[str]:
    """Say what was refused or failed, and what is missing."""
    for name, count in (card.get("refused") or {}).items():
        yield f"{count:,} rows refused: {name}"
    for name, count in (card.get("failures") or {}).items():
        yield f"{count:,} batches failed: {name}"
    for x in (card.get("missing") or [])[:10]:
        short = f"{x['asked'] - x['got']:,} of {x['asked']:,}"
        yield f"{short} rows missing: {x['label']} of {x['client']}"
