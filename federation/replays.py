"""Rounds of a run, played again from the state before them, beside the run.

What is drawn is drawn at the run's own addresses, so a round that is played again without a change
comes to the run's own bits; with another seed it is the same round with other luck.  Reads a run
directory and writes nothing.

Shape suffixes: C clients, P flat parameters.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from federation.algorithms.algorithm import Algorithm, advance
from federation.bits import same_arithmetic
from federation.changes import NO_GLOBAL_MODEL, NOTHING, Change
from federation.cohort.planner import RulePlanner
from federation.config import Config
from federation.errors import ConfigError, CorruptError, DataError
from federation.evaluation import scores
from federation.evaluation.assess import global_rows
from federation.evaluation.evaluate import Evaluation, score
from federation.experiment import Setup, beginnings, default_cache, set_up
from federation.plan import Reports, RoundPlan
from federation.pretraining.recipe import recipe_of
from federation.runs import tree_files
from federation.runs.records import StartRecord
from federation.runs.run import Run, checkpoint_files, memory_after, updates_files
from federation.session import Watch
from federation.training.build import build_algorithm, rehearsed, with_settings
from federation.training.engine import LocalEngine
from federation.training.local import fresh_memory
from federation.training.memory import Overlay
from federation.tree import Tree, nbytes


@dataclass(frozen=True)
class Stage:
    """A run set up again as it stood before one of its rounds.

    Attributes:
        run: the run.
        setup: what its configuration means on this machine.
        start: what decides its bits.
        planner: makes plans of its decisions.
        round: the round to be played again first.
        rounds: how many are.
        state: server state before ``round``.
        watch: who is told of progress.
    """

    run: Run
    setup: Setup
    start: StartRecord
    planner: RulePlanner
    round: int
    rounds: int
    state: Tree
    watch: Watch

    @property
    def last(self) -> int:
        """The last round that is played."""
        return self.round + self.rounds - 1

    def plan(self, round: int, change: Change, seed: int) -> RoundPlan:
        """Plan a round as it was decided, but for a change, with the draws of a seed."""
        decision = change.decision(self.run.history.decisions[round])
        return replace(self.planner.plan(decision)[0], seed=seed)

    def kept(self) -> Reports | None:
        """Load what the clients of the first round reported, if that was kept.

        Raises:
            CorruptError: if the file is damaged.
        """
        record = self.run.history.rounds[self.round]
        file = updates_files(self.run.path, self.run.history).get(self.round)
        if file is None or not file.exists():
            return None
        tree = tree_files.load_tree(file, record.updates_sha256)
        try:
            return Reports.from_tree(tree, record.clients)
        except ValueError as error:
            raise CorruptError(f"{file}: {error}; delete it to train the round again") from error

    def trained(self, seed: int) -> Reports:
        """Let the clients of the first round train again, as they were asked to."""
        algorithm = self.built(self.round, NOTHING)
        plan = self.plan(self.round, NOTHING, seed)
        return self._engine(NOTHING, algorithm).train(algorithm.sent(self.state), plan)

    def built(self, round: int, change: Change) -> Algorithm:
        """Build the algorithm of a round with the settings that were decided, but for a change."""
        decided = self.run.history.decisions[round].settings if change.algorithm is None else {}
        return change.built(with_settings(self.setup.config, decided))

    def concluded(self, reports: Reports, change: Change, seed: int) -> Tree:
        """Let the server make its next state of the reports of the first round, with a change.

        For a change that spares training; a round that nobody reports in changes nothing.
        """
        algorithm = self.built(self.round, change)
        state = change.state(algorithm, self.state)
        reports = change.clipped(change.reports(reports))
        if not reports.clients:
            return state
        return advance(algorithm, state, reports, self.plan(self.round, NOTHING, seed))

    def played(self, change: Change, seed: int) -> Tree:
        """Play all rounds again with a change, training included; return the last state."""
        algorithm = self.built(self.round, change)
        engine = self._engine(change, algorithm)
        state = change.state(algorithm, self.state)
        for round in range(self.round, self.last + 1):
            plan, algorithm = self.plan(round, change, seed), self.built(round, change)
            engine.task = replace(engine.task, algorithm=algorithm)
            if plan.clients:
                algorithm.check(plan.work)
                reports = engine.train(algorithm.sent(state), plan)
                state = advance(algorithm, state, change.reports(reports), plan)
        return state

    def reproduces(self, state: Tree) -> bool:
        """Tell whether a state is, to the bit, what the run had after the last round."""
        data = tree_files.encode_tree(state, {"round": str(self.last)})
        recorded = self.run.history.rounds[self.last].checkpoint_sha256
        return hashlib.sha256(data).hexdigest() == recorded

    def columns(self, states: Sequence[Tree]) -> list[scores.Columns]:
        """Read the global test set with models, several a pass; return each one's value of a row.

        A model that is the first one to the bit has its very values.
        """
        setup = self.setup
        params = [state["params"] for state in states]
        others = [i for i, x in enumerate(params) if i and not torch.equal(x, params[0])]
        spec = setup.config.evaluation.model_copy(update={"metrics": ("nll",)})
        evaluation = Evaluation(setup.task, setup.data.corpus.examples, setup.data.form, spec)
        rows = test_rows(setup)
        params_C = torch.stack([params[0], *(params[i] for i in others)])
        found = list[scores.Columns]()
        for some_C in params_C.split(evaluation.limits.models):  # as they would share a pass anyway
            last = len(found) + len(some_C)
            self.watch.phase(f"evaluating models {len(found) + 1} to {last} of {len(params_C)}")
            found += score(evaluation, some_C, [rows] * len(some_C))
        by_place = dict(zip(others, found[1:], strict=True))
        return [by_place.get(i, found[0]) for i in range(len(params))]

    def _engine(self, change: Change, algorithm: Algorithm) -> LocalEngine:
        """Make an engine whose clients keep what they kept before the first round.

        Raises:
            ConfigError: if that is not there any more.
        """
        setup, before = self.setup, self.round - 1
        memory = memory_after(self.run.path, self.run.history, before)
        if missing := memory.missing():
            raise ConfigError(
                f"{self.run.path} does not hold any more what its clients kept before round"
                f" {self.round + 1} (the first file is {missing[0].name}); choose a later round"
            )
        known = None
        if change.algorithm is not None:
            plan = self.plan(self.round, NOTHING, setup.config.seed)
            known = fresh_memory(setup.algorithm, self.state["params"], plan)
        task = replace(setup.task, algorithm=algorithm)
        rows_of, chunk = setup.data.train_rows, self.start.chunk_size
        return LocalEngine(task, rows_of, Overlay(memory, known), chunk, self.watch.trained)


def stage(run: Run, round: int, rounds: int, cache: Path | None, watch: Watch) -> Stage:
    """Set a run up again as it stood before a round.

    Args:
        run: any run but one that pre-trains.
        round: a committed round, from 0.
        rounds: how many are to be played again.
        cache: folder for tokenised data; the user's cache folder if omitted.
        watch: who is told of progress.

    Raises:
        ConfigError: if those rounds cannot be played again, saying what can.
        DataError: if the data of the run cannot be read, or there is nothing to be judged on.
        CorruptError: if the checkpoint is damaged.
    """
    config = replayable(run, round, rounds)
    start = run.history.start
    if start is None:
        raise AssertionError("a run with rounds has a start record")
    state = run.state(round - 1) if round else None
    watch.phase("loading model and data")
    setup = set_up(config, None, cache or default_cache())
    same_arithmetic(start, setup.base, setup.data.corpus.digest, beginnings(setup))
    if not len(test_rows(setup)):
        raise DataError("what-if: there is no test set to judge on; raise data.split.test")
    down = setup.algorithm.sent(setup.algorithm.init(setup.params))
    up = rehearsed(setup.algorithm, setup.params, config.work)
    sizes, traffic = setup.data.splits.train.sizes, nbytes(down) + nbytes(up)
    planner = RulePlanner(config, setup.clients, sizes, traffic)
    first = setup.algorithm.init(setup.params) if state is None else state
    return Stage(run, setup, start, planner, round, rounds, first, watch)


def replayable(run: Run, round: int, rounds: int) -> Config:
    """Check, before anything is loaded, that rounds can be played again; return the configuration.

    Raises:
        ConfigError: if they cannot.
    """
    if recipe_of(run) is not None:
        raise ConfigError(f"{run.path} pre-trained a model; a what-if needs a fine-tuning run")
    config, last = Config.from_table(run.config, f"{run.path}/config.json"), run.history.last_round
    if not 0 <= round <= last:
        there = f"it has rounds 1 to {last + 1}" if last >= 0 else "no round was played yet"
        raise ConfigError(f"{run.path} has no round {round + 1} to play again: {there}")
    if round + rounds - 1 > last:
        raise ConfigError(
            f"{run.path} has {last + 1} rounds: from round {round + 1} on at most"
            f" {last + 1 - round} can be played again, not {rounds}"
        )
    if (fork := run.history.fork) and round <= fork.round:
        raise ConfigError(
            f"{run.path} is a fork, round {round + 1} is its parent's: ask of {fork.parent}, or of"
            f" a round from {fork.round + 2} on"
        )
    if gone := [n + 1 for n in range(round, round + rounds) if n in run.history.rollbacks]:
        raise ConfigError(f"{run.path}: round {gone[0]} diverged and was undone; choose another")
    if not run.history.rounds[round].clients:
        raise ConfigError(
            f"{run.path}: nobody reported in round {round + 1}, so nothing depends on anybody"
        )
    if config.upload.noise is not None:
        raise ConfigError(
            f"{run.path} protects its clients with noise (upload.noise): a round played twice under"
            " the same noise gives away whoever is changed, so there is no what-if of it"
        )
    if build_algorithm(config).is_personal:
        raise ConfigError(f"{run.path}: {config.algorithm.name} {NO_GLOBAL_MODEL}")
    files = checkpoint_files(run.path, run.history)
    after = {n for n, file in files.items() if file.exists()}
    there = [n + 1 for n in run.history.rounds if not n or n - 1 in after]
    if round + 1 not in there:
        raise ConfigError(
            f"{run.path} has no checkpoint any more of the state before round {round + 1}; rounds"
            f" that can be played again: {', '.join(map(str, there))}; engine.keep_updates = N in a"
            " new run keeps its newest N so"
        )
    return config


def test_rows(setup: Setup) -> np.ndarray:
    """Return the rows on which models are judged."""
    return global_rows(setup.data, setup.config)
