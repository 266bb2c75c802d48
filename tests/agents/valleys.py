"""A federation in a valley: a whole run in milliseconds, that really diverges at a high rate.

Every client pulls towards a place of its own by gradient descent on the squared distance; beyond a
rate of 1 that goes further away with every step.  Session, run directory, planner and pilot are the
real ones; the engine alone is this one.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from agents.experiment import Recorded
from agents.pilot import PilotPlanner
from agents.spec import PilotSpec
from federation.address import torch_generator
from federation.algorithms.algorithm import Algorithm, fedavg
from federation.config import Config
from federation.plan import Reports, RoundPlan
from federation.runs.history import History
from federation.runs.records import StartRecord
from federation.runs.writer import RunWriter
from federation.session import Session, Watch, ending
from federation.training.memory import DiskMemory
from federation.tree import Tree

P, SPREAD = 4, 0.1
CLIENTS = tuple(f"client-{n}" for n in range(5))
FAR = torch.full((P,), 3.0)
"""Where training begins; the clients' places lie around zero."""


def remembering() -> Algorithm:
    """Federated averaging whose clients keep how far they have gone."""
    return replace(fedavg(), memory=lambda params: {"gone": torch.zeros_like(params)})


def place(client: str) -> torch.Tensor:
    """Where a client pulls to."""
    return SPREAD * torch.randn(P, generator=torch_generator("valley", client))


@dataclass(frozen=True)
class Job:
    """What is trained, as a session changes it."""

    algorithm: Algorithm


@dataclass
class Valley:
    """An engine: trains by descent, one client after another."""

    memory: DiskMemory
    task: Job = field(default_factory=lambda: Job(remembering()))
    trained: list[int] = field(default_factory=list)

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let every client of the plan descend from what was sent."""
        self.trained.append(plan.round)
        fresh = {"gone": torch.zeros(P)}
        gone_C = self.memory.gather(plan.clients, fresh)["gone"]
        ends, losses = zip(*(descended(sent["params"], c, plan) for c in plan.clients), strict=True)
        delta_C = torch.stack(ends) - sent["params"]
        fine = torch.isfinite(delta_C).all(1).tolist()
        count = len(plan.clients)
        reports = Reports(
            clients=plan.clients,
            tree_C={"delta": delta_C},
            weight_C=torch.ones(count, dtype=torch.float64),
            loss_C=torch.tensor(losses),
            tokens_C=torch.ones(count, dtype=torch.int64),
            norm_C=delta_C.norm(dim=1),
        )
        there = [client for client, ok in zip(plan.clients, fine, strict=True) if ok]
        lost = {client: "diverged" for client in plan.clients if client not in there}
        if there:
            self.memory.scatter(there, {"gone": (gone_C + delta_C)[torch.tensor(fine)]})
        return replace(reports.only(there), rejected=lost)


def descended(start: torch.Tensor, client: str, plan: RoundPlan) -> tuple[torch.Tensor, float]:
    """Return where a client ends, and its mean loss on the way."""
    x, losses = start.clone(), []
    for _ in range(plan.work.steps):
        away = x - place(client)
        losses.append(float(away.square().mean()))
        x = x - plan.work.lr * 2 * away
    return x, float(np.mean(losses))


def distance(state: Tree) -> float:
    """Return the mean loss of a model over all clients."""
    return float(np.mean([(state["params"] - place(c)).square().mean() for c in CLIENTS]))


def setup_of(rounds: int, lr: float = 0.05) -> Any:
    """What planners ask of a setup."""
    table = {"rounds": rounds, "work": {"lr": lr, "steps": 3}, "cohort": {"size": 3}}
    sizes = SimpleNamespace(sizes=np.full(len(CLIENTS), 10))
    data = SimpleNamespace(splits=SimpleNamespace(train=sizes))
    return SimpleNamespace(config=Config.from_table(table), clients=CLIENTS, data=data)


def descend(
    path: Path,
    rounds: int = 12,
    watch: Watch | None = None,
    repeating: History | None = None,
    **pilot: object,
) -> tuple[Tree, list[int]]:
    """Begin a run or go on with it, by a pilot or as a journal has it.

    Returns:
        The last state, and the rounds that were trained.
    """
    there, setup = (path / "config.json").exists(), setup_of(rounds)
    with RunWriter.reopen(path) if there else RunWriter.create(path, "{}") as writer:
        spec = PilotSpec.model_validate(pilot)
        planner = (
            Recorded(setup, 8, repeating)
            if repeating
            else PilotPlanner(setup, writer.history, 8, spec)
        )
        engine: Any = Valley(writer.memory)
        session = Session(
            algorithm=remembering(),
            writer=writer,
            engine=engine,
            planner=planner,
            state=writer.load() or {"params": FAR.clone()},
            rounds=rounds,
            watch=watch or Watch(),
        )
        if writer.history.start is None:
            session.append(begun(writer))
        for round, record in writer.history.rounds.items():
            planner.learn(record, writer.history.decisions[round])
        with ending(session):
            session.play_all()
        return session.state, engine.trained


def begun(writer: RunWriter) -> StartRecord:
    """The first record of a run."""
    sha256 = writer.config_sha256
    return StartRecord(
        seed=0, chunk_size=1, threads=1, dtype="float32", versions={}, config_sha256=sha256
    )
