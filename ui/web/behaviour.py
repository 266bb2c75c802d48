"""How clients' updates relate to each other, round by round, from the updates that a run kept.

An update of P numbers is sketched to :data:`SKETCH` of them: every number is added, with a sign, to
one of so many sums, both drawn once (Charikar, Chen and Farach-Colton 2002, ICALP; as a projection
Weinberger et al. 2009, arXiv:0902.2206).  Inner products of sketches are those of the updates, up
to an error of about 1/sqrt(SKETCH) of their lengths.  A plane of two principal components is laid
through all sketches of all rounds, in the manner of Federated Behavioural Planes (Fenoglio et al.
2024, arXiv:2405.15632), which embed what clients do and not what they send.  Cosines and lengths
are exact.  Light: NumPy, no torch.

Shape suffixes: C clients, P parameters, K sketch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from federation.address import generator
from federation.errors import CorruptError
from federation.runs import storage
from federation.runs.run import Run, updates_files

SKETCH = 256
COLUMNS = 1 << 18  # parameters that are looked at at a time
MOST_BYTES = 1 << 29
"""Of files that a page reads: the newest rounds first."""
GROUP = "report/delta"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sketched:
    """The updates of a round.

    Attributes:
        sketch_C: ``(C, K)``.
        norm_C: L2 norm of each update.
        cosine_C: of each update to the mean of all of them; NaN where one is zero.
    """

    sketch_C: Floats
    norm_C: Floats
    cosine_C: Floats


class Kept(NamedTuple):
    """Where the updates of a round are.

    Attributes:
        round: from 0.
        file: of the updates.
        sha256: its hash.
        clients: whose rows they are, in order.
    """

    round: int
    file: Path
    sha256: str
    clients: tuple[str, ...]


class Point(NamedTuple):
    """A client's update in a round, on the plane."""

    round: int
    client: str
    x: float
    y: float
    norm: float
    cosine: float


def kept(run: Run, most_bytes: int = MOST_BYTES) -> tuple[list[Kept], int]:
    """List the rounds whose updates are there, oldest first, and count those that are too much.

    Args:
        run: whose rounds.
        most_bytes: of files.
    """
    files = {n: f for n, f in updates_files(run.path, run.history).items() if f.exists()}
    found: list[Kept] = []
    size = 0
    for n in sorted(files, reverse=True):
        size += files[n].stat().st_size
        if size > most_bytes and found:
            return found[::-1], len(files) - len(found)
        record = run.history.rounds[n]
        found.append(Kept(n, files[n], record.updates_sha256 or "", record.clients))
    return found[::-1], 0


def sketch(file: Path, sha256: str, clients: int) -> Sketched | None:
    """Sketch the updates of a round.

    Args:
        file: as a run keeps it.
        sha256: the hash it must have.
        clients: how many rows it must have.

    Returns:
        None where what travelled is not an update in plain numbers: packed, or another's.

    Raises:
        CorruptError: if it is damaged.
        StorageError: if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if storage.sha256_file(file) != sha256:
        raise CorruptError(f"{file} is damaged: its hash is not the recorded one")
    try:
        with safe_open(file, framework="np") as tensors:
            if GROUP not in tensors.keys():  # noqa: SIM118 - it is no mapping
                return None
            rows = tensors.get_slice(GROUP)
            shape = rows.get_shape()
            if rows.get_dtype() not in ("F32", "F64", "F16") or len(shape) != 2:
                return None
            if shape[0] != clients:
                raise CorruptError(f"{file} has {shape[0]} updates of {clients} clients")
            ends = ((at, min(at + COLUMNS, shape[1])) for at in range(0, shape[1], COLUMNS))
            parts = (rows[:, low:high] for low, high in ends)
            return added((np.asarray(part, dtype=np.float64) for part in parts), clients)
    except SafetensorError as error:
        raise CorruptError(f"{file} is damaged: {error}") from None


def added(parts: Iterable[Floats], clients: int) -> Sketched:
    """Sketch updates that come column block by column block, ``(C, at most COLUMNS)`` each."""
    sketch_C = np.zeros((clients, SKETCH))
    dot_C, square_C, mean_square = np.zeros(clients), np.zeros(clients), 0.0
    for number, part_C in enumerate(parts):
        draw = generator("behaviour", number)
        bucket_P = draw.integers(SKETCH, size=COLUMNS)[: part_C.shape[1]]
        sign_P = draw.choice((-1.0, 1.0), size=COLUMNS)[: part_C.shape[1]]
        mean_P = part_C.mean(0)
        dot_C += part_C @ mean_P
        square_C += np.einsum("cp,cp->c", part_C, part_C)
        mean_square += float(mean_P @ mean_P)
        for row, x_P in enumerate(part_C):
            sketch_C[row] += np.bincount(bucket_P, weights=x_P * sign_P, minlength=SKETCH)
    norm_C = np.sqrt(square_C)
    lengths_C = norm_C * np.sqrt(mean_square)
    cosine_C = np.divide(dot_C, lengths_C, out=np.full(clients, np.nan), where=lengths_C > 0)
    return Sketched(sketch_C, norm_C, cosine_C)


def plane(sketch_NK: Floats) -> tuple[Floats, Floats]:
    """Lay a plane through sketches: their two first principal components.

    Args:
        sketch_NK: one a row.

    Returns:
        Where each lies, ``(N, 2)``, and which share of the variance each axis has, ``(2,)``.  Signs
        are such that the point that is furthest out on an axis is on its positive side.
    """
    centred_NK = sketch_NK - sketch_NK.mean(0)
    u, s, _ = np.linalg.svd(centred_NK, full_matrices=False)
    total = float(s @ s)
    if not total:
        return np.zeros((len(sketch_NK), 2)), np.zeros(2)
    width = min(2, len(s))
    at_N2 = np.zeros((len(sketch_NK), 2))
    at_N2[:, :width] = u[:, :width] * s[:width]
    furthest = np.abs(at_N2).argmax(0)
    at_N2 *= np.where(at_N2[furthest, [0, 1]] < 0, -1.0, 1.0)
    shares = np.zeros(2)
    shares[:width] = s[:width] ** 2 / total
    return at_N2, shares


def points(
    rounds: Sequence[Kept], sketches: Mapping[int, Sketched], *, direction: bool
) -> tuple[list[Point], Floats]:
    """Place every update on the plane; updates that are not finite, or zero, are left out.

    Args:
        rounds: in order.
        sketches: round -> its updates.
        direction: look at directions only: every update is brought to length 1.
    """
    whose: list[tuple[int, str, float, float]] = []
    rows: list[Floats] = []
    for at in rounds:
        own = sketches[at.round]
        for i, client in enumerate(at.clients):
            norm, cosine = float(own.norm_C[i]), float(own.cosine_C[i])
            if np.isfinite(norm) and norm and np.isfinite(cosine):
                whose.append((at.round, client, norm, cosine))
                rows.append(own.sketch_C[i] / (norm if direction else 1.0))
    if not rows:
        return [], np.zeros(2)
    at_N2, shares = plane(np.stack(rows))
    return [
        Point(n, client, float(x), float(y), norm, cosine)
        for (n, client, norm, cosine), (x, y) in zip(whose, at_N2, strict=True)
    ], shares


def furthest(cosines: Mapping[str, Sequence[float]], most: int) -> list[str]:
    """Return the clients whose updates point away from the mean the most, by their mean cosine."""
    means = {client: float(np.mean(values)) for client, values in cosines.items() if len(values)}
    return sorted(means, key=lambda client: (means[client], client))[:most]
