"""A cohort made of a choice: who must not wait longer, a share by chance, the rest by the rule.

Shape suffixes: N registered clients, n those that may be asked now.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from agents.facts import pseudonyms
from agents.selection import (
    UNIFORM_ONLY,
    Selection,
    SelectionBounds,
    SelectionSpec,
    check_fairness,
    selection_bounds,
)
from federation.address import address, generator
from federation.cohort.selection import CohortSpec, select
from federation.cohort.standing import Ints, Standing
from federation.config import Config
from federation.runs.records import DecisionRecord
from federation.runs.run import History


@dataclass(frozen=True)
class Cohort:
    """Who is asked, and how they came to be.

    Attributes:
        clients: indices, ascending.
        selection: how they were chosen.
        due: how many of them had to be asked, lest they wait too long.
        explored: how many of the others chance chose.
    """

    clients: Ints
    selection: Selection
    due: int
    explored: int


def cohort_of(
    selection: Selection,
    limits: SelectionSpec,
    cohort: CohortSpec,
    standing: Standing,
    *,
    seed: int,
    round: int,
    exclude: Collection[int],
    fewest: int,
) -> Cohort:
    """Choose whom to ask in a round.

    Args:
        selection: what was decided.
        limits: the floors that hold whatever was decided.
        cohort: how many are asked, and the rule's configured parameters.
        standing: what is known of the N registered clients.
        seed: run seed.
        round: number of the round, from 0.
        exclude: indices that may not be chosen.
        fewest: clients that any later round asks at least.
    """
    never = frozenset(exclude)
    due = overdue(limits.fairness, standing, never, cohort.asked, fewest, seed, round)
    left = cohort.asked - len(due)
    by_chance = 0 if selection.rule == "uniform" else quota(selection, cohort.asked, round)
    chance = cohort.model_copy(update={"rule": "uniform", "candidates": None})
    explored = some(chance, by_chance, left, standing, address(seed, "explore"), round, never | due)
    rule = cohort.model_copy(update={"rule": selection.rule})
    taken = due | explored
    ruled = some(rule, left, left - len(explored), standing, seed, round, never | taken, selection)
    clients = np.sort(np.array([*taken, *ruled], dtype=np.int64))
    return Cohort(clients, selection, len(due), len(explored))


def some(
    spec: CohortSpec,
    count: int,
    most: int,
    standing: Standing,
    seed: int,
    round: int,
    exclude: Collection[int],
    selection: Selection | None = None,
) -> frozenset[int]:
    """Let a rule choose so many clients, and at most as many as there is room for."""
    count = min(count, most)
    if count < 1:
        return frozenset()
    times = selection.candidates if selection and spec.rule == "power_of_choice" else None
    candidates = times and min(times * count, len(standing))
    spec = spec.model_copy(update={"size": count, "over_select": 1.0, "candidates": candidates})
    return frozenset(select(spec, standing, seed, round, exclude).tolist())


def quota(selection: Selection, asked: int, round: int) -> int:
    """Return how many places chance fills in a round; what rounding leaves is carried over."""
    before, now = (int(asked * selection.exploration * n + 1e-9) for n in (round, round + 1))
    return now - before


def overdue(
    fairness: int | None,
    standing: Standing,
    never: Collection[int],
    asked: int,
    fewest: int,
    seed: int,
    round: int,
) -> frozenset[int]:
    """Return who has to be asked now, so that everybody can still be asked in time.

    Earliest deadline first: of the clients that have h rounds left or fewer, later rounds can ask
    ``fewest x (h - 1)``; the rest must be asked now.  As long as ``fairness x fewest`` is not less
    than the population and everybody is there, nobody then waits longer than ``fairness`` rounds.
    Who was away longer comes first when back.
    """
    if not fairness:
        return frozenset()
    pool = np.flatnonzero(standing.available_N)
    pool = pool[~np.isin(pool, list(never))]
    left_n = np.maximum(standing.asked_N[pool] + fairness + 1 - round, 1)
    within = np.cumsum(np.bincount(left_n, minlength=fairness + 1)[1:])
    need = int(np.max(within - fewest * np.arange(len(within)), initial=0))
    draw_n = generator(seed, round, "due").random(len(standing))[pool]
    first = np.lexsort((draw_n, left_n))[: min(max(need, 0), asked)]
    return frozenset(pool[first].tolist())


@dataclass(frozen=True)
class Choices:
    """What there is to choose of who is asked, in one run.

    Attributes:
        config: the run's.
        limits: the floors that hold whatever is decided.
        start: what may be chosen, and what holds before round 0.
        index: registered client -> its index.
        never: indices of the clients that the configuration excludes.
        fewest: clients that a round asks at least.
    """

    config: Config
    limits: SelectionSpec
    start: SelectionBounds
    index: Mapping[str, int]
    never: frozenset[int]
    fewest: int

    @classmethod
    def of(
        cls,
        config: Config,
        limits: SelectionSpec,
        outer: Mapping[str, tuple[float, float]],
        clients: Sequence[str],
        never: frozenset[int],
    ) -> "Choices":
        """Say what there is to choose.

        Args:
            config: the run's configuration.
            limits: how far a pilot may go.
            outer: limits of the knobs.
            clients: registered clients, in registry order.
            never: indices of those that the configuration excludes.

        Raises:
            ConfigError: if the limits contradict the rest of the configuration.
        """
        size = int(outer.get("cohort_size", (config.cohort.size, 0))[0])
        fewest = config.cohort.model_copy(update={"size": size}).asked
        population = len(clients) - len(never)
        start = selection_bounds(config, limits, population)
        check_fairness(limits, population, fewest)
        index = {client: i for i, client in enumerate(clients)}
        return cls(config, limits, start, index, never, fewest)

    def bounds(self, history: History, round: int) -> SelectionBounds:
        """Return what may be chosen in a round, and what holds since the round before."""
        now = decided(history.decisions.get(round - 1)) or self.start.current
        return self.start.model_copy(update={"current": now})

    def cohort(
        self,
        history: History,
        round: int,
        selection: Selection | None,
        cohort: CohortSpec,
        standing: Standing,
    ) -> Cohort:
        """Choose whom to ask in a round, as was decided or as before."""
        selection = selection or self.bounds(history, round).current
        names = {pseudonym: name for name, pseudonym in pseudonyms(history, round).items()}
        return cohort_of(
            selection,
            self.limits,
            cohort,
            standing,
            seed=self.config.seed,
            round=round,
            exclude=self.never | {self.index[names[client]] for client in selection.exclude},
            fewest=self.fewest,
        )

    def details(self, found: Cohort) -> dict[str, JsonValue]:
        """Return what the journal keeps: the choice, and what an account of noise may count on."""
        how = {"due": found.due, "explored": found.explored}
        details: dict[str, JsonValue] = {"selection": found.selection.model_dump(mode="json") | how}
        if self.config.upload.noise is not None:
            rate = min(self.config.cohort.asked / len(self.index), 1.0)
            details["privacy"] = {
                "sampling": "uniform",
                "rate": rate,
                "why": UNIFORM_ONLY,
            }
        return details


def decided(decision: DecisionRecord | None) -> Selection | None:
    """Return how the clients of a round were chosen, if that was decided."""
    table = decision.details.get("selection") if decision else None
    if not isinstance(table, dict):
        return None
    return Selection.model_validate({name: table[name] for name in Selection.model_fields})
