"""What clients and runs are called in a conversation with a model: c1, c2, ...; r1, r2, ...

Clients are numbered in the order in which the journal first names them, which stays as it is while
the run goes on; runs by the names of their folders.  A person may use either name: what was said is
rewritten before a model sees it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from federation.runs import storage
from federation.runs.folder import is_run
from federation.runs.records import DecisionRecord, RoundRecord
from federation.runs.run import Run

T = TypeVar("T")
BETWEEN = re.compile(r"[ _./-]+")
"""What stands between the words of a name."""
LONG_NUMBER = 5  # digits from which a number is taken for a name


@dataclass(frozen=True)
class Names:
    """Pseudonyms.

    Attributes:
        clients: pseudonym -> name, of the clients that were ever asked.
        runs: pseudonym -> run directory, of the other runs beside this one.
    """

    clients: dict[str, str]
    runs: dict[str, Path]

    @classmethod
    def of(cls, run: Run) -> "Names":
        """Give the clients and the neighbours of a run their pseudonyms."""
        seen: dict[str, None] = {}
        for entry in run.entries:
            match entry.record:
                case DecisionRecord(clients=clients):
                    seen |= dict.fromkeys(clients)
                case RoundRecord(clients=clients, missing=missing):
                    seen |= dict.fromkeys((*clients, *missing))
                case _:
                    pass
        folder = run.path.absolute().parent
        with storage.explained(folder):
            beside = sorted(path for path in folder.iterdir() if is_run(path))
        others = [path for path in beside if path.name != run.path.absolute().name]
        return cls(numbered("c", seen), numbered("r", others))

    def pseudonyms(self, names: Iterable[str]) -> list[str]:
        """Return what clients are called to a model."""
        known = {name: pseudonym for pseudonym, name in self.clients.items()}
        return [known[name] for name in names]

    def hidden(self, text: str) -> str:
        """Replace names of clients and runs in a text by their pseudonyms, the longest first.

        What stands between the words of a name does not matter: an arm of a study has hyphens where
        a client has spaces.  Names of one letter and short numbers stay where they are: they are
        what any text is full of, and nobody could ask for round 7.
        """
        known = {name: pseudonym for pseudonym, name in self.clients.items()}
        for pseudonym, path in self.runs.items():
            known |= {path.name: pseudonym, str(path): pseudonym}
        names = sorted((name for name in known if telling(name)), key=len, reverse=True)
        if not names:
            return text
        either = "|".join(map(spelt, names))
        pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
        folded = {joined(name): pseudonym for name, pseudonym in known.items()}
        folded |= {name.casefold(): pseudonym for name, pseudonym in known.items()}
        return pattern.sub(
            lambda found: folded.get(found[0].casefold()) or folded[joined(found[0])], text
        )

    def told(self, pseudonyms: Iterable[str]) -> list[str]:
        """Say to a person who is meant: one line a client, in signs that a terminal can show."""
        return [f"{p} is {printable(self.clients[p])}" for p in pseudonyms if p in self.clients]


def spelt(name: str) -> str:
    """Return the pattern of a name, whatever stands between its words."""
    words = BETWEEN.split(name)
    return BETWEEN.pattern.join(map(re.escape, words)) if all(words) else re.escape(name)


def joined(name: str) -> str:
    """Return a name in small letters with hyphens between its words."""
    return BETWEEN.sub("-", name.casefold())


def telling(name: str) -> bool:
    """Tell whether a name in a text is one, and not a letter or a number like any other."""
    return len(name) > 1 and not (name.isdecimal() and len(name) < LONG_NUMBER)


def numbered(letter: str, things: Iterable[T]) -> dict[str, T]:
    """Name things by a letter and a number from 1."""
    return {f"{letter}{number}": thing for number, thing in enumerate(things, 1)}


def printable(name: str, most: int = 60) -> str:
    """Make a name fit for a line of a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in name)
    return text if len(text) <= most else f"{text[: most - 1]}…"
