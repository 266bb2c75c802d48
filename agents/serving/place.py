"""The folder ``serving`` of a run: journal, log, key, and the adapters that were loaded.

One server at a time holds it.  The run's own files are only read.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.serving.records import JOURNAL, SERVING, Ended, ServingRecord, sealed
from agents.synthesis.make import ModelFailed
from federation.releases import Source
from federation.runs import storage
from federation.runs.journal import Journal
from federation.runs.run import Run
from llm_tools.specs import KEY_ENV

ADAPTERS, LOG, KEY = "adapters", "server.log", "key"


@dataclass(frozen=True)
class Place:
    """The folder ``serving`` of a run while a server runs.

    Attributes:
        path: the folder.
        journal: what happened.
    """

    path: Path
    journal: Journal

    def note(self, record: ServingRecord) -> None:
        """Write a record down."""
        self.journal.append(sealed(record))


@contextmanager
def place(run: Run) -> Iterator[Place]:
    """Take the folder in which what belongs to serving a run lies; one server at a time.

    Raises:
        LockedError: another process serves the run.
        StorageError: it cannot be written.
    """
    path = run.path / SERVING
    with storage.explained(path):
        path.mkdir(exist_ok=True)
    lock = storage.lock(path)
    try:
        storage.sweep(path)
        with Journal(path / JOURNAL) as journal:
            yield Place(path, journal)
    finally:
        lock.release()


@contextmanager
def key_of(place: Place) -> Iterator[tuple[str, Path | None]]:
    """Yield the key: the environment's, or a new one in a file that its owner alone can read."""
    given = os.environ.get(KEY_ENV, "").strip()
    if given:
        yield given, None
        return
    key, file = secrets.token_urlsafe(24), place.path / KEY
    storage.atomic_write(file, key.encode(), mode=0o600)
    try:
        yield key, file
    finally:
        storage.remove([file])


@contextmanager
def until_ended(place: Place) -> Iterator[None]:
    """Write down why it ended."""
    reason = "stopped"
    try:
        yield
    except ModelFailed as error:
        reason = str(error)
        raise
    finally:
        place.note(Ended(reason=reason))


def chat_template(source: Source) -> str:
    """Write a chat as the run wrote its prompts: for tokenizers that have no template of their own.

    All that was said, one after the other, each followed by the run's separator.
    """
    tokenizer, data = source.base.tokenizer, source.config.data
    first = list(tokenizer("a")["input_ids"])[:1]
    bos = tokenizer.bos_token if first == [tokenizer.bos_token_id] else ""
    separator = "" if data.text is not None else data.separator
    said = "{% for m in messages %}{{ m['content'] + " + json.dumps(separator) + " }}{% endfor %}"
    return "{{ " + json.dumps(bos) + " }}" + said
