"""What the server knows of every registered client, and what a round adds to it.

Knows sizes, last losses, last rounds, seconds and who is online.  Does not know who will be chosen
(:mod:`federation.cohort.selection`), models or data.  A client is its index in the registry sorted
by id.

Shape suffix: N registered clients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Standing:
    """What the server knows of every registered client.  Arrays are read, never written.

    Attributes:
        examples_N: training examples each client holds, ``(N,)`` int64.
        loss_N: last finite mean training loss it reported, nats per token; NaN if none.
        asked_N: last round it was asked, -1 if never, ``(N,)`` int64.
        turns_N: how many times it was asked, ``(N,)`` int64.
        trained_N: last round it trained in, -1 if never, ``(N,)`` int64.
        seconds_N: how long a round takes it, measured or estimated; NaN if not known.
        available_N: whether it may be asked now, ``(N,)`` bool.
    """

    examples_N: Ints
    loss_N: Floats
    asked_N: Ints
    turns_N: Ints
    trained_N: Ints
    seconds_N: Floats
    available_N: Bools

    def __post_init__(self) -> None:
        """Refuse arrays that do not speak of the same clients."""
        shapes = {name: x.shape for name, x in self.arrays().items()}
        if set(shapes.values()) != {(len(self.examples_N),)}:
            raise ValueError(f"every array of a standing must be (N,), got {shapes}")

    @staticmethod
    def fresh(examples: ArrayLike, seconds: ArrayLike | None = None) -> "Standing":
        """Start with N clients that were never asked and are all available.

        Args:
            examples: training examples each client holds, ``(N,)``.
            seconds: estimated seconds for a round, ``(N,)``; not known if omitted.
        """
        examples_N = np.array(examples, dtype=np.int64)
        shape = examples_N.shape
        return Standing(
            examples_N=examples_N,
            loss_N=np.full(shape, np.nan),
            asked_N=np.full(shape, -1, dtype=np.int64),
            turns_N=np.zeros(shape, dtype=np.int64),
            trained_N=np.full(shape, -1, dtype=np.int64),
            seconds_N=np.full(shape, np.nan)
            if seconds is None
            else np.array(seconds, dtype=np.float64),
            available_N=np.ones(shape, dtype=bool),
        )

    def __len__(self) -> int:
        """N, how many clients are registered."""
        return len(self.examples_N)

    def now(self, available: ArrayLike) -> "Standing":
        """Say who is available now, ``(N,)`` bool."""
        return replace(self, available_N=np.array(available, dtype=bool))

    def after(
        self,
        round: int,
        asked: Sequence[int],
        trained: Sequence[int],
        loss: ArrayLike,
        seconds: ArrayLike | None = None,
    ) -> "Standing":
        """Return the standing after a round.

        The arguments are what a journal keeps of a round (in JSON, null for a loss that is no
        number): the same calls in the same order give the same standing again.

        Args:
            round: number of the round.
            asked: indices of the clients that were asked.
            trained: indices of those that made at least one step and reported.
            loss: mean training loss of each of ``trained``.  One that is not finite leaves the
                last finite one in place.
            seconds: what the round took each of ``trained``; estimates stay as they are if omitted.
        """
        loss_N, seconds_N = self.loss_N.copy(), self.seconds_N.copy()
        asked_N, turns_N, trained_N = (
            self.asked_N.copy(),
            self.turns_N.copy(),
            self.trained_N.copy(),
        )
        who, whom = client_indices(trained, len(self)), client_indices(asked, len(self))
        asked_N[whom] = round
        turns_N[whom] += 1
        trained_N[who] = round
        new = np.asarray(loss, dtype=np.float64)
        loss_N[who] = np.where(np.isfinite(new), new, loss_N[who])
        if seconds is not None:
            seconds_N[who] = np.asarray(seconds, dtype=np.float64)
        return replace(
            self,
            loss_N=loss_N,
            asked_N=asked_N,
            turns_N=turns_N,
            trained_N=trained_N,
            seconds_N=seconds_N,
        )

    def arrays(self) -> dict[str, Ints | Floats | Bools]:
        """Return the arrays by name: ``Standing(**standing.arrays())`` is the same standing."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_json(self) -> dict[str, list[int] | list[float | None] | list[bool]]:
        """Return lists that JSON can hold: NaN is null."""
        return {
            name: [None if value != value else value for value in x.tolist()]
            for name, x in self.arrays().items()
        }

    @staticmethod
    def from_json(lists: Mapping[str, Sequence[float | None]]) -> "Standing":
        """Return the standing that ``to_json`` wrote."""
        empty = Standing.fresh([]).arrays()
        return Standing(**{name: np.array(lists[name], dtype=empty[name].dtype) for name in empty})  # pyright: ignore[reportArgumentType]


def client_indices(clients: Iterable[int], population: int) -> Ints:
    """Return client indices as an array; refuse what NumPy would take as counting from the end."""
    index = np.array(list(clients), dtype=np.int64)
    if np.any((index < 0) | (index >= population)):
        raise ValueError(f"client indices must lie in [0, {population}), got {index.tolist()}")
    return index
