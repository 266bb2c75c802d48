"""A run's model, evaluated again: on the run's own test set or on another file.

Knows how to get back from a run directory to a model that can be evaluated.  Writes nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from federation.config import Config
from federation.data.corpus import Corpus, tokenise
from federation.data.dataset import load_data, templates
from federation.data.sources import read_records
from federation.data.tokens import SequenceFormat, sequence_format
from federation.errors import ConfigError, DataError
from federation.evaluation.assess import global_rows, subject
from federation.evaluation.evaluate import Evaluation, evaluate
from federation.experiment import default_cache
from federation.runs.run import Figures, Run
from federation.training.base import check_sequences, load_base
from federation.training.build import build_algorithm, build_trainable
from federation.training.local import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, eq=False)
class Questions:
    """What a model is asked: some rows of a tokenised source."""

    corpus: Corpus
    form: SequenceFormat
    rows: np.ndarray


def reassess(
    run: Run, data: str | None = None, *, base_dir: Path | None = None, cache: Path | None = None
) -> tuple[int, Figures]:
    """Evaluate the newest global model of a run, and the base model beside it.

    Args:
        run: the run; it need not be finished.
        data: a source as in ``data.source``, read with the run's templates; the run's global test
            set if omitted.
        base_dir: folder that a relative ``data`` starts from; the current one if omitted.
        cache: folder of tokenised data; the user's cache folder if omitted.

    Returns:
        How many examples were evaluated, and the figures of ``base`` and of what the run trains.

    Raises:
        ConfigError: if the run has no global model.
        CorruptError: if its checkpoint is damaged.
        DataError: if the data cannot be read with the run's templates, or the run's own changed.
    """
    config = Config.from_table(run.config, str(run.path / "config.json"))
    algorithm = build_algorithm(config)
    if algorithm.is_personal:
        name = config.algorithm.name
        raise ConfigError(f"{run.path} has no global model: with {name} each client has its own")
    params = run.state()["params"]
    base = load_base(config.model.base, config.model.dtype, device=config.model.device)
    cache, base_dir = cache or default_cache(), base_dir or Path.cwd()
    asked = (
        own_questions(run, config, base.tokenizer, base_dir, cache)
        if data is None
        else other_questions(config, data, base.tokenizer, base_dir, cache)
    )
    check_sequences(base, asked.corpus.tokens)
    task = Task(base, build_trainable(config, base), algorithm, asked.corpus.tokens)
    evaluation = Evaluation(task, asked.corpus.examples, asked.form, config.evaluation)
    models = {"base": None, subject(config.algorithm.name): params}
    return len(asked.rows), {
        name: evaluate(evaluation, model, asked.rows) for name, model in models.items()
    }


def own_questions(
    run: Run, config: Config, tokenizer: "PreTrainedTokenizerFast", base_dir: Path, cache: Path
) -> Questions:
    """Find the part of a run's global test set that the run itself is judged on.

    Raises:
        DataError: if the data changed: what is a test row now, the run may have trained on.
    """
    data = load_data(config, tokenizer, base_dir, cache)
    start = run.history.start
    if start and start.machine.get("data", data.corpus.digest) != data.corpus.digest:
        raise DataError(
            f"{config.data.source}: changed since {run.path} began, so its test set is not to be"
            " had; restore it, or name rows to evaluate on with --data"
        )
    return Questions(data.corpus, data.form, global_rows(data, config))


def other_questions(
    config: Config, source: str, tokenizer: "PreTrainedTokenizerFast", base_dir: Path, cache: Path
) -> Questions:
    """Read all of another source with a run's templates; nobody holds its rows."""
    nobody = config.data.clients.model_copy(update={"key": None, "label": None})
    spec = config.data.model_copy(update={"clients": nobody})
    parsed = templates(spec, tokenizer)
    corpus = tokenise(
        read_records(source, base_dir, text=spec.text_unit, asked="--data"),
        parsed,
        tokenizer,  # pyright: ignore[reportArgumentType]
        max_tokens=spec.max_tokens,
        cache=cache,
        separator=spec.separator,
    )
    form = sequence_format(tokenizer, parsed, spec.max_tokens, spec.separator)  # pyright: ignore[reportArgumentType]
    return Questions(corpus, form, np.arange(len(corpus.tokens)))
