"""Searches on tables of runs: budgets are kept, controls are null, nothing is found in nothing."""

import math

import numpy as np
import pytest

from benchmarks.pilot import table as runs
from benchmarks.pilot.online import Steered, count_question
from benchmarks.pilot.parts import Effort
from benchmarks.pilot.scenarios import CONFIGURATIONS, DEFAULT, EXAMPLES, ROUNDS, SCENARIOS
from benchmarks.pilot.searchers import (
    CONTROLS,
    WITHOUT_MODEL,
    Episode,
    NullAdviser,
    Stepwise,
    episode,
    nearest,
    repeated,
)
from benchmarks.pilot.trials import Pairs, alike, study
from benchmarks.pilot.tune import CELLS, calibrate, harms, lifts, score, searched
from federation.address import generator
from federation.runs.records import DecisionRecord
from tests.tiny_tables import made_up


def curves(final: dict[int, float]) -> np.ndarray:
    """Losses that are 9 everywhere but for some configurations."""
    found = np.full((len(CONFIGURATIONS), ROUNDS), 9.0)
    for configuration, loss in final.items():
        found[configuration] = loss
    return found


def test_an_incumbent_is_the_best_on_validation_so_far_and_a_diverged_one_never_is():
    losses = curves({0: 3.0, 1: 2.0, 2: 4.0})
    losses[5] = np.nan
    done = Episode(losses, 0, 5, tried=[5, 0, 2, 1, 5])
    assert done.incumbents() == [5, 0, 0, 1, 1]


@pytest.mark.parametrize("name", [*WITHOUT_MODEL, *CONTROLS])
def test_every_policy_begins_with_the_default_and_spends_its_budget(name):
    table = made_up()
    start = episode(table.validation[0, 0], 12, name)
    done, best = repeated((WITHOUT_MODEL | CONTROLS)[name], start)
    assert len(best) == 12 and best[0] == DEFAULT
    assert np.all(np.diff(done.final[best]) <= 0)  # an incumbent is never given up for a worse one
    assert repeated((WITHOUT_MODEL | CONTROLS)[name], start)[1] == best  # drawn by address


def test_halving_pays_for_every_round():
    losses = curves(dict.fromkeys(range(len(CONFIGURATIONS)), 5.0))
    done, best = repeated(WITHOUT_MODEL["halving"], Episode(losses, 1, 5))
    assert len(done.tried) == 3  # 9 x 2 rounds and 3 x 4 more: five runs of six rounds
    losses[done.tried[-1]] = 1.0  # what is finished last
    again, best = repeated(WITHOUT_MODEL["halving"], Episode(losses, 1, 5))
    found = again.tried.index(done.tried[-1])
    paid = 3 + (found + 1) * 4 / 6
    assert best.index(done.tried[-1]) == math.ceil(paid) - 1


def test_what_a_policy_proposes_is_tried_at_the_nearest_configuration():
    for i, values in enumerate(CONFIGURATIONS):
        assert nearest(values) == i
    assert CONFIGURATIONS[nearest({"lr": 0.0079, "steps": 3.0, "cohort_size": 5.0})] == {
        "lr": 0.008,
        "steps": 4.0,
        "cohort_size": 6.0,
    }


def test_a_hybrid_whose_adviser_has_no_share_is_its_optimizer():
    table = made_up()
    start = episode(table.validation[1, 1], 12, "hybrid")
    mute = Stepwise("tpe", lambda episode: NullAdviser(), share=0.0)
    alone, advised = repeated(WITHOUT_MODEL["tpe"], start), repeated(mute, start)
    assert alone[0].tried == advised[0].tried and not advised[0].shadows


def test_a_hybrid_keeps_what_its_optimizer_would_have_tried():
    start = episode(made_up().validation[1, 1], 25, "hybrid")
    done, _ = repeated(CONTROLS["hybrid+null"], start)
    assert 0 < len(done.shadows) <= 0.3 * 25 and min(done.shadows) >= 4
    losses = curves({1: 1.0, 2: 1.2})
    followed = Episode(losses, 0, 2, tried=[DEFAULT, 2], shadows={1: 1})
    assert harms(followed, 1, 0.1) and not harms(followed, 1, 0.3)


def test_the_null_policy_is_random_search():
    found = calibrate(made_up(), 60)
    assert found.share.high >= 0.95, found
    assert found.contains >= 52  # fewer come of 60 at 0.95 once in 300 times


def test_all_configurations_read_equally_many_examples():
    from benchmarks.pilot.scenarios import config

    for values in CONFIGURATIONS:
        own = config(SCENARIOS[0], 0, values, "base", "rows")
        assert own.work.steps * own.work.batch_size * own.cohort.size == EXAMPLES


def test_who_asks_a_model_searches_one_cell_of_every_scenario_and_is_compared_on_them():
    effort = Effort(models={"m": None})
    for name in ("llm:m", "hybrid+m"):
        cells, repeats = searched(name, effort)
        assert [CELLS[i] for i in cells] == [(s, 0) for s in range(len(SCENARIOS))]
        assert repeats == 1
    assert searched("tpe", effort) == (range(len(CELLS)), effort.repeats)
    table = made_up()
    scored = {"all": score(WITHOUT_MODEL["random"], table, range(len(CELLS)), 1)}
    scored["some"] = score(WITHOUT_MODEL["random"], table, cells, 1)
    found = lifts(scored, "all", 25)["some"]
    assert (found.ties, found.interval.mean) == (len(SCENARIOS), 0.0)


def test_the_null_policy_is_random_search_on_the_stored_table():
    found = calibrate(runs.read(), 60)
    assert found.contains >= 52, found


# experiments


def test_a_clear_difference_is_found_and_none_is_not():
    clear = np.array([0.5, 0.52, 0.48, 0.51, 0.49, 0.5])
    control = np.array([1.0, 1.01, 0.99])
    assert study(Pairs(clear, clear, control))[0] == "better"
    assert study(Pairs(-clear, -clear, control))[0] == "worse"
    assert study(Pairs(clear, -clear, control))[0] == "worse"  # the test split judges
    assert study(Pairs(clear, clear, control * 50))[0] == "inconclusive"  # below the floor


def test_studies_of_nothing_find_nothing():
    table, draw = made_up(), generator("studies of nothing")
    found = [study(alike(table, draw))[0] for _ in range(300)]
    assert found.count("better") <= 0.05 * 300 and found.count("worse") <= 0.05 * 300


@pytest.mark.parametrize(
    ("source", "verdict", "trace", "counts"),
    [
        ("llm", "accepted", {"attempts": 1, "tokens": 9}, (1, 0, 0, 9)),
        ("llm", "abstained", {"attempts": 1, "tokens": 9}, (1, 0, 1, 9)),
        ("fallback", "rejected", {"attempts": 3, "tokens": 9}, (1, 1, 0, 9)),
        ("fallback", "rejected", {}, (0, 0, 0, 0)),  # nobody was asked
        (
            "optimizer",
            "accepted",
            {"attempts": 1, "tokens": 9, "adviser": "abstained"},
            (1, 0, 1, 9),
        ),
        (
            "optimizer",
            "accepted",
            {"attempts": 1, "tokens": 0, "adviser": "timeout: x"},
            (1, 1, 0, 0),
        ),
        ("optimizer", "accepted", {"adviser": "rested"}, (0, 0, 0, 0)),
    ],
)
def test_questions_of_a_steered_run_are_counted_by_what_came_of_them(
    source, verdict, trace, counts
):
    found = Steered()
    details = {"verdict": verdict, "trace": trace}
    record = DecisionRecord(
        round=0, source=source, policy="p", clients=(), work={}, details=details
    )
    count_question(found, record)
    assert (found.asked, found.failures, found.abstained, found.tokens) == counts
