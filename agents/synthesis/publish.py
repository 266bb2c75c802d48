"""A set as files: rows, card and what the gate said; whole, or not there."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.synthesis.card import Card, as_markdown, card_of
from agents.synthesis.make import Say, quiet, synthesize
from agents.synthesis.private import read_private
from agents.synthesis.profile import Profile
from federation.errors import ConfigError
from federation.runs import storage

if TYPE_CHECKING:
    from agents.synthesis.gate import Verdict

SUFFIX = ".jsonl"
Gate = Callable[[Path], "Verdict"]


@dataclass(frozen=True)
class Files:
    """Where the parts of a set lie, all named after its rows.

    Attributes:
        rows: JSON lines that a run reads; there only if the set was admitted.
    """

    rows: Path

    @property
    def rejected(self) -> Path:
        """The rows of a set that the gate did not admit."""
        return self.rows.with_suffix(f".rejected{SUFFIX}")

    @property
    def card(self) -> Path:
        """The card for a script."""
        return self.rows.with_suffix(".card.json")

    @property
    def readable(self) -> Path:
        """The card for people."""
        return self.rows.with_suffix(".card.md")

    @property
    def noise_key(self) -> Path:
        """The secret of the votes' noise."""
        return self.rows.with_suffix(".noise.key")


def publish(
    profile: Profile,
    out: Path,
    *,
    seed: int,
    cache: Path,
    model: str | None = None,
    private: Sequence[Path] = (),
    test: Sequence[Path] = (),
    gate: Gate | None = None,
    say: Say = quiet,
) -> Card:
    """Make a set, measure it, pass it through the gate, write it.

    Args:
        profile: what is asked for.
        out: file of the rows, ``.jsonl``, that does not exist.
        seed: first part of every address.
        cache: folder for what a language model writes and for tokenised data.
        model: spec of a language model; the built-in templates if omitted.
        private: files with text that may not come out, and that votes.
        test: files with text that may not come out either, and never votes.
        gate: judges the rows in a file; none: they are admitted without.
        say: is told of progress.

    Returns:
        The card.  If the gate rejected the set, the rows lie beside ``out``, not in it.

    Raises:
        ConfigError: if something asked for cannot be used.
        DataError: if private files cannot be read, or no row could be made.
        ModelFailed: if the model's server fails; a repeated call goes on.
        StorageError: if a file cannot be written.
    """
    files = Files(out)
    check(files, profile)
    key = profile.votes.key if profile.votes else "client"
    known = read_private(private, key, test) if private or test else None
    made = synthesize(
        profile,
        seed=seed,
        cache=cache / "synthesis",
        model=model,
        private=known,
        noise_key=files.noise_key,
        say=say,
    )
    card = card_of(profile, made, known, seed=seed)
    lines = [json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in made.rows]
    with all_or_nothing(files):
        write(files, "".join(lines).encode(), card, gate)
    return card


def check(files: Files, profile: Profile) -> None:
    """Refuse what could only fail later.

    Raises:
        ConfigError: about the file, or a package that is not installed.
        StorageError: if the folder cannot be made.
    """
    if files.rows.suffix != SUFFIX:
        raise ConfigError(f"--out {files.rows}: name a file that ends in {SUFFIX}")
    for file in (files.rows, files.rejected, files.card, files.readable):
        if file.exists():
            raise ConfigError(f"{file} exists; name another file with --out")
    for package in ("datasketch", *(["dp_accounting"] if profile.votes else [])):
        if find_spec(package) is None:
            raise ConfigError(f"synthesize needs {package}: pip install 'fedpilot[pilot]'")
    with storage.explained(files.rows.parent):
        files.rows.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def all_or_nothing(files: Files) -> Iterator[None]:
    """Leave no part of a set behind that was not written to its end, be it by Ctrl-C."""
    try:
        yield
    except BaseException:
        storage.remove([files.rows, files.rejected, files.card, files.readable])
        raise


def write(files: Files, rows: bytes, card: Card, gate: Gate | None) -> None:
    """Write the rows where the gate says that they belong, and the card."""
    place = files.rows
    if gate is not None:
        place = files.rejected  # until it is admitted
        storage.atomic_write(place, rows)
        card["gate"] = finite(gate(place).json())
        if card["gate"]["admitted"]:
            with storage.explained(files.rows):
                os.replace(place, files.rows)
    else:
        storage.atomic_write(place, rows)
    storage.atomic_write(files.card, (json.dumps(card, indent=2) + "\n").encode())
    storage.atomic_write(files.readable, as_markdown(card, files.rows.name).encode())


def finite(value: Any) -> Any:
    """Replace numbers that JSON has not, of runs that diverged, by null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
