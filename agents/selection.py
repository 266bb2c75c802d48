"""Client selection as a decision: a rule and its parameters, and at most a few exclusions.

Whoever decides names no cohort.  It chooses among the core's rules and their parameters, above
floors that no rule can break: a share of every cohort is drawn by chance, and nobody who is there
waits longer than so many rounds.  Clients are excluded by pseudonym, never more than allowed, and
only with a fact about that very client as evidence.

Privacy: an account of upload noise that counts on subsampling holds for cohorts drawn uniformly and
for no others.  Where ``upload.noise`` is set, uniform over everybody is the only choice there is:
anything else is refused, and the record of every round says so.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, create_model

from agents.knobs import RECORD
from federation.config import Config
from federation.errors import ConfigError
from federation.specs import Spec, as_tuple

Rule = Literal["uniform", "round_robin", "power_of_choice", "oort", "deadline"]
RULES: tuple[Rule, ...] = get_args(Rule)
Rules = Annotated[tuple[Rule, ...], BeforeValidator(as_tuple)]

PSEUDONYM = "^c[1-9][0-9]*$"
CANDIDATES = 2  # times as many as are asked, where a configuration says nothing
MOST_CANDIDATES = 10
MOST_EXCLUDED = 20
UNIFORM_ONLY = (
    "upload.noise: an account by subsampling holds only for cohorts drawn uniformly from everybody"
)


class SelectionSpec(Spec):
    """How far the choice of clients may be turned."""

    rules: Rules = Field(
        default=(),
        description="rules to choose from; omitted: all that fit (deadline needs cohort.deadline)",
    )
    exclude: int = Field(
        default=0,
        ge=0,
        le=MOST_EXCLUDED,
        description="most clients that may be excluded at a time; needs pilot.smallest = 1, since"
        " it takes evidence about single clients",
    )
    floor: float = Field(
        default=0.5, gt=0, le=1, description="share of the clients that is never excluded"
    )
    exploration: float = Field(
        default=0.1, ge=0.05, le=1, description="least share of a cohort that chance chooses"
    )
    fairness: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="rounds in which every client that is there is asked once at least",
    )


class Selection(BaseModel):
    """How the clients of a round are chosen.

    Attributes:
        rule: of the core.
        candidates: power_of_choice: how many times as many are drawn as are asked.
        exploration: share of the cohort that is drawn uniformly, whatever the rule.
        exclude: pseudonyms of clients that are not asked.
    """

    model_config = RECORD

    rule: Rule = Field(description="how the clients of a round are chosen")
    candidates: int = Field(
        ge=1, le=MOST_CANDIDATES, description="power_of_choice: candidates drawn for each place"
    )
    exploration: float = Field(ge=0, le=1, description="share of a cohort that chance chooses")
    exclude: tuple[Annotated[str, Field(pattern=PSEUDONYM)], ...] = Field(
        default=(), description="clients that are not asked"
    )


class SelectionBounds(BaseModel):
    """What may be chosen in a round.

    Attributes:
        rules: to choose from.
        exploration: least share of a cohort that chance chooses.
        most_excluded: clients that may be excluded at a time.
        known: pseudonyms of the clients that facts are shown of.
        population: registered clients that the configuration does not exclude.
        current: what holds now.
        why: why there is no more to choose from; empty where nothing but the limits stands in the
            way.
    """

    model_config = RECORD

    rules: tuple[Rule, ...]
    exploration: float
    most_excluded: int
    known: tuple[str, ...] = ()
    population: int
    current: Selection
    why: str = ""


def configured_selection(config: Config, limits: SelectionSpec) -> Selection:
    """Return what holds before round 0: the configured rule."""
    cohort = config.cohort
    times = round(cohort.candidates / cohort.asked) if cohort.candidates else CANDIDATES
    return Selection(
        rule=cohort.rule,
        candidates=min(max(times, 1), MOST_CANDIDATES),
        exploration=limits.exploration,
    )


def selection_bounds(config: Config, limits: SelectionSpec, population: int) -> SelectionBounds:
    """Return what may be chosen in a run.

    Args:
        config: the run's configuration.
        limits: how far a pilot may go.
        population: registered clients that the configuration does not exclude.

    Raises:
        ConfigError: if the limits contradict the rest of the configuration.
    """
    fits = {r for r in RULES if r != "deadline" or config.cohort.deadline is not None}
    rules = limits.rules or tuple(r for r in RULES if r in fits)
    private = config.upload.noise is not None
    if private and (set(limits.rules) - {"uniform"} or limits.exclude or limits.fairness):
        raise ConfigError(
            "pilot.selection contradicts upload.noise, whose account needs cohorts drawn uniformly:"
            ' keep rules = ["uniform"] and leave out exclude and fairness, or drop the noise'
        )
    if set(rules) - fits:
        raise ConfigError("pilot.selection.rules: deadline needs cohort.deadline; set it")
    rules = ("uniform",) if private else rules
    if config.cohort.rule not in rules:
        raise ConfigError(
            f"pilot.selection.rules: the configured cohort.rule {config.cohort.rule!r} is not among"
            f" {', '.join(rules)}; add it, or configure one of them"
        )
    return SelectionBounds(
        rules=rules,
        exploration=limits.exploration,
        most_excluded=min(limits.exclude, population - math.ceil(limits.floor * population)),
        population=population,
        current=configured_selection(config, limits),
        why=UNIFORM_ONLY if private else "",
    )


def check_fairness(limits: SelectionSpec, population: int, fewest: int) -> None:
    """Refuse a promise that cannot be kept.

    Args:
        limits: how far a pilot may go.
        population: registered clients that the configuration does not exclude.
        fewest: clients that a round asks at least.

    Raises:
        ConfigError: if so few clients a round do not reach everybody in time.
    """
    if limits.fairness and limits.fairness * fewest < population:
        raise ConfigError(
            f"pilot.selection.fairness: {fewest} clients a round do not reach {population} in"
            f" {limits.fairness} rounds; allow {math.ceil(population / fewest)}"
        )


def faults_of_selection(
    wanted: Selection,
    bounds: SelectionBounds | None,
    evidence: tuple[str, ...],
    values: Mapping[str, float],
) -> Iterator[str]:
    """Yield what is wrong with a choice.

    Args:
        wanted: the choice.
        bounds: what may be chosen; None: nothing.
        evidence: ids of the facts that it rests on.
        values: every knob's value in the round it is for.
    """
    if bounds is None:
        yield "selection may not be changed"
        return
    if wanted.rule not in bounds.rules:
        yield f"rule {wanted.rule!r} is not one of {', '.join(bounds.rules)}" + because(bounds)
    if not bounds.exploration <= wanted.exploration <= 1:
        yield f"exploration {wanted.exploration:g} is outside {bounds.exploration:g} to 1"
    yield from faults_of_exclusions(wanted.exclude, bounds, evidence)
    if wanted.exclude and bounds.population - len(wanted.exclude) < values["cohort_size"]:
        yield (
            f"{bounds.population - len(wanted.exclude)} clients would be left and"
            f" {values['cohort_size']:g} are asked"
        )


def faults_of_exclusions(
    exclude: tuple[str, ...], bounds: SelectionBounds, evidence: tuple[str, ...]
) -> Iterator[str]:
    """Yield what is wrong with a list of exclusions."""
    if len(set(exclude)) < len(exclude):
        yield "a client is excluded twice"
    if len(exclude) > bounds.most_excluded:
        yield (
            f"{len(exclude)} clients would be excluded and {bounds.most_excluded} may be"
            + because(bounds)
        )
    for client in exclude:
        if client in bounds.current.exclude:
            continue
        if client not in bounds.known:
            yield f"{client} is no client that anything was shown of"
        elif not any(fact.partition("_")[2] == client for fact in evidence):
            yield f"{client} would be excluded and no fact about it is cited"


def because(bounds: SelectionBounds) -> str:
    """Add why there is no more to choose from."""
    return f" ({bounds.why})" if bounds.why else ""


def selection_model(bounds: SelectionBounds) -> type[BaseModel]:
    """Return the schema of a choice within bounds, in a form that grammar decoders can enforce."""
    exploration = Field(ge=bounds.exploration, le=1, description="share that chance chooses")
    fields: dict[str, Any] = {
        "rule": (Literal[bounds.rules], Field(description=f"now {bounds.current.rule}")),
        "candidates": (
            int,
            Field(ge=1, le=MOST_CANDIDATES, description="power_of_choice: candidates a place"),
        ),
        "exploration": (float, exploration),
    }
    names = tuple(dict.fromkeys((*bounds.current.exclude, *bounds.known)))
    if names and bounds.most_excluded:
        most = Field(max_length=bounds.most_excluded, description="clients that are not asked")
        fields["exclude"] = (list[Literal[names]], most)
    return create_model("ClientSelectionProposal", __config__=RECORD, **fields)
