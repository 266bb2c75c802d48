"""A whole study over real runs: what it finds, what it costs, what is hidden, what a kill costs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from agents.study import adviser, report
from agents.study.budget import most_client_steps
from agents.study.conduct import (
    check_budget,
    measure_floor,
    placed,
    register,
    resume_study,
    run_study,
)
from agents.study.ledger import JOURNAL, RUNS, SPEC, Ledger, Study, writing
from agents.study.records import StudyRecord
from agents.study.runs import Bench, StudyWatch, folder
from agents.study.spec import SEARCHED
from agents.study.statistics import judge, noise_floor
from federation import experiment
from federation.errors import ConfigError, CorruptError
from federation.runs import journal
from federation.runs.records import EvaluationRecord
from federation.runs.run import Run, problems
from tests.agents.study.studies import SEARCH, figures, said, script, spec, table
from tests.tiny_worlds import World


def conducted(world: World, out: Path, **changes: object) -> Study:
    return run_study(spec(world, **changes), out, cache=world.folder / "cache")


# --- What it finds -----------------------------------------------------------------------------


def test_every_arm_has_a_verdict_from_the_test_figures_of_its_runs(whole: Study):
    told, own = whole.told, whole.spec
    assert told.verdict is not None and told.floor is not None
    assert list(told.verdict.found) == ["frozen", "again", SEARCHED]
    pairs: dict[str, list[float]] = {}
    for name in told.verdict.found:
        seeds = [s for s in own.seeds if folder(name, s) in told.measured]
        pairs[name] = [loss(whole, "plain", s) - loss(whole, name, s) for s in seeds]
    floor = told.floor.floor
    again = judge(pairs, floor=floor, alpha=0.05, planned=len(own.seeds))
    assert again == told.verdict.found
    assert again["frozen"].verdict == "worse"
    assert again["again"].verdict == "inconclusive"


def test_what_steers_is_not_what_judges(whole: Study):
    record = whole.told.measured[folder("plain", 0)]
    assert record.validation != loss(whole, "plain", 0)


def loss(study: Study, arm: str, seed: int) -> float:
    run = Run.open(study.path / RUNS / folder(arm, seed))
    return run.figures("test")["federated"]["nll"]


def test_the_floor_is_measured_before_any_arm_runs(whole: Study):
    told, own = whole.told, whole.spec
    kinds = [entry.record.kind for entry in journal.read(whole.path / JOURNAL)]
    control = {seed: told.figures("plain")[seed] for seed in (0, 4, 1, 5)}
    assert told.floor is not None and told.floor.figures == control
    assert told.floor.floor == noise_floor(list(control.values()), 4, 0.05)
    measured = [i for i, kind in enumerate(kinds) if kind == "study.measured"]
    assert kinds.index("study.floor") == measured[3] + 1  # after two runs of each pair
    assert own.other_seeds == (4, 5) and own.search_seeds == (6,)


def test_every_run_is_a_whole_run_directory(whole: Study):
    for record in whole.told.measured.values():
        path = whole.path / RUNS / record.run
        assert problems(path) == []
        assert Run.open(path).status == "finished"
        assert Run.open(path).config["seed"] == record.seed


def test_what_a_search_found_is_judged_on_seeds_it_has_not_seen(whole: Study):
    told = whole.told
    assert len(told.tried) == 5
    best = min(told.tried, key=lambda x: x.figure)
    values = told.proposed[best.trial].values
    assert told.arms[SEARCHED].overrides == (
        f"work.lr={values['lr']!r}",
        f"work.batch_size={values['work.batch_size']:.0f}",
    )
    tried = {x.seed for x in told.measured.values() if x.arm.startswith("trial-")}
    assert not tried & set(whole.spec.seeds)


# --- What nobody sees --------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every figure but those of the validation split something else."""
    real = experiment.assess

    def assess(*args: object) -> Iterator[EvaluationRecord]:
        for n, record in enumerate(real(*args)):  # type: ignore[arg-type]
            if record.split != "validation":
                metrics = {name: -1000.0 - n * len(str(args[3])) for name in record.metrics}
                record = record.model_copy(update={"metrics": metrics, "per_client": {}})
            yield record

    monkeypatch.setattr(experiment, "assess", assess)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that a model is asked."""
    asked, real = [], adviser.ask

    def ask(model, prompt, schema, **more):
        asked.append(prompt.text + json.dumps(schema.model_json_schema()))
        return real(model, prompt, schema, **more)

    monkeypatch.setattr(adviser, "ask", ask)
    return asked


ARM = '{"answer": {"arms": [{"lr": 0.03, "work_batch_size": 3, "rationale": "between both"}]}}'
TRIAL = '{"answer": {"lr": 0.02, "work_batch_size": 2, "abstain": false, "rationale": "a guess"}}'


def with_model(world: World, path: Path) -> dict[str, object]:
    """A hybrid search, and a model that also proposes an arm."""
    model = script(path, TRIAL, ARM)
    search = SEARCH | {"method": "hybrid", "share": 1.0, "warmup": 4}
    agent = {"model": model, "arms": 2}
    arms = {"plain": [], "hotter": ["work.lr=0.05"]}
    return {"search": search, "agent": agent, "max_client_steps": 1500, "arms": arms}


def test_test_figures_change_nothing_before_the_verdict(
    world: World, tmp_path: Path, prompts: list[str], request: pytest.FixtureRequest
):
    changes = with_model(world, tmp_path / "script.jsonl")
    clean = conducted(world, tmp_path / "clean", **changes)
    seen, own = prompts.copy(), list(clean.told.unsealed.test.values())  # type: ignore[union-attr]
    request.getfixturevalue("poisoned")
    dirty = conducted(world, tmp_path / "dirty", **changes)
    assert said(dirty.told, until="unsealed") == said(clean.told, until="unsealed")
    assert said(dirty.told) != said(clean.told)  # the poison did reach the verdict
    assert prompts == seen * 2 and len(seen) == 2
    assert not [x for x in own for text in seen if f"{x:.4g}" in text or f"{x:.5g}" in text]
    for name in ("clean", "dirty"):
        kinds = [entry.record.kind for entry in journal.read(tmp_path / name / JOURNAL)]
        assert kinds.index("study.unsealed") == len(kinds) - 2
    for text in prompts:  # nor is there a client or a row of one in what a model is shown
        assert "client-" not in text and "sum 0 and" not in text


# --- What it costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 23])
def test_the_budget_is_never_exceeded(more: int, world: World, tmp_path: Path):
    """A run takes 12: the floor 5 of them, the arms 3 each; a fourth pair of one another 24."""
    least = 12 * (5 + 2 * 3)
    with pytest.raises(ConfigError, match=f"needs {least} at least"):
        check_budget(spec(world, max_client_steps=least - 1))
    study = conducted(world, tmp_path / "study", max_client_steps=least + more)
    assert study.told.client_steps <= least + more
    runs = [Run.open(path) for path in (study.path / RUNS).iterdir()]
    real = sum(x.client_steps for run in runs for x in run.history.rounds.values())
    assert real == study.told.client_steps
    assert study.told.stopped is not None and study.told.verdict is not None
    assert study.told.stopped.why == "the next pairs would exceed max_client_steps"


def test_a_search_ends_when_the_next_trial_does_not_fit(world: World, tmp_path: Path):
    search = {"bounds": {"steps": [2, 8]}, "trials": 9, "max_client_steps": 40}
    study = conducted(world, tmp_path / "study", search=search, max_client_steps=2000)
    spent = sum(x.client_steps for x in study.told.measured.values() if "trial-" in x.arm)
    assert 0 < spent <= 40 and 0 < len(study.told.tried) < 9
    assert study.told.search_ended is not None
    assert "would exceed search.max_client_steps" in study.told.search_ended.why


def test_a_pilot_s_bounds_count_into_what_a_run_may_cost(world: World):
    pilot = 'pilot={policy="null",bounds={steps=[1,4],cohort_size=[2,5]}}'
    own = spec(world, arms={"plain": [], "steered": [pilot]})
    config = own.config(own.arms["steered"], 0, "x")
    assert most_client_steps(config) == 4 * 5


# --- What a model may do -----------------------------------------------------------------------


def advised(world: World, tmp_path: Path, *answers: str, **changes: object) -> Ledger:
    """A study up to the answer of its model, before any arm runs."""
    model = script(tmp_path / "script.jsonl", *answers)
    agent = {"model": model, "arms": 2, "bounds": {"lr": [1e-3, 0.1]}}
    with writing(tmp_path / "study", spec(world, agent=agent, **changes)) as ledger:
        bench = Bench(ledger, world.folder / "cache")
        measure_floor(bench)
        register(bench)
        adviser.advise(bench)
    return ledger


def test_a_model_s_arm_is_compared_like_any_other(world: World, tmp_path: Path):
    arms = '{"arms": [{"lr": 0.04, "rationale": "larger | <b>rate</b>"},'
    arms += ' {"lr": 0.001, "rationale": "as frozen"}]}'
    advised(world, tmp_path, f'{{"answer": {arms}}}')
    study = resume_study(tmp_path / "study", cache=world.folder / "cache")
    told = study.told
    assert told.arms["agent-1"].overrides == ("work.lr=0.04",)
    assert told.advice is not None and told.advice.trace["attempts"] == 1
    assert [line.split(": ")[1] for line in told.advice.refused] == ["there is this arm already"]
    assert told.verdict is not None and told.verdict.found["agent-1"].pairs >= 3
    text = report.write(study).read_text()
    assert "proposed 1 arm that was taken" in text and "<b>" not in text.replace("\\<", "")


def test_a_model_that_says_nothing_usable_changes_nothing(world: World, tmp_path: Path):
    bad = '{"answer": {"arms": [{"lr": 5.0, "rationale": "out of bounds"}]}}'
    study = advised(world, tmp_path, bad, bad, bad).study
    assert study.told.advice is not None and "invalid" in study.told.advice.failure
    assert list(study.told.arms) == ["plain", "frozen", "again"]
    assert "proposed nothing usable: invalid" in report.write(study).read_text()


def test_an_arm_that_does_not_fit_the_budget_is_refused(world: World, tmp_path: Path):
    arm = '{"answer": {"arms": [{"lr": 0.04, "rationale": "x"}]}}'
    study = advised(world, tmp_path, arm, max_client_steps=12 * 11).study
    assert study.told.advice is not None and study.told.advice.arms == ()
    assert "client-steps and" in study.told.advice.refused[0]


def test_without_a_model_nothing_is_proposed_and_the_report_says_so(whole: Study):
    assert whole.told.advice is None
    assert "No model is configured, so nothing was proposed" in report.write(whole).read_text()


# --- What a kill costs -------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("written", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_study_killed_at_every_record_comes_to_the_same_report(
    written: bool, whole: Study, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every process writes one record and dies: just after it, or at the next, its work done."""
    real, left = Ledger.append, [1]

    def append(self: Ledger, record: StudyRecord) -> None:
        if not left[0]:
            raise Killed
        real(self, record)
        left[0] -= 1
        if written and not left[0] and record.__class__.__name__ != "Verdict":
            raise Killed

    monkeypatch.setattr(Ledger, "append", append)
    cache, kills, study = world.folder / "cache", 0, None
    while study is None:
        left[0] = 1
        try:
            study = (
                run_study(whole.spec, tmp_path / "torn", cache=cache)
                if not kills
                else resume_study(tmp_path / "torn", cache=cache)
            )
        except Killed:
            kills += 1
    assert kills > 25
    assert said(study.told) == said(whole.told)
    assert report.write(study).read_text() == report.write(whole).read_text()


def test_a_study_killed_within_runs_comes_to_the_same_report(
    whole: Study, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from federation.session import Session

    real, played = Session.play, [0]

    def play(self: Session) -> None:
        played[0] += 1
        if played[0] % 9 == 0:
            raise Killed
        real(self)

    monkeypatch.setattr(Session, "play", play)
    cache, study = world.folder / "cache", None
    with pytest.raises(Killed):
        run_study(whole.spec, tmp_path / "torn", cache=cache)
    while study is None:
        try:
            study = resume_study(tmp_path / "torn", cache=cache)
        except Killed:
            continue
    assert said(study.told) == said(whole.told)
    assert report.write(study).read_text() == report.write(whole).read_text()


def test_going_on_with_a_finished_study_does_nothing(whole: Study, world: World):
    before = (whole.path / JOURNAL).read_bytes()
    again = resume_study(whole.path, cache=world.folder / "cache")
    assert (whole.path / JOURNAL).read_bytes() == before
    assert figures(again) == figures(whole)


def test_paths_of_the_base_hold_in_every_folder(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.jsonl").write_text("{}\n")
    base = table(world)["base"]
    base["data"] |= {"extra": "set.jsonl"}
    base["adapter"] |= {"start": "earlier"}
    arms = {"plain": (), "later": ("adapter.start=later", "work.lr=0.1")}
    whole = placed(spec(world, base=base, arms=arms))
    monkeypatch.chdir(tmp_path.parent)
    later = whole.config(whole.arms["later"], 0, "later").adapter
    assert later.start == str(tmp_path / "later")
    assert whole.arms["plain"] == () and placed(whole) == whole
    found = whole.base
    assert found["data"]["extra"] == str(tmp_path / "set.jsonl")
    assert found["adapter"]["start"] == str(tmp_path / "earlier")
    assert found["data"]["source"] == str(world.data) and "rank" in found["adapter"]


def test_what_was_registered_cannot_be_changed_afterwards(world: World, tmp_path: Path):
    study = conducted(world, tmp_path / "study")
    file = study.path / SPEC
    text = file.read_text()
    file.write_text(text.replace('"alpha": 0.05', '"alpha": 0.1'))
    with pytest.raises(CorruptError, match="was changed since the study began"):
        Study.open(study.path)
    file.write_text(text)
    book = (study.path / JOURNAL).read_text()
    (study.path / JOURNAL).write_text(book.replace('"verdict":"worse"', '"verdict":"better"', 1))
    with pytest.raises(CorruptError, match="record"):
        Study.open(study.path)


def test_a_run_that_is_not_the_study_s_is_refused(world: World, tmp_path: Path):
    out, cache = tmp_path / "study", world.folder / "cache"
    own = spec(world)
    other = own.config(("work.lr=0.5",), 0, "x")
    experiment.run_experiment(other, tmp_path / "other", cache=cache)
    with pytest.raises(Killed):
        run_study(own, out, cache=cache, watch=StudyWatch(during=dies))
    (tmp_path / "other").rename(out / RUNS / "plain-seed-0")
    with pytest.raises(CorruptError, match="is not the run that the study wants"):
        resume_study(out, cache=cache)


def dies(name: str, rounds: int, done: int) -> NoReturn:
    raise Killed


def test_a_control_that_diverges_ends_a_study(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = experiment.assess

    def assess(*args: object) -> Iterator[EvaluationRecord]:
        for record in real(*args):  # type: ignore[arg-type]
            yield record.model_copy(update={"metrics": {"nll": math.nan}})

    monkeypatch.setattr(experiment, "assess", assess)
    with pytest.raises(ConfigError, match="the control diverged under seed 0"):
        conducted(world, tmp_path / "study")
