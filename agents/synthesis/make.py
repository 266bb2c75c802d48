"""From a profile to rows: drawn, sieved, voted on, in order, and nothing missing in silence."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agents.synthesis.private import Private, noise_from
from agents.synthesis.profile import Profile, VoteSpec, Wanted, wanted
from agents.synthesis.templates import BATCH, templates
from federation.address import generator
from federation.errors import ConfigError, DataError, FedpilotError
from llm_tools import LLMError, OpenAISpec, ScriptedSpec, SpecError, chat_model, chat_spec
from llm_tools.synthesis import (
    Brief,
    Election,
    Made,
    Protected,
    Row,
    Rules,
    Sieve,
    Source,
    Writer,
    evolve,
    fill_up,
    noise_for,
    tfidf_svd,
)
from llm_tools.synthesis.embedding import Learn

SPARE = 8  # times as many rows as wanted are drawn of templates, at most
TRIES = 2  # times as many of a language model
Say = Callable[[str], None]


def quiet(_: str) -> None:
    """Say nothing."""


class ModelFailed(FedpilotError):
    """A language model, or the server of one, that did not do its part."""

    exit_code = 10


@dataclass(frozen=True)
class Synthetic:
    """A set that was made.

    Attributes:
        rows: client by client as in the profile, shuffled within each.
        made: what came of every brief; with votes, its rows are the candidates.
        wanted: what was asked for.
        voters: clients that voted; 0 if none did.
        noise_multiplier: of their votes.
        writer: the language model, if there was one.
    """

    rows: tuple[Row, ...]
    made: tuple[Made, ...]
    wanted: Wanted
    voters: int
    noise_multiplier: float | None
    writer: Writer | None


def synthesize(
    profile: Profile,
    *,
    seed: int,
    cache: Path,
    model: str | None = None,
    private: Private | None = None,
    noise_key: Path | None = None,
    learn: Learn = tfidf_svd,
    say: Say = quiet,
) -> Synthetic:
    """Make the data of a federation.

    Args:
        profile: what is asked for.
        seed: first part of every address.
        cache: folder for what a language model writes.
        model: spec of a language model; the built-in templates if omitted.
        private: text that may not come out, and that votes if the profile has ``[votes]``.
        noise_key: file with the secret of the votes' noise; needed with votes.
        learn: makes the space in which votes are cast, of invented texts alone.
        say: is told of progress.

    Raises:
        ConfigError: if the profile or the model cannot be used, or there is nobody to vote.
        ModelFailed: if the model's server fails; what it wrote is kept, a repeated call goes on.
        DataError: if not a single row could be made.
    """
    if profile.votes and not (private and private.texts):
        raise ConfigError("profile: [votes] needs who votes: name private files with --private")
    asked = wanted(profile, templates=model is None)
    writer = None if model is None else writer_of(profile, model, seed, cache)
    rules = Rules(**profile.filters.model_dump())
    sieve = Sieve(rules, Protected(private.all if private else (), rules.ngram))
    size, times = (writer.size, TRIES) if writer else (BATCH, SPARE)
    supply = Supply(writer or templates(seed), sieve, size, times, say if writer else quiet)
    made = {brief: Made(brief, count) for brief, count in asked.items()}
    election = election_of(profile.votes, private, noise_key, learn)
    try:
        if profile.votes and election and private:
            rows = Vote(profile.votes, made, supply).held(election, private)
        else:
            for x in made.values():
                supply.fill(x)
            rows = {brief: x.rows for brief, x in made.items()}
    except SpecError as error:
        raise ConfigError(f"--model: {error}") from None
    except LLMError as error:
        raise ModelFailed(str(error)) from None
    if not any(rows.values()):
        raise DataError(f"not a single row could be made: {why_none(made.values())}")
    return Synthetic(
        rows=in_order(rows, profile, seed),
        made=tuple(made.values()),
        wanted=asked,
        voters=len(private.texts) if election and private else 0,
        noise_multiplier=election.noise_multiplier if election else None,
        writer=writer,
    )


def election_of(
    spec: VoteSpec | None, private: Private | None, key: Path | None, learn: Learn
) -> Election | None:
    """Say how votes are held; None if there are none."""
    if spec is None or private is None:
        return None
    if key is None:
        raise ValueError("votes need a file for the secret of their noise")
    noise = noise_for(spec.epsilon, spec.rounds, spec.delta)
    return Election(spec.rounds, noise, learn, noise_from(key, private))


def writer_of(profile: Profile, model: str, seed: int, cache: Path) -> Writer:
    """Describe the language model that writes.

    Raises:
        ConfigError: if it cannot be used.
    """
    how = profile.writer
    try:
        spec: OpenAISpec | ScriptedSpec = chat_spec(model)
        if isinstance(spec, OpenAISpec):
            sampling = {"temperature": how.temperature, "max_tokens": how.max_tokens}
            spec = spec.model_copy(update=sampling)
        chat_model(spec)  # what is wrong with it is told before anything is asked
    except LLMError as error:
        raise ConfigError(f"--model: {error}") from None
    return Writer(spec, seed, cache, size=how.batch, deadline=how.deadline)


@dataclass(frozen=True)
class Supply:
    """Where rows come from, and what stops them.

    Attributes:
        source: draws them.
        sieve: what may stay.
        size: rows of a batch.
        times: how many times as many rows as are missing are drawn, at most.
        say: is told of progress.
    """

    source: Source
    sieve: Sieve
    size: int
    times: int
    say: Say

    def fill(self, made: Made, like: Sequence[Row] = ()) -> None:
        """Draw what is missing of a brief, or give up."""
        self.say(f"{made.missing} rows of {made.brief.label!r} for {made.brief.client}")
        most = -(-made.missing // self.size) * self.times + 2
        fill_up(made, self.source, self.sieve, most, like)


@dataclass
class Vote:
    """Private evolution over all briefs together."""

    spec: VoteSpec
    made: dict[Brief, Made]
    supply: Supply

    def held(self, election: Election, private: Private) -> dict[Brief, list[Row]]:
        """Make candidates, let clients vote, return who was elected."""
        asked = {brief: x.wanted for brief, x in self.made.items()}
        for brief, x in self.made.items():
            self.grow(brief, x.wanted * self.spec.candidates, ())
        pools = {brief: list(x.rows) for brief, x in self.made.items()}
        return evolve(pools, asked, list(private.texts.values()), election, self.varied)

    def grow(self, brief: Brief, size: int, like: Sequence[Row]) -> None:
        """Draw candidates of a brief until there are so many."""
        more = replace(self.made[brief], wanted=size)
        self.supply.fill(more, like)
        self.made[brief] = replace(more, wanted=self.made[brief].wanted)

    def varied(self, brief: Brief, kept: list[Row]) -> list[Row]:
        """Make as many variations of what was kept as there were candidates beside it."""
        before, wanted = len(self.made[brief].rows), self.made[brief].wanted
        self.grow(brief, before + wanted * (self.spec.candidates - 1), kept)
        return self.made[brief].rows[before:]


def in_order(rows: dict[Brief, list[Row]], profile: Profile, seed: int) -> tuple[Row, ...]:
    """Put rows client after client, each client's in an order of its own."""
    ordered: list[Row] = []
    for client in profile.clients:
        mine = [row for brief, found in rows.items() if brief.client == client for row in found]
        order = generator(seed, "synthetic order", client).permutation(len(mine))
        ordered += [mine[i] for i in order]
    return tuple(ordered)


def why_none(made: Iterable[Made]) -> str:
    """Say why rows were refused or not written, most frequent first."""
    reasons: Counter[str] = Counter()
    for x in made:
        for name, count in [*x.refused.items(), *x.failures.items()]:
            reasons[str(name)] += count
    return ", ".join(f"{name} {count}" for name, count in reasons.most_common(5)) or "none came"
