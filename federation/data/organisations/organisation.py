"""Organisations and their examples: who they are, what they see, and rows by address.

A row is drawn from the generator at (seed, purpose, organisation id, number of the row), so any row
can be drawn alone, and asking for more rows never changes the ones before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TypedDict

import numpy as np

from federation.address import generator
from federation.data.organisations import arithmetic, dates, extraction, intents, rewriting
from federation.data.organisations.domain import NAMES, Domain, domain_named
from federation.data.organisations.style import STYLES, Style
from federation.errors import ConfigError

TASKS = {
    "intent": intents,
    "extraction": extraction,
    "arithmetic": arithmetic,
    "dates": dates,
    "rewriting": rewriting,
}
TASK_SHARE = {"intent": 0.4, "extraction": 0.2, "arithmetic": 0.1, "dates": 0.15, "rewriting": 0.15}
PER_DOMAIN = 3  # organisations that share a domain, so that there is something to learn together


class Row(TypedDict):
    """One example.  The prompt is ``"{instruction}\\n{context}"``."""

    client: str
    domain: str
    task: str
    label: str
    instruction: str
    context: str
    response: str
    choices: list[str]


@dataclass(frozen=True)
class Organisation:
    """One participant: a domain, a way of writing, a label mix and a size.

    Attributes:
        id: file-name safe, such as ``bank-2``.
        labels: every (task, label) that may occur.
        weights: probability of each of ``labels``; they sum to 1.
        size: how many examples it holds.
    """

    id: str
    domain: str
    style: Style
    labels: tuple[tuple[str, str], ...]
    weights: tuple[float, ...]
    size: int

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Running sum of ``weights``, to draw a label from one uniform number."""
        return np.array(list(accumulate(self.weights)))


def labels_of(domain: Domain) -> tuple[tuple[str, str], ...]:
    """List every (task, label) of a domain."""
    return tuple((task, label) for task, kind in TASKS.items() for label in kind.labels(domain))


def organisations(
    seed: int, count: int, *, total: int = 6000, skew: float = 1.0, exponent: float = 1.0
) -> tuple[Organisation, ...]:
    """Draw the organisations of a federation.

    Args:
        seed: data seed; everything is addressed by it.
        count: how many organisations; about three share a domain.
        total: examples of all together, split by a power law.
        skew: how much label mixes differ: a Dirichlet of concentration 1/skew over the labels of a
            task, and over tasks; 0 gives every organisation of a domain the same mix.
        exponent: of the power law; the k-th largest holds a share proportional to k**-exponent.

    Raises:
        ConfigError: if there are fewer examples than organisations or an argument is out of bounds.
    """
    if count < 1 or total < count:
        raise ConfigError(
            f"organisations: {total} examples cannot be shared by {count} clients; "
            "ask for at least one client and one example each"
        )
    if not (0 <= skew < float("inf") and 0 <= exponent < float("inf")):
        raise ConfigError(f"organisations: skew ({skew}) and exponent ({exponent}) must be >= 0")
    draw = generator(seed, "organisations")
    sizes = draw.permutation(_sizes(count, total, exponent))
    names = draw.permutation(NAMES)[: max(1, -(-count // PER_DOMAIN))].tolist()
    return tuple(
        _organisation(seed, f"{names[i % len(names)]}-{i // len(names) + 1}", int(sizes[i]), skew)
        for i in range(count)
    )


def _sizes(count: int, total: int, exponent: float) -> np.ndarray:
    share = np.arange(1, count + 1) ** -exponent
    ends = np.floor(np.cumsum(share / share.sum()) * (total - count) + 0.5).astype(int)
    return np.diff(ends, prepend=0) + 1


def _organisation(seed: int, name: str, size: int, skew: float) -> Organisation:
    domain = domain_named(name.rpartition("-")[0])
    draw = generator(seed, "organisation", name)
    task_share = _mix(draw, np.array(list(TASK_SHARE.values())), skew / 4)
    weights: list[float] = []
    for kind, share in zip(TASKS.values(), task_share, strict=True):
        uniform = np.ones(len(kind.labels(domain))) / len(kind.labels(domain))
        weights += (share * _mix(draw, uniform, skew)).tolist()
    style = STYLES[int(draw.integers(len(STYLES)))]
    return Organisation(name, domain.name, style, labels_of(domain), tuple(weights), size)


def _mix(draw: np.random.Generator, base: np.ndarray, skew: float) -> np.ndarray:
    """Draw probabilities around ``base`` from a Dirichlet of mean concentration 1/skew."""
    return base if skew == 0 else draw.dirichlet(base * len(base) / skew)


def examples(organisation: Organisation, seed: int, n: int | None = None) -> Iterator[Row]:
    """Draw the rows of one organisation; as many as its size, if not told otherwise."""
    for index in range(organisation.size if n is None else n):
        yield example(organisation, seed, index)


def example(organisation: Organisation, seed: int, index: int) -> Row:
    """Draw one row, by its number."""
    rng = generator(seed, "example", organisation.id, index)
    domain = domain_named(organisation.domain)
    at = int(np.searchsorted(organisation.cumulative, rng.random(), side="right"))
    task, label = organisation.labels[min(at, len(organisation.labels) - 1)]
    instruction, context, response = TASKS[task].draw(domain, label, organisation.style, rng)
    return Row(
        client=organisation.id,
        domain=organisation.domain,
        task=task,
        label=label,
        instruction=instruction,
        context=context,
        response=response,
        choices=list(domain.intents) if task == "intent" else [],
    )


def dataset(
    seed: int, clients: int = 12, total: int = 6000, skew: float = 1.0, exponent: float = 1.0
) -> Iterator[Row]:
    """Draw the rows of a whole federation, one organisation after another.

    Args: as for :func:`organisations`.
    """
    for organisation in organisations(seed, clients, total=total, skew=skew, exponent=exponent):
        yield from examples(organisation, seed)


def check(row: Row) -> bool:
    """Recompute the answer of a row from its texts.

    An intent can only be checked for being one of the choices and the row's label: the message
    was drawn from that intent's phrasings.
    """
    task, label, context = row["task"], row["label"], row["context"]
    if task == "intent":
        return row["response"] == label and label in row["choices"]
    if task == "rewriting":
        return row["response"] == rewriting.answer(domain_named(row["domain"]), label, context)
    return row["response"] == TASKS[task].answer(label, row["instruction"], context)
