"""Clients as groups of row numbers, and names that are safe to write to disk.

This module knows integers and names.  It does not know why a row belongs to a client: that is
decided in ``federation.data.partition``.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]

_SAFE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_UNSAFE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*-[0-9a-f]{8}")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, eq=False)
class Column:
    """One categorical field of the data.

    Attributes:
        codes: for each row a position in ``names``, or -1 where the row lacks the field, ``(n,)``.
        names: the distinct values.
    """

    codes: Integers
    names: Sequence[str]

    def by_name(self) -> "Column":
        """Number the values in the natural order of their names, whatever order rows came in."""
        # The name itself decides between "client 1" and "client 01".
        whole = [(natural(name), name) for name in self.names]
        order = sorted(range(len(self.names)), key=whole.__getitem__)
        rank = np.full(len(order) + 1, -1, dtype=np.int64)  # the last cell serves code -1
        rank[order] = np.arange(len(order))
        return Column(rank[self.codes], tuple(self.names[code] for code in order))


@dataclass(frozen=True, eq=False)
class Clients:
    """Row numbers grouped by client: two arrays, whatever the number of clients.

    Attributes:
        names: one distinct name per client, as people know it.  Addresses of randomness use it.
        order: row numbers, client after client, ascending within a client, ``(n,)`` int64.
        bounds: client i holds ``order[bounds[i]:bounds[i + 1]]``, ``(N + 1,)`` int64.
    """

    names: tuple[str, ...]
    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        """N, the number of clients."""
        return len(self.names)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each client, ``(N,)``."""
        return np.diff(self.bounds)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The client of each entry of ``order``, ``(n,)``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def ids(self) -> tuple[str, ...]:
        """A file name for each client, see ``client_id``."""
        return tuple(client_id(name) for name in self.names)

    def rows(self, client: str | int) -> NDArray[np.int64]:
        """Return the row numbers of one client, ascending (a view).

        Raises:
            KeyError: if no client has that name.
        """
        i = self._index[client] if isinstance(client, str) else range(len(self))[client]
        return self.order[self.bounds[i] : self.bounds[i + 1]]

    def only(self, clients: Sequence[int] | Integers) -> "Clients":
        """Keep some clients, given by position, in the order given."""
        keep = np.asarray(clients, dtype=np.int64)
        sizes = self.sizes[keep]
        bounds = _bounds(sizes)
        at = np.arange(bounds[-1]) + np.repeat(self.bounds[keep] - bounds[:-1], sizes)
        return Clients(tuple(self.names[i] for i in keep), self.order[at], bounds)

    def also(self, names: Iterable[str]) -> "Clients":
        """Append clients that hold nothing yet."""
        new = tuple(names)
        bounds = np.concatenate([self.bounds, np.repeat(self.bounds[-1:], len(new))])
        return Clients(self.names + new, self.order, bounds)

    def given(self, rows: Mapping[int, str]) -> "Clients":
        """Give clients further rows; those that are not there yet come last, in natural order."""
        new = sorted(set(rows.values()) - set(self.names), key=natural)
        more = self.also(new)
        owners = [more._index[name] for name in rows.values()]
        order = np.concatenate([self.order, np.array(list(rows), dtype=np.int64)])
        owner = np.concatenate([self.owners, np.array(owners, dtype=np.int64)])
        by_client = np.lexsort((order, owner))
        sizes = np.bincount(owner, minlength=len(more))
        return Clients(more.names, order[by_client], _bounds(sizes))


def client_id(name: str) -> str:
    """Turn a client's name into a file name that is safe on every system.

    Lower-case letters, digits, ``_``, ``.`` and ``-`` (up to 64) pass unchanged; any other name
    becomes a readable slug and 8 hex digits of its hash, so that different names stay different
    even where file names ignore case.
    """
    if _SAFE.fullmatch(name) and not _UNSAFE.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "client"
    return f"{slug}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def group(owner: Integers, names: tuple[str, ...]) -> Clients:
    """Group rows by the position of their client in ``names``; rows of owner -1 go to nobody."""
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    return Clients(names, order, _bounds(np.bincount(owner[order], minlength=len(names))))


def _bounds(sizes: Integers) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def natural(name: str) -> list[tuple[int, str]]:
    """Sort "client 2" before "client 10".

    Numbers are compared by their length, then by their digits, because Python refuses to convert
    those of more than 4300.
    """
    parts = _DIGITS.split(name)
    plain = [part.lstrip("0") if i % 2 else part for i, part in enumerate(parts)]
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(plain)]
