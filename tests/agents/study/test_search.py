"""The search alone, over a made-up landscape: it finds the valley, and a kill changes nothing."""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.study import search as searching
from agents.study.adviser import trial_schema
from agents.study.halving import rungs
from agents.study.ledger import Ledger, writing
from agents.study.records import Measured, StudyRecord
from agents.study.runs import Bench, folder
from agents.study.search import DATABASE, best, distributions, search
from agents.study.space import placed, record, space_of
from federation.errors import ConfigError
from llm_tools import decodable
from tests.agents.study.studies import script, spec, table
from tests.tiny_worlds import World

BOUNDS = {"lr": [1e-3, 0.1], "steps": [1, 8]}


def valley(lr: float, steps: int) -> float:
    """Lowest at lr = 0.02 and steps = 4."""
    return 2 + math.log(lr / 0.02) ** 2 + math.log(steps / 4) ** 2


@pytest.fixture
def landscape(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a run be a look into a landscape."""

    def use(height: Callable[[float, int], float], gain: float = 1.0) -> None:
        def measure(self: Bench, arm: str, overrides: tuple[str, ...], seed: int) -> Measured:
            name = folder(arm, seed)
            if name not in self.ledger.told.measured:
                work = self.ledger.spec.config(overrides, seed, arm).work
                figure = gain * height(work.lr, work.steps)
                self.ledger.append(
                    Measured(run=name, arm=arm, seed=seed, client_steps=6, validation=figure)
                )
            return self.ledger.told.measured[name]

        monkeypatch.setattr(Bench, "measure", measure)

    use(valley)
    return use


def searched(world: World, out: Path, **changes: object) -> Ledger:
    table = {"bounds": BOUNDS, "trials": 16, "max_client_steps": 10_000} | changes
    more = {name: table.pop(name) for name in ("agent", "metric", "base") if name in table}
    own = None if out.exists() else spec(world, search=table, max_client_steps=99_999, **more)
    with writing(out, own) as ledger:
        search(Bench(ledger))
    return ledger


def told(ledger: Ledger) -> list[tuple[dict[str, float], float]]:
    return [
        (x.values, y.figure) for x, y in zip(ledger.told.proposed, ledger.told.tried, strict=True)
    ]


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_a_search_ends_nearer_to_the_valley_than_it_began(method, landscape, world, tmp_path):
    ledger = searched(world, tmp_path / "s", method=method, trials=24)
    figures = [figure for _, figure in told(ledger)]
    assert len(figures) == 24
    assert min(figures[8:]) < min(figures[:8]) or min(figures) < 2.1
    assert sum(figures[16:]) < sum(figures[:8])
    values = best(Bench(ledger))
    assert values is not None and valley(values["lr"], int(values["steps"])) == min(figures)
    assert ledger.told.search_ended is not None


def test_where_higher_is_better_the_highest_is_best(landscape, world, tmp_path):
    landscape(lambda lr, steps: 1 / valley(lr, steps))
    base = spec(world).base
    base = base | {"evaluation": base["evaluation"] | {"metrics": ["nll", "exact_match"]}}
    metric = {"name": "exact_match", "direction": "higher"}
    ledger = searched(world, tmp_path / "s", metric=metric, base=base)
    values = best(Bench(ledger))
    highest = max(told(ledger), key=lambda x: x[1])
    assert values == highest[0]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_a_killed_search_proposes_what_it_would_have(
    method, landscape, world, tmp_path, monkeypatch
):
    """Killed before and after every record, and between asking Optuna and telling it."""
    whole = told(searched(world, tmp_path / "whole", method=method, trials=9))
    real, calls = Ledger.append, [0]

    def append(self: Ledger, record: StudyRecord) -> None:
        calls[0] += 1
        if calls[0] % 2 == 0:
            raise Killed
        real(self, record)
        if calls[0] % 5 == 0:
            raise Killed

    monkeypatch.setattr(Ledger, "append", append)
    ledger, kills = None, 0
    while ledger is None:
        try:
            ledger = searched(world, tmp_path / "torn", method=method, trials=9)
        except Killed:
            kills += 1
    assert kills > 10
    assert told(ledger) == whole


def test_optuna_s_database_can_be_lost(landscape, world, tmp_path, monkeypatch):
    whole = told(searched(world, tmp_path / "whole", trials=9))
    real = searching.tried

    def tried(bench: Bench, trial: int):
        if trial == 6:
            raise Killed
        return real(bench, trial)

    monkeypatch.setattr(searching, "tried", tried)
    with pytest.raises(Killed):
        searched(world, tmp_path / "torn", trials=9)
    (tmp_path / "torn" / DATABASE).unlink()
    monkeypatch.undo()
    landscape(valley)
    assert told(searched(world, tmp_path / "torn")) == whole


def test_the_database_holds_the_trials_of_the_journal(landscape, world, tmp_path):
    import optuna

    ledger = searched(world, tmp_path / "s", trials=5)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 's' / DATABASE}")
    study = optuna.load_study(study_name="search", storage=storage)
    found = [(dict(x.params), x.value) for x in study.trials if x.value is not None]
    storage.remove_session()
    storage.engine.dispose()
    assert found == told(ledger)


def test_a_trial_that_diverged_is_avoided_and_never_best(landscape, world, tmp_path):
    landscape(lambda lr, steps: math.nan if lr > 0.01 else valley(lr, steps))
    ledger = searched(world, tmp_path / "s", trials=12)
    figures = [figure for _, figure in told(ledger)]
    assert any(math.isnan(x) for x in figures)
    values = best(Bench(ledger))
    assert values is not None and values["lr"] <= 0.01


def test_where_everything_diverged_nothing_is_best(landscape, world, tmp_path):
    landscape(lambda lr, steps: math.nan)
    assert best(Bench(searched(world, tmp_path / "s", trials=4))) is None


def test_a_trial_is_the_mean_over_its_seeds(landscape, world, tmp_path, monkeypatch):
    ledger = searched(world, tmp_path / "s", trials=2, seeds=3)
    assert [x.seed for x in ledger.told.measured.values()] == [6, 7, 8] * 2


# --- With a model ------------------------------------------------------------------------------


def answer(lr: float = 0.02, steps: int = 4, abstain: bool = False) -> str:
    flag = str(abstain).lower()
    return f'{{"answer": {{"lr": {lr}, "steps": {steps}, "abstain": {flag}, "rationale": "so"}}}}'


def hybrid(world: World, tmp_path: Path, lines: list[str], **changes: object) -> Ledger:
    model = {"model": script(tmp_path / "script.jsonl", *lines), "arms": 0}
    wanted = {"method": "hybrid", "agent": model, "trials": 10} | changes
    return searched(world, tmp_path / "hybrid", **wanted)


def test_a_model_overrules_a_share_of_the_trials_after_the_warm_up(landscape, world, tmp_path):
    rates = [0.01, 0.02, 0.03]
    ledger = hybrid(world, tmp_path, [answer(lr) for lr in rates], share=0.3, warmup=4)
    sources = [x.source for x in ledger.told.proposed]
    assert sources[:4] == ["optimizer"] * 4
    assert sources.count("llm") == 3
    taken = [x for x in ledger.told.proposed if x.source == "llm"]
    assert [x.values for x in taken] == [{"lr": lr, "steps": 4.0} for lr in rates]
    assert all(x.trace["prompt"] == "trial@2" for x in taken)


def test_a_model_that_says_the_same_again_and_again_costs_one_trial(landscape, world, tmp_path):
    ledger = hybrid(world, tmp_path, [answer()] * 10, trials=10, warmup=4, share=1.0)
    first, *rest = ledger.told.proposed[4:]
    assert (first.source, first.values) == ("llm", {"lr": 0.02, "steps": 4.0})
    assert {x.source for x in rest} == {"optimizer"} and len(rest) == 5
    assert {x.trace["adviser"] for x in rest} == {"was tried already: lr 0.02, steps 4"}
    values = [tuple(x.values.values()) for x in ledger.told.proposed]
    assert len(set(values)) == len(values)


def test_a_dead_server_is_not_asked_in_every_trial(landscape, world, tmp_path):
    lines = ['{"failure": "timeout", "reason": "late"}'] * 10
    alone = told(searched(world, tmp_path / "alone", trials=10))
    ledger = hybrid(world, tmp_path, lines, trials=10, warmup=0, share=1.0)
    asked = [x.trial for x in ledger.told.proposed if "attempts" in x.trace]
    assert asked == [0, 1, 2, 3, 5, 9]  # as the rounds of a run, see agents/resting.py
    why = "rested after 4 failures in a row (timeout), until trial 6"
    assert ledger.told.proposed[4].trace == {"adviser": why}
    assert told(ledger) == alone


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_says_why_before_it_says_what(alone):
    schema = decodable(
        trial_schema(space_of({"lr": (1e-3, 0.1), "steps": (1, 8)}, "search"), alone)
    )
    wanted = ["rationale", "lr", "steps"] + ([] if alone else ["abstain"])
    assert list(schema["properties"]) == wanted == schema["required"]


@pytest.mark.parametrize(
    "line", [answer(abstain=True), '{"failure": "timeout"}', answer(lr=7.0), '{"answer": "no"}']
)
def test_a_model_without_a_usable_answer_overrules_nobody(line, landscape, world, tmp_path):
    alone = told(searched(world, tmp_path / "alone", trials=6))
    ledger = hybrid(world, tmp_path, [line] * 60, trials=6, warmup=2, share=1.0)
    assert told(ledger) == alone
    asked = [x for x in ledger.told.proposed if "adviser" in x.trace]
    assert len(asked) == 4 and {x.source for x in ledger.told.proposed} == {"optimizer"}


def test_a_model_is_not_asked_again_about_a_trial_that_stands_in_the_journal(
    landscape, world, tmp_path, monkeypatch
):
    real, fall = searching.tried, [True]

    def tried(bench: Bench, trial: int):
        if trial == 4 and fall:
            fall.clear()
            raise Killed
        return real(bench, trial)

    monkeypatch.setattr(searching, "tried", tried)
    with pytest.raises(Killed):
        hybrid(world, tmp_path, [answer()], trials=5, warmup=4, share=1.0)
    script(tmp_path / "script.jsonl", answer(lr=0.05))
    with writing(tmp_path / "hybrid") as ledger:
        search(Bench(ledger))
    assert ledger.told.proposed[4].values["lr"] == 0.02


def test_ranks_are_those_that_servers_hold():
    space = space_of({"adapter.rank": (4, 70), "lr": (1e-4, 0.1)}, "search")
    rank = space[0]
    assert rank.choices == (8, 16, 32, 64)
    assert placed(space, {"adapter.rank": 0.5, "lr": 0.5})["adapter.rank"] in rank.choices
    assert not rank.fits(12) and rank.fits(16)
    schema = decodable(record("Trial", space))["properties"]["adapter_rank"]
    assert schema["enum"] == [8, 16, 32, 64]
    assert set(distributions(space)["adapter.rank"].choices) == set(rank.choices)
    with pytest.raises(ConfigError, match="no rank that servers hold lies within"):
        space_of({"adapter.rank": (2, 7)}, "search")


# --- Successive halving ------------------------------------------------------------------------


@given(configurations=st.integers(1, 200), rounds=st.integers(1, 200))
def test_rungs_cost_about_the_same_and_end_at_all_rounds(configurations, rounds):
    ladder = rungs(configurations, rounds)
    assert ladder[0][0] == configurations and ladder[-1][1] == rounds
    for (many, short), (few, long) in pairwise(ladder):
        assert few == max(many // 3, 1) and short < long <= 3 * short
    assert all(n >= 1 and r >= 1 for n, r in ladder)


def seeing_rounds(monkeypatch, seen: list[int]) -> None:
    """Let a run be a look into the valley whose mist lifts with the rounds."""

    def measure(self: Bench, arm: str, overrides: tuple[str, ...], seed: int) -> Measured:
        config = self.ledger.spec.config(overrides, seed, arm)
        name = folder(arm, seed)
        seen.append(config.rounds)
        figure = valley(config.work.lr, config.work.steps) + 9 / config.rounds
        self.ledger.append(
            Measured(run=name, arm=arm, seed=seed, client_steps=6, validation=figure)
        )
        return self.ledger.told.measured[name]

    monkeypatch.setattr(Bench, "measure", measure)


def nine_rounds(world: World) -> dict[str, object]:
    return table(world)["base"] | {"rounds": 9}


def test_the_better_third_is_trained_for_longer(world, tmp_path, monkeypatch):
    seen: list[int] = []
    seeing_rounds(monkeypatch, seen)
    ledger = searched(world, tmp_path / "s", method="halving", trials=9, base=nine_rounds(world))
    assert seen == [1] * 9 + [3] * 3 + [9]
    rungs_told = told(ledger)
    first = sorted(rungs_told[:9], key=lambda x: x[1])
    assert [values for values, _ in rungs_told[9:12]] == [values for values, _ in first[:3]]
    assert best(Bench(ledger)) == rungs_told[12][0] == first[0][0]
    assert ledger.told.search_ended is not None


def test_a_killed_halving_goes_on_as_it_would_have(world, tmp_path, monkeypatch):
    seeing_rounds(monkeypatch, [])
    wanted = {"method": "halving", "trials": 9, "base": nine_rounds(world)}
    whole = told(searched(world, tmp_path / "whole", **wanted))
    real, left = Ledger.append, [0]

    def append(self: Ledger, record: StudyRecord) -> None:
        left[0] += 1
        if left[0] % 4 == 0:
            raise Killed
        real(self, record)

    monkeypatch.setattr(Ledger, "append", append)
    ledger = None
    while ledger is None:
        with suppress(Killed):
            ledger = searched(world, tmp_path / "torn", **wanted)
    assert told(ledger) == whole


def test_halving_ends_where_the_client_steps_are_spent(world, tmp_path, monkeypatch):
    seen: list[int] = []
    seeing_rounds(monkeypatch, seen)
    ledger = searched(
        world,
        tmp_path / "s",
        method="halving",
        trials=9,
        base=nine_rounds(world),
        max_client_steps=75,
    )
    assert ledger.told.search_ended is not None
    assert "would exceed" in ledger.told.search_ended.why and max(seen) < 9
