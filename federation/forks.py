"""A run that begins where another one stood after a round, and goes on its own way.

A fork has its parent's journal up to that round, byte for byte, and then a ``fork`` record; the
state of the server, its optimizer's moments and what clients keep are the parent's; round numbers,
and with them all random draws, go on.  So a fork in which nothing is otherwise reaches its parent's
bits.  The parent is only read, and need not be there afterwards.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from federation.algorithms.settings import CENTRALISED
from federation.config import Config, set_key
from federation.errors import ConfigError, CorruptError
from federation.experiment import Planning, by_rule, set_up, write_on
from federation.pretraining.recipe import flat, recipe_of
from federation.runs import storage
from federation.runs.folder import CLIENTS, CONFIG, JOURNAL, MADE_UP, STATE, given
from federation.runs.journal import Journal
from federation.runs.keys import NOISE_KEY, draw_key
from federation.runs.records import ForkRecord, RoundRecord
from federation.runs.run import Run, checkpoint_files, memory_after
from federation.runs.writer import refuse_used
from federation.session import Watch

FIXED = ("seed", "model", "adapter", "data", "engine.chunk", "engine.threads")
"""What of a configuration a fork has of its parent: another one would be another run."""

FORGETS = ("algorithm.name", "upload", "work.optimizer", "work.keep_optimizer")
"""What decides how that is made which clients keep; with another one they begin afresh."""


def fork(
    path: str | Path,
    out: str | Path,
    round: int,
    *,
    overrides: Sequence[str] = (),
    rounds: int | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
    planning: Planning = by_rule,
) -> Run:
    """Run on, in a new run directory, from the state of a run after one of its rounds.

    Args:
        path: the parent; it may be running.
        out: a directory that does not exist or is empty.
        round: last round of the parent that counts, from 0; its checkpoint must be there.
        overrides: what is otherwise from then on, as ``"work.lr=0.01"``.
        rounds: how many rounds are to follow; as many as the parent planned if omitted.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.
        planning: makes who decides the rounds.

    Returns:
        The finished run, opened for reading.

    Raises:
        ConfigError: if there is nothing to begin from, or something is to be otherwise that cannot.
        CorruptError: if the parent was changed, or its checkpoint is damaged.
        StoppedError: if it was told to stop, and did; it can be resumed.
    """
    watch = watch or Watch()
    refuse_used(Path(out))
    parent = Run.open(path)
    config = forked(parent, round, overrides, rounds)
    watch.phase("loading model and data")
    setup = replace(set_up(config, None, cache), planning=planning)
    begin(parent, Path(out), round, config)
    return write_on(setup, Path(out), watch)


def forked(parent: Run, round: int, overrides: Sequence[str], rounds: int | None) -> Config:
    """Return the configuration of a fork, before anything is loaded or written.

    Raises:
        ConfigError: as :func:`fork`.
    """
    if recipe_of(parent) is not None:
        raise ConfigError(f"{parent.path} pre-trained a model; only fine-tuning runs are forked")
    refuse_unkept(parent, round)
    table: dict[str, Any] = deepcopy(dict(parent.config))
    for override in overrides:
        set_key(table, override)
    config = Config.from_table(table, f"{parent.path}/{CONFIG}")
    if fixed := [key for key in changed(parent, config) if within(key, FIXED)]:
        raise ConfigError(
            f"a fork has its parent's {fixed[0]}; start a new run to change it:"
            f" {', '.join(FIXED)} stay"
        )
    names = {config.algorithm.name, configured(parent).algorithm.name}
    if len(names) > 1 and CENTRALISED in names:
        raise ConfigError(
            f"a fork has its parent's clients, and {CENTRALISED} training has one that holds"
            " everything; start a new run"
        )
    planned = config.rounds if is_set(overrides) else parent.rounds_planned
    total = planned if rounds is None else round + 1 + rounds
    if rounds is not None and rounds < 1:
        raise ConfigError(f"--rounds {rounds}: at least 1 round is to follow")
    if total <= round + 1:
        raise ConfigError(
            f"{parent.path} planned {total} rounds, none is left after round {round + 1};"
            " say how many are to follow: --rounds N"
        )
    return config.model_copy(update={"rounds": total})


def is_set(overrides: Sequence[str]) -> bool:
    """Tell whether overrides say how many rounds there are to be."""
    return any(text.partition("=")[0].strip() == "rounds" for text in overrides)


def refuse_unkept(parent: Run, round: int) -> None:
    """Refuse a round whose state is not there.

    Raises:
        ConfigError: saying which are.
    """
    files = checkpoint_files(parent.path, parent.history)
    there = [n for n, file in files.items() if file.exists() and whole(parent, n)]
    if round not in there:
        which = ", ".join(str(n + 1) for n in there) or "none"
        raise ConfigError(
            f"{parent.path} has no checkpoint of round {round + 1}; rounds that can be forked"
            f" from: {which}"
        )


def whole(parent: Run, round: int) -> bool:
    """Tell whether what clients kept after a round is there as well."""
    return not memory_after(parent.path, parent.history, round).missing()


def configured(parent: Run) -> Config:
    """Return the configuration of a run."""
    return Config.from_table(parent.config, f"{parent.path}/{CONFIG}")


def changed(parent: Run, config: Config) -> tuple[str, ...]:
    """List the keys that are otherwise than in a run, but for the number of rounds."""
    was = configured(parent)
    before, now = (dict(flat(x.model_dump(mode="json"))) for x in (was, config))
    others = (key for key in before | now if before.get(key) != now.get(key))
    return tuple(key for key in others if key != "rounds")


def within(key: str, tables: Sequence[str]) -> bool:
    """Tell whether a key is one of some keys or tables, or stands in one."""
    return any(key == table or key.startswith(f"{table}.") for table in tables)


def begin(parent: Run, out: Path, round: int, config: Config) -> None:
    """Write the run directory of a fork, whole or not at all; no round is played.

    Raises:
        ConfigError: if ``out`` is in use.
        CorruptError: if what is copied is damaged.
        StorageError: if it cannot be written.
    """
    refuse_used(out)
    with storage.explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".fork-", dir=out.parent) as folder:
            made = Path(folder) / "run"
            for directory in (made, made / STATE, made / CLIENTS):
                directory.mkdir()
            fill(parent, made, round, config)
            for left in out.glob("*"):  # at most a lock that nobody holds
                left.unlink()
            made.rename(out)
    storage.sync_directory(out.parent)


def fill(parent: Run, made: Path, round: int, config: Config) -> None:
    """Write what a fork consists of into an empty run directory."""
    storage.atomic_write(made / CONFIG, config.model_dump_json(indent=2).encode())
    if config.upload.noise is not None:  # never the same noise on something else
        draw_key(made / NOISE_KEY)
    record = parent.history.rounds[round]
    checkpoint = checkpoint_files(parent.path, parent.history)[round]
    files = {checkpoint: record.checkpoint_sha256}
    keys = changed(parent, config)
    memory = not any(within(key, FORGETS) for key in keys)
    if memory:
        files |= memory_after(parent.path, parent.history, round).files()
    for name, sha256 in parent.history.given.items():
        if Path(name).parts[0] == MADE_UP:
            files[parent.path / name] = sha256
    for file, sha256 in files.items():
        copy(file, made / file.relative_to(parent.path), sha256)
    storage.atomic_write(made / JOURNAL, lines_until(parent, round))
    with Journal(made / JOURNAL) as journal:
        journal.append(
            ForkRecord(
                parent=str(parent.path.absolute()),
                round=round,
                state_sha256=str(record.checkpoint_sha256),
                config_sha256=storage.sha256_file(made / CONFIG),
                memory=memory,
                changed=keys,
                files=given(made),
            )
        )


def lines_until(parent: Run, round: int) -> bytes:
    """Return the lines of a journal up to the record by which a round counts."""
    last = max(
        place
        for place, entry in enumerate(parent.entries)
        if isinstance(entry.record, RoundRecord | ForkRecord) and entry.record.round == round
    )
    with storage.explained(parent.path / JOURNAL):
        lines = (parent.path / JOURNAL).read_bytes().splitlines(keepends=True)
    return b"".join(lines[: last + 1])


def copy(file: Path, to: Path, sha256: str | None) -> None:
    """Copy a file whose hash is known.

    Raises:
        CorruptError: if it is damaged.
        StorageError: if it is gone, or cannot be written.
    """
    with storage.explained(file):
        data = file.read_bytes()
        to.parent.mkdir(parents=True, exist_ok=True)
    storage.atomic_write(to, data)
    if storage.sha256_file(to) != sha256:
        raise CorruptError(
            f"{file} is damaged: its hash is not the recorded one; fork another round"
        )
