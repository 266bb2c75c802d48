"""Policies that tune offline: each is shown what was tried and names what to try next.

The searches, the hybrid, the null policy and the adviser that asks a model are those of agents:
what is scored is what is shipped.  A trial is a look-up in the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from agents.facts import Observation
from agents.knobs import Bound
from agents.policies.model import Hybrid
from agents.policies.rules import Null
from agents.proposals import Answer, Policy, Proposal
from agents.study.metric import MetricSpec
from agents.study.search import Optimizer
from agents.study.space import Values, places, within
from agents.study.spec import AgentSpec
from benchmarks.pilot.scenarios import CONFIGURATIONS, DEFAULT, SEARCH
from federation.address import address, generator

SPACE = SEARCH.space
GRID = np.array([list(places(SPACE, values).values()) for values in CONFIGURATIONS])
BOUNDS = {
    x.key: Bound(low=x.low, high=x.high, least=x.low, most=x.high, current=CONFIGURATIONS[0][x.key])
    for x in SPACE
}
MODEL_CALL_SECONDS = 60.0
REPEATED = "was tried already"


def nearest(values: Values) -> int:
    """Return the configuration that is nearest to some values, by ratio."""
    at = np.array(list(places(SPACE, values).values()))
    return int(((GRID - at) ** 2).sum(axis=1).argmin())


@dataclass
class Episode:
    """One search on one cell of the table.

    Attributes:
        curves: validation loss, ``(configurations, rounds)``; NaN after divergence.
        seed: of the policy's own draws.
        evaluations: whole runs that it may spend.
        tried: configurations that were run to the end, in order.
        shadows: trial -> what the optimizer would have tried where a model was followed.
        tokens: spent on models.
        asked: questions that were put to them.
        failures: why one was not answered.
        abstained: questions on which a model left it to the optimizer.
        repeated: questions on which it said what was tried already, so that the optimizer decided.
    """

    curves: np.ndarray
    seed: int
    evaluations: int
    tried: list[int] = field(default_factory=list)
    shadows: dict[int, int] = field(default_factory=dict)
    tokens: int = 0
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    abstained: int = 0
    repeated: int = 0

    @property
    def final(self) -> np.ndarray:
        """Validation loss at the end; infinite where training diverged."""
        last = self.curves[:, -1]
        return np.where(np.isfinite(last), last, np.inf)

    def incumbents(self) -> list[int]:
        """Return what was best on validation after each trial; the first of equals."""
        best, found = self.tried[0], []
        for configuration in self.tried:
            if self.final[configuration] < self.final[best]:
                best = configuration
            found.append(best)
        return found


class Searcher(Protocol):
    """Spends an episode's evaluations; returns the incumbent after each of them."""

    def __call__(self, episode: Episode) -> list[int]:
        """Search."""
        ...


def stay(episode: Episode) -> list[int]:
    """Keep the default."""
    return [DEFAULT] * episode.evaluations


def draws(episode: Episode) -> list[int]:
    """Begin with the default, then draw uniformly by ratio within the bounds."""
    draw = generator("pilot bench", episode.seed, "random search")
    at = draw.random((episode.evaluations - 1, len(SPACE)))
    low, high = np.array([x.low for x in SPACE]), np.array([x.high for x in SPACE])
    whole = np.array([x.whole for x in SPACE])
    values = low * (high / low) ** at
    values = np.where(whole, np.round(values), values)
    spots = np.log(values / low) / np.log(high / low)
    picked = ((GRID[None] - spots[:, None]) ** 2).sum(axis=2).argmin(axis=1)
    episode.tried = [DEFAULT, *(int(i) for i in picked)]
    return episode.incumbents()


def halving(episode: Episode) -> list[int]:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), bracket after bracket.

    Nine configurations run two rounds, the best three of them to the end; a third of a run costs a
    third of an evaluation.  Drawn without replacement, the default in the first bracket.
    """
    rounds = episode.curves.shape[1]
    order = generator("pilot bench", episode.seed, "halving").permutation(len(CONFIGURATIONS))
    queue = [DEFAULT, *(int(i) for i in order if i != DEFAULT)]
    early, wide, kept = rounds // 3, 9, 3
    spent, best, done = 0.0, DEFAULT, [DEFAULT] * episode.evaluations
    early_loss = np.where(np.isfinite(episode.curves), episode.curves, np.inf)[:, early - 1]
    while queue and spent < episode.evaluations:
        bracket, queue = queue[:wide], queue[wide:]
        spent += len(bracket) * early / rounds
        for configuration in sorted(bracket, key=lambda i: early_loss[i])[:kept]:
            spent += 1 - early / rounds
            episode.tried.append(configuration)
            if episode.final[configuration] < episode.final[best]:
                best = configuration
            first = int(np.ceil(spent - 1e-9)) - 1
            done[first:] = [best] * len(done[first:])
    return done


@dataclass(frozen=True)
class NullAdviser:
    """The null policy in the place of a model: what it says is drawn, whatever was tried."""

    name: str = "null adviser"

    def decide(self, observation: Observation) -> Answer:
        """Answer as a model would, with values of the null policy."""
        if not observation.bounds:  # a search has bounds of its own
            observation = observation.model_copy(update={"bounds": BOUNDS})
        drawn = Null().decide(observation).proposal
        assert drawn is not None
        return Answer(proposal=drawn.model_copy(update={"source": "llm"}))


@dataclass
class Asking:
    """A model asked through the adviser of studies, shown what was tried so far.

    Attributes:
        spec: which model.
        model: made by :func:`llm_tools.chat_model`.
        episode: whose trials it is shown.
        alone: whether no optimizer has a proposal of its own.
    """

    spec: str
    model: Any
    episode: Episode
    alone: bool = False

    @property
    def name(self) -> str:
        """Name the model."""
        return f"llm:{self.spec}"

    def decide(self, observation: Observation) -> Answer:
        """Ask once."""
        from agents.study.adviser import TrialAdviser

        tried = self.episode.tried
        proposed = [SimpleNamespace(values=CONFIGURATIONS[i]) for i in tried]
        figures = [
            SimpleNamespace(trial=n, figure=float(self.episode.final[i]))
            for n, i in enumerate(tried)
        ]
        spec = SimpleNamespace(
            search=SEARCH,
            agent=AgentSpec(model=self.spec, deadline=MODEL_CALL_SECONDS),
            metric=MetricSpec(name="nll", direction="lower"),
        )
        told = SimpleNamespace(proposed=proposed, tried=figures)
        ledger: Any = SimpleNamespace(spec=spec, told=told)
        return TrialAdviser(ledger, self.model, self.alone).decide(observation)


@dataclass(frozen=True)
class Fresh:
    """An adviser who is not heard on what was tried already, as in studies.

    Attributes:
        adviser: who.
        episode: what was tried; here that is whatever is nearest to the same configuration.
    """

    adviser: Policy
    episode: Episode

    @property
    def name(self) -> str:
        """Name of the adviser."""
        return self.adviser.name

    def decide(self, observation: Observation) -> Answer:
        """Let it propose."""
        answer = self.adviser.decide(observation)
        values = answer.proposal.values if answer.proposal else {}
        if within(SPACE, values) and nearest(values) in self.episode.tried:
            return Answer(proposal=None, failure=REPEATED, trace=answer.trace)
        return answer


def optimizer(method: str) -> Optimizer:
    """Make a search of agents, on an Optuna study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = SEARCH.model_copy(update={"method": method})
    return Optimizer(spec, optuna.create_study())


@dataclass(frozen=True)
class Stepwise:
    """Lets policies of agents propose, trial by trial.

    Attributes:
        method: of the optimizer: tpe or cmaes; None if there is none.
        adviser: makes who may overrule it, or proposes alone.
        share: of the trials that an adviser may decide.
        warmup: trials before it is asked.
    """

    method: str | None
    adviser: Callable[[Episode], Policy] | None = None
    share: float = 0.3
    warmup: int = 4

    def __call__(self, episode: Episode) -> list[int]:
        """Search."""
        search = optimizer(self.method) if self.method else None
        adviser = self.adviser(episode) if self.adviser else None
        sources = {"optimizer": 1}
        episode.tried.append(DEFAULT)
        while (trial := len(episode.tried)) < episode.evaluations:
            observation = seen(episode, trial, sources)
            if search:
                tell(search, episode)
            answer = self.asked(search, adviser, observation, episode)
            source, values = accepted(answer, episode)
            sources[source] = sources.get(source, 0) + 1
            episode.tried.append(nearest(values))
        return episode.incumbents()

    def asked(
        self,
        search: Optimizer | None,
        adviser: Policy | None,
        observation: Observation,
        episode: Episode,
    ) -> Answer:
        """Ask who is there; keep what the optimizer would have tried where it is overruled."""
        if search is None:
            assert adviser is not None
            return adviser.decide(observation)
        kept = Kept(search)
        policy: Policy = kept
        if adviser:
            policy = Hybrid(kept, Fresh(adviser, episode), self.share, self.warmup)
        answer = policy.decide(observation)
        if answer.proposal is not None and answer.proposal.source == "llm" and kept.planned:
            episode.shadows[observation.round] = nearest(kept.planned)
        return answer


@dataclass
class Kept:
    """A policy whose last proposal is kept.

    Attributes:
        policy: who proposes.
        planned: its last values.
    """

    policy: Policy
    planned: Values = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self.policy.name

    def decide(self, observation: Observation) -> Answer:
        """Let it propose."""
        answer = self.policy.decide(observation)
        self.planned = answer.proposal.values if answer.proposal else {}
        return answer


def seen(episode: Episode, trial: int, sources: dict[str, int]) -> Observation:
    """Say which trial it is and who decided those before."""
    return Observation(
        round=trial,
        rounds_left=max(1, episode.evaluations - trial),
        facts=(),
        bounds={},
        values={},
        sources=sources,
        seed=episode.seed,
    )


def tell(search: Optimizer, episode: Episode) -> None:
    """Tell an optimizer what was tried, at the places of the table."""
    search.tell([(CONFIGURATIONS[i], float(episode.final[i])) for i in episode.tried])


def accepted(answer: Answer, episode: Episode) -> tuple[str, Values]:
    """Take what may be tried from an answer; of a failure, the default again, and it is counted."""
    tokens = answer.trace.get("tokens", 0)
    episode.tokens += int(tokens) if isinstance(tokens, int | float) else 0
    episode.asked += "attempts" in answer.trace
    proposal: Proposal | None = answer.proposal
    alone = proposal is not None and proposal.source == "llm" and proposal.abstains
    heard = str(answer.trace.get("adviser", ""))
    episode.abstained += alone or heard == "abstained"
    episode.repeated += (again := heard.startswith(REPEATED))
    if heard not in ("", "abstained") and not again:
        episode.failures.append(heard)
    if proposal is not None and within(SPACE, proposal.values):
        return ("llm" if proposal.source == "llm" else "optimizer"), dict(proposal.values)
    if proposal is None or not proposal.abstains:
        episode.failures.append(answer.failure or "outside of the bounds")
    return "fallback", CONFIGURATIONS[DEFAULT]


WITHOUT_MODEL: dict[str, Searcher] = {
    "default": stay,
    "random": draws,
    "tpe": Stepwise("tpe"),
    "cmaes": Stepwise("cmaes"),
    "halving": halving,
}
CONTROLS: dict[str, Searcher] = {
    "null": Stepwise(None, lambda episode: NullAdviser()),
    "hybrid+null": Stepwise("tpe", lambda episode: NullAdviser()),
}


def searchers(models: Mapping[str, Any]) -> dict[str, Searcher]:
    """Return every policy that is scored: plain ones, controls, models alone and as advisers."""
    found = WITHOUT_MODEL | CONTROLS
    for spec, model in models.items():
        adviser = partial(Asking, spec, model)
        found |= {
            f"llm:{spec}": Stepwise(None, partial(adviser, alone=True)),
            f"hybrid+{spec}": Stepwise("tpe", adviser),
        }
    return found


def episode(curves: np.ndarray, evaluations: int, *where: int | str) -> Episode:
    """Stand before a search; its draws follow from where it is."""
    return Episode(curves, address("pilot bench", *where) % 2**53, evaluations)


def repeated(searcher: Searcher, start: Episode) -> tuple[Episode, list[int]]:
    """Run a searcher on a fresh copy of an episode."""
    fresh = replace(start, tried=[], shadows={}, failures=[])
    return fresh, searcher(fresh)
