"""A run is steered while it goes on: nothing that is commanded is lost or done twice."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from federation import experiment
from federation.config import Config
from federation.errors import ConfigError, StoppedError
from federation.runs import inbox, storage
from federation.runs.inbox import (
    COMMANDS,
    LARGEST,
    Answer,
    Command,
    GoOn,
    MoreRounds,
    Pause,
    Stop,
    post,
    waiting,
)
from federation.runs.records import (
    AskedRecord,
    CommandRecord,
    EndRecord,
    EvaluationRecord,
    Record,
    RoundRecord,
    WarningRecord,
)
from federation.runs.run import ADAPTER, Run, problems
from federation.runs.writer import RunWriter
from federation.steering import POLL, Steering
from tests.tiny_runs import (
    CONFIG_JSON,
    ROUNDS,
    killed,
    one_round,
    operations_of,
    start,
    train,
)
from tests.tiny_runs import drawn as policy
from tests.tiny_worlds import World, tiny_world

# --- A tiny training loop that is steered -------------------------------------------------------


def steered(path: Path) -> None:
    """Go on with a run as a session does, and bring it to its end."""
    import torch

    with RunWriter.reopen(path) as writer:
        steering = listening(writer)
        state = writer.load() or {"params": torch.ones(3), "momentum": torch.zeros(3)}
        steering.look()
        while writer.next_round < steering.total:
            state = one_round(writer, writer.next_round, state, policy)
            steering.look()
        writer.append(EndRecord(status="finished"))
        steering.follow(ending="it has ended")


def listening(writer: RunWriter, too_long: Callable[[int], str] = lambda rounds: "") -> Steering:
    return Steering(
        writer=writer,
        rounds=ROUNDS,
        append=lambda record: (writer.append(record), None)[1],
        phase=lambda words: None,
        too_long=too_long,
        unfit=lambda asked, answer: "too much" if answer.values.get("lr", 0) > 1 else "",
    )


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    path = tmp_path / "begun"
    with RunWriter.create(path, CONFIG_JSON) as writer:
        writer.append(start(writer))
    return path


def commands(path: Path) -> list[CommandRecord]:
    return [x.record for x in Run.open(path).entries if isinstance(x.record, CommandRecord)]


def states(path: Path) -> dict[int, str | None]:
    return {n: x.checkpoint_sha256 for n, x in Run.open(path).history.rounds.items()}


def told(path: Path, *given: Command) -> None:
    for n, command in enumerate(given):
        inbox.put(path, command)
        os.utime(inbox.file_of(path, command.id), ns=(n, n))


def test_every_command_is_followed_once_and_written_down(begun: Path):
    told(begun, Pause(by="eve"), GoOn(), MoreRounds(n=2, id="two"))
    steered(begun)
    found = [(x.command, x.by, x.accepted, x.round) for x in commands(begun)]
    assert found == [
        ("pause", "eve", True, 0),
        ("resume", "person", True, 0),
        ("more_rounds", "person", True, 0),
    ]
    assert commands(begun)[2].arguments == {"n": 2}
    assert len(Run.open(begun).rounds) == ROUNDS + 2
    assert waiting(begun) == [] and inbox.files(begun) == []
    assert problems(begun) == []


def test_a_command_that_came_before_is_dropped_unread(begun: Path):
    told(begun, MoreRounds(n=2, id="two"))
    steered(begun)
    told(begun, MoreRounds(n=2, id="two"))
    assert waiting(begun) == []
    with RunWriter.reopen(begun) as writer:
        listening(writer).look()
        assert writer.history.extra_rounds == 2
    assert len(commands(begun)) == 1 and inbox.files(begun) == []


def test_killed_at_every_operation_nothing_is_lost_or_doubled(tmp_path, begun, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    train(tmp_path / "undisturbed", ROUNDS + 3)
    told(begun, MoreRounds(n=1, id="one"), MoreRounds(n=2, id="two"), Pause(), GoOn())
    (begun / "inbox" / "torn.json").write_text("{")

    def again(name: str) -> Path:
        return Path(shutil.copytree(begun, tmp_path / name))

    count = again("count")
    total = operations_of(lambda: steered(count))
    for n in range(1, total + 1):
        path = again(f"{n}")
        assert killed(lambda: steered(path), n)  # noqa: B023
        steered(path)
        run = Run.open(path)
        ids = [x.id for x in commands(path)]
        assert len(ids) == len(set(ids)) == 4, f"operation {n} of {total}"
        assert run.history.extra_rounds == 3
        assert states(path) == states(tmp_path / "undisturbed")
        assert inbox.files(path) == [] and (run.status, problems(path)) == ("finished", [])
        assert (path / "inbox" / "torn.json.bad-1").exists()


# --- What cannot be followed --------------------------------------------------------------------


def refused(path: Path, *given: Command, **how: Callable[[int], str]) -> list[str]:
    with RunWriter.reopen(path) as writer:
        told(path, *given)
        listening(writer, **how).follow()
    return [x.reason for x in commands(path) if not x.accepted]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([GoOn()], "it is not paused"),
        ([Pause(), Pause()], "it is paused already"),
        ([Answer(asked="round-1", answer="approve")], "round-1 is no question that waits; nothing"),
        ([MoreRounds(n=1_000_000)], "it would have more than 1000000 rounds"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(given, words, begun: Path):
    found = refused(begun, *given)
    assert len(found) == 1 and words in found[0]


def test_rounds_are_refused_for_which_there_is_no_plan(begun: Path):
    found = refused(begun, MoreRounds(n=2), too_long=lambda rounds: f"{rounds} are too many")
    assert found == [f"{ROUNDS + 2} are too many"]


def test_rounds_are_refused_after_the_baselines_were_begun(begun: Path):
    (begun / "baselines").mkdir()
    assert refused(begun, MoreRounds(n=2)) == [
        "its baselines were begun, for the rounds that there are"
    ]


def asked(id: str = "round-1", patience: float | None = None) -> AskedRecord:
    rest = {"values": {"lr": 0.1}, "bounds": {}, "values_schema": {}, "since": "2026-01-01"}
    return AskedRecord(id=id, round=0, policy="x@1", proposal=None, patience=patience, **rest)


def test_an_answer_is_taken_once_and_only_if_it_is_fit(begun: Path):
    def answer(lr: float, name: str = "round-1") -> Answer:
        return Answer(asked=name, answer="edit", values={"lr": lr})

    with RunWriter.reopen(begun) as writer:
        writer.append(asked())
        told(begun, answer(0.2, "round-2"), answer(2.0), answer(0.3), answer(0.4))
        found = listening(writer).answer_to(asked())
    assert found is not None and found.arguments["values"] == {"lr": 0.3}
    assert [(x.accepted, x.reason) for x in commands(begun)] == [
        (False, "round-2 is no question that waits; the question is round-1"),
        (False, "too much"),
        (True, ""),
        (False, "round-1 was answered already"),
    ]
    assert Run.open(begun).asking == asked()


def test_patience_ends_and_the_pause_does_not_use_it_up(begun: Path):
    with RunWriter.reopen(begun) as writer:
        steering = listening(writer)
        assert steering.answer_to(asked(patience=POLL)) is None
        assert POLL <= steering.idle < 20 * POLL
        told(begun, Pause())
        steering.follow()
        threading.Timer(5 * POLL, lambda: inbox.put(begun, GoOn())).start()
        assert steering.answer_to(asked(patience=2 * POLL)) is None
        assert steering.idle >= 7 * POLL


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"command":"delete","id":"bad","by":"x"}',
        b'{"command":"pause","id":"other","by":"x"}',
        b'{"command":"pause","id":"bad","by":"x","more":1}',
        b'{"command":"more_rounds","id":"bad","by":"x","n":0}',
        b'{"command":"answer","id":"bad","by":"x","asked":"a","answer":"edit","values":{"lr":NaN}}',
        b'{"command":"pause","id":"bad","by":"x"}' + b" " * LARGEST,
    ],
)
def test_a_file_that_is_no_command_is_set_aside_and_the_run_goes_on(text: bytes, begun: Path):
    (begun / "inbox").mkdir()
    (begun / "inbox" / "bad.json").write_bytes(text)
    assert waiting(begun) == []
    steered(begun)
    (warning,) = Run.open(begun).history.warnings
    assert warning.about == "inbox" and "\n" not in warning.text
    assert warning.text.startswith("bad.json is no command: ")
    assert (begun / "inbox" / "bad.json.bad-1").read_bytes() == text
    assert len(Run.open(begun).rounds) == ROUNDS and commands(begun) == []


def test_a_pipe_and_a_folder_in_the_inbox_hold_nothing_up(begun: Path):
    (begun / "inbox").mkdir()
    os.mkfifo(begun / "inbox" / "pipe.json")
    (begun / "inbox" / "folder.json").mkdir()
    (begun / "inbox" / "link.json").symlink_to("/dev/zero")
    steered(begun)
    assert len(Run.open(begun).history.warnings) == 3


# --- Posting ------------------------------------------------------------------------------------


def test_commands_are_posted_to_a_run_that_goes_on(begun: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="is not running, so nobody would follow the command"):
        post(begun, Pause())
    with pytest.raises(ConfigError, match="is not a run directory"):
        post(tmp_path / "nothing", Pause())
    assert not (begun / "inbox").exists()
    with RunWriter.reopen(begun) as writer:
        first = post(begun, MoreRounds(n=3))
        assert [x.id for x in waiting(begun)] == [first]
        listening(writer).follow()
        assert waiting(begun) == []
        assert post(begun, MoreRounds(n=3, id=first)) == first
        assert waiting(begun) == []
    assert not [x for x in (begun / "inbox").iterdir() if storage.is_temporary(x.name)]


def test_an_id_from_many_threads_is_one_command(begun: Path):
    with RunWriter.reopen(begun) as writer:
        click = [threading.Thread(target=post, args=(begun, Stop(id="stop-1"))) for _ in range(8)]
        for thread in click:
            thread.start()
        for thread in click:
            thread.join()
        assert [x.id for x in waiting(begun)] == ["stop-1"]
        with pytest.raises(StoppedError):
            listening(writer).follow()
        assert len(commands(begun)) == 1


def test_an_id_names_no_other_file():
    for id in ("../x", "a/b", "", ".hidden", "x" * 65, "a.json"):
        with pytest.raises(ConfigError, match="pause: id must be text of the form"):
            inbox.parse({"command": "pause", "id": id})


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_written_is_what_is_read(name: str, begun: Path):
    rest = {"asked": "round-1", "answer": "edit", "values": {"lr": 0.5}} if name == "answer" else {}
    command = inbox.parse({"command": name} | rest)
    inbox.put(begun, command)
    assert inbox.read(inbox.file_of(begun, command.id)) == command
    assert json.loads(inbox.file_of(begun, command.id).read_bytes())["command"] == name


# --- A real run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("world"))


def config(world: World, *more: str) -> Config:
    return Config.from_toml(world.config, ["rounds=4", "engine.chunk=2", *more])


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return experiment.run_experiment(config(world), out, cache=world.folder / "cache")


def adapter(path: Path) -> bytes:
    return (path / ADAPTER / "adapter_model.safetensors").read_bytes()


def commanding(path: Path, after: dict[int, Command], seen: list[str]) -> experiment.Watch:
    """Post commands after rounds, and let a paused run go on as soon as it says that it waits."""

    def record(record: Record) -> None:
        if isinstance(record, RoundRecord) and record.round in after:
            post(path, after[record.round])

    def phase(words: str) -> None:
        if words.startswith("paused"):
            seen.append(words)
            assert Run.open(path).paused
            post(path, GoOn())

    return experiment.Watch(record=record, phase=phase)


def test_a_paused_run_ends_with_the_bits_of_an_undisturbed_one(world, undisturbed, tmp_path):
    path, seen = tmp_path / "run", []
    watch = commanding(path, {0: Pause(), 2: Pause()}, seen)
    run = experiment.run_experiment(config(world), path, cache=world.folder / "cache", watch=watch)
    assert len(seen) == 2 and not run.paused and run.status == "finished"
    assert adapter(path) == adapter(undisturbed.path)
    assert states(path) == states(undisturbed.path)


def test_a_stopped_run_can_be_gone_on_with(world, undisturbed, tmp_path):
    path, cache = tmp_path / "run", world.folder / "cache"
    watch = commanding(path, {1: Stop(by="eve")}, [])
    with pytest.raises(StoppedError, match=r"stopped by eve; go on with: fedpilot resume .*run$"):
        experiment.run_experiment(config(world), path, cache=cache, watch=watch)
    run = Run.open(path)
    assert (run.status, len(run.rounds)) == ("stopped", 2)
    assert run.history.ended is not None and run.history.ended.reason == "stopped by eve"
    assert experiment.resume(path, cache=cache).status == "finished"
    assert adapter(path) == adapter(undisturbed.path)


def test_a_second_stop_does_not_stop_the_run_that_goes_on(world, tmp_path):
    path, cache = tmp_path / "run", world.folder / "cache"

    def twice(record: Record) -> None:
        if isinstance(record, RoundRecord):
            post(path, Stop()), post(path, Stop()), post(path, Pause())
        if isinstance(record, EndRecord):
            post(path, Stop())

    with pytest.raises(StoppedError):
        watch = experiment.Watch(record=twice)
        experiment.run_experiment(config(world), path, cache=cache, watch=watch)
    assert [x.accepted for x in commands(path)] == [True, False, False, False]
    assert experiment.resume(path, cache=cache).status == "finished"


def test_a_stop_ends_a_pause(world, tmp_path):
    path = tmp_path / "run"

    def phase(words: str) -> None:
        if words.startswith("paused"):
            post(path, Stop())

    def record(record: Record) -> None:
        if isinstance(record, RoundRecord):
            post(path, Pause())

    watch = experiment.Watch(record=record, phase=phase)
    with pytest.raises(StoppedError):
        experiment.run_experiment(config(world), path, cache=world.folder / "cache", watch=watch)
    run = Run.open(path)
    assert (run.status, run.paused, len(run.rounds)) == ("stopped", False, 1)


def test_more_rounds_are_rounds_like_the_others(world, tmp_path):
    """Asked for after the last round as well; they end as a run that was configured so long."""
    cache, more = world.folder / "cache", ('evaluation.baselines=["local"]', "evaluation.every=99")
    longer = config(world, "rounds=6", *more)
    whole = experiment.run_experiment(longer, tmp_path / "whole", cache=cache)
    path = tmp_path / "run"
    watch = commanding(path, {1: MoreRounds(n=1), 4: MoreRounds(n=1), 5: Stop()}, [])
    with pytest.raises(StoppedError):
        experiment.run_experiment(config(world, *more), path, cache=cache, watch=watch)
    run = experiment.resume(path, cache=cache)
    assert (len(run.rounds), run.rounds_planned) == (6, 6)
    assert adapter(path) == adapter(whole.path)

    def last(run: Run) -> list[EvaluationRecord]:
        return [x for x in run.evaluations if x.round in (5, None)]

    assert last(run) == last(whole) and problems(path) == []


def test_a_schedule_has_no_rate_for_more_rounds(world, tmp_path):
    path = tmp_path / "run"
    watch = commanding(path, {0: MoreRounds(n=1)}, [])
    wanted = config(world, 'schedule.kind="cosine"')
    run = experiment.run_experiment(wanted, path, cache=world.folder / "cache", watch=watch)
    assert len(run.rounds) == 4
    assert commands(path)[0].reason == "[schedule] is laid out over 4 rounds; use fedpilot fork"


def test_a_run_is_stopped_between_the_rounds_of_its_baselines(world, tmp_path):
    path, cache = tmp_path / "run", world.folder / "cache"
    wanted = config(world, 'evaluation.baselines=["local"]')
    rounds: list[int] = []

    def record(record: Record) -> None:
        if isinstance(record, RoundRecord):
            rounds.append(record.round)
            if len(rounds) == 6:
                post(path, Stop())

    with pytest.raises(StoppedError):
        watch = experiment.Watch(record=record)
        experiment.run_experiment(wanted, path, cache=cache, watch=watch)
    assert len(rounds) == 6 and Run.open(path).status == "stopped"
    run = experiment.resume(path, cache=cache)
    assert run.status == "finished" and "local" in run.evaluation and problems(path) == []


def test_what_comes_too_late_is_refused_and_does_not_stay(world, tmp_path):
    path = tmp_path / "run"

    def late(record: Record) -> None:
        if isinstance(record, EndRecord):
            post(path, MoreRounds(n=1)), post(path, Stop())

    watch = experiment.Watch(record=late)
    run = experiment.run_experiment(config(world), path, cache=world.folder / "cache", watch=watch)
    assert run.status == "finished" and len(run.rounds) == 4 and waiting(path) == []
    assert [x.reason for x in commands(path)] == [
        "it is finished; use fedpilot fork",
        "it has ended",
    ]


def test_a_warning_of_the_inbox_is_told(world, tmp_path):
    path, warned = tmp_path / "run", []

    def record(record: Record) -> None:
        if isinstance(record, RoundRecord) and record.round == 0:
            (path / "inbox").mkdir()
            (path / "inbox" / "x.json").write_text("{}")
        if isinstance(record, WarningRecord):
            warned.append(record.about)

    watch = experiment.Watch(record=record)
    experiment.run_experiment(config(world), path, cache=world.folder / "cache", watch=watch)
    assert warned == ["inbox"]
