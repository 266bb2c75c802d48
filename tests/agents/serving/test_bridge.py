"""Rounds become adapters of a server, and nothing wrong ever becomes ``fed``."""

from time import monotonic

import pytest
import torch

from agents.serving.health import Known, check, side_by_side, tolerance
from agents.serving.records import Kept, Served
from agents.synthesis.make import ModelFailed
from federation import releases
from llm_tools import ServerError, adapters
from tests.agents.serving.conftest import ROUNDS


def test_rounds_are_served_one_after_the_other_and_old_ones_go(scene):
    scene.bridge.keep = 1
    for round in range(ROUNDS):
        record = scene.bridge.publish(round)
        assert isinstance(record, Served), record
        assert record.distance < 1e-3
        assert scene.served() == record.folder
        assert record.folder == f"r{round + 1:04d}-{record.sha256[:8]}"
    assert adapters.names(scene.bridge.server) == ["base", "fed", "fed@r2", "fed@r3"]
    assert scene.notes == [*scene.notes[:2], record]
    assert [note.round for note in scene.notes] == [0, 1, 2]


def test_every_name_is_asked_repeatedly_before_the_next_step(scene):
    scene.bridge.publish(0)
    asked, n = scene.vllm.asked, 2 * len(scene.bridge.prompts)
    assert asked[0] == ("load_lora_adapter", "fed@r1")
    assert asked[1 : 1 + n] == [("completions", "fed@r1")] * n
    assert asked[1 + n] == ("load_lora_adapter", "fed")
    assert asked[2 + n :] == [("completions", "fed")] * n


@pytest.mark.parametrize(
    ("what", "fault", "words"),
    [
        ("load_lora_adapter", "400", "refused /load_lora_adapter with status 400"),
        ("load_lora_adapter", "500", "with status 500"),
        ("load_lora_adapter", "hang", "did not answer /load_lora_adapter within 1 s"),
        ("load_lora_adapter", "drip", "did not answer /load_lora_adapter within 1 s"),
        ("completions", "500", "refused /completions with status 500"),
        ("completions", "hang", "did not answer /completions within 1 s"),
        ("completions", "drip", "did not answer /completions within 1 s"),
        ("completions", "garbage", "reply to /completions is of no use"),
        ("completions", "huge", "is longer than"),
    ],
)
def test_whatever_fails_fed_stays(scene, what, fault, words, monkeypatch):
    monkeypatch.setattr(adapters, "LOAD_S", 1.0)
    monkeypatch.setattr(adapters, "ASK_S", 1.0)
    before = scene.bridge.publish(0)
    scene.vllm.faults[what, "fed@r2"] = fault
    start = monotonic()
    record = scene.bridge.publish(1)
    assert monotonic() - start < 30
    assert isinstance(record, Kept)
    assert words in record.reason
    assert "\n" not in record.reason
    assert record.serving == 0
    assert scene.served() == before.folder
    assert "fed@r2" not in scene.vllm.adapters
    scene.vllm.faults.clear()
    after = scene.bridge.publish(1)
    assert isinstance(after, Served), after
    assert scene.served() == after.folder


@pytest.mark.parametrize("what", ["load_lora_adapter", "completions"])
def test_a_server_that_fails_on_fed_itself(scene, what):
    """It cannot be asked whether the old one is back: then nothing is called served."""
    before = scene.bridge.publish(0)
    scene.vllm.faults[what, "fed"] = "500"
    record = scene.bridge.publish(1)
    assert isinstance(record, Kept)
    if what == "load_lora_adapter":  # it was not turned at all
        assert (record.serving, scene.served()) == (0, before.folder)
    else:
        assert (record.serving, scene.served()) == (None, None)
        assert "with status 500" in record.reason
        assert "and fed could not be put back" in record.reason
    scene.vllm.faults.clear()
    after = scene.bridge.publish(1)
    assert isinstance(after, Served), after
    assert scene.served() == after.folder


def test_a_key_that_a_server_repeats_is_not_kept(scene):
    scene.bridge.server = type(scene.bridge.server)(
        **{**vars(scene.bridge.server), "key": "sk-secret"}
    )
    scene.vllm.key = "sk-secret"
    scene.vllm.faults["load_lora_adapter", "fed@r1"] = "500"
    record = scene.bridge.publish(0)
    assert "no ***" in record.reason
    assert "sk-secret" not in record.reason


def test_fed_never_turns_to_an_adapter_that_is_not_the_rounds(scene, monkeypatch):
    first = scene.bridge.publish(0)
    save = releases.save_adapter
    planted = scene.bridge.source.run.state(2)["params"]
    monkeypatch.setattr(
        releases, "save_adapter", lambda path, params, *rest: save(path, planted, *rest)
    )
    seen = []
    load = adapters.load
    monkeypatch.setattr(
        adapters,
        "load",
        lambda server, name, *a, **k: (seen.append(name), load(server, name, *a, **k)),
    )
    record = scene.bridge.publish(1)
    assert isinstance(record, Kept)
    assert "nats off round 2" in record.reason
    assert record.serving == 0
    assert seen == ["fed@r2"]  # the alias was not even touched
    assert scene.served() == first.folder


def test_a_server_that_answers_repeated_prompts_by_the_old_adapter_is_found_out(scene):
    scene.vllm.stale = True
    first = scene.bridge.publish(0)
    assert isinstance(first, Served)
    record = scene.bridge.publish(1)
    assert isinstance(record, Kept)
    assert "answers as round 1 does" in record.reason
    assert record.serving == 0
    assert scene.served() == first.folder
    assert scene.bridge.current.round == 0


def test_rather_no_fed_than_a_wrong_one(scene, monkeypatch):
    """After a failed turn the old adapter is back on the server, but it answers wrongly."""
    first = scene.bridge.publish(0)
    real = type(scene.vllm).completions

    def wrong_since_the_turn(self, body):
        if body["model"] == "fed":
            self.kept.clear()
            body = body | {"model": "base"}
        return real(self, body)

    monkeypatch.setattr(type(scene.vllm), "completions", wrong_since_the_turn)
    record = scene.bridge.publish(1)
    assert isinstance(first, Served)
    assert isinstance(record, Kept)
    assert record.serving is None
    assert "fed" not in scene.vllm.adapters
    monkeypatch.undo()
    assert isinstance(scene.bridge.publish(1), Served)


@pytest.mark.parametrize(
    "at", [("load_lora_adapter", "fed@r2"), ("completions", "fed@r2"), ("completions", "fed")]
)
def test_a_server_that_dies_is_told_and_written_down(scene, at):
    scene.bridge.publish(0)
    scene.vllm.faults[at] = "die"
    with pytest.raises(ModelFailed, match="its last words") as died:
        scene.bridge.publish(1)
    assert died.value.exit_code == 10
    assert isinstance(scene.notes[-1], Kept)
    with pytest.raises(ModelFailed):
        scene.bridge.catch_up()


def test_an_earlier_round_is_served_again_also_without_its_checkpoint(scene, finished, tmp_path):
    first = scene.bridge.publish(0)
    scene.bridge.publish(2)
    forgotten = releases.Source(
        type(finished)(
            tmp_path / "elsewhere",
            finished.config,
            finished.entries,
            finished.history,
            finished._cursor,
        ),
        scene.bridge.source.config,
        scene.bridge.source.base,
        scene.bridge.source.lora,
    )
    scene.bridge.source = forgotten
    back = scene.bridge.publish(0)
    assert isinstance(back, Served), back
    assert (back.folder, back.sha256) == (first.folder, first.sha256)
    assert scene.served() == first.folder
    gone = scene.bridge.publish(1)
    assert isinstance(gone, Kept)
    assert "no checkpoint of round" in gone.reason


def test_a_release_that_was_changed_is_refused(scene):
    record = scene.bridge.publish(0)
    scene.bridge.publish(1)
    file = scene.bridge.folder / record.folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = scene.bridge.publish(0)
    assert isinstance(again, Kept)
    assert "is not the adapter it is named after" in again.reason
    assert again.serving == 1


def test_it_catches_up_once_and_tries_a_failed_round_no_more(scene):
    record = scene.bridge.catch_up()
    assert (record.round, scene.bridge.catch_up()) == (ROUNDS - 1, None)
    scene.bridge._tried = None
    scene.vllm.faults["completions", f"fed@r{ROUNDS}"] = "500"
    assert isinstance(scene.bridge.catch_up(), Kept)
    assert scene.bridge.catch_up() is None


def test_answers_side_by_side(scene):
    assert scene.bridge.names == ["base"]
    scene.bridge.publish(0)
    assert scene.bridge.names == ["base", "fed", "fed@r1"]
    said = side_by_side(scene.bridge.server, "2 and 2")
    assert list(said) == ["base", "fed"]
    assert said["base"] != said["fed"]


def test_what_is_allowed_follows_from_how_far_the_base_model_is_off(scene):
    server, prompts, base = scene.bridge.server, scene.bridge.prompts, scene.bridge.base
    assert tolerance(server, "base", base, prompts) == 0.01
    shifted = [{k: v + 0.05 for k, v in row.items()} for row in scene.vllm.answers["base"]]
    scene.vllm.answers = scene.vllm.answers | {"base": shifted}
    scene.vllm.kept.clear()
    assert tolerance(server, "base", base, prompts) == pytest.approx(0.15, abs=1e-3)
    other = Known("another", torch.full_like(base.log_probs_BV, -5.0))
    with pytest.raises(ServerError, match=r"base is \S+ nats off another"):
        tolerance(server, "base", other, prompts)


def test_a_token_that_the_model_has_not_is_infinitely_far(scene):
    scene.vllm.answers = {"base": [{"99999": -0.1}] * 3}
    with pytest.raises(ServerError, match="is inf nats off"):
        check(scene.bridge.server, "base", scene.bridge.prompts, scene.bridge.base, [], 1e9)
