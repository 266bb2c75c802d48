"""On a GPU the engine computes what it computes on the CPU; skipped where there is none."""

import pytest
import torch

from federation.address import torch_generator
from federation.algorithms.catalogue import Algorithm, fedavg, scaffold
from federation.algorithms.transforms import quantize
from federation.evaluation.likelihood import example_nll
from federation.plan import Reports
from federation.specs import LoRASpec
from federation.training.base import prepare
from federation.training.engine import LocalEngine, measure_chunk
from federation.training.full import FullParameters
from federation.training.local import Task
from federation.training.lora import LoRA
from federation.training.memory import RamMemory
from federation.tree import Tree
from tests.laws import engine_laws as laws
from tests.tiny_models import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")

ALGORITHMS = {
    "fedavg, adamw": (fedavg(), laws.ADAMW),
    "fedavg, sgd": (fedavg(), laws.SGD),
    "scaffold": (scaffold(), laws.SGD_WITHOUT_MOMENTUM),
    "int8": (quantize(fedavg(), 8), laws.ADAMW),
}


SPEC = LoRASpec(rank=3, alpha=12, targets=("c_attn", "c_proj"))


def task_on(device: str, algorithm: Algorithm, full: bool = False) -> Task:
    """Build a task whose arithmetic is float64 throughout (rotary embeddings are float32)."""
    model = tiny("GPT2").to(device)  # pyright: ignore[reportArgumentType]
    base = prepare("tiny", model, None)
    trainable = FullParameters(base) if full else LoRA(base, SPEC)
    return Task(base, trainable, algorithm, laws.TOKENS)


def first_params() -> torch.Tensor:
    size = task_on("cpu", fedavg()).trainable.layout.size
    noise = torch.randn(size, generator=torch_generator("cuda", "first"))
    return 0.2 * noise.double()


def trained(task: Task, work: laws.LocalWork, chunk: int, params: torch.Tensor) -> Reports:
    engine = LocalEngine(task, laws.rows_of, RamMemory(), chunk)
    sent = task.algorithm.sent(task.algorithm.init(params))
    return engine.train(sent, laws.plan_of(work))


@pytest.mark.parametrize("chunk", laws.CHUNKS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_gpu_trains_as_a_cpu_does(name: str, chunk: int):
    algorithm, work = ALGORITHMS[name]
    there, here = (
        trained(task_on(device, algorithm), work, chunk, first_params())
        for device in ("cuda", "cpu")
    )
    assert all(x.device.type == "cpu" for x in there.tree_C.values())
    laws.assert_same_reports(there, here, 1e-9)
    torch.testing.assert_close(there.loss_C, here.loss_C, rtol=0, atol=1e-9)


def test_all_parameters_train_on_a_gpu():
    there, here = (task_on(device, fedavg(), full=True) for device in ("cuda", "cpu"))
    first = here.trainable.initial(0)
    assert torch.equal(there.trainable.initial(0), first)
    reports = [trained(task, laws.ADAMW, 1, first) for task in (there, here)]
    laws.assert_same_reports(*reports, tolerance=1e-9)


def test_a_gpu_reads_as_a_cpu_does():
    rows = torch.arange(12).numpy()
    there, here = (
        example_nll(task_on(device, fedavg()).base, laws.TOKENS, rows) for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(there["nats"], here["nats"], rtol=0, atol=1e-9)


def test_a_llama_in_bfloat16_reads_on_a_gpu_as_on_a_cpu():
    rows = torch.arange(12).numpy()
    there, here = (
        example_nll(
            prepare("tiny", tiny("Llama", torch.bfloat16).to(device), None),  # pyright: ignore[reportArgumentType]
            laws.TOKENS,
            rows,
        )["nats"]
        for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(there, here, rtol=0.02, atol=0.1)


def test_how_many_clients_share_a_pass_is_measured():
    task = task_on("cuda", fedavg())
    engine = LocalEngine(task, laws.rows_of, RamMemory(), 1)
    chunk = measure_chunk(engine, first_params(), laws.plan_of(laws.ADAMW), 65_536)
    assert 1 <= chunk <= len(laws.CLIENTS)


def test_what_a_client_keeps_comes_back():
    memory, task = RamMemory(), task_on("cuda", scaffold())
    engine = LocalEngine(task, laws.rows_of, memory, 2)
    sent = task.algorithm.sent(task.algorithm.init(first_params()))
    engine.train(sent, laws.plan_of(laws.SGD_WITHOUT_MOMENTUM))
    fresh: Tree = {"control": torch.zeros(task.trainable.layout.size, dtype=torch.float64)}
    kept_C = memory.gather(laws.CLIENTS, fresh)["control"]
    assert kept_C.device.type == "cpu" and kept_C.abs().sum() > 0
