"""A warm start on made-up rows: what is made, who judges, what a run begins from, who knows."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.claims import unsupported
from agents.copilot.ground import Ground
from agents.experiment import fork, replay, resume, run_experiment
from agents.explain import explained
from agents.made_up import MadeUp, made_up_of, of_details
from agents.spec import PilotSpec, SyntheticSpec
from agents.study.runs import same_config
from agents.synthesis import warm
from agents.synthesis.gate import Verdict
from agents.synthesis.warm import (
    DEALT,
    FRESH,
    SET,
    Tried,
    arms,
    compared,
    losses,
    profile_of,
    trained,
    tried,
)
from federation.cohort.selection import CohortSpec
from federation.config import Config
from federation.data.dataset import resolved
from federation.data.organisations import organisations
from federation.errors import ConfigError, CorruptError, LockedError
from federation.experiment import Setup, set_up
from federation.runs import storage
from federation.runs.folder import MADE_UP, as_asked
from federation.runs.peft_files import load_adapter
from federation.runs.records import StartRecord
from federation.runs.run import Run, problems
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.training.lora import LoRA
from tests.agents.histories import history
from tests.tiny_worlds import World, tiny_world
from ui.web.draft import draft_of_run

SYNTHETIC = {"size": 6, "steps": 2, "examples": 4, "controls": 3}
PILOT = {"policy": "heuristic", "smallest": 1, "synthetic": SYNTHETIC}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return tiny_world(tmp_path_factory.mktemp("made-up"))


def config(world: World, **pilot: object) -> Config:
    more = ['data={source="organisations",count=3,examples=60,max_tokens=64}', "seed=4"]
    plain = Config.from_toml(world.config, [*more, "engine.chunk=2", "work.steps=1"])
    return plain.model_copy(update={"pilot": PILOT | pilot})


@pytest.fixture
def judging(monkeypatch):
    """Let the gate say what is wanted of what was really trained; keep what was tried."""
    seen: list[Tried] = []

    def say(admitted: bool):
        def other(rows: Path, setup: Setup, spec: SyntheticSpec) -> Tried:
            gain = 0.5 if admitted else -0.25
            ends = gain - 0.125, gain + 0.125
            found = Verdict(admitted, "nll", (0, 1, 2), (2.0,) * 3, (1.5,) * 3, gain, *ends, 0.95)
            seen.append(replace(tried(rows, setup, spec), verdict=found))
            return seen[-1]

        monkeypatch.setattr(warm, "tried", other)
        return seen

    return say


def states(run: Run) -> list[str]:
    return [x.checkpoint_sha256 for x in run.history.rounds.values()]


@pytest.mark.parametrize("admitted", [True, False])
def test_a_run_begins_from_what_was_made_up_only_if_it_was_admitted(
    world, tmp_path, judging, admitted
):
    seen, asked = judging(admitted), config(world)
    run = run_experiment(asked, tmp_path / "run", cache=tmp_path / "cache")
    found = of_details(run.history.decisions[0].details)
    assert found == made_up_of(run.path) and found is not None
    assert found.admitted is admitted and found.steps == 2
    made = run.path / MADE_UP
    rows = made / ("rows.jsonl" if admitted else "rows.rejected.jsonl")
    clients = Counter(json.loads(line)["client"] for line in rows.read_text().splitlines())
    assert clients == found.asked == dict.fromkeys(found.asked, 6) and len(found.asked) == 3
    assert run.config["data"]["extra"] is None  # nobody trains on them in a round
    start = made / "adapter"
    assert start.exists() is admitted
    assert run.config["adapter"]["start"] == (str(start.absolute()) if admitted else None)
    if admitted:
        assert isinstance(seen[0].trainable, LoRA)
        assert torch.equal(load_adapter(start, seen[0].trainable), seen[0].params)
        began = set_up(Config.from_table(run.config), None, tmp_path / "cache").params
        assert torch.equal(began, seen[0].params)
    assert all(not of_details(run.history.decisions[n].details) for n in range(1, asked.rounds))
    text = next(x.text for x in run.history.explanations if x.round == 0)
    words = "admitted by heuristic as a warm start of 2 steps: their gain in trials was"
    assert words in text and (f"not {words}" in text) is not admitted
    again = replay(run.path, tmp_path / "again", cache=tmp_path / "cache")
    assert states(run) == states(again) and len(seen) == 1
    assert of_details(again.history.decisions[0].details) == found


def test_a_run_that_was_stopped_before_its_first_decision_knows_it_when_it_goes_on(
    world, tmp_path, judging
):
    judging(True)

    def stop(record: object) -> None:
        if isinstance(record, StartRecord):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(
            config(world), tmp_path / "run", cache=tmp_path / "cache", watch=Watch(record=stop)
        )
    assert not Run.open(tmp_path / "run").history.decisions
    run = resume(tmp_path / "run", cache=tmp_path / "cache")
    found = of_details(run.history.decisions[0].details)
    assert run.status == "finished" and found and found.admitted


def test_made_up_files_that_were_changed_are_named_and_nobody_goes_on(world, tmp_path, judging):
    judging(True)
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    made = sorted(file for file in (run.path / MADE_UP).rglob("*") if file.is_file())
    names = {"decision.json", "rows.jsonl", "adapter_model.safetensors", "adapter_config.json"}
    assert names <= {file.name for file in made}
    for file in made:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert problems(run.path) == [f"{file} is damaged: its hash is not the recorded one"]
        with pytest.raises(CorruptError, match=file.name):
            RunWriter.reopen(run.path)
        file.write_bytes(whole)
    assert problems(run.path) == []


def test_a_run_that_was_moved_finds_what_was_made_up_for_it(world, tmp_path, judging):
    judging(True)
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    moved = run.path.rename(tmp_path / "elsewhere")
    assert problems(moved) == []
    again = replay(moved, tmp_path / "again", cache=tmp_path / "cache")
    assert states(run) == states(again)
    assert Run.open(moved).config["adapter"]["start"] == str(moved / MADE_UP / "adapter")


def test_a_fork_has_what_was_made_up_for_its_parent_and_needs_it_no_more(world, tmp_path, judging):
    judging(True)
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    other = fork(run.path, tmp_path / "fork", 1, rounds=1, cache=tmp_path / "cache")
    assert states(other)[-1] == states(run)[2] and made_up_of(other.path) == made_up_of(run.path)
    shutil.rmtree(run.path)
    assert problems(other.path) == []
    assert other.path / MADE_UP / "adapter" == Path(Run.open(other.path).config["adapter"]["start"])
    again = replay(other.path, tmp_path / "again", cache=tmp_path / "cache")
    assert states(again)[-1] == states(other)[-1]


def test_what_is_to_be_like_a_run_has_its_own_made_up(world, tmp_path, judging):
    judging(True)
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    assert run.config["adapter"]["start"] and Run.open(run.path).asked["adapter"]["start"] is None
    assert {**run.asked, "adapter": run.config["adapter"]} == run.config
    like = Config.from_table(run.asked)
    assert like == Ground.of(run).config
    again = run_experiment(like, tmp_path / "like", cache=tmp_path / "cache")
    assert states(again) == states(run) and again.asked == run.asked
    run.path.rename(tmp_path / "moved")
    assert Run.open(tmp_path / "moved").asked == run.asked
    draft = draft_of_run(Run.open(tmp_path / "moved"))
    assert "start" not in draft.table["adapter"] and "synthetic" in draft.table["pilot"]
    own = {**run.asked, "adapter": {**run.asked["adapter"], "start": "/of/a/person"}}
    assert as_asked(own, run.path) == own


def test_a_study_knows_a_run_that_its_pilot_warmed_up(world, tmp_path, judging):
    judging(True)
    asked = config(world)
    run = run_experiment(asked, tmp_path / "run", cache=tmp_path / "cache")
    same_config(run, asked)
    with pytest.raises(CorruptError, match="is not the run that the study wants"):
        same_config(run, asked.under(5))


def test_what_an_interrupted_start_left_is_made_anew(world, tmp_path, judging):
    judging(False)
    left = tmp_path / "run" / MADE_UP
    (left / "adapter").mkdir(parents=True)
    (left / "rows.jsonl").write_text("half a li")
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    assert not (left / "rows.jsonl").exists() and not (left / "adapter").exists()
    assert run.status == "finished"


# --- what is made, and who judges ---------------------------------------------------------------


def test_rows_are_asked_for_as_organisations_describe_themselves(world, tmp_path):
    asked, spec = resolved(config(world), tmp_path), SyntheticSpec(size=6)
    setup = warm.prepared(asked, tmp_path / "cache")
    made, who = profile_of(setup, spec).clients, organisations(4, 3, total=60)
    assert set(made) == {one.id for one in who}
    for one in who:
        there = made[one.id]
        assert (there.domain, there.style, there.size) == (one.domain, one.style.name, 6)
        assert not there.labels  # the usual mix: whose labels are whose was counted nowhere


def test_nothing_is_made_up_for_who_is_only_tested_on(world, tmp_path):
    asked = resolved(config(world), tmp_path)
    clients = asked.data.clients.model_copy(update={"unseen": 1})
    data = asked.data.model_copy(update={"clients": clients})
    other = asked.model_copy(update={"data": data, "cohort": CohortSpec(size=2)})
    setup = warm.prepared(other, tmp_path / "cache")
    made = profile_of(setup, SyntheticSpec()).clients
    assert len(made) == 2 and not set(made) & set(setup.data.splits.unseen.names)


def test_nothing_is_made_up_for_who_is_excluded(world, tmp_path):
    asked = resolved(config(world), tmp_path)
    first, *others = (one.id for one in organisations(4, 3, total=60))
    cohort = CohortSpec(size=2, exclude=(first,))
    setup = warm.prepared(asked.model_copy(update={"cohort": cohort}), tmp_path / "cache")
    assert set(profile_of(setup, SyntheticSpec()).clients) == set(others)


def test_only_one_process_makes_rows_up_for_a_run(world, tmp_path):
    (tmp_path / "run").mkdir()
    held = storage.lock(tmp_path / "run")
    with pytest.raises(LockedError):
        run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    held.release()
    left = tmp_path / "run" / MADE_UP
    assert not [*left.iterdir()]  # what the other process makes there is not touched


def rows_of(count: int) -> list[dict[str, str]]:
    return [
        {"client": f"c{i % 2}", "instruction": f"q{i}", "context": "", "response": f"a{i}"}
        for i in range(count)
    ]


def test_controls_have_the_same_questions_and_the_same_answers_dealt_anew():
    rows = rows_of(40)
    found = [json.loads(line) for line in arms([json.dumps(row) for row in rows], 7, 3)]
    names = (SET, *(f"{DEALT}-{i}" for i in range(3)))
    by_arm = {arm: [x for x in found if x["client"] == arm] for arm in names}
    assert len(found) == 160 and all(len(own) == 40 for own in by_arm.values())
    assert [x | {"client": ""} for x in by_arm[SET]] == [x | {"client": ""} for x in rows]
    orders = []
    for own in (by_arm[f"{DEALT}-{i}"] for i in range(3)):
        assert [x["instruction"] for x in own] == [x["instruction"] for x in rows]
        orders.append([x["response"] for x in own])
        assert Counter(orders[-1]) == Counter(x["response"] for x in rows)
        assert orders[-1] != [x["response"] for x in rows]
    assert len({tuple(order) for order in orders}) == 3


def test_the_interval_is_that_of_one_more_control():
    loss = {FRESH: 9.0, SET: 1.0} | {f"{DEALT}-{i}": x for i, x in enumerate((2.0, 2.4, 2.2))}
    found = compared(loss, 3)
    reach = 4.302652729911275 * 0.2 * (4 / 3) ** 0.5  # of a table, two degrees of freedom
    assert (found.gain, found.low, found.high) == pytest.approx((1.2, 1.2 - reach, 1.2 + reach))
    assert found.admitted and (found.without, found.having) == ((2.0, 2.4, 2.2), (1.0,))


@pytest.mark.parametrize(
    ("fresh", "dealt", "having", "gain"),
    [
        (4.0, (2.0, 2.1, 2.2), 1.5, 0.6),
        (1.7, (2.0, 2.1, 2.2), 1.5, 0.2),  # over the fresh adapter, which is the better control
        (1.4, (2.0, 2.1, 2.2), 1.5, -0.1),  # no better than none
        (4.0, (1.5, 1.6, 1.4), 1.5, 0.0),  # its answers are idle
        (4.0, (2.0, 2.1, None), 1.5, None),
        (4.0, (2.0, 2.1, 2.2), None, None),  # the trial on the set diverged
    ],
)
def test_a_set_has_to_beat_both_kinds_of_control(fresh, dealt, having, gain):
    loss = {FRESH: fresh} | ({} if having is None else {SET: having})
    loss |= {f"{DEALT}-{i}": x for i, x in enumerate(dealt) if x is not None}
    found = compared(loss, 3)
    assert found.admitted is (gain == 0.6)
    assert found.gain == pytest.approx(gain) if gain is not None else math.isnan(found.gain)


@pytest.mark.parametrize("controls", [3, 5, 10])
def test_a_set_whose_answers_are_one_more_deal_is_seldom_admitted(controls):
    draw, repeats = np.random.default_rng(0), 2000
    admitted = 0
    for dealt in draw.normal(9, 1, (repeats, controls + 1)):
        loss = {FRESH: 100.0, SET: dealt[-1]}
        loss |= {f"{DEALT}-{i}": x for i, x in enumerate(dealt[:-1])}
        admitted += compared(loss, controls).admitted
    error = (0.025 * 0.975 / repeats) ** 0.5  # one end of 95 %
    assert abs(admitted / repeats - 0.025) < 3 * error


@pytest.fixture(scope="module")
def prepared(world, tmp_path_factory):
    """Set a federation up whose extra rows answer one question the same way again and again."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = [
        {
            "client": client, "domain": "bank", "task": "t", "label": "l", "choices": [],
            "instruction": "say", "context": f"{i}", "response": answer,
        }
        for client, answer in ((SET, "yes"), *((f"dealt-{i}", "no") for i in range(3)))
        for i in range(6)
    ]  # fmt: skip
    (folder / "extra.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = resolved(config(world), folder)
    data = asked.data.model_copy(update={"extra": str(folder / "extra.jsonl")})
    return set_up(asked.model_copy(update={"data": data}), None, folder / "cache")


def test_trials_begin_alike_and_read_other_rows(prepared):
    spec = SyntheticSpec(steps=9, controls=3)
    found = trained(prepared, spec)
    assert set(found) == {SET, *(f"{DEALT}-{i}" for i in range(3))}
    changes = [found[name] - prepared.params for name in sorted(found)]
    assert all(torch.isfinite(change).all() and change.norm() > 0 for change in changes)
    assert len({change.sum().item() for change in changes}) == 4
    other = replace(prepared, config=prepared.config.under(99))
    assert not torch.equal(trained(other, spec)[SET], found[SET])


def test_a_trial_learns_the_rows_of_its_arm(prepared):
    found = trained(prepared, SyntheticSpec(steps=60, controls=3))
    yes, no = (prepared.data.train_rows(client)[:1] for client in (SET, "dealt-0"))
    own, other = (losses(prepared, found, rows) for rows in (yes, no))
    for control in (f"{DEALT}-{i}" for i in range(3)):
        assert own[SET] < own[control] and other[control] < other[SET]


def test_the_start_is_what_was_trained_on_the_set(world, tmp_path, monkeypatch):
    setup = warm.prepared(resolved(config(world), tmp_path), tmp_path / "cache")
    kept: dict[str, torch.Tensor] = {}

    def keeping(*rest: Any) -> dict[str, torch.Tensor]:
        kept.update(trained(*rest))
        return kept

    monkeypatch.setattr(warm, "trained", keeping)
    file = tmp_path / "rows.jsonl"
    rows = [x | {"domain": "bank", "task": "t", "label": "l", "choices": []} for x in rows_of(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tried(file, setup, SyntheticSpec(steps=2, controls=3))
    assert torch.equal(found.params, kept[SET]) and not torch.equal(found.params, setup.params)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["data.source=x.jsonl"], "know the built-in organisations alone"),
        (['data.clients={by="iid",count=2}'], "know the built-in organisations alone"),
        (["data.extra=x.jsonl"], "makes rows of its own"),
        (["adapter.start=here"], "makes the adapter to start from"),
        (['adapter={kind="full"}'], "set adapter.kind to lora"),
        (["data.split.validation=0"], "raise data.split.validation"),
        (["upload.clip=1.0", "upload.noise=0.5"], "which no noise protects"),
        (['algorithm={name="krum",byzantine=9}'], "needs 21 reports"),
        (["cohort.size=500"], "only 12 clients"),
        (['cohort.exclude=["nobody"]'], "there is no client 'nobody'"),
        (['schedule={kind="cosine"}'], "both steer the learning rate"),
    ],
)
def test_a_run_that_nothing_can_be_made_up_for_is_refused(tmp_path, more, words):
    file = tmp_path / "a.toml"
    file.write_text("")
    asked = Config.from_toml(file, more).model_copy(update={"pilot": PILOT})
    (tmp_path / "here").mkdir()
    with pytest.raises(ConfigError, match=words):
        run_experiment(asked, tmp_path / "run", base_dir=tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "run").exists()
    shutil.rmtree(tmp_path / "here")


# --- what is said of it -------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.1234, -0.2, None])
@pytest.mark.parametrize("steps", [40, 0])  # none: rows of an older run, for clients to train on
def test_every_number_of_what_is_told_of_them_is_checked(gain, steps):
    found = history([3.0])
    ends = {"gain": gain, "low": gain and gain - 0.01, "high": gain and gain + 0.02}
    made = MadeUp(
        policy="p@1", population=3, asked={"a": 3, "b": 4}, made=7, controls=3, steps=steps, **ends
    )
    details = {"synthetic": made.model_dump(mode="json")}
    found.decisions[0] = found.decisions[0].model_copy(update={"details": details})
    claims, facts = explained(found, 0)
    claim = next(x for x in claims if "made up" in x.text)
    assert claim.text.startswith("7 rows were made up for 2 clients") and not unsupported(
        claim, facts
    )
    assert ("warm start of 40 steps" in claim.text) is bool(steps)
    wrong = claim.model_copy(update={"text": claim.text.replace("7 rows", "8 rows")})
    assert unsupported(wrong, facts) == ["8 is in no cited fact"]
    hidden, _ = explained(found, 0, smallest=3)
    assert not any("made up" in x.text for x in hidden)


def test_the_pilot_of_an_older_run_is_read(world):
    older = config(world, synthetic={"fill": 1.0, "rounds": 2})
    with pytest.raises(ConfigError, match="unknown key"):
        PilotSpec.of(older)
    spec = PilotSpec.of_run(older)
    assert spec and (spec.smallest, spec.synthetic) == (1, None)
    bare = older.model_copy(update={"pilot": {"synthetic": {"fill": 1.0}}})
    assert PilotSpec.of_run(bare) == PilotSpec()
    assert PilotSpec.of_run(older.model_copy(update={"pilot": {}})) is None


def test_what_older_runs_decided_is_read():
    older = {
        "source": "heuristic", "policy": "fill-up@1", "population": 3, "mean": 9.0, "rounds": 2,
        "asked": {"a": 3}, "made": 3, "admitted": False, "gain": -0.02, "low": None, "high": None,
        "pairs": 1,
    }  # fmt: skip
    made = of_details({"synthetic": older})
    assert made and made.words == (
        "3 rows for a; not admitted to train on: gain -0.0200 nats per token of validation in a"
        " first pair of trials; no further pair could have them admitted"
    )
    nothing = of_details({"synthetic": older | {"asked": {}}})
    assert nothing and nothing.words == "nothing: no client holds little"
    found = history([3.0])
    details = {"synthetic": older}
    found.decisions[0] = found.decisions[0].model_copy(update={"details": details})
    claims, facts = explained(found, 0)
    claim = next(x for x in claims if "made up" in x.text)
    assert claim.text.endswith("their gain in trials was -0.0200 nats per token of validation.")
    assert not unsupported(claim, facts)
