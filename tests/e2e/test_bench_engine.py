"""The benchmark's referee: same work passes, any other work is caught before a time counts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import compare as comparing
from benchmarks import engine, worker
from benchmarks.compare import (
    Comparison,
    Judge,
    Measured,
    check_against_opponent,
    compare,
    in_turns,
)
from benchmarks.equality import Deviation, OtherWork, Result, check_bfloat16
from benchmarks.report import slower
from benchmarks.settings import PLAIN, Ours, Peer, Setting, System, full, quick
from benchmarks.work import Work, write_work

# PEFT asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TINY = Setting(shape="tiny", batch=2, lengths="real", targets="q,v", clients=3, steps=3)
OURS = Ours(dtype="float32", chunk=2)
LOW = Ours(dtype="bfloat16", chunk=3)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return write_work(TINY, tmp_path_factory.mktemp("work"))


def result(work: Work, system: System) -> Result:
    return Result(*worker.prepared(work, system)())


@pytest.fixture(scope="module")
def plain(work: Work) -> Result:
    return result(work, PLAIN)


def judge(work: Work, plain: Result) -> Judge:
    judge = Judge(work.layout.flatten(work.adapter))
    judge(PLAIN, plain)
    return judge


@pytest.mark.parametrize(
    "system",
    [
        OURS,
        Peer(dtype="float32", attention="eager", logits="supervised", optimizer="fused"),
        Peer(dtype="float32", optimizer="foreach"),
    ],
    ids=lambda system: system.name,
)
def test_the_same_work_passes(work: Work, plain: Result, system: System) -> None:
    found = judge(work, plain)(system, result(work, system))
    assert found.adapter < 1e-4 and found.change < 1e-2


def test_something_was_learnt(work: Work, plain: Result) -> None:
    changed = plain.params_C - work.layout.flatten(work.adapter)
    assert (changed.abs().amax(dim=1) > TINY.lr).all()


def other_adapter(work: Work) -> Work:
    return replace(work, adapter={name: 1.01 * x for name, x in work.adapter.items()})


def other_rate(work: Work) -> Work:
    return replace(work, setting=TINY.model_copy(update={"lr": 1.5 * TINY.lr}))


def other_targets(work: Work) -> Work:
    """Tokens differ in what is supervised."""
    return replace(work, tokens=replace(work.tokens, prompt_len=work.tokens.prompt_len // 2 + 1))


def other_batches(work: Work) -> Work:
    first, *rest = work.schedules
    return replace(
        work,
        schedules={first: work.schedules[first][::-1]}
        | {client: work.schedules[client] for client in rest},
    )


@pytest.mark.parametrize("system", [OURS, PLAIN], ids=["ours", "peft"])
@pytest.mark.parametrize("broken", [other_adapter, other_rate, other_targets])
def test_other_work_is_caught(work: Work, plain: Result, broken, system: System) -> None:
    with pytest.raises(OtherWork, match="both sides did not do the same work"):
        judge(work, plain)(system, result(broken(work), system))


def test_other_batches_are_caught(work: Work, plain: Result) -> None:
    with pytest.raises(OtherWork):
        judge(work, plain)(PLAIN, result(other_batches(work), PLAIN))
    with pytest.raises(ValueError, match="other batches"):
        worker.prepared(other_batches(work), OURS)


def test_nan_is_caught(work: Work, plain: Result) -> None:
    with pytest.raises(OtherWork):
        judge(work, plain)(OURS, replace(plain, params_C=plain.params_C * torch.nan))


@pytest.mark.parametrize("adapter", ["float32", "autocast", "bfloat16"])
def test_bfloat16_stays_near_float32(work: Work, plain: Result, adapter: str) -> None:
    peer = Peer.model_validate({"dtype": "bfloat16", "adapter": adapter})
    theirs = judge(work, plain)(peer, result(work, peer))
    ours = judge(work, plain)(LOW, result(work, LOW))
    check_bfloat16(LOW.name, ours, [theirs])
    assert 0 < ours.change < 0.5


def test_bfloat16_twice_as_far_is_caught() -> None:
    peer = Deviation(adapter=1e-3, loss=1e-3, loss_max=1e-3, change=0.1)
    peers = [replace(peer, loss=5e-4, change=0.05), peer, replace(peer, loss=9e-3, change=0.3)]
    for some in ([peer], peers, peers[::-1]):  # in the median, whatever their order
        check_bfloat16("ours", replace(peer, loss=1.9e-3, change=0.19), some)
        for far in ({"loss": 2.1e-3}, {"change": 0.21}, {"loss": float("nan")}):
            with pytest.raises(OtherWork):
                check_bfloat16("ours", replace(peer, **far), some)


def measured(system: System, seconds: list[float], change: float = 0.0) -> Measured:
    return Measured(system, Deviation(0.0, 0.0, 0.0, change), 1.0, 1.0, seconds)


def test_ratios_are_against_the_fastest_loop_that_trains() -> None:
    low = Peer(dtype="bfloat16")
    systems = [
        measured(PLAIN, [2.0, 2.0, 9.0]),
        measured(low, [1.0]),
        measured(Peer(dtype="bfloat16", adapter="bfloat16"), [0.1], change=0.9),
        measured(OURS, [1.6]),
        measured(LOW, [0.5]),
    ]
    comparison = Comparison(TINY, systems, useful_tokens=100)
    assert comparison.ratio(systems[3], "float32") == pytest.approx(1.25)
    assert comparison.ratio(systems[3], "float32", "bfloat16") == pytest.approx(0.625)
    assert comparison.ratio(systems[4], "bfloat16") == pytest.approx(2.0)
    assert slower(comparison) == []
    check_against_opponent(comparison)


def test_losing_is_said() -> None:
    comparison = Comparison(TINY, [measured(PLAIN, [1.0]), measured(OURS, [2.0])], 100)
    assert len(slower(comparison)) == 2 and "0.50 x" in slower(comparison)[0]


def test_order_alternates() -> None:
    assert list(in_turns("ab", 3)) == ["a", "b", "b", "a", "a", "b"]


def test_settings_are_distinct() -> None:
    names = [setting.name for setting in full()]
    assert len(set(names)) == len(names) and {s.name for s in quick()} <= set(names)


@pytest.mark.slow
def test_processes_are_compared_and_timed() -> None:
    comparison = compare(TINY, repeats=1, threads=1, ours=[OURS], starts=[])
    assert comparison.failure is None
    assert [len(m.seconds) for m in comparison.systems] == [1, 1]
    assert all(m.peak_bytes > 50 * 2**20 and m.startup_seconds > 0 for m in comparison.systems)
    assert comparison.as_json()["systems"][1]["ratio_best"] > 0


@pytest.mark.slow
def test_a_broken_side_fails_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn = comparing.write_work

    def spoiled_for_ours(setting: Setting, folder: Path) -> Work:
        """Let the second system find another learning rate in the folder."""
        work = drawn(setting, folder)
        asked = comparing.Process.ask

        def ask(process: comparing.Process, command: str) -> dict[str, object]:
            answer = asked(process, command)
            faster = setting.model_copy(update={"lr": 2 * setting.lr})
            (folder / "setting.json").write_text(faster.model_dump_json())
            return answer

        monkeypatch.setattr(comparing.Process, "ask", ask)
        return work

    def compare_two(setting: Setting, repeats: int, threads: int, **_: object) -> Comparison:
        return compare(setting, repeats, threads, ours=[OURS], starts=[])

    monkeypatch.setattr(comparing, "write_work", spoiled_for_ours)
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "compare", compare_two)
        assert engine.report([TINY], 1, 1, tmp_path / "out.json") == 1
    out = capfd.readouterr().out
    assert "no figures count. both sides did not do the same work" in out
    assert (tmp_path / "out.json").exists()
