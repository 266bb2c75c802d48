"""Runs and studies for the pages that compare: with updates that were kept, what-ifs and arms."""

import hashlib
import tomllib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from agents.study.ledger import writing
from agents.study.records import Arm, Floor, Look, Measured, Stopped, Unsealed, Verdict
from agents.study.spec import StudySpec, from_table
from agents.study.statistics import judge
from federation.runs.records import (
    ContributionsRecord,
    DecisionRecord,
    Effect,
    EndRecord,
    EvaluationRecord,
    RoundRecord,
    WhatIfRecord,
)
from federation.runs.writer import RunWriter
from federation.specs import LocalWork
from tests.ui.web.recorded import config, start

CLIENTS = ("ward-a", "ward-b", "ward-c")


def updates(n: int, width: int = 1000) -> np.ndarray:
    """Two clients that send nearly the same and one that sends its opposite, half as long."""
    draw = np.random.Generator(np.random.Philox(n))
    same = draw.standard_normal(width)
    near = same + 0.1 * draw.standard_normal(width)
    return np.stack([same, near, -0.5 * same]).astype(np.float32)


def kept(path: Path, n: int, dtype: type = np.float32) -> tuple[str, str]:
    """Write the updates of a round as a run keeps them; return the file's name and its hash."""
    data = save({"report/delta": updates(n).astype(dtype), "weight_C": np.ones(3)})
    (path / "state").mkdir(exist_ok=True)
    name = f"updates-{n:04}.safetensors"
    (path / "state" / name).write_bytes(data)
    return name, hashlib.sha256(data).hexdigest()


def record_clients(path: Path, rounds: int = 3, *, keep: bool = True, asked: bool = True) -> Path:
    """Write a run whose third client is asked in the first round only, and judged on its own."""
    cfg = config(rounds)
    with RunWriter.create(path, cfg.model_dump_json(indent=2)) as writer:
        writer.keep_updates = rounds
        writer.append(start(writer, cfg))
        for n in range(rounds):
            clients = CLIENTS if n == 0 or keep else CLIENTS[:2]
            name, sha256 = kept(path, n) if keep else (None, None)
            work = LocalWork(lr=0.01, steps=4).model_dump(mode="json")
            writer.append(
                DecisionRecord(
                    round=n, source="heuristic", policy="uniform", clients=clients, work=work
                )
            )
            writer.append(
                EvaluationRecord(
                    round=n,
                    subject="federated",
                    split="clients",
                    metrics={"nll": 2.0, "nll_worst_decile": 3.0, "nll_std": 0.5},
                    per_client={"nll": dict(zip(CLIENTS, (1.0, 2.0, 3.0), strict=True))},
                )
            )
            writer.append(
                RoundRecord(
                    round=n,
                    clients=clients,
                    loss=dict.fromkeys(clients, 3.0 - n),
                    update_norms=dict.fromkeys(clients, 1.0),
                    seconds=2.0,
                    updates=name,
                    updates_sha256=sha256,
                )
            )
        if asked:
            for record in found():
                writer.append(record)
        writer.append(EndRecord(status="finished"))
    return path


def found() -> tuple[ContributionsRecord, WhatIfRecord]:
    """What was asked of the first round: with intervals of three repeats."""
    effects = {
        "ward-a": Effect(mean=0.3, low=0.2, high=0.4, values=(0.2, 0.3, 0.4)),
        "ward-b": Effect(mean=0.1, low=-0.1, high=0.3, values=(0.0, 0.1, 0.2)),
        "ward-c": Effect(mean=-0.2, low=-0.3, high=-0.1, values=(-0.2, -0.2, -0.2)),
    }
    three = (1.0, 1.0, 1.0)
    return (
        ContributionsRecord(round=0, was=three, effects=effects, updates="kept", reproduced=True),
        WhatIfRecord(
            round=0,
            rounds=1,
            change={"drop": ["ward-c"]},
            was=three,
            would_be=(0.8, 0.8, 0.8),
            effect=Effect(mean=-0.2, low=-0.3, high=-0.1, values=(-0.2, -0.2, -0.2)),
            updates="kept",
            reproduced=True,
            same=False,
        ),
    )


def final(path: Path, nll: float, seed: int, **table: object) -> Path:
    """Write a finished run of two rounds that comes to a loss."""
    cfg = config(2, seed=seed, **table)
    with RunWriter.create(path, cfg.model_dump_json(indent=2)) as writer:
        writer.append(start(writer, cfg))
        for n in range(2):
            writer.append(
                EvaluationRecord(round=n, subject="federated", metrics={"nll": nll + 1 - n})
            )
            writer.append(
                RoundRecord(round=n, clients=CLIENTS, loss=dict.fromkeys(CLIENTS, nll + 2 - n),
                            client_steps=10, bytes_up=2**20, bytes_down=2**20)
            )  # fmt: skip
        writer.append(EndRecord(status="finished"))
    return path


STUDY = """
question = "Does it help?"
control = "plain"
seeds = [0, 1, 2]
noise_pairs = 2
max_client_steps = 1000
[metric]
name = "nll"
direction = "lower"
[arms]
plain = []
hot = ["work.lr=0.02"]
[base]
rounds = 2
[base.cohort]
size = 3
"""


HOT = "work.lr=0.02"


def spec(plain: tuple[str, ...], hot: tuple[str, ...]) -> StudySpec:
    arms = {"arms": {"plain": plain, "hot": hot}}
    return from_table(tomllib.loads(STUDY) | arms, "the study")


def record_study(
    path: Path, upto: str = "verdict", plain: tuple[str, ...] = (), hot: tuple[str, ...] = (HOT,)
) -> Path:
    """Write a study whose arm is 0.5 nats better under every seed.

    Args:
        path: its folder.
        upto: where it was stopped: "floor", "look" or "verdict".
        plain: overrides of the control.
        hot: of the arm.
    """
    with writing(path, spec(plain, hot)) as ledger:
        figures = {0: 2.0, 1: 2.1, 2: 1.9, 3: 2.05}
        for seed, value in figures.items():
            run = f"plain-seed-{seed}"
            ledger.append(
                Measured(run=run, arm="plain", seed=seed, client_steps=40, validation=value)
            )
        if upto == "floor":
            return path
        ledger.append(Floor(figures=figures, planned=3, floor=0.1))
        for name, overrides in (("plain", plain), ("hot", hot)):
            ledger.append(Arm(name=name, overrides=overrides, source="registered"))
        better = {seed: figures[seed] - 0.5 - 0.01 * seed for seed in range(3)}
        for seed, value in better.items():
            ledger.append(
                Measured(run=f"hot-seed-{seed}", arm="hot", seed=seed, client_steps=40,
                         validation=value)
            )  # fmt: skip
        improved = [figures[seed] - better[seed] for seed in range(3)]
        judged = judge({"hot": improved}, floor=0.1, alpha=0.05, planned=3)
        ledger.append(Look(pairs=3, found=judged, open=()))
        if upto == "look":
            return path
        ledger.append(Stopped(why="every arm is decided on the validation split"))
        test = {f"plain-seed-{s}": figures[s] for s in range(3)}
        ledger.append(Unsealed(test=test | {f"hot-seed-{s}": better[s] for s in range(3)}))
        ledger.append(Verdict(found=judged))
    return path
