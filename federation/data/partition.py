"""Which client holds which row: by natural key, evenly, or skewed in label, size or topic.

This module knows row numbers and integer codes.  It does not read texts (``federation.data.topics``
does), does not split a client's rows into train and test (``federation.data.splits``), and never
moves data: a partition is a grouping of row numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from federation.address import generator
from federation.data.clients import Clients, Column, Integers, group, natural
from federation.errors import DataError
from federation.specs import Spec

MAX_CELLS = 50_000_000  # clients x labels: beyond it the label is no label, or the table no table

USES = {
    "key": ("key", "test_key", "max_clients"),
    "iid": ("count",),
    "dirichlet": ("alpha", "count"),
    "quantity": ("alpha", "count"),
    "shards": ("count", "shards_per_client"),
    "topic": ("count",),
}
"""Kind of partition -> keys that only some kinds use, and this one does."""
_NEEDS = {
    "key": ("key",),
    "iid": (),
    "dirichlet": ("label", "alpha"),
    "quantity": ("alpha",),
    "shards": ("label",),
    "topic": (),
}


class ClientsSpec(Spec):
    """The ``[data.clients]`` table: how rows become clients.  Frozen; every field bounded."""

    by: Literal["key", "iid", "dirichlet", "quantity", "shards", "topic"] = Field(
        default="iid", description="what decides which client holds a row"
    )
    key: str | None = Field(
        default=None, min_length=1, description="field that names a row's client"
    )
    label: str | None = Field(
        default=None, min_length=1, description="field that skews labels and fills the data report"
    )
    alpha: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e6,
        description="Dirichlet concentration: small is skewed, large is even",
    )
    count: int = Field(
        default=10, ge=1, le=1_000_000, description="number of clients, unless a key decides it"
    )
    shards_per_client: int = Field(
        default=2, ge=1, le=1000, description="label-sorted shards each client holds"
    )
    min_examples: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="fewest rows of a client; by key, smaller are left out",
    )
    max_clients: int | None = Field(
        default=None,
        ge=1,
        description="by key: keep only this many clients, those with the most rows",
    )
    test_key: str | None = Field(
        default=None,
        description="by key: the value whose rows are the global test set, not a client",
    )
    unseen: float = Field(
        default=0.0,
        ge=0,
        description="clients held out whole: a fraction below 1, or a number of clients",
    )

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        """Ask for what the kind of partition needs, and refuse what it would ignore."""
        for name in _NEEDS[self.by]:
            if getattr(self, name) is None:
                raise ValueError(f'by = "{self.by}" needs {name}')
        for name in {name for names in USES.values() for name in names} - set(USES[self.by]):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f'by = "{self.by}" does not use {name}; remove it')
        if self.unseen > 1 and self.unseen != int(self.unseen):
            raise ValueError(
                f"unseen = {self.unseen} is neither a fraction nor a number of clients"
            )
        return self


def by_key(key: Column, *, min_examples: int = 1, max_clients: int | None = None) -> Clients:
    """Give each distinct value its own client, in the natural order of names.

    Rows without the field (code -1), clients below ``min_examples`` and, beyond ``max_clients``,
    those with the fewest rows (ties: later names) are left out.

    Raises:
        DataError: if no client remains.
    """
    key = key.by_name()
    all_clients = group(key.codes, tuple(key.names))
    largest_first = np.argsort(-all_clients.sizes, kind="stable")
    enough = largest_first[all_clients.sizes[largest_first] >= min_examples]
    if enough.size == 0:
        most = int(all_clients.sizes.max(initial=0))
        raise DataError(
            f"no client has {_rows(min_examples)} (the largest has {most}); lower min_examples"
        )
    return all_clients.only(np.sort(enough[:max_clients]))


def iid(n: int, count: int, *, seed: int, min_examples: int = 1) -> Clients:
    """Deal ``n`` shuffled rows evenly to ``count`` clients (sizes differ by one at most).

    Raises:
        DataError: if there are too few rows.
    """
    sizes = _even(n, count, min_examples)
    return _deal(generator(seed, "iid").permutation(n), sizes)


def dirichlet(
    label_codes: Integers, count: int, alpha: float, *, seed: int, min_examples: int = 1
) -> Clients:
    """Deal rows to equally large clients whose label mixes are Dirichlet distributed.

    Hsu, Qi and Brown (2019, arXiv:1909.06335, section 3): each client draws its own label mix
    q ~ Dir(alpha p), p the label frequencies of the data, and fills its equal share of rows by q;
    a label that runs out is struck from every q and the rest renormalised.  Alpha is the total
    concentration: over L even labels it is the symmetric Dirichlet of alpha / L each.  It skews
    labels only, never sizes (``quantity`` skews those), unlike the per-label variant of Yurochkin
    et al. (2019, arXiv:1905.12022) and NIID-Bench (2022, arXiv:2102.02079), where a small alpha
    also leaves clients empty.

    Where we differ from Hsu et al.: clients fill up side by side, an eighth of what they lack at a
    time, so that none is left with the remains of the others; a client all of whose labels have
    run out draws a new mix over those that have not; and every row is used exactly once.

    How many rows of each label a client gets depends on the label counts and the seed alone, never
    on the order of rows.

    Args:
        label_codes: label of each row, ``(n,)``, none of them -1.
        count: N, number of clients.
        alpha: concentration; towards 0 one label per client, towards infinity IID.
        seed: data seed.
        min_examples: fewest rows a client may have.

    Raises:
        DataError: if there are too few rows, or so many labels that they are none.
    """
    n = len(label_codes)
    sizes = _even(n, count, min_examples)
    labels, dense, held = np.unique(label_codes, return_inverse=True, return_counts=True)
    if count * len(labels) > MAX_CELLS:
        raise DataError(f"{len(labels)} different labels in {n} rows; choose a coarser label")
    mixes = np.stack(
        [generator(seed, "dirichlet", "mix", c).dirichlet(alpha * held / n) for c in range(count)]
    )
    table = _fill(mixes, alpha, sizes, held, generator(seed, "dirichlet", "fill"))
    rows = _sorted_by_label(dense, generator(seed, "dirichlet", "rows"))
    owner = np.empty(n, dtype=np.int64)
    owner[rows] = np.repeat(np.tile(np.arange(count), len(labels)), table.T.ravel())
    return group(owner, _numbered(count))


def quantity(n: int, count: int, alpha: float, *, seed: int, min_examples: int = 1) -> Clients:
    """Deal shuffled rows to clients of Dirichlet distributed sizes: same content, unequal amounts.

    The quantity skew of NIID-Bench (Li et al., 2022, arXiv:2102.02079, section IV.C): shares of the
    rows are drawn from Dir_N(alpha).  Where we differ: every client first gets ``min_examples``,
    and the shares divide what is left, so that no draw has to be thrown away.

    Raises:
        DataError: if there are too few rows.
    """
    _even(n, count, min_examples)
    draw = generator(seed, "quantity", "sizes")
    shares = draw.dirichlet(np.full(count, alpha))
    sizes = min_examples + draw.multinomial(n - count * min_examples, shares)
    return _deal(generator(seed, "quantity", "rows").permutation(n), sizes)


def shards(
    label_codes: Integers, count: int, per_client: int = 2, *, seed: int, min_examples: int = 1
) -> Clients:
    """Sort rows by label, cut equal shards and give each client ``per_client`` of them.

    The pathological partition of McMahan et al. (2017, arXiv:1602.05629, section 3).  Rows of one
    label are shuffled first, so that the order of the file does not decide who gets which.

    Raises:
        DataError: if there are too few rows for the shards or for ``min_examples``.
    """
    n, total = len(label_codes), count * per_client
    if n < total or (n // total) * per_client < min_examples:
        raise DataError(
            f"{_rows(n)} cannot fill {count} clients of {per_client} shards with"
            f" {_rows(min_examples)} or more each; lower count, shards_per_client or min_examples"
        )
    rows = _sorted_by_label(label_codes, generator(seed, "shards", "rows"))
    shard_owner = generator(seed, "shards", "deal").permutation(total) // per_client
    owner = np.empty(n, dtype=np.int64)
    owner[rows] = np.repeat(shard_owner, _even(n, total, 1))
    return group(owner, _numbered(count))


def partition(
    spec: ClientsSpec,
    n: int,
    *,
    seed: int,
    keys: Column | None = None,
    labels: Column | None = None,
    texts: Iterable[str] | None = None,
    apart: Sequence[int] = (),
) -> Clients:
    """Turn ``n`` rows into clients as the configuration asks.

    Args:
        spec: the ``[data.clients]`` table.
        n: number of rows.
        seed: data seed.
        keys: field ``spec.key``; needed by key.
        labels: field ``spec.label``; needed by dirichlet and shards.
        texts: the text of every row; needed by topic, read twice, never held together.
        apart: by key: rows that are left to nobody.

    Returns:
        Clients over all rows, except what ``test_key``, ``max_clients`` or (by key)
        ``min_examples`` leave out.

    Raises:
        DataError: if a row lacks its key or label, or the rows do not suffice.
    """
    least, count = spec.min_examples, spec.count
    alpha = spec.alpha or 0.0  # never absent where it is used: ClientsSpec sees to that
    match spec.by:
        case "key":
            column = _without(_complete(keys, f"key {spec.key!r}"), set_aside(spec, keys))
            column = _without(column, np.array(apart, dtype=np.int64))
            return by_key(column, min_examples=least, max_clients=spec.max_clients)
        case "iid":
            return iid(n, count, seed=seed, min_examples=least)
        case "dirichlet":
            codes = _complete(labels, f"label {spec.label!r}").by_name().codes
            return dirichlet(codes, count, alpha, seed=seed, min_examples=least)
        case "quantity":
            return quantity(n, count, alpha, seed=seed, min_examples=least)
        case "shards":
            codes = _complete(labels, f"label {spec.label!r}").by_name().codes
            return shards(codes, count, spec.shards_per_client, seed=seed, min_examples=least)
        case "topic":
            return _by_topic(texts, n, count, seed, least)


def set_aside(spec: ClientsSpec, keys: Column | None) -> NDArray[np.int64]:
    """Return the rows that ``spec.test_key`` makes the global test set, ascending.

    Raises:
        DataError: if no row has that key.
    """
    if spec.test_key is None or keys is None:
        return np.empty(0, dtype=np.int64)
    if spec.test_key not in keys.names:
        known = ", ".join(sorted(keys.names, key=natural)[:8])
        raise DataError(f"no row has {spec.key} = {spec.test_key!r} (test_key); there are {known}")
    return np.flatnonzero(keys.codes == list(keys.names).index(spec.test_key))


def _by_topic(
    texts: Iterable[str] | None, n: int, count: int, seed: int, min_examples: int
) -> Clients:
    from federation.data.topics import topics

    if texts is None:
        raise ValueError("a partition by topic needs the texts")
    clients = by_key(topics(texts, n, count, seed=seed))
    smallest = int(clients.sizes.argmin())
    if clients.sizes[smallest] < min_examples:
        raise DataError(
            f"{clients.names[smallest]} has {_rows(int(clients.sizes[smallest]))}, fewer than"
            f" min_examples = {min_examples}; lower count or min_examples"
        )
    return clients


def _complete(column: Column | None, what: str) -> Column:
    """Insist that every row has the field."""
    if column is None:
        raise ValueError(f"a partition by {what} needs that column")
    missing = np.flatnonzero(column.codes < 0)
    if missing.size:
        raise DataError(
            f"row {missing[0] + 1} has no {what} ({len(missing)} of {_rows(len(column.codes))} lack"
            " it); complete these rows or take them out"
        )
    return column


def _without(column: Column, rows: Integers) -> Column:
    codes = column.codes.copy()
    codes[rows] = -1
    return Column(codes, column.names)


def _fill(
    mixes: NDArray[np.float64],
    alpha: float,
    sizes: Integers,
    held: Integers,
    draw: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw how many rows of each label each client gets.

    Args:
        mixes: label mix of each client, ``(N, L)``.
        alpha: concentration of mixes that have to be drawn anew.
        sizes: rows each client must end with, ``(N,)``, summing to all rows.
        held: rows of each label, ``(L,)``.
        draw: the only source of chance.

    Returns:
        ``(N, L)`` counts with exactly these margins.
    """
    table = np.zeros(mixes.shape, dtype=np.int64)
    lacking, left = sizes.astype(np.int64), held.astype(np.int64)
    while left.any():
        mixes = _open_mixes(mixes, alpha, left, draw)
        asks = draw.multinomial(-(-lacking // 8), mixes)
        for label in np.flatnonzero(asks.sum(axis=0) > left):
            asks[:, label] = draw.multivariate_hypergeometric(
                asks[:, label], left[label], method="marginals"
            )
        table += asks
        lacking -= asks.sum(axis=1)
        left -= asks.sum(axis=0)
    return table


def _open_mixes(
    mixes: NDArray[np.float64], alpha: float, left: Integers, draw: np.random.Generator
) -> NDArray[np.float64]:
    """Strike labels that have run out; whoever loses the last of its labels draws a new mix."""
    kept = np.where(left > 0, mixes, 0.0)
    nothing = np.flatnonzero(kept.sum(axis=1) == 0)
    available = np.flatnonzero(left)
    concentration = alpha * left[available] / left.sum()
    kept[np.ix_(nothing, available)] = draw.dirichlet(concentration, size=len(nothing))
    return kept / kept.sum(axis=1, keepdims=True)


def _even(n: int, parts: int, least: int) -> NDArray[np.int64]:
    """Cut ``n`` into parts that differ by one at most, none below ``least``."""
    if n // parts < least:
        raise DataError(
            f"{_rows(n)} cannot give {parts} clients {_rows(least)} each;"
            " lower count or min_examples"
        )
    return n // parts + (np.arange(parts) < n % parts)


def _deal(rows: Integers, sizes: Integers) -> Clients:
    """Hand out rows in the order given, ``sizes[0]`` to the first client and so on."""
    owner = np.empty(len(rows), dtype=np.int64)
    owner[rows] = np.repeat(np.arange(len(sizes)), sizes)
    return group(owner, _numbered(len(sizes)))


def _sorted_by_label(label_codes: Integers, draw: np.random.Generator) -> NDArray[np.int64]:
    """Return row numbers sorted by label, in random order within a label."""
    shuffled = draw.permutation(len(label_codes))
    return shuffled[np.argsort(label_codes[shuffled], kind="stable")]


def _numbered(count: int) -> tuple[str, ...]:
    width = max(3, len(str(count - 1)))
    return tuple(f"c{i:0{width}d}" for i in range(count))


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"
