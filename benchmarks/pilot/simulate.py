"""A federation played in memory: the core's own rounds, without a run directory.

Shape suffixes: C clients, P flat parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from federation.algorithms.algorithm import advance
from federation.cohort.planner import Planner, RulePlanner
from federation.config import Config
from federation.errors import QuorumError
from federation.evaluation import scores
from federation.evaluation.assess import global_rows, limited, union
from federation.evaluation.evaluate import Evaluation, score
from federation.experiment import Setup, set_up
from federation.idling import Past
from federation.plan import Engine, Reports, RoundPlan
from federation.runs.records import DecisionRecord, EvaluationRecord, RoundRecord
from federation.runs.run import History
from federation.session import figures
from federation.training.build import build_algorithm, rehearsed
from federation.training.engine import LocalEngine
from federation.training.memory import RamMemory
from federation.tree import Tree, nbytes

Planted = Callable[[Tree, Reports], Reports]
"""What a fault makes of honest reports; it knows what was sent, too."""


@dataclass(frozen=True)
class Losses:
    """Loss of a model, nats per token.

    Attributes:
        validation: on all clients' validation rows.
        test: on the global test set: rows set aside for it, or all clients' test rows.
        clients: client -> on its own test rows.
    """

    validation: float
    test: float
    clients: dict[str, float]


@dataclass(frozen=True)
class Judge:
    """Who reads the losses of models; every row is read once.

    Attributes:
        evaluation: what is measured.
        rows: everything that is read, ascending.
        validation, test: places in ``rows``.
        clients: client -> places of its own test rows.
    """

    evaluation: Evaluation
    rows: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    clients: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, setup: Setup) -> "Judge":
        """Choose the rows that a run of the core would be judged on."""
        splits = setup.data.judged
        validation = union(limited(setup, "validation", splits.validation))
        clients = limited(setup, "test", splits.test)
        test = global_rows(setup.data, setup.config) if splits.set_aside.size else union(clients)
        rows = np.unique(np.concatenate([validation, test, union(clients)]))
        at = {name: np.searchsorted(rows, own) for name, own in clients.items()}
        found = np.searchsorted(rows, validation), np.searchsorted(rows, test)
        evaluation = Evaluation(
            setup.task, setup.data.corpus.examples, setup.data.form, setup.config.evaluation
        )
        return cls(evaluation, rows, *found, at)

    def losses(self, params: Tensor) -> Losses:
        """Judge one model, ``(P,)``."""
        columns = score(self.evaluation, params[None], [self.rows])[0]

        def nll(index: np.ndarray) -> float:
            return scores.metrics(scores.take(columns, index))["nll"]

        own = {name: nll(index) for name, index in self.clients.items()}
        return Losses(nll(self.validation), nll(self.test), own)


def prepared(config: Config, cache: Path) -> Setup:
    """Load model and data for one configuration, to be shared by others on the same data."""
    return set_up(config, None, cache)


def reconfigured(setup: Setup, config: Config) -> Setup:
    """Return a setup on the same model and data with another configuration of the rest."""
    task = replace(setup.task, algorithm=build_algorithm(config))
    return replace(setup, config=config, task=task)


def traffic(setup: Setup) -> int:
    """Return the bytes that a client receives and sends in a round."""
    down = setup.algorithm.sent(setup.algorithm.init(setup.params))
    return nbytes(down) + nbytes(rehearsed(setup.algorithm, setup.params, setup.config.work))


def by_rules(setup: Setup) -> RulePlanner:
    """Return the planner that follows a configuration's rules."""
    sizes = setup.data.splits.train.sizes
    return RulePlanner(setup.config, setup.clients, sizes, traffic(setup))


@dataclass
class Simulation:
    """A run that goes on.

    Attributes:
        setup: what is run.
        planner: who decides.
        history: its records so far, which the planner may be reading too.
        judge: who reads losses.
        state: server state.
        losses: after every round; a round in which training diverged has none.
        past: where the model was.
        plant: what faults make of honest reports.
    """

    setup: Setup
    planner: Planner
    history: History
    judge: Judge
    state: Tree
    losses: list[Losses]
    past: Past
    plant: Planted

    @classmethod
    def of(
        cls,
        setup: Setup,
        planning: Callable[[Setup, History], Planner] = lambda setup, history: by_rules(setup),
        plant: Planted = lambda sent, reports: reports,
    ) -> "Simulation":
        """Stand before the first round."""
        history = History()
        return cls(
            setup,
            planning(setup, history),
            history,
            Judge.of(setup),
            setup.algorithm.init(setup.params),
            [],
            Past(setup.params),
            plant,
        )

    def engine(self) -> Engine:
        """Return where clients train; they keep nothing between rounds."""
        setup, chunk = self.setup, self.setup.config.engine.chunk
        assert isinstance(chunk, int)
        return LocalEngine(setup.task, setup.data.train_rows, RamMemory(), chunk)

    def outcome(self, plan: RoundPlan) -> tuple[Tree, Reports | None]:
        """Return what a plan would make of the state; nothing is written down.

        Raises:
            QuorumError: if nothing that was reported can be used.
        """
        if not plan.clients:
            return self.state, None
        algorithm = self.setup.algorithm
        algorithm.check(plan.work)
        sent = algorithm.sent(self.state)
        reports = self.plant(sent, self.engine().train(sent, plan))
        return advance(algorithm, self.state, reports, plan), reports

    def tried(self, decision: DecisionRecord) -> DecisionRecord:
        """Let some clients try a decision first where the planner wants it, as a run does."""
        plan, _ = self.planner.plan(decision)
        clients = self.planner.canary(decision, plan)
        if not clients:
            return decision
        sent = self.setup.algorithm.sent(self.state)
        return self.planner.tried(decision, self.engine().train(sent, plan.only(clients)), {})

    def play(self) -> bool:
        """Play a round; return whether it could be played: False if training has diverged."""
        decision = self.tried(self.planner.decide(len(self.history.rounds)))
        plan, missing = self.planner.plan(decision)
        sent = self.setup.algorithm.sent(self.state)
        try:
            self.state, reports = self.outcome(plan)
        except QuorumError:
            return False
        self.losses.append(self.judge.losses(self.state["params"]))
        idle = self.past.idle(reports, plan, sent)
        self.note(decision, plan, reports, missing | (reports.rejected if reports else {}), idle)
        return True

    def note(
        self,
        decision: DecisionRecord,
        plan: RoundPlan,
        reports: Reports | None,
        missing: dict[str, str],
        idle: dict[str, str],
    ) -> None:
        """Write a round down as a journal would have it."""
        sent = self.setup.algorithm.sent(self.state)
        found: dict[str, Any] = figures(reports, plan) if reports else {"clients": ()}
        record = RoundRecord(
            round=decision.round,
            missing=missing,
            idle=idle,
            bytes_down=nbytes(sent) * len(decision.clients),
            **found,
        )
        self.history.add(decision)
        validation = {"nll": self.losses[-1].validation}
        self.history.add(
            EvaluationRecord(
                round=decision.round, subject="federated", split="validation", metrics=validation
            )
        )
        self.history.add(record)
        self.planner.learn(record, decision)

    def play_all(self) -> "Simulation":
        """Play what the configuration asks for, or until training diverges."""
        while len(self.history.rounds) < self.setup.config.rounds and self.play():
            pass
        return self
