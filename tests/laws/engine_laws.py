"""The laws of local training, as functions that a right engine passes and a broken one fails.

Everything is float64.  A law builds its own cohort, so that it can be asked of an engine whose
parts were replaced by broken ones.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
import peft
import torch
from torch import Tensor, nn

from federation.address import generator, torch_generator
from federation.algorithms.catalogue import Algorithm, fedavg, fedprox, run_round
from federation.data.tokens import Tokens
from federation.plan import Engine, Reports, RoundPlan
from federation.specs import LocalWork, LoRASpec
from federation.training.base import Base, prepare
from federation.training.engine import LocalEngine
from federation.training.full import FullParameters
from federation.training.grafts import replace_modules
from federation.training.local import Task, fresh_memory
from federation.training.lora import LoRA
from federation.training.memory import RamMemory
from federation.tree import Tree
from tests.laws.laws import World
from tests.tiny_models import VOCABULARY, tiny

CLIENTS = ("ada", "bob", "cyd", "dan", "eva")
STEPS = (2, 4, 1, 3, 4)
BATCH_SIZES = (3, 1, 2, 3, 2)
SPEC = LoRASpec(rank=3, alpha=12, targets=("q_proj", "v_proj", "down_proj"))
MU = 0.3

ADAMW = LocalWork(lr=1e-2, optimizer="adamw", weight_decay=0.1, max_grad_norm=0.5, eps=1e-4)
SGD = LocalWork(lr=0.3, optimizer="sgd", momentum=0.9, max_grad_norm=0.5)
SGD_WITHOUT_MOMENTUM = LocalWork(lr=0.3, steps=2, batch_size=2, optimizer="sgd")
CHUNKS = (1, 2, 5)


# --- A federation ------------------------------------------------------------------------------


def random_tokens(examples: int = 40) -> Tokens:
    """Examples of very different lengths; client ``c`` of n holds rows c, c + n, ..."""
    rng = generator("laws", "tokens")
    lengths = rng.integers(4, 20, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    prompt = rng.integers(1, 3, examples).astype(np.int32)
    return Tokens(ids, offsets, prompt, np.full(examples, 7, np.int32))


TOKENS = random_tokens()


def rows_of(client: str) -> np.ndarray:
    """Rows of a client: a name's first three letters say whose, so that clones share rows."""
    position = CLIENTS.index(client[:3])
    return np.arange(len(TOKENS))[position :: len(CLIENTS)][: 4 + position]


def small_llama() -> "nn.Module":
    return tiny("Llama", hidden_size=16, intermediate_size=24, num_hidden_layers=1)


@cache
def lora_on_base() -> tuple[Base, LoRA]:
    base = prepare("tiny", small_llama(), None)
    return base, LoRA(base, SPEC)


def task(algorithm: Algorithm) -> Task:
    base, lora = lora_on_base()
    return Task(base, lora, algorithm, TOKENS)


def first_params() -> Tensor:
    """An adapter that already does something: B is not zero."""
    lora = lora_on_base()[1]
    noise = torch.randn(lora.layout.size, generator=torch_generator("laws", "first"))
    return 0.2 * noise.double()


def engine_of(algorithm: Algorithm, chunk: int, memory: RamMemory | None = None) -> LocalEngine:
    return LocalEngine(task(algorithm), rows_of, memory or RamMemory(), chunk)


def plan_of(work: LocalWork, round: int = 0, clients: tuple[str, ...] = CLIENTS) -> RoundPlan:
    whole = RoundPlan(round, 9, CLIENTS, work, seed=3, steps=STEPS, batch_sizes=BATCH_SIZES)
    return whole.only(clients)


def sent_by(algorithm: Algorithm) -> Tree:
    return algorithm.sent(algorithm.init(first_params()))


def engine_world() -> World:
    """The real engine, for the laws that hold on every engine."""

    def memory_of(engine: Engine) -> RamMemory:
        return cast(RamMemory, cast(LocalEngine, engine)._memory)

    def remember(engine: Engine, client: str, kept: Tree) -> None:
        memory_of(engine).scatter((client,), {group: x[None] for group, x in kept.items()})

    def plain(client: str, params: Tensor, plan: RoundPlan) -> Tensor:
        model, layout = PlainModel.with_peft(), lora_on_base()[1].layout
        model.set(params, layout.views)
        schedule = engine_of(fedavg(), 1).schedules(plan)[0]
        model.train(schedule, plan.work, torch_optimizer(model.parameters, plan.work))
        return layout.flatten(model.named, torch.float64)

    return World(
        build=lambda algorithm, chunk: engine_of(algorithm, chunk or len(CLIENTS)),
        clients=CLIENTS,
        params=first_params(),
        work=SGD_WITHOUT_MOMENTUM,
        recall=lambda engine, client: memory_of(engine)._kept.get(client),
        remember=remember,
        plain=plain,
    )


def apart(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item() if a.numel() else 0.0


def assert_same_reports(got: Reports, want: Reports, tolerance: float = 1e-12) -> None:
    assert got.clients == want.clients
    assert got.tree_C.keys() == want.tree_C.keys()
    for group, x_C in got.tree_C.items():
        assert apart(x_C, want.tree_C[group]) <= tolerance, f"group {group!r} differs"
    assert apart(got.loss_C, want.loss_C) <= tolerance, "losses differ"
    assert apart(got.norm_C, want.norm_C) <= tolerance, "norms differ"
    assert torch.equal(got.tokens_C, want.tokens_C), "tokens differ"
    assert torch.equal(got.weight_C, want.weight_C), "weights differ"


# --- Plain training, with PEFT and torch's own optimizers --------------------------------------


def plain_llama() -> nn.Module:
    """The same model with torch's own norm: that of transformers computes in float32, always."""
    model = small_llama()

    def torch_norm(module: nn.Module) -> nn.Module | None:
        if not type(module).__name__.endswith("RMSNorm"):
            return None
        norm = nn.RMSNorm(len(module.weight), module.variance_epsilon, dtype=torch.float64)
        norm.weight = module.weight
        return norm

    replace_modules(model, torch_norm)
    return model


def batch_loss(model: nn.Module, rows: np.ndarray) -> Tensor:
    """Mean loss over the supervised tokens of some rows, one sequence at a time, no padding."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows[rows >= 0]:
        ids = torch.from_numpy(TOKENS.row(row).astype(np.int64))
        first = int(TOKENS.prompt_len[row])
        logits = model(input_ids=ids[None]).logits[0, first - 1 : -1]
        total = total + nn.functional.cross_entropy(logits, ids[first:], reduction="sum")
        count += len(ids) - first
    return total / count


def torch_optimizer(parameters: list[Tensor], work: LocalWork) -> torch.optim.Optimizer:
    if work.optimizer == "adamw":
        betas = (work.beta1, work.beta2)
        return torch.optim.AdamW(parameters, work.lr, betas, work.eps, work.weight_decay)
    return torch.optim.SGD(parameters, work.lr, work.momentum)


@dataclass
class PlainModel:
    """A model trained the usual way."""

    model: nn.Module
    named: dict[str, Tensor]

    @classmethod
    def with_peft(cls) -> "PlainModel":
        config = peft.LoraConfig(
            r=SPEC.rank, lora_alpha=12, target_modules=list(SPEC.targets), task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = peft.get_peft_model(plain_llama(), config, autocast_adapter_dtype=False)
        named = dict(model.named_parameters())
        return cls(model, {n.replace(".default", ""): p for n, p in named.items() if "lora" in n})

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.named.values())

    def set(self, flat: Tensor, layout_views: Callable[[Tensor], dict[str, Tensor]]) -> None:
        views = layout_views(flat)
        assert views.keys() == self.named.keys()
        with torch.no_grad():
            for name, value in views.items():
                self.named[name].copy_(value)

    def train(
        self,
        schedule: np.ndarray,
        work: LocalWork,
        optimizer: torch.optim.Optimizer,
        mu: float = 0.0,
    ) -> None:
        parameters = self.parameters
        start = [p.detach().clone() for p in parameters]
        for rows in schedule:
            optimizer.zero_grad()
            batch_loss(self.model, rows).backward()
            for p, p0 in zip(parameters, start, strict=True):
                p.grad.add_(mu * (p.detach() - p0))
            if work.max_grad_norm is not None:
                clip_exactly(parameters, work.max_grad_norm)
            optimizer.step()


def clip_exactly(parameters: list[Tensor], most: float) -> None:
    """``torch.nn.utils.clip_grad_norm_`` without the 1e-6 it adds to the norm."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    nn.utils.clip_grads_with_norm_(parameters, most, norm - 1e-6)


# --- Laws --------------------------------------------------------------------------------------


def batched_is_sequential(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """Clients that share a pass do what each does alone, for several rounds, memory included."""
    alone, stacked = RamMemory(), RamMemory()
    states = [algorithm.init(first_params())] * 2
    for round, clients in enumerate([CLIENTS, ("eva", "cyd", "ada"), ("ada", "bob", "eva")]):
        plan = plan_of(work, round, clients)
        engines = engine_of(algorithm, 1, alone), engine_of(algorithm, chunk, stacked)
        results = [
            run_round(algorithm, engine, state, plan)
            for engine, state in zip(engines, states, strict=True)
        ]
        assert_same_reports(results[1][1], results[0][1])
        states = [state for state, _ in results]
        for group, x in states[0].items():
            assert apart(x, states[1][group]) <= 1e-12, f"state {group!r} differs"


def rounds_of_one_client_are_plain_training(mu: float, work: LocalWork, chunk: int) -> None:
    """A client of weight 1 ends where PEFT and torch.optim end, over rounds with kept moments."""
    algorithm = fedprox(mu) if mu else fedavg()

    lora = lora_on_base()[1]
    engine = engine_of(algorithm, chunk)
    state = algorithm.init(first_params())
    plain = PlainModel.with_peft()
    plain.set(state["params"], lora.layout.views)
    optimizer = torch_optimizer(plain.parameters, work)
    for round in range(2):
        plan = plan_of(work, round, ("eva",))
        plain.train(engine.schedules(plan)[0], work, optimizer, mu)
        state, _ = run_round(algorithm, engine, state, plan)
    got = lora.layout.flatten(plain.named, torch.float64)
    assert apart(got, first_params()) > 1e-2, "nothing was learned"
    assert apart(state["params"], got) <= 1e-10


def cohort_is_plain_training(work: LocalWork, chunk: int) -> None:
    """Every client of a cohort reports what PEFT and torch.optim make of its rows."""
    algorithm, lora = fedavg(), lora_on_base()[1]
    engine = engine_of(algorithm, chunk)
    plan = plan_of(work)
    reports = engine.train(sent_by(algorithm), plan)
    plain = PlainModel.with_peft()
    for c, schedule in enumerate(engine.schedules(plan)):
        plain.set(first_params(), lora.layout.views)
        plain.train(schedule, work, torch_optimizer(plain.parameters, work))
        delta = lora.layout.flatten(plain.named, torch.float64) - first_params()
        assert apart(reports.tree_C["delta"][c], delta) <= 1e-10, f"{CLIENTS[c]} differs"


def idle_clients_change_nothing(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """A null round reports exact zeros, and so does an idle client among busy ones."""
    sent = sent_by(algorithm)
    for steps in ((0, 0, 0, 0, 0), (2, 0, 1, 0, 3)):
        plan = replace(plan_of(work), steps=steps)
        reports = engine_of(algorithm, chunk).train(sent, plan)
        idle = torch.tensor([count == 0 for count in steps])
        assert torch.equal(reports.norm_C == 0, idle)
        assert torch.equal(reports.loss_C.isnan(), idle)
        assert torch.equal(reports.tokens_C == 0, idle)
        if "delta" in reports.tree_C:
            assert not reports.tree_C["delta"][idle].any()


def clones_are_one(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """Splitting every client into two clones of half the weight changes nothing."""
    whole = RoundPlan(0, 9, ("ada", "eva"), work, steps=(3, 3), batch_sizes=(8, 8))
    split = RoundPlan(
        0, 9, ("ada", "eva", "ada2", "eva2"), work, steps=(3,) * 4, batch_sizes=(8,) * 4
    )
    states = [
        run_round(algorithm, engine_of(algorithm, chunk), algorithm.init(first_params()), plan)[0]
        for plan in (whole, split)
    ]
    assert apart(states[0]["params"], first_params()) > 1e-3, "nothing was learned"
    assert apart(states[0]["params"], states[1]["params"]) <= 1e-12


def memory_has_an_owner(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """A client's kept state is read and written for it alone: poison elsewhere never shows."""
    memories = RamMemory(), RamMemory()
    sent = sent_by(algorithm)
    for memory in memories:
        engine_of(algorithm, chunk, memory).train(sent, plan_of(work))
    clean, poisoned = memories
    kept_C = clean.gather(("bob",), fresh_memory(algorithm, sent["params"], plan_of(work)))
    assert kept_C, "nothing is kept"
    poisoned.scatter(("bob",), {group: x.fill_(torch.nan) for group, x in kept_C.items()})
    later = plan_of(work, 1)
    want = engine_of(algorithm, chunk, clean).train(sent, later)
    got = engine_of(algorithm, chunk, poisoned).train(sent, later)
    others = ("ada", "cyd", "dan", "eva")
    assert_same_reports(got.only(others), want.only(others))
    assert "bob" not in got.clients, "bob's own memory was not used"


def hash_of(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        digest.update(name.encode() + x.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def base_is_frozen(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """Training leaves every bit of the base, its gradients and its behaviour alone."""
    model = lora_on_base()[0].model
    ids = torch.arange(10)[None]
    with torch.no_grad():
        before = hash_of(model), model(input_ids=ids).logits
    engine_of(algorithm, chunk).train(sent_by(algorithm), plan_of(work))
    with torch.no_grad():
        after = hash_of(model), model(input_ids=ids).logits
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def any_round_can_be_replayed_alone(algorithm: Algorithm, work: LocalWork, chunk: int) -> None:
    """Draws belong to an address: what else an engine has done before changes no bit."""
    sent = sent_by(algorithm)
    busy, memory = RamMemory(), RamMemory()
    engine_of(algorithm, chunk, busy).train(sent, plan_of(work, 1))
    fresh = fresh_memory(algorithm, sent["params"], plan_of(work))
    memory.scatter(CLIENTS, busy.gather(CLIENTS, fresh))
    with torch.random.fork_rng():
        engine_of(algorithm, chunk).train(sent, plan_of(work, 2))
        torch.rand(3)
        first = engine_of(algorithm, chunk, busy).train(sent, plan_of(work, 7))
    again = engine_of(algorithm, chunk, memory).train(sent, plan_of(work, 7))
    assert_same_reports(first, again, tolerance=0.0)


def full_parameters_are_plain_training(work: LocalWork) -> None:
    """Training all parameters of two clients is training two plain models."""
    base = prepare("tiny", small_llama(), None)
    full = FullParameters(base)
    start = full.initial(0).double()
    engine = LocalEngine(Task(base, full, fedavg(), TOKENS), rows_of, RamMemory(), chunk=4)
    plan = plan_of(work, clients=("bob", "dan"))
    reports = engine.train({"params": start}, plan)
    for c, schedule in enumerate(engine.schedules(plan)):
        model = plain_llama()
        plain = PlainModel(model, dict(model.named_parameters()))
        plain.set(start, full.layout.views)
        plain.train(schedule, work, torch_optimizer(plain.parameters, work))
        delta = full.layout.flatten(plain.named, torch.float64) - start
        assert apart(delta, torch.zeros_like(delta)) > 1e-3, "nothing was learned"
        assert apart(reports.tree_C["delta"][c], delta) <= 1e-10
