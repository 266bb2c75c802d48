"""Federations with planted faults: it is known who is wrong, who is slow and who is rare.

Nine ordinary clients hold some desks each; two hold desks that nobody else has; a flipper answers
with a desk three further; a free rider holds ordinary rows and reports no change.  Models are
judged on honest rows of all desks, which no client holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.pilot.simulate import Planted
from benchmarks.pilot.texts import NAMES, Row, row, write_rows
from federation.address import generator
from federation.config import Config
from federation.plan import Reports

ORDINARY = tuple(f"client-{n}" for n in range(1, 10))
RARE = ("rare-1", "rare-2")
FLIPPER, RIDER = "flipper", "rider"
EACH, TEST = 90, 160  # rows of a client, and of the test
COMMON, SELDOM = NAMES[:6], NAMES[6:]
CLAIMED = 4.0  # nats per token: what a free rider says its training loss is


def rows(seed: int, faults: Sequence[str], alike: bool = False) -> Iterator[Row]:
    """Yield the rows of a federation.

    Args:
        seed: of the draws.
        faults: which of flipper and rider there are.
        alike: whether ordinary clients and faulty ones hold all common desks alike; otherwise
            their mixes are skewed.
    """
    draw = generator(seed, "pilot bench", "planted")
    for client in (*ORDINARY, *faults):
        mix = draw.dirichlet([1e3 if alike else 1.0] * len(COMMON))
        for desk in draw.choice(len(COMMON), size=EACH, p=mix):
            answer = (desk + 3) % len(COMMON) if client == FLIPPER else desk
            yield row(client, COMMON[desk], COMMON[answer], draw)
    for client, desk in zip(RARE, SELDOM, strict=True):
        for _ in range(EACH):
            yield row(client, desk, desk, draw)
    for desk in draw.integers(len(NAMES), size=TEST):
        yield row("test", NAMES[desk], NAMES[desk], draw)


def config(
    base: Path, cache: Path, seed: int, faults: Sequence[str], alike: bool = False, **more: Any
) -> Config:
    """Return the configuration of such a federation.

    Args:
        base: folder of the base model.
        cache: folder for its rows.
        seed: of data and run.
        faults: which there are.
        alike: whether clients hold the same desks.
        more: tables of the configuration that are otherwise.
    """
    name = "-".join(["planted", str(seed), *faults, *(["alike"] if alike else [])])
    source = write_rows(cache / f"{name}.jsonl", rows(seed, faults, alike))
    tables = {
        "seed": seed,
        "model": {"base": str(base), "dtype": "float32", "device": "cpu"},
        "adapter": {"rank": 4, "alpha": 8.0, "targets": "all-linear"},
        "data": {
            "source": str(source),
            "prompt": "{message}",
            "response": "{answer}",
            "clients": {"by": "key", "key": "client", "label": "desk", "test_key": "test"},
            "split": {"validation": 0.15, "test": 0.2},
        },
        "work": {"lr": 1e-2, "steps": 3, "batch_size": 8},
        "cohort": {"size": 4},
        "evaluation": {"max_examples": 240},
        "engine": {"chunk": 4, "threads": 1},
        **more,
    }
    return Config.from_table(tables, "planted federation")


def riding(*riders: str) -> Planted:
    """Let clients report no change, and a loss that makes them look worth asking."""

    def plant(reports: Reports) -> Reports:
        lazy_C = torch.tensor([client in riders for client in reports.clients])
        honest = {
            group: x_C * (~lazy_C).to(x_C.dtype).view(-1, *[1] * (x_C.dim() - 1))
            for group, x_C in reports.tree_C.items()
        }
        loss_C = torch.where(lazy_C, torch.full_like(reports.loss_C, CLAIMED), reports.loss_C)
        norm_C = torch.where(lazy_C, torch.zeros_like(reports.norm_C), reports.norm_C)
        return replace(reports, tree_C=honest, loss_C=loss_C, norm_C=norm_C)

    return plant
