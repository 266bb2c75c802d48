"""Hyperparameter search: TPE or CMA-ES by ask and tell, successive halving, or a hybrid.

A trial is a run, or several under different seeds, and is judged on the validation split.  The
journal is the truth: every proposal is written down before it is tried and every figure before
Optuna is told it, and a sampler is made anew for each proposal from the address (seed, trial).  So
a search that was killed proposes what it would have proposed, and ``search.db`` is brought up to
date from the journal.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agents.facts import Observation
from agents.proposals import Answer, Policy, Proposal
from agents.resting import rest
from agents.study.budget import most_client_steps
from agents.study.halving import following, rungs
from agents.study.records import Proposed, SearchEnded, Tried
from agents.study.runs import Bench
from agents.study.space import Range, Space, Values, placed, places, within
from agents.study.spec import SearchSpec
from federation.address import address
from federation.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

DATABASE = "search.db"
STARTUP = 4
"""Trials of TPE that are drawn at random."""
GENERATION = 4
"""Trials of a generation of CMA-ES."""
SPREAD = 0.3
"""First standard deviation of CMA-ES, of the whole range."""
NEEDS = {"tpe": ("optuna",), "hybrid": ("optuna",), "cmaes": ("optuna", "cmaes"), "halving": ()}

Trials = Sequence[tuple[Values, float]]
"""Values and cost, lower is better; infinite where training diverged."""


def check_installed(spec: SearchSpec) -> None:
    """Refuse a search whose libraries are not there.

    Raises:
        ConfigError: saying how to install them.
    """
    for library in NEEDS[spec.method]:
        if find_spec(library) is None:
            raise ConfigError(
                f"search.method {spec.method!r} needs {library}: pip install 'fedpilot[pilot]'"
            )
    if spec.method == "cmaes" and len(spec.bounds) < 2:
        raise ConfigError("search.method 'cmaes' needs two keys: add one to search.bounds")


def search(bench: Bench) -> None:
    """Try configurations until the trials or the client-steps of the search are spent."""
    ledger, spec = bench.ledger, bench.ledger.spec.search
    if spec is None or ledger.told.search_ended:
        return
    check_installed(spec)
    if spec.method == "halving":
        halve(bench)
        return
    with opened(ledger.path / DATABASE, spec) as optimizer:
        policy = proposer(bench, optimizer)
        while len(ledger.told.tried) < spec.trials:
            trial = len(ledger.told.tried)
            optimizer.tell(trials(bench))
            if len(ledger.told.proposed) == trial:
                ledger.append(proposal(bench, policy, trial))
            if not attempted(bench, trial):
                return
        optimizer.tell(trials(bench))
    ledger.append(SearchEnded(why=f"all {spec.trials} trials are done"))


def halve(bench: Bench) -> None:
    """Climb the rungs of successive halving, or end where the client-steps are spent."""
    ledger, spec = bench.ledger, bench.ledger.spec
    assert spec.search is not None
    control = spec.config(spec.arms[spec.control], spec.search_seeds[0], "control")
    ladder = rungs(spec.search.trials, control.rounds)
    higher, told = spec.metric.direction == "higher", ledger.told
    while True:
        if len(told.proposed) == len(told.tried):
            found = following(
                told.proposed,
                told.tried,
                space=spec.search.space,
                ladder=ladder,
                seed=spec.seeds[0],
                higher=higher,
            )
            if found is None:
                break
            ledger.append(found)
        if not attempted(bench, len(told.tried)):
            return
    ledger.append(SearchEnded(why=f"all {len(ladder)} rungs are done"))


def attempted(bench: Bench, trial: int) -> bool:
    """Try what was proposed, or end the search if that would cost more than is left."""
    ledger = bench.ledger
    if affordable(bench, ledger.told.proposed[trial]):
        ledger.append(tried(bench, trial))
        return True
    why = f"trial {trial + 1} would exceed search.max_client_steps"
    ledger.append(SearchEnded(why=why))
    return False


def overrides_of(bench: Bench, proposed: Proposed) -> tuple[str, ...]:
    """Return what a trial sets: its values, and its rounds where they are not the control's."""
    spec = bench.ledger.spec
    assert spec.search is not None
    rounds = () if proposed.rounds is None else (f"rounds={proposed.rounds}",)
    return (*spec.with_values(spec.search.space, proposed.values), *rounds)


def tried(bench: Bench, trial: int) -> Tried:
    """Run what was proposed; the figure is the mean over the search's seeds."""
    spec, told = bench.ledger.spec, bench.ledger.told
    assert spec.search is not None
    values = told.proposed[trial].values
    overrides = overrides_of(bench, told.proposed[trial])
    found = [bench.measure(f"trial-{trial}", overrides, s).validation for s in spec.search_seeds]
    figure = float(np.mean(found))
    shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
    bench.watch.say(f"trial {trial + 1}: {shown}: {spec.metric.name} {figure:.4g}")
    return Tried(trial=trial, figure=figure)


def affordable(bench: Bench, proposed: Proposed) -> bool:
    """Tell whether a trial fits into what the search has left; what it has already run is free."""
    spec, told = bench.ledger.spec, bench.ledger.told
    assert spec.search is not None
    config = spec.config(overrides_of(bench, proposed), spec.search_seeds[0], "search")
    done = [x for x in told.measured.values() if x.arm.startswith("trial-")]
    here = sum(x.arm == f"trial-{len(told.tried)}" for x in done)
    need = most_client_steps(config) * (len(spec.search_seeds) - here)
    return sum(x.client_steps for x in done) + need <= spec.search.max_client_steps


def trials(bench: Bench) -> Trials:
    """List what was tried and what it cost, lower is better."""
    told, metric = bench.ledger.told, bench.ledger.spec.metric
    sign = -1.0 if metric.direction == "higher" else 1.0
    return [
        (told.proposed[x.trial].values, sign * x.figure if math.isfinite(x.figure) else math.inf)
        for x in told.tried
    ]


def best(bench: Bench) -> Values | None:
    """Return the best of what was tried for the most rounds; None if nothing trained."""
    proposed = bench.ledger.told.proposed
    found = [(cost, i) for i, (_, cost) in enumerate(trials(bench)) if math.isfinite(cost)]
    longest = max((proposed[i].rounds or 0 for _, i in found), default=0)
    known = [(cost, i) for cost, i in found if (proposed[i].rounds or 0) == longest]
    return bench.ledger.told.proposed[min(known)[1]].values if known else None


def proposer(bench: Bench, optimizer: "Optimizer") -> Policy:
    """Return who proposes trials: the optimizer, or a hybrid of it."""
    spec = bench.ledger.spec.search
    assert spec is not None
    if spec.method != "hybrid":
        return optimizer
    from agents.policies.model import Hybrid
    from agents.study.adviser import TrialAdviser

    return Hybrid(optimizer, TrialAdviser.of(bench.ledger), spec.share, spec.warmup)


def proposal(bench: Bench, policy: Policy, trial: int) -> Proposed:
    """Ask for what to try next."""
    spec, told = bench.ledger.spec, bench.ledger.told
    assert spec.search is not None
    sources = [x.source for x in told.proposed]
    answer = policy.decide(
        Observation(
            round=trial,
            rounds_left=spec.search.trials - trial,
            facts=(),
            bounds={},
            values={},
            sources={name: sources.count(name) for name in set(sources)},
            seed=spec.seeds[0],
            resting=rest({x.trial: x.trace for x in told.proposed}, trial, "trial"),
        )
    )
    found = answer.proposal
    if found is None or not within(spec.search.space, found.values):
        raise AssertionError(f"{policy.name} proposed what its bounds do not allow: {answer}")
    return Proposed(
        trial=trial,
        values=found.values,
        source="llm" if found.source == "llm" else "optimizer",
        why=found.rationale,
        trace=answer.trace,
    )


@dataclass
class Optimizer:
    """TPE or CMA-ES over the trials of a search; a policy whose rounds are trials.

    Attributes:
        spec: the search.
        study: Optuna's, in its database.
    """

    spec: SearchSpec
    study: "Study"

    @property
    def method(self) -> str:
        """Which of the two: in a hybrid TPE is in charge."""
        return "cmaes" if self.spec.method == "cmaes" else "tpe"

    @property
    def name(self) -> str:
        """Name and version."""
        return f"study:{self.method}@1"

    def tell(self, trials: Trials) -> None:
        """Bring the database up to what is known: unfinished trials were cut off by a kill."""
        from optuna.trial import TrialState, create_trial

        complete = 0
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                known = complete < len(trials) and trials[complete][0] == plain(trial.params)
                if known:
                    self.study.tell(trial.number, trials[complete][1])
                else:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                complete += known
            else:
                complete += trial.state == TrialState.COMPLETE
        for values, cost in trials[complete:]:
            params = {x.key: typed(values[x.key], x.whole) for x in self.spec.space}
            made = create_trial(
                params=params, distributions=distributions(self.spec.space), value=cost
            )
            self.study.add_trial(made)

    def decide(self, observation: Observation) -> Answer:
        """Ask for the next trial; what was tried has been told."""
        from optuna.samplers import TPESampler

        seed = address(observation.seed, observation.round, "study", self.method) % 2**32
        space = self.spec.space
        if self.method == "cmaes":
            values = self.by_cmaes(observation)
            self.study.enqueue_trial({x.key: typed(values[x.key], x.whole) for x in space})
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP)
        asked = plain(self.study.ask(distributions(space)).params)
        why = f"{self.method} after {observation.round} trials"
        return Answer(proposal=Proposal(values=asked, rationale=why, source="optimizer"))

    def by_cmaes(self, observation: Observation) -> Values:
        """Live through the generations again (Hansen 2016, arXiv:1604.00772); ask for the next."""
        from cmaes import CMA
        from optuna.trial import TrialState

        space = self.spec.space
        own = CMA(
            mean=np.full(len(space), 0.5),
            sigma=SPREAD,
            bounds=np.array([[0.0, 1.0]] * len(space)),
            seed=address(observation.seed, "study", "cmaes") % 2**32,
            population_size=GENERATION,
        )
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        told = [
            (np.array(list(places(space, plain(x.params)).values())), float(x.value or 0.0))
            for x in done
        ]
        for start in range(0, len(told) - GENERATION + 1, GENERATION):
            for _ in range(GENERATION):
                own.ask()
            own.tell(told[start : start + GENERATION])
        for _ in range(len(told) % GENERATION):
            own.ask()
        return placed(space, dict(zip((x.key for x in space), own.ask().tolist(), strict=True)))


@contextmanager
def opened(path: Path, spec: SearchSpec) -> Iterator[Optimizer]:
    """Open the database of a search, new or old."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
        yield Optimizer(spec, study)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def distributions(space: Space) -> "dict[str, BaseDistribution]":
    """Write a space as Optuna has it: by ratio."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(x: Range) -> "BaseDistribution":
        if x.choices:
            return CategoricalDistribution(x.choices)
        if x.whole:
            return IntDistribution(int(x.low), int(x.high), log=True)
        return FloatDistribution(x.low, x.high, log=True)

    return {x.key: one(x) for x in space}


def typed(value: float, whole: bool) -> float | int:
    """Write a value as Optuna wants it."""
    return int(value) if whole else value


def plain(params: dict[str, float]) -> Values:
    """Read what Optuna wrote."""
    return {key: float(value) for key, value in params.items()}
