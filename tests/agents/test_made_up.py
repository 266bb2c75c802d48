"""Made-up rows before the first round: who gets them, who judges, and who knows of it."""

import json
import shutil

import pytest
from agents.filling import Filling, filling_of, of_details
from agents.synthesis.fill import gate_of, lacking, profile_of

from agents.claims import unsupported
from agents.experiment import replay, resume, run_experiment
from agents.explain import explained
from agents.spec import PilotSpec
from agents.synthesis import gate
from agents.synthesis.gate import Verdict
from federation.config import Config
from federation.data.organisations import organisations
from federation.errors import ConfigError, CorruptError
from federation.runs.folder import MADE_UP
from federation.runs.records import StartRecord
from federation.runs.run import Run, problems
from federation.runs.writer import RunWriter
from federation.session import Watch
from tests.agents.histories import history
from tests.tiny_worlds import World, tiny_world

SYNTHETIC = {"policy": "heuristic", "smallest": 1, "synthetic": {"examples": 4}}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return tiny_world(tmp_path_factory.mktemp("filling"))


def config(world: World, **pilot: object) -> Config:
    more = ['data={source="organisations",count=3,examples=60,max_tokens=64}', "seed=4"]
    plain = Config.from_toml(world.config, [*more, "engine.chunk=2", "work.steps=1"])
    return plain.model_copy(update={"pilot": SYNTHETIC | pilot})


@pytest.fixture
def judging(monkeypatch):
    """Let the gate say what is wanted, at once; keep what it was asked."""
    seen: list[tuple[Config, object]] = []

    def say(admitted: bool):
        def judge(rows, config, spec, cache, say):
            seen.append((config, spec))
            gain = 0.5 if admitted else -0.25
            ends = gain - 0.125, gain + 0.125
            return Verdict(admitted, "nll", (4, 5, 6), (2.0,) * 3, (1.5,) * 3, gain, *ends, 0.95)

        monkeypatch.setattr(gate, "judge", judge)
        return seen

    return say


def test_who_holds_less_than_is_wanted_is_filled_up():
    assert lacking({"a": 10, "b": 4, "c": 7}, 7.9) == {"b": 3}
    assert lacking({"a": 10, "b": 4}, 4.0) == {}


@pytest.mark.parametrize("admitted", [True, False])
def test_clients_train_on_made_up_rows_only_if_they_were_admitted(
    world, tmp_path, judging, admitted
):
    seen, asked = judging(admitted), config(world)
    run = run_experiment(asked, tmp_path / "run", cache=tmp_path / "cache")
    (short, spec), found = seen[0], of_details(run.history.decisions[0].details)
    assert short.data.extra is None and short.evaluation.max_examples == 4
    assert spec.split == "validation"  # the test split judges the run, and decides nothing
    assert found == filling_of(run.path) and found is not None
    assert found.admitted is admitted and found.asked
    rows = run.path / MADE_UP / ("rows.jsonl" if admitted else "rows.rejected.jsonl")
    made = [json.loads(line)["client"] for line in rows.read_text().splitlines()]
    assert {name: made.count(name) for name in set(made)} == found.asked
    assert run.config["data"]["extra"] == (str(rows.absolute()) if admitted else None)
    assert all(not of_details(run.history.decisions[n].details) for n in range(1, asked.rounds))
    text = next(x.text for x in run.history.explanations if x.round == 0)
    words = "admitted by heuristic: their gain in short runs was"
    assert words in text and (f"not {words}" in text) is not admitted
    again = replay(run.path, tmp_path / "again", cache=tmp_path / "cache")
    bits = [[x.checkpoint_sha256 for x in r.history.rounds.values()] for r in (run, again)]
    assert bits[0] == bits[1] and len(seen) == 1
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
    made = sorted((run.path / MADE_UP).iterdir())
    assert {"decision.json", "rows.jsonl"} <= {file.name for file in made}
    for file in made:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert problems(run.path) == [f"{file} is damaged: its hash is not the recorded one"]
        with pytest.raises(CorruptError, match=file.name):
            RunWriter.reopen(run.path)
        file.write_bytes(whole)
    assert problems(run.path) == []


def test_a_run_that_was_moved_finds_its_made_up_rows(world, tmp_path, judging):
    judging(True)
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    moved = run.path.rename(tmp_path / "elsewhere")
    assert problems(moved) == []
    again = replay(moved, tmp_path / "again", cache=tmp_path / "cache")
    states = [[x.checkpoint_sha256 for x in r.history.rounds.values()] for r in (run, again)]
    assert states[0] == states[1]
    assert Run.open(moved).config["data"]["extra"] == str(moved / MADE_UP / "rows.jsonl")


def test_what_an_interrupted_start_left_is_made_anew(world, tmp_path, judging):
    judging(False)
    (tmp_path / "run" / MADE_UP).mkdir(parents=True)
    (tmp_path / "run" / MADE_UP / "rows.jsonl").write_text("half a li")
    run = run_experiment(config(world), tmp_path / "run", cache=tmp_path / "cache")
    assert not (run.path / MADE_UP / "rows.jsonl").exists()


def test_nobody_is_given_rows_where_nobody_holds_little(world, tmp_path, judging):
    seen = judging(True)
    few = config(world, synthetic={"fill": 0.01})
    run = run_experiment(few, tmp_path / "run", cache=tmp_path / "cache")
    found = filling_of(run.path)
    assert found and not found.asked and not found.admitted and not seen
    assert "nothing" in found.words


def test_rows_are_asked_for_as_organisations_describe_themselves(world):
    asked = config(world)
    spec = PilotSpec.of(asked)
    assert spec and spec.synthetic
    who = organisations(4, 3, total=60)[1]
    profile = profile_of(asked, {who.id: 9}, spec.synthetic)
    made = profile.clients[who.id]
    assert (made.domain, made.style, made.size) == (who.domain, who.style.name, 9)
    assert not made.labels  # the usual mix: whose labels are whose was counted nowhere
    short = gate_of(asked, spec.synthetic.model_copy(update={"rounds": 2, "steps": 3}))
    assert (short.rounds, short.work.steps, short.evaluation.metrics) == (2, 3, ("nll",))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["data.source=x.jsonl"], "know the built-in organisations alone"),
        (['data.clients={by="iid",count=2}'], "know the built-in organisations alone"),
        (["data.extra=x.jsonl"], "makes the rows of data.extra itself"),
    ],
)
def test_data_that_nothing_can_be_made_up_for_is_refused(tmp_path, more, words):
    plain = Config.from_table({"pilot": SYNTHETIC})
    table = plain.model_dump(mode="json", exclude_unset=True)
    file = tmp_path / "a.toml"
    file.write_text("")
    asked = Config.from_toml(file, more).model_copy(update={"pilot": table["pilot"]})
    with pytest.raises(ConfigError, match=words):
        run_experiment(asked, tmp_path / "run", cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize("gain", [0.1234, -0.2, None])
def test_every_number_of_what_is_told_of_them_is_checked(gain):
    found = history([3.0])
    ends = {"gain": gain, "low": gain and gain - 0.01, "high": gain and gain + 0.02}
    filling = Filling(
        policy="p@1", population=3, mean=9, asked={"a": 3, "b": 4}, made=7, pairs=3, **ends
    )
    details = {"synthetic": filling.model_dump(mode="json")}
    found.decisions[0] = found.decisions[0].model_copy(update={"details": details})
    claims, facts = explained(found, 0)
    claim = next(x for x in claims if "made up" in x.text)
    assert claim.text.startswith("7 rows were made up for 2 clients") and not unsupported(
        claim, facts
    )
    wrong = claim.model_copy(update={"text": claim.text.replace("7 rows", "8 rows")})
    assert unsupported(wrong, facts) == ["8 is in no cited fact"]
    hidden, _ = explained(found, 0, smallest=3)
    assert not any("made up" in x.text for x in hidden)


def test_a_first_pair_that_said_enough_is_told_without_an_interval():
    found = history([3.0])
    filling = Filling(
        policy="p@1", population=3, mean=9, asked={"a": 3}, made=3, gain=-0.02, pairs=1, rounds=2
    )
    assert filling.words == (
        "3 rows for a; not admitted, so nobody trains on them: gain -0.0200 nats per token of"
        " validation in a first pair of runs of 2 rounds; no further pair could have them admitted"
    )
    details = {"synthetic": filling.model_dump(mode="json")}
    found.decisions[0] = found.decisions[0].model_copy(update={"details": details})
    claims, facts = explained(found, 0)
    claim = next(x for x in claims if "made up" in x.text)
    assert claim.text.endswith("their gain in short runs was -0.0200 nats per token of validation.")
    assert not unsupported(claim, facts)
