"""Built-in client data: a federation of invented organisations with verifiable answers.

Text is drawn from grammars and vocabularies, by address; there is no language model and no file.
:func:`dataset` is the federation, :func:`check` recomputes an answer from the text of a row, and
:func:`pretraining_rows` is other text, for the base model.
"""

from federation.data.organisations.organisation import (
    Organisation,
    Row,
    check,
    dataset,
    example,
    examples,
    organisations,
)
from federation.data.organisations.pretraining import pretraining_rows

__all__ = [
    "Organisation",
    "Row",
    "check",
    "dataset",
    "example",
    "examples",
    "organisations",
    "pretraining_rows",
]
