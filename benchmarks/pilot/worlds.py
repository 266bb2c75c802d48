"""Federations with planted faults: it is known who is wrong, who is slow and who is rare.

Nine ordinary clients hold some desks each; two hold desks that nobody else has; a flipper answers
with a desk three further; a free rider holds ordinary rows and reports no change.  Models are
judged on honest rows of all desks, which no client holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.pilot.texts import NAMES, Row, row, write_rows
from federation.address import generator
from federation.config import Config
from federation.plan import Reports
from federation.tree import Tree

ORDINARY = tuple(f"client-{n}" for n in range(1, 10))
RARE = ("rare-1", "rare-2")
FLIPPER, RIDER = "flipper", "rider"
EACH, TEST = 90, 160  # rows of a client, and of the test
COMMON, SELDOM = NAMES[:6], NAMES[6:]
SENDS = ("nothing", "noise", "copy")  # what a free rider may send
CLAIMED = 4.0  # nats per token: what a free rider says its training loss is


def rows(seed: int, faults: Sequence[str], alike: bool = False) -> Iterator[Row]:
    """Yield the rows of a federation.

    Args:
        seed: of the draws.
        faults: who is faulty: names that begin with flipper answer wrongly, others do not.
        alike: whether ordinary clients and faulty ones hold all common desks alike; otherwise
            their mixes are skewed.
    """
    draw = generator(seed, "pilot bench", "planted")
    for client in (*ORDINARY, *faults):
        mix = draw.dirichlet([1e3 if alike else 1.0] * len(COMMON))
        for desk in draw.choice(len(COMMON), size=EACH, p=mix):
            answer = (desk + 3) % len(COMMON) if client.startswith(FLIPPER) else desk
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


@dataclass
class Riding:
    """Free riders: clients that train nothing, and what they send in the place of an update.

    "nothing" is no change and a loss that makes a client look worth asking.  "noise" is as long as
    the others' updates.  "copy" is what the model has become since the client was last asked,
    as in Lin, Du and Liu 2019 (arXiv:1911.12560, delta weights); the first time it is noise.  Both
    claim the loss that training would have had.

    Attributes:
        riders: client -> what it sends.
        seen: client -> parameters that it was sent last, ``(P,)``.
        times: how often anybody was asked.
    """

    riders: Mapping[str, str]
    seen: dict[str, Tensor] = field(default_factory=dict)
    times: int = 0

    def __call__(self, sent: Tree, reports: Reports) -> Reports:
        """Put what riders send in the place of what they would have trained."""
        self.times += 1
        delta_C, loss_C = reports.tree_C["delta"].clone(), reports.loss_C.clone()
        honest = [i for i, client in enumerate(reports.clients) if client not in self.riders]
        long = delta_C[honest].norm(dim=1).median() if honest else delta_C.norm(dim=1).median()
        for i, client in enumerate(reports.clients):
            if client not in self.riders:
                continue
            sends = self.riders[client]
            if sends == "nothing":
                delta_C[i], loss_C[i] = 0, CLAIMED
            elif sends == "copy" and client in self.seen:
                delta_C[i] = sent["params"] - self.seen[client]
            else:
                noise = self.noise(client, delta_C.shape[1])
                delta_C[i] = noise * (long / noise.norm())
            self.seen[client] = sent["params"].clone()
        lazy_C = torch.tensor([client in self.riders for client in reports.clients])
        norm_C = torch.where(lazy_C, delta_C.norm(dim=1).double(), reports.norm_C)
        tree_C = {**reports.tree_C, "delta": delta_C}
        return replace(reports, tree_C=tree_C, loss_C=loss_C, norm_C=norm_C)

    def noise(self, client: str, size: int) -> Tensor:
        """Draw a direction, ``(P,)``."""
        drawn = generator("pilot bench", "rider", client, self.times).standard_normal(size)
        return torch.from_numpy(drawn).float()
