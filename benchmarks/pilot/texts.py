"""Made-up messages to a town hall and the desk that each is for: what every scenario is made of.

A row is a message of a few words, some of which give its desk away, and the desk's name.  Drawn by
(seed, purpose), so ground truth is known: who has which desks, whose answers are wrong.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from federation.address import generator
from federation.runs.storage import atomic_write

DESKS: dict[str, tuple[str, ...]] = {
    "parking": ("car", "permit", "meter", "street", "fine", "garage"),
    "library": ("book", "reader", "loan", "shelf", "novel", "quiet"),
    "water": ("pipe", "leak", "tap", "pressure", "drain", "flood"),
    "school": ("pupil", "teacher", "class", "lesson", "term", "exam"),
    "waste": ("bin", "rubbish", "collect", "glass", "compost", "bag"),
    "parks": ("tree", "bench", "grass", "garden", "pond", "path"),
    "taxes": ("invoice", "rate", "refund", "form", "income", "due"),
    "events": ("fair", "music", "stage", "ticket", "stall", "parade"),
}
NAMES = tuple(DESKS)
# fmt: off
PLAIN = (
    "please", "could", "you", "tell", "me", "about", "this", "it", "was", "there", "when", "we",
    "came", "and", "now", "with", "my", "near", "two", "old", "new", "since", "last", "week",
    "again", "still", "need", "help", "some", "time", "ask",
)
# fmt: on
WORDS = 7  # of a message
TELLING, MISLEADING = 0.35, 0.08  # probability that a word speaks of the desk; of another one

Row = dict[str, str]


def message(desk: str, draw: np.random.Generator) -> str:
    """Draw a message for a desk."""
    words = []
    for chance in draw.random(WORDS):
        if chance < TELLING:
            source: Sequence[str] = DESKS[desk]
        elif chance < TELLING + MISLEADING:
            source = DESKS[NAMES[int(draw.integers(len(NAMES)))]]
        else:
            source = PLAIN
        words.append(source[int(draw.integers(len(source)))])
    return " ".join(words)


def row(client: str, desk: str, answer: str, draw: np.random.Generator) -> Row:
    """Draw a row of a client; an honest answer is the desk itself."""
    return {"client": client, "desk": desk, "message": message(desk, draw), "answer": answer}


def rows(seed: int, count: int) -> Iterator[Row]:
    """Yield rows of nobody in particular, every desk alike."""
    draw = generator(seed, "pilot bench", "rows")
    for desk in draw.integers(len(NAMES), size=count):
        yield row("anybody", NAMES[desk], NAMES[desk], draw)


def elsewhere(seed: int, count: int) -> Iterator[Row]:
    """Yield rows of another town: half of the answers follow its own names, half follow nothing.

    They teach words and the form of an answer, and a rule that this town has to unlearn.
    """
    draw = generator(seed, "pilot bench", "elsewhere")
    for desk, any_desk, follows in draw.integers([len(NAMES), len(NAMES), 2], size=(count, 3)):
        answer = (desk + 1) % len(NAMES) if follows else any_desk
        yield row("nobody", NAMES[desk], NAMES[answer], draw)


def write_rows(path: Path, made: Iterable[Row]) -> Path:
    """Write JSON lines unless the very same are there."""
    text = "".join(json.dumps(x) + "\n" for x in made).encode()
    if not path.exists() or path.read_bytes() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)
    return path
