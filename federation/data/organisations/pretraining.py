"""Rows to pre-train the base model: the formats of the organisations' tasks, none of their words.

Disjoint from the federation: given and family names, towns, labels (intents and tasks),
instructions, message templates, codes, years (1900-2019 against 2024-2027), abbreviations, plurals
and units.  Shared: small numbers and their sums, the names of the months, the ways in which
sentences are mistyped, ordinary English words.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

import numpy as np

from federation.address import generator
from federation.data.organisations import general_choosing as choosing
from federation.data.organisations import general_reading as reading
from federation.data.organisations import general_writing as writing
from federation.data.organisations.general_choosing import Example
from federation.data.organisations.organisation import Row

_MIX: Mapping[Callable[[np.random.Generator], Example], float] = {
    choosing.wish: 2.5,
    choosing.question: 2.5,
    choosing.keyword: 1.0,
    choosing.feeling: 0.3,
    choosing.by_example: 1.0,
    choosing.yes_no: 1.0,
    reading.record: 2.5,
    reading.story: 3.0,
    reading.lookup: 2.0,
    reading.copy: 1.5,
    reading.spot: 1.5,
    reading.position: 0.7,
    reading.after: 0.7,
    writing.sums: 2.0,
    writing.tale: 1.2,
    writing.compare: 0.7,
    writing.count: 0.7,
    writing.order: 0.7,
    writing.case: 1.5,
    writing.spelling: 0.7,
    writing.dating: 1.2,
    writing.measures: 0.5,
    writing.forms: 0.5,
    writing.sequence: 0.4,
    writing.swap: 0.4,
}
_TASKS = tuple(_MIX)
_CUMULATIVE = np.array(list(accumulate(_MIX.values()))) / sum(_MIX.values())


def pretraining_rows(seed: int, n: int) -> Iterator[Row]:
    """Draw rows of generic instruction following, row ``i`` at the address (seed, i)."""
    for index in range(n):
        yield _row(generator(seed, "pretraining", index))


def _row(rng: np.random.Generator) -> Row:
    task = _TASKS[int(np.searchsorted(_CUMULATIVE, rng.random() * 0.999999, side="right"))]
    instruction, context, response, choices = task(rng)
    return Row(
        client="pretraining",
        domain="general",
        task=task.__name__,
        label=task.__name__,
        instruction=instruction,
        context=context,
        response=response,
        choices=choices,
    )
