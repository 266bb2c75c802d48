"""Calls and passes side by side: order, share of the processor, whose adapters, an early end."""

import threading
import time

import pytest
import torch

from federation.algorithms.catalogue import fedavg, scaffold
from federation.training import workers
from federation.training.base import client_loss, prepare
from federation.training.engine import passes_at_once, stacked
from federation.training.full import FullParameters
from federation.training.local import Task, batch_at
from federation.training.workers import side_by_side
from tests.laws import engine_laws as laws


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_results_come_in_the_order_of_the_calls():
    def slow_first(i: int) -> int:
        time.sleep(0.05 if i == 0 else 0)
        return i

    calls = [lambda i=i: slow_first(i) for i in range(7)]
    assert list(side_by_side(calls, 2)) == list(range(7))


def test_every_worker_has_its_share_of_torchs_threads_and_the_caller_keeps_all():
    torch.set_num_threads(6)
    shares = list(side_by_side([torch.get_num_threads] * 4, 3))
    assert shares == [2] * 4
    assert torch.get_num_threads() == 6
    assert list(side_by_side([torch.get_num_threads], 1)) == [6]


def test_calls_are_taken_when_they_are_needed():
    taken = 0

    def calls():
        nonlocal taken
        for i in range(9):
            taken += 1
            yield lambda i=i: i

    for done, _ in enumerate(side_by_side(calls(), 2)):
        assert taken <= done + 3  # two being made, one waiting


def test_a_call_that_fails_stops_the_others():
    stop = threading.Event()

    def fails() -> None:
        raise ValueError("one call")

    started = time.monotonic()
    with pytest.raises(ValueError, match="one call"):
        list(side_by_side([fails, lambda: stop.wait(30), lambda: stop.wait(30)], 2, stop.set))
    assert time.monotonic() - started < 10


def test_as_many_workers_as_there_is_work_and_threads(monkeypatch: pytest.MonkeyPatch):
    assert [workers.workers(calls) for calls in (0, 1, 2, 9)] == [1, 1, 2, 2]
    torch.set_num_threads(64)
    assert workers.workers(9) == workers.MOST


def test_stacks_are_about_equally_large():
    plan = laws.plan_of(laws.ADAMW)
    assert [len(part.clients) for part in stacked(plan, 4)] == [2, 3]
    assert [len(part.clients) for part in stacked(plan, 5)] == [5]
    assert sorted(c for part in stacked(plan, 2) for c in part.clients) == sorted(laws.CLIENTS)
    assert stacked(plan.only(()), 4) == []


def test_an_adapter_is_bound_for_its_thread_alone():
    base, lora = laws.lora_on_base()
    task = laws.task(fedavg())
    rows = [laws.rows_of(client)[None, :2] for client in ("ada", "bob")]
    batches = [batch_at(laws.TOKENS, [schedule], 0) for schedule in rows]
    adapters = [laws.first_params()[None] * factor for factor in (1.0, -2.0)]

    def loss(i: int, meet: threading.Barrier) -> float:
        task.trainable.bind(lora.layout.views(adapters[i]))
        meet.wait()  # both have bound theirs
        with torch.no_grad():
            value = client_loss(base, batches[i]).item()
        meet.wait()
        task.trainable.bind(None)
        return value

    alone = [loss(i, threading.Barrier(1)) for i in (0, 1)]
    meet = threading.Barrier(2, timeout=30)
    assert list(side_by_side([lambda i=i: loss(i, meet) for i in (0, 1)], 2)) == alone


@pytest.mark.parametrize("algorithm", [fedavg, scaffold])
def test_side_by_side_is_one_after_another_bit_for_bit(algorithm):
    work = laws.SGD_WITHOUT_MOMENTUM
    reports = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        engine = laws.engine_of(algorithm(), 2)
        reports.append(engine.train(laws.sent_by(algorithm()), laws.plan_of(work)))
    assert len(stacked(laws.plan_of(work), 2)) == 3
    for other in reports[1:]:
        laws.assert_same_reports(other, reports[0], tolerance=0.0)


def test_a_stack_that_fails_ends_the_round_early(monkeypatch: pytest.MonkeyPatch):
    steps = 0

    def failing(*args) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise ValueError("one step")
        return client_loss(*args)

    monkeypatch.setattr("federation.training.local.client_loss", failing)
    plan = laws.RoundPlan(0, 9, ("ada", "bob", "cyd"), laws.ADAMW, steps=(900,) * 3)
    with pytest.raises(ValueError, match="one step"):
        laws.engine_of(fedavg(), 1).train(laws.sent_by(fedavg()), plan)
    assert steps < 500


def test_models_that_cannot_be_shared_are_trained_one_at_a_time():
    task = laws.task(fedavg())
    assert passes_at_once(task, 5) == 2
    base = prepare("tiny", laws.small_llama(), None)
    assert passes_at_once(Task(base, FullParameters(base), fedavg(), laws.TOKENS), 5) == 1
    for kind, count in (("dynamic", 1), ("longrope", 1), ("llama3", 2)):
        config = task.base.model.config
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config, "rope_parameters", {"rope_type": kind}, raising=False)
            assert passes_at_once(task, 5) == count
