"""A federation profile: which clients are to be made up, and what each is to hold.

Whoever writes one says what he wants, not what somebody has: a profile counted from real clients is
as private as their label histograms.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from federation.config import describe, read_toml
from federation.errors import ConfigError
from federation.specs import Names, Spec, as_tuple
from llm_tools.synthesis import Brief

if TYPE_CHECKING:
    from federation.data.heterogeneity import HeterogeneityReport

Share = Annotated[float, Field(gt=0, le=1e6)]
Bounds = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=14_000)]], BeforeValidator(as_tuple)
]


class ClientProfile(Spec):
    """One client that is to be made up."""

    domain: str = Field(
        min_length=1,
        max_length=500,
        description="what its text is about; for templates one of the built-in domains",
    )
    size: int = Field(ge=1, le=1_000_000, description="rows")
    style: str = Field(
        default="plain",
        min_length=1,
        max_length=500,
        description="how it is written; for templates formal, plain, terse, chatty or hasty",
    )
    language: str | None = Field(
        default=None, min_length=1, max_length=100, description="unless it is the profile's"
    )
    labels: dict[str, Share] = Field(
        default={}, description="share of each label, in any unit (templates: all, if omitted)"
    )
    task: str = Field(
        default="instruction following",
        min_length=1,
        max_length=500,
        description="what rows ask for; templates have tasks of their own",
    )
    answers: Literal["text", "label"] = Field(
        default="text", description="what a response is: a text of its own, or the row's label"
    )
    topics: Names = Field(default=(), description="what batches speak of, in turn")
    length: Bounds = Field(
        default=(1, 2000),
        description="fewest and most characters of instruction, context and response together",
    )

    @field_validator("length")
    @classmethod
    def _ascending(cls, length: tuple[int, int]) -> tuple[int, int]:
        if length[0] > length[1]:
            raise ValueError(f"fewest ({length[0]}) is more than most ({length[1]})")
        return length


class FilterSpec(Spec):
    """What is not let through."""

    similar: float = Field(
        default=0.7, gt=0, le=1, description="Jaccard similarity from which rows are duplicates"
    )
    shingle: int = Field(default=3, ge=1, le=20, description="words that are compared together")
    ngram: int = Field(
        default=13, ge=3, le=100, description="words in a row that no private or test text may have"
    )
    canaries: Names = Field(default=(), description="texts planted in private files: refused")


class WriterSpec(Spec):
    """How a language model is asked."""

    batch: int = Field(default=8, ge=1, le=20, description="rows of one answer")
    temperature: float = Field(default=0.9, ge=0, le=2, description="of sampling")
    max_tokens: int = Field(default=4096, ge=16, le=1_000_000, description="tokens of one answer")
    deadline: float = Field(
        default=120.0, gt=0, le=3600, description="seconds for one answer, repairs included"
    )


class VoteSpec(Spec):
    """Votes of clients that hold private text, under differential privacy of whole clients."""

    epsilon: float = Field(gt=0, le=100, description="that all rounds of votes cost together")
    delta: float = Field(default=1e-5, gt=0, lt=0.1, description="of the same guarantee")
    rounds: int = Field(default=3, ge=1, le=50, description="of votes; all are paid for")
    candidates: int = Field(
        default=3, ge=2, le=50, description="rows that are made for each that is wanted"
    )
    key: str = Field(
        default="client",
        min_length=1,
        description="field of private rows that names their client; without it, a file is one",
    )


class GateSpec(Spec):
    """When a set is admitted: it has to help."""

    seeds: int = Field(
        default=3,
        ge=3,
        le=50,
        description="paired runs with and without the set; they end where it cannot be admitted"
        " any more",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the interval that has to lie above zero"
    )
    metric: Literal["nll", "exact_match", "rouge_l", "choice_accuracy"] = Field(
        default="nll", description="of what the gate's runs come to"
    )
    split: Literal["test", "validation"] = Field(
        default="test",
        description="rows of the gate's configuration that judge: its global test set, or, where"
        " that is to judge the run itself, its validation rows",
    )


class Profile(Spec):
    """Everything that decides a made-up federation, but the seed and the model."""

    language: str = Field(default="English", min_length=1, max_length=100, description="of all")
    meanings: dict[str, str] = Field(default={}, description="labels in words, for a model")
    clients: dict[str, ClientProfile] = Field(min_length=1, description="by name")
    filters: FilterSpec = Field(default_factory=lambda: FilterSpec.model_validate({}))
    writer: WriterSpec = Field(default_factory=lambda: WriterSpec.model_validate({}))
    votes: VoteSpec | None = Field(default=None, description="only with private files")
    gate: GateSpec = Field(default_factory=lambda: GateSpec.model_validate({}))

    @model_validator(mode="after")
    def _meanings_are_of_labels(self) -> Self:
        known = {label for client in self.clients.values() for label in client.labels}
        if unknown := sorted(self.meanings.keys() - known):
            raise ValueError(f"meanings: no client has the label {unknown[0]!r}")
        return self

    @classmethod
    def from_toml(cls, path: Path) -> "Profile":
        """Read a profile.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        hint = f"`fedpilot synthesize --init {path}` writes one"
        return cls.from_table(read_toml(path, hint), str(path))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], origin: str = "profile") -> "Profile":
        """Build a profile from nested tables.

        Raises:
            ConfigError: naming key, value and what is allowed, in one line.
        """
        try:
            return cls.model_validate(dict(table))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            text = describe(error, cls)
            place = "" if text.startswith(where) else f"{where}: "
            raise ConfigError(f"{origin}: {place}{text}") from None


def profile_of(report: "HeterogeneityReport", domains: Mapping[str, str]) -> Profile:
    """Ask for a federation like one that there is: as many clients, sizes and label mixes.

    It says exactly how many rows of which label each client holds, and is as private as that; of a
    federation whose clients do not share their histograms, write a profile by guess instead.

    Args:
        report: who holds what.
        domains: what each client's text is about.
    """
    clients = {
        name: {
            "domain": domains[name],
            "size": int(counts.sum()),
            "labels": {label: int(n) for label, n in zip(report.labels, counts, strict=True) if n},
        }
        for name, counts in zip(report.names, report.counts, strict=True)
    }
    return Profile.from_table({"clients": clients})


Wanted = dict[Brief, int]


def wanted(profile: Profile, *, templates: bool) -> Wanted:
    """Say how many rows of which label every client is to have.

    Args:
        profile: what is asked for.
        templates: rows come from the built-in templates, which know domains, labels and styles.

    Returns:
        Rows of every brief, at least one; a client's add up to its size.

    Raises:
        ConfigError: if a client has no labels, or the templates do not know what it asks for.
    """
    found: Wanted = {}
    for name, client in profile.clients.items():
        briefs = list((of_templates if templates else of_model)(name, client, profile))
        shares = [share for _, share in briefs]
        for (brief, _), count in zip(briefs, quotas(shares, client.size), strict=True):
            if count:
                found[brief] = count
    return found


def quotas(shares: list[float], size: int) -> list[int]:
    """Divide ``size`` by shares: largest remainders, earlier first among equals."""
    exact = np.array(shares) / np.sum(shares) * size
    whole = np.floor(exact).astype(int)
    first = np.argsort(whole - exact, kind="stable")[: size - whole.sum()]
    whole[first] += 1
    return whole.tolist()


def of_model(name: str, client: ClientProfile, profile: Profile) -> Iterator[tuple[Brief, float]]:
    """Yield what a language model is asked for, and its share."""
    if not client.labels:
        raise ConfigError(
            f"profile: clients.{name}: a language model needs labels; write them as"
            f' [clients.{json.dumps(name)}.labels], "label" = share'
        )
    choices = tuple(client.labels) if client.answers == "label" else ()
    for label, share in client.labels.items():
        yield (
            Brief(
                client=name,
                domain=client.domain,
                task=client.task,
                label=label,
                meaning=profile.meanings.get(label, ""),
                choices=choices,
                style=client.style,
                language=client.language or profile.language,
                topics=client.topics,
                shortest=client.length[0],
                longest=client.length[1],
            ),
            share,
        )


def of_templates(
    name: str, client: ClientProfile, profile: Profile
) -> Iterator[tuple[Brief, float]]:
    """Yield what the built-in templates are asked for, and its share."""
    from agents.synthesis.templates import choices_of, shares_of, style_named

    if (client.language or profile.language) != "English":
        raise ConfigError(
            f"profile: clients.{name}: templates write English; name a language model with --model"
        )
    style_named(client.style, f"clients.{name}.style")
    for (task, label), share in shares_of(client, f"clients.{name}").items():
        yield (
            Brief(
                client=name,
                domain=client.domain,
                task=task,
                label=label,
                choices=choices_of(client.domain, task),
                style=client.style,
                shortest=client.length[0],
                longest=client.length[1],
            ),
            share,
        )
