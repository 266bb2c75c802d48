"""From a configuration to a federation's data: rows, tokens, clients and their splits.

Knows how the parts of the data path fit together; each part lives in a file of its own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from federation.config import ORGANISATIONS, Config, DataSpec
from federation.data.corpus import Codes, Corpus, tokenise
from federation.data.partition import Clients, Column, partition, set_aside
from federation.data.sources import Records, Row, located, read_records
from federation.data.splits import Splits, split, with_extra
from federation.data.templates import Templates, chat_format, parse_templates
from federation.data.tokens import SequenceFormat, sequence_format
from federation.errors import ConfigError, DataError
from federation.specs import LoRASpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROMPT = "{instruction}\n{context}"  # templates of the built-in organisations
RESPONSE = "{response}"
NANO = "nano"  # the built-in base model
EXTRA = "\x1eextra\x1e"  # stands before the key of a row that is only trained on


@dataclass(frozen=True, eq=False)
class FederatedData:
    """Everything a run knows of its data.

    Attributes:
        corpus: the tokenised rows and the text behind them.
        clients: who holds which row, held-out clients included.
        splits: every row in exactly one of train, validation, test, unseen or the global test set.
        judged: the splits that models are judged on; the same ones where training is centralised.
        labels: the column a heterogeneity report is made over, if there is one.
        form: the format of the token sequences.
    """

    corpus: Corpus
    clients: Clients
    splits: Splits
    judged: Splits
    labels: Column | None
    form: SequenceFormat

    def train_rows(self, client: str) -> np.ndarray:
        """Return the row numbers of a client's training examples."""
        return self.splits.train.rows(client)


def load_data(
    config: Config, tokenizer: "PreTrainedTokenizerFast", base_dir: Path, cache: Path
) -> FederatedData:
    """Read, tokenise, partition and split the data of a run.

    Args:
        config: the run's configuration.
        tokenizer: the base model's.
        base_dir: folder that relative paths in ``data.source`` start from.
        cache: folder of tokenised corpora.

    Raises:
        ConfigError: if source, templates or partition cannot be used as configured.
        DataError: if a row cannot be read or rendered, or rows do not suffice.
    """
    spec = with_defaults(config.data)
    parsed = templates(spec, tokenizer)
    corpus = tokenise(
        all_records(config, spec, base_dir),
        parsed,
        tokenizer,
        max_tokens=spec.max_tokens,
        cache=cache,
        separator=spec.separator,
    )
    keys, labels = column(corpus.keys), column(corpus.labels)
    extra = extra_rows(keys)
    clients = partition(
        spec.clients,
        len(corpus.tokens),
        seed=config.data_seed,
        keys=keys,
        labels=labels,
        texts=Prompts(corpus),
        apart=tuple(extra),
    )
    splits = split(
        clients,
        spec.split,
        seed=config.data_seed,
        unseen=spec.clients.unseen,
        test_rows=set_aside(spec.clients, keys),
    )
    if extra:
        refuse_tested(extra, splits, spec)
        splits, clients = with_extra(splits, extra), clients.given(extra)
    form = sequence_format(tokenizer, parsed, spec.max_tokens, spec.separator)
    return FederatedData(corpus, clients, splits, splits, labels, form)


def with_defaults(spec: DataSpec) -> DataSpec:
    """Fill in templates and client key of the built-in organisations where none are given."""
    if spec.source != ORGANISATIONS:
        return spec
    if spec.prompt is None and spec.response is None and spec.text is None:
        spec = spec.model_copy(update={"prompt": PROMPT, "response": RESPONSE})
    if not spec.clients.model_fields_set:
        by_client = type(spec.clients)(by="key", key="client", label="label")
        spec = spec.model_copy(update={"clients": by_client})
    return spec


def resolved(config: Config, base_dir: Path) -> Config:
    """Say in full what a configuration leaves to defaults and to the current folder.

    A run keeps this configuration, so that it can be resumed from any folder.
    """
    spec, base = with_defaults(config.data), located(config.model.base, Path(), "model.base")
    path = located(spec.source, base_dir, "data.source")
    if spec.source != ORGANISATIONS and (path.exists() or has_magic(spec.source)):
        spec = spec.model_copy(update={"source": str(path.absolute())})
    extra = located(spec.extra, base_dir, "data.extra") if spec.extra else None
    if extra and (extra.exists() or has_magic(str(spec.extra))):
        spec = spec.model_copy(update={"extra": str(extra.absolute())})
    update: dict[str, object] = {"data": spec}
    if isinstance(config.adapter, LoRASpec) and config.adapter.start:
        start = located(config.adapter.start, base_dir, "adapter.start").absolute()
        update["adapter"] = config.adapter.model_copy(update={"start": str(start)})
    if config.model.base != NANO and base.is_dir():
        update["model"] = config.model.model_copy(update={"base": str(base.absolute())})
    return config.model_copy(update=update)


def templates(spec: DataSpec, tokenizer: "PreTrainedTokenizerFast") -> Templates:
    """Parse the templates of a configuration."""
    parsed = plain_templates(spec)
    return replace(parsed, chat=chat_format(tokenizer)) if spec.chat else parsed


def plain_templates(spec: DataSpec) -> Templates:
    """Parse the templates of a configuration as they are without a chat format."""
    return parse_templates(
        prompt=spec.prompt,
        response=spec.response,
        text=spec.text,
        choices=spec.choices,
        key=spec.clients.key,
        label=spec.clients.label,
    )


def records(config: Config, base_dir: Path) -> Records:
    """Open the rows of a configuration: files, a hub data set or the built-in organisations."""
    spec = config.data
    if spec.source != ORGANISATIONS:
        return read_records(spec.source, base_dir, text=spec.text_unit)
    from federation.data import organisations

    def read() -> Iterator[tuple[str, organisations.Row]]:
        rows = organisations.dataset(config.data_seed, spec.count, spec.examples)
        for number, row in enumerate(rows, start=1):
            yield f"{ORGANISATIONS} row {number}", row

    def digest() -> str:
        code = hashlib.sha256(f"{config.data_seed}/{spec.count}/{spec.examples}".encode())
        for file in sorted(Path(organisations.__path__[0]).rglob("*.*")):
            if file.suffix in (".py", ".toml"):
                code.update(file.read_bytes())
        return code.hexdigest()

    return Records(name=ORGANISATIONS, read=read, digest=digest)


def all_records(config: Config, spec: DataSpec, base_dir: Path) -> Records:
    """Open the rows of a configuration and, after them, those that are only trained on.

    Raises:
        ConfigError: if extra rows cannot be told whose they are.
    """
    own = records(config, base_dir)
    if spec.extra is None:
        return own
    return with_marked(
        own,
        read_records(spec.extra, base_dir, text=spec.text_unit, asked="data.extra"),
        owner_field(spec),
        spec.extra_fields,
    )


def owner_field(spec: DataSpec) -> str:
    """Return the field that says whose an extra row is.

    Raises:
        ConfigError: if clients are not told apart by one.
    """
    if spec.clients.by != "key" or spec.clients.key is None:
        raise ConfigError(
            f"data.extra: only clients by key can be given rows; data.clients.by is"
            f" {spec.clients.by!r}, set it to 'key', or drop data.extra"
        )
    return spec.clients.key


def with_marked(
    own: Records, extra: Records, key: str, fields: Mapping[str, str] | None = None
) -> Records:
    """Read one source after another, and mark the keys of the second.

    Args:
        own: the first.
        extra: the second.
        key: field of the first that names a row's client.
        fields: of the first -> of the second, where names differ.
    """
    fields = fields or {}
    theirs = fields.get(key, key)

    def read() -> Iterator[tuple[str, Row]]:
        yield from own
        for origin, row in extra:
            # What is not there is not made up: whoever asks for the field says that it is missing.
            named = {**row, **{field: row[name] for field, name in fields.items() if name in row}}
            if not named.get(key):
                raise DataError(
                    f"{origin}: has no {theirs!r}, which names the client it is for;"
                    f' data.extra_fields says under which name: {{{key} = "FIELD"}}'
                )
            yield origin, {**named, key: f"{EXTRA}{named[key]}"}

    def digest() -> str:
        both = f"{own.digest()}+{extra.digest()}"
        both += json.dumps(fields, sort_keys=True) if fields else ""
        return hashlib.sha256(both.encode()).hexdigest()

    return Records(f"{own.name} + {extra.name}", read, digest)


def extra_rows(keys: Column | None) -> dict[int, str]:
    """Find the rows that are only trained on, and whose they are."""
    if keys is None or not any(name.startswith(EXTRA) for name in keys.names):
        return {}
    names = (str(keys.names[code]) for code in keys.codes)
    return {row: name[len(EXTRA) :] for row, name in enumerate(names) if name.startswith(EXTRA)}


def refuse_tested(extra: dict[int, str], splits: Splits, spec: DataSpec) -> None:
    """Refuse to train on rows of clients that are there to be tested on.

    Raises:
        DataError: naming the client.
    """
    tested = {*splits.unseen.names, spec.clients.test_key}
    for name in extra.values():
        if name in tested:
            raise DataError(
                f"{spec.extra}: has rows of {name!r}, on which the model is only tested; take them"
                " out"
            )


def column(codes: Codes | None) -> Column | None:
    """See stored codes as a column."""
    return None if codes is None else Column(codes.codes, codes.names)


@dataclass(frozen=True)
class Prompts:
    """The text of every row, read anew at each pass, for clustering by topic."""

    corpus: Corpus

    def __iter__(self) -> Iterator[str]:
        """Yield prompt and response of every row."""
        for example in self.corpus.examples:
            yield f"{example.prompt} {example.response}".strip()


def centralise(data: FederatedData) -> FederatedData:
    """Put all training clients' rows into one client, ``"all"``: centralised training.

    Validation, test and unseen rows stay as they are, so figures can be compared.
    """
    train = data.splits.train
    everything = Clients(
        names=("all",),
        order=np.sort(train.order),
        bounds=np.array([0, len(train.order)], dtype=np.int64),
    )
    if len(train.order) == 0:
        raise ConfigError("data: no client has training examples")
    return replace(data, splits=replace(data.splits, train=everything))
