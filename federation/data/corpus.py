"""A tokenised source on disk: stored once under the hash of its content, memory-mapped ever after.

This module knows what is stored beside the tokens and how an entry comes to be whole.  It does not
know file formats, the format of a sequence, partitions or models.
"""

import hashlib
import json
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from federation.data.sources import BadRows, Records
from federation.data.templates import Example, Templates
from federation.data.tokens import Joined, SequenceFormat, Tokens, encode, sequence_format
from federation.errors import ConfigError, DataError, StorageError
from federation.runs.storage import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 2  # part of every digest: raise it when what is stored changes
HASHES = "hashes.json"
_BLOCK = 1000  # examples tokenised at a time: enough to keep the tokenizer's threads busy


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """The rendered examples behind the tokens, on disk: reading one costs one line of JSON.

    Attributes:
        text: JSON lines, ``(bytes,)`` uint8.
        offsets: where each line starts, and where the last ends, ``(n + 1,)`` int64.
    """

    text: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Read example ``i``."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        i %= len(self)
        line = self.text[self.offsets[i] : self.offsets[i + 1]].tobytes()
        fields = json.loads(line)
        return Example(**{**fields, "choices": tuple(fields["choices"])})


@dataclass(frozen=True)
class Codes:
    """Names as numbers: row i has ``names[codes[i]]``; ``codes`` is ``(n,)`` int32."""

    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class TokenReport:
    """What became of the rows.

    Attributes:
        n: examples kept.
        truncated: examples that were longer than ``max_tokens``, in whichever part.
        cut_responses: those of them whose response lost tokens too.
        dropped: rows that were not kept, counted by reason.
    """

    n: int
    truncated: int
    cut_responses: int
    dropped: dict[str, int]

    def cut(self, max_tokens: int) -> str:
        """Say in one line how many rows are cut; empty if none is."""
        if not self.truncated:
            return ""
        learnt = f"{self.cut_responses:,}" if self.cut_responses else "none"
        which = f"{self.truncated:,} of {self.n:,} rows, {learnt} of them in the response"
        return f"cut: {which}; data.max_tokens is {max_tokens}"


@dataclass(frozen=True)
class Corpus:
    """A tokenised source: row i of every part belongs to the same example.

    Attributes:
        tokens: the packed sequences.
        examples: the text they came from.
        keys: each row's client, if the templates name a key.
        labels: each row's class, if the templates name a label.
        report: what was kept, cut and dropped.
        digest: hex address of the content: source, templates, tokenizer and limits.
    """

    tokens: Tokens
    examples: Examples
    keys: Codes | None
    labels: Codes | None
    report: TokenReport
    digest: str


def tokenise(
    records: Records,
    templates: Templates,
    tokenizer: "PreTrainedTokenizerFast",
    *,
    max_tokens: int,
    cache: Path,
    separator: str = "\n",
) -> Corpus:
    """Render and tokenise a source, or open what an earlier call stored under the same content.

    Rows are streamed: memory holds a few bytes a row, never the text or the ids.

    Args:
        records: the source.
        templates: how a row becomes prompt and response.
        tokenizer: a fast (Rust) tokenizer.
        max_tokens: longest sequence; longer ones are cut, see :meth:`SequenceFormat.join`.
        cache: folder of stored corpora; created if absent.
        separator: text between prompt and response.

    Raises:
        ConfigError: if a template names an unknown field, or the tokenizer cannot be used.
        DataError: if a row cannot be read or rendered, or none is left.
        StorageError: if the cache cannot be written.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(f"model: {type(tokenizer).__name__} is not a fast tokenizer; convert it")
    form = sequence_format(tokenizer, templates, max_tokens, separator)
    digest = _digest(records, templates, tokenizer, form)
    entry = cache / digest[:32]
    if not _is_whole(entry):
        templates.check(records.fields())
        try:
            _store(entry, records, templates, tokenizer, form)
        except OSError as error:
            raise StorageError(
                f"{cache}: cannot store tokens: {error.strerror or error}; free space, or "
                "choose another folder by XDG_CACHE_HOME"
            ) from error
    return _open(entry, digest)


def _digest(
    records: Records,
    templates: Templates,
    tokenizer: "PreTrainedTokenizerFast",
    form: SequenceFormat,
) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = [FORMAT, records.digest(), templates.signature, asdict(form), state]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass
class _Columns:
    """What is gathered about every row while ids and text stream to disk."""

    offsets: array = field(default_factory=lambda: array("q", [0]))
    prompt_len: array = field(default_factory=lambda: array("i"))
    response_bytes: array = field(default_factory=lambda: array("i"))
    text_offsets: array = field(default_factory=lambda: array("q", [0]))
    keys: array = field(default_factory=lambda: array("i"))
    labels: array = field(default_factory=lambda: array("i"))
    key_names: dict[str, int] = field(default_factory=dict)
    label_names: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    cut_responses: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, example: Example, joined: Joined, response: list[int], learnt_bytes: int) -> None:
        self.offsets.append(self.offsets[-1] + len(joined.ids))
        # Nothing predicts the first token of a sequence, so it is never supervised.
        self.prompt_len.append(max(joined.prompt_len, 1))
        self.response_bytes.append(learnt_bytes)
        self.truncated += joined.truncated
        self.cut_responses += joined.kept < len(response)
        if example.key is not None:
            self.keys.append(self.key_names.setdefault(example.key, len(self.key_names)))
        if example.label is not None:
            self.labels.append(self.label_names.setdefault(example.label, len(self.label_names)))


def _store(
    entry: Path,
    records: Records,
    templates: Templates,
    tokenizer: "PreTrainedTokenizerFast",
    form: SequenceFormat,
) -> None:
    """Build an entry beside its place, then rename it there: readers see all of it or none."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=entry.parent) as building:
        folder = Path(building) / "entry"
        folder.mkdir()
        columns = _write(folder, records, templates, tokenizer, form)
        if not columns.prompt_len:
            reasons = ", ".join(f"{count} {why}" for why, count in columns.dropped.items())
            raise DataError(f"{records.name}: no row can be used ({reasons}); check data.response")
        _write_columns(folder, columns)
        _place(folder, entry)


def _place(folder: Path, entry: Path) -> None:
    if entry.exists() and not _is_whole(entry):
        shutil.rmtree(entry)
    try:
        folder.rename(entry)
    except OSError:
        # Another process stored the same content meanwhile: either copy serves.
        if not _is_whole(entry):
            raise


def _write(
    folder: Path,
    records: Records,
    templates: Templates,
    tokenizer: "PreTrainedTokenizerFast",
    form: SequenceFormat,
) -> _Columns:
    columns = _Columns()
    examples = _usable(records, templates, columns)
    with (folder / "ids.bin").open("wb") as ids, (folder / "examples.jsonl").open("wb") as text:
        while block := list(islice(examples, _BLOCK)):
            _write_block(block, tokenizer, form, columns, ids, text)
    return columns


def _usable(records: Records, templates: Templates, columns: _Columns) -> Iterator[Example]:
    bad = BadRows()
    for origin, row in records:
        with bad.noted(origin):
            example = templates.render(row, origin)
            if not example.response.strip():
                columns.dropped["with an empty response"] += 1
            elif not bad.rows:
                yield example
    bad.refuse()


def _write_block(
    block: list[Example],
    tokenizer: "PreTrainedTokenizerFast",
    form: SequenceFormat,
    columns: _Columns,
    ids: BinaryIO,
    text: BinaryIO,
) -> None:
    # Without a prompt there is no separator either, and nothing comes out.
    prompts = encode(tokenizer, [f"{example.prompt}{form.separator}" for example in block])
    responses = encode(tokenizer, [example.response for example in block])
    flat = array("i")
    for example, prompt, response in zip(block, prompts, responses, strict=True):
        joined = form.join(prompt, response)
        flat.extend(joined.ids)
        learnt = response[0 if joined.prompt_len else 1 : joined.kept]
        whole = len(learnt) == len(response)
        learnt_text = example.response if whole else str(tokenizer.decode(learnt))
        columns.add(example, joined, response, len(learnt_text.encode()))
        line = json.dumps(vars(example), ensure_ascii=False).encode() + b"\n"
        columns.text_offsets.append(columns.text_offsets[-1] + text.write(line))
    ids.write(np.asarray(flat, dtype="<i4").tobytes())


def _write_columns(folder: Path, columns: _Columns) -> None:
    """Write the small files, then one that vouches for the content of all others."""
    for name in ("offsets", "prompt_len", "response_bytes", "text_offsets", "keys", "labels"):
        np.save(folder / f"{name}.npy", np.asarray(getattr(columns, name)), allow_pickle=False)
    n = len(columns.prompt_len)
    report = TokenReport(n, columns.truncated, columns.cut_responses, dict(columns.dropped))
    meta = {
        "report": asdict(report),
        "key_names": list(columns.key_names),
        "label_names": list(columns.label_names),
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    hashes = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
    (folder / HASHES).write_text(json.dumps(hashes), encoding="utf-8")


def _is_whole(entry: Path) -> bool:
    """Tell whether an entry is there as it was stored; what is not is built anew.

    Every byte is read: a run that trained on a damaged token would look like any other.
    """
    try:
        hashes = json.loads((entry / HASHES).read_text(encoding="utf-8"))
        return all(sha256_file(entry / name) == sha256 for name, sha256 in hashes.items())
    except (OSError, StorageError, ValueError, AttributeError):
        return False


def _open(entry: Path, digest: str) -> Corpus:
    meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))

    def column(name: str) -> np.ndarray:
        return np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def codes(name: str, names: list[str]) -> Codes | None:
        return Codes(column(name), tuple(names)) if names else None

    ids = np.memmap(entry / "ids.bin", dtype="<i4", mode="r")
    text = np.memmap(entry / "examples.jsonl", dtype=np.uint8, mode="r")
    return Corpus(
        tokens=Tokens(ids, column("offsets"), column("prompt_len"), column("response_bytes")),
        examples=Examples(text, column("text_offsets")),
        keys=codes("keys", meta["key_names"]),
        labels=codes("labels", meta["label_names"]),
        report=TokenReport(**meta["report"]),
        digest=digest,
    )
