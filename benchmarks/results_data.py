"""Real data sets as files that a run reads: one example a row, with its client's name in a field.

Knows how each public data set is laid out; knows nothing of runs.  Files are written beside the
user's other cached data, under the hash of their content, and never into the project.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from federation.address import generator
from federation.data.splits import held_out
from federation.errors import DataError
from federation.evaluation.assess import SHARED

Row = dict[str, Any]

TEST = "test"  # Shakespeare: key of the rows that nobody holds
WINDOW = 400  # characters of a window of speeches, about 110 tokens
LEAST = 3000  # fewest characters of a role that becomes a client
UNSEEN = 20  # roles held out whole
ALONE = 16  # roles whose own models are trained and judged
MOST = SHARED // ALONE  # windows of a shared test: as many as each of their models reads


def read_text(path: Path) -> str:
    """Read a file of a public data set.

    Raises:
        DataError: if it is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; --data names the folder of the data sets")
    return path.read_text(encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in read_text(path).splitlines()]


def stored(rows: Iterable[Row], folder: Path, name: str) -> Path:
    """Write rows as JSON lines under a name that their content decides; keep what is there."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(path)
    return path


def dolly(data: Path) -> list[Row]:
    """Dolly in FedIT's ten clients (Zhang et al. 2023, arXiv:2305.05644); client -1 is the test."""
    return read_rows(data / "dolly" / "dolly15k_fedit10.jsonl")


def clinc(data: Path) -> Iterator[Row]:
    """All in-scope requests of CLINC150 (Larson et al. 2019), with their domain's 15 intents."""
    folder = data / "intents" / "clinc150"
    requests = json.loads(read_text(folder / "data_full.json"))
    domains = json.loads(read_text(folder / "domains.json"))
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    for split in ("train", "val", "test"):
        for text, intent in requests[split]:
            domain = domain_of[intent]
            choices = [plain(choice) for choice in domains[domain]]
            yield {"text": text, "intent": plain(intent), "domain": domain, "choices": choices}


def plain(intent: str) -> str:
    """Write the name of an intent as words."""
    return intent.replace("_", " ")


def shakespeare(data: Path, seed: int, *, alone: bool = False) -> list[Row]:
    """Windows of speeches by role, as the run of a seed may see them.

    Roles that train hold their first nine tenths of speeches.  The last tenths, which the built-in
    model was not pre-trained on either, are tests: those of the roles that the run will hold out
    whole are all there is of them here, and of the others' one window each is the global test, as
    far as ``MOST`` reaches.

    Args:
        data: folder of the data sets.
        seed: run seed, which decides the roles that are held out.
        alone: keep only ``ALONE`` of the roles that train; tests stay as they are.
    """
    speeches = {
        f"{row['play']}/{row['role']}": row["text"]
        for row in read_rows(data / "shakespeare" / "roles.jsonl")
        if row["play"] != "r_and_j" and row["chars"] >= LEAST  # r_and_j is in another edition, too
    }
    names = tuple(speeches)
    out = held_out(names, UNSEEN, seed=seed)
    unseen = [name for name, is_out in zip(names, out, strict=True) if is_out]
    seen = [name for name, is_out in zip(names, out, strict=True) if not is_out]
    pick = partial(picked, seed=seed)
    kept = pick(seen, ALONE, "alone") if alone else seen
    tests = [windows(last_tenth(speeches[name]))[:1] for name in pick(seen, MOST, "test")]
    rows = [row for name in kept for row in as_rows(name, windows(first_part(speeches[name])))]
    rows += [row for texts in tests for row in as_rows(TEST, texts)]
    for name in unseen:
        rows += as_rows(name, windows(last_tenth(speeches[name]))[: MOST // UNSEEN])
    return rows


def picked(names: list[str], most: int, purpose: str, *, seed: int) -> list[str]:
    """Draw at most so many of the names, in their order."""
    draw = generator(seed, "results", purpose)
    chosen = draw.choice(len(names), size=min(most, len(names)), replace=False)
    return [names[i] for i in np.sort(chosen)]


def first_part(speeches: list[str]) -> list[str]:
    """Return all speeches but the last tenth, as pre-training divides them."""
    return speeches[: len(speeches) * 9 // 10]


def last_tenth(speeches: list[str]) -> list[str]:
    """Return the last tenth of the speeches; never none."""
    return speeches[len(speeches) * 9 // 10 :]


def windows(speeches: list[str]) -> list[str]:
    """Join lines of speeches to windows of about ``WINDOW`` characters."""
    made, lines = [], []
    for line in "\n".join(speeches).splitlines():
        lines.append(line)
        if sum(map(len, lines)) >= WINDOW:
            made.append("\n".join(lines))
            lines = []
    return [*made, "\n".join(lines)] if lines else made


def as_rows(role: str, texts: list[str]) -> list[Row]:
    """Give windows to a role."""
    return [{"role": role, "text": text} for text in texts]
