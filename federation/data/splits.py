"""What a client trains on, what it is judged on, and which clients are never trained on.

This module knows row numbers of clients.  It does not know how rows became clients
(``federation.data.partition``) nor what a row holds.  Every draw is addressed by (seed, client
name), so a client's split depends on that client and its rows alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from federation.address import address, generator
from federation.data.clients import Clients, Integers
from federation.errors import DataError
from federation.specs import Spec

NAMED = 5  # clients that a sentence names


class SplitSpec(Spec):
    """Shares of every client's rows.  Frozen; every field bounded; the rest is trained on."""

    validation: float = Field(default=0.1, ge=0, lt=1, description="share of each client's rows")
    test: float = Field(default=0.1, ge=0, lt=1, description="share of each client's rows")
    global_test: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of each client's rows pooled into a global test set of its own;"
        " 0: the global test set is the union of the clients' tests",
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        taken = self.validation + self.test + self.global_test
        if taken >= 1:
            raise ValueError(
                f"validation + test + global_test = {taken:g} leaves nothing to train on; keep the"
                " sum below 1"
            )
        return self


@dataclass(frozen=True, eq=False)
class Splits:
    """Every row in exactly one of ``train``, ``validation``, ``test``, ``unseen``, ``set_aside``.

    Attributes:
        train: training rows of each training client; never empty.
        validation: validation rows of the same clients in the same order; may be empty.
        test: test rows of the same clients in the same order; may be empty.
        unseen: all rows of the clients that are held out whole.
        set_aside: rows kept for the global test set alone, ascending; empty where the union of the
            clients' tests serves.
        brought: training clients that extra rows alone make.
    """

    train: Clients
    validation: Clients
    test: Clients
    unseen: Clients
    set_aside: NDArray[np.int64]
    brought: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The training clients."""
        return self.train.names

    @property
    def untested(self) -> tuple[str, ...]:
        """The training clients of too few rows for one to test on, if others have some."""
        sizes = self.test.sizes
        without = [self.names[i] for i in np.flatnonzero(sizes == 0)] if sizes.any() else []
        return tuple(name for name in without if name not in self.brought)

    @property
    def global_test(self) -> NDArray[np.int64]:
        """Rows the global model is judged on, ascending: those set aside, or all clients' tests."""
        return self.set_aside if self.set_aside.size else np.sort(self.test.order)


def left_out(splits: Splits) -> list[str]:
    """Say which training clients are not judged, and why, in a line each."""
    said = []
    if splits.untested:
        said.append(not_judged(splits.untested))
    if splits.brought:
        said.append(only_extra(splits.brought))
    return said


def not_judged(untested: Sequence[str]) -> str:
    """Say which clients figures per client leave out."""
    one = len(untested) == 1
    return (
        f"{len(untested):,} {'client has' if one else 'clients have'} too few rows for one to test"
        f" on, so figures per client leave {'it' if one else 'them'} out: {named(untested)}"
    )


def only_extra(brought: Sequence[str]) -> str:
    """Say which clients the data itself has not: a name may be a slip."""
    one = len(brought) == 1
    return (
        f"{len(brought):,} {'client has' if one else 'clients have'} rows of data.extra alone, none"
        f" to test on, so figures per client leave {'it' if one else 'them'} out: {named(brought)}"
    )


def named(clients: Sequence[str]) -> str:
    """Name the first few of some clients."""
    more = f" and {len(clients) - NAMED:,} more" if len(clients) > NAMED else ""
    return ", ".join(map(repr, clients[:NAMED])) + more


def split(
    clients: Clients,
    spec: SplitSpec,
    *,
    seed: int,
    unseen: float = 0.0,
    test_rows: Integers | None = None,
) -> Splits:
    """Split every client's rows and hold whole clients out.

    A share of a client's m rows is rounded up or down by chance so that it is right on average:
    four rows at ``test=0.1`` are not always zero tests.  A client always trains on one row at
    least, so a single row is a training row.  Clients held out are not split.

    Args:
        clients: who holds what.
        spec: shares.
        seed: data seed.
        unseen: clients to hold out whole, a fraction below 1 or a number.
        test_rows: rows that no client holds and that are the global test set.

    Raises:
        DataError: naming the client, if one has no rows; if ``unseen`` leaves no client to train or
            rounds to none; if ``test_rows`` belong to a client.
    """
    if not clients.sizes.all():
        name = clients.names[int(clients.sizes.argmin())]
        raise DataError(f"client {name!r} has no rows; give it one or take it out")
    out = held_out(clients.names, unseen, seed=seed)
    kept = clients.only(np.flatnonzero(~out))
    part = _parts(kept, spec, seed)
    return Splits(
        train=_select(kept, part == 0),
        validation=_select(kept, part == 1),
        test=_select(kept, part == 2),
        unseen=clients.only(np.flatnonzero(out)),
        set_aside=_set_aside(clients, kept.order[part == 3], test_rows),
    )


def with_extra(splits: Splits, extra: Mapping[int, str]) -> Splits:
    """Give clients further rows to train on; they are tested on what they were tested on before.

    Args:
        splits: of all other rows.
        extra: row -> client; whoever is new becomes a client without rows to be judged on.
    """
    train = splits.train.given(extra)
    nothing = dict.fromkeys(train.names[len(splits.names) :])
    return replace(
        splits,
        train=train,
        validation=splits.validation.also(nothing),
        test=splits.test.also(nothing),
        brought=tuple(nothing),
    )


def held_out(names: tuple[str, ...], unseen: float, *, seed: int) -> NDArray[np.bool_]:
    """Choose the clients that no round ever trains.

    Every client has a place in a lottery by its own address; the lowest are held out.  A new
    client can therefore displace one at the edge, never reshuffle the rest.

    Args:
        names: all clients.
        unseen: a fraction below 1 of them, or a number of them.
        seed: data seed.

    Returns:
        True where held out, ``(N,)``.

    Raises:
        DataError: if no client, or every client, would be held out.
    """
    number = int(unseen) if unseen >= 1 else int(unseen * len(names) + 0.5)
    if (unseen > 0 and number == 0) or number >= len(names):
        raise DataError(
            f"unseen = {unseen:g} holds out {number} of {len(names)} clients; it must hold out one"
            " and leave one"
        )
    lottery = np.array([address(seed, "unseen", name) for name in names], dtype=np.uint64)
    out = np.zeros(len(names), dtype=bool)
    out[np.argsort(lottery, kind="stable")[:number]] = True
    return out


def _parts(clients: Clients, spec: SplitSpec, seed: int) -> NDArray[np.int8]:
    """Say for each entry of ``clients.order``: 0 train, 1 validation, 2 test, 3 global test."""
    shares = np.cumsum([spec.global_test, spec.test, spec.validation])
    part = np.zeros(len(clients.order), dtype=np.int8)
    for i, name in enumerate(clients.names):
        mine = part[clients.bounds[i] : clients.bounds[i + 1]]
        draw = generator(seed, "split", name)
        # One draw rounds all cuts: each part is within a row of its share, right on average.
        cuts = np.minimum(np.floor(shares * len(mine) + draw.random()), len(mine) - 1).astype(int)
        shuffled = draw.permutation(len(mine))
        mine[shuffled[: cuts[0]]] = 3
        mine[shuffled[cuts[0] : cuts[1]]] = 2
        mine[shuffled[cuts[1] : cuts[2]]] = 1
    return part


def _select(clients: Clients, chosen: NDArray[np.bool_]) -> Clients:
    """Keep the chosen entries of ``clients.order`` and every client, even one left without rows."""
    before = np.concatenate([[0], np.cumsum(chosen)])
    return Clients(clients.names, clients.order[chosen], before[clients.bounds])


def _set_aside(
    clients: Clients, drawn: NDArray[np.int64], given: Integers | None
) -> NDArray[np.int64]:
    given = np.empty(0, dtype=np.int64) if given is None else np.asarray(given, dtype=np.int64)
    shared = np.intersect1d(clients.order, given)
    if shared.size:
        raise DataError(
            f"row {shared[0] + 1} is in the global test set and with a client; it must be in one"
        )
    return np.unique(np.concatenate([drawn, given]))
