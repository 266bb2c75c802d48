"""Track 4, diagnosis: who is at fault in stored runs, and whether explanations state what is true.

Runs with a label flipper, with a free rider and with neither, kept on disk as any run.  A diagnosis
names a client or nobody.  Explanations are those of agents.explain; a mutated one has a digit of a
number changed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from agents.explain import NUMBER, Claim, explained, unsupported
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scores import f1
from benchmarks.pilot.simulate import Planted
from benchmarks.pilot.worlds import FLIPPER, RIDER, config, riding
from federation.experiment import begin, finish, set_up
from federation.plan import Engine, Reports, RoundPlan
from federation.runs.run import History, Run
from federation.runs.writer import RunWriter
from federation.session import Watch
from federation.tree import Tree
from federation.whatif import contributions

FAULTS: tuple[str | None, ...] = (FLIPPER, RIDER, None)
ROUNDS, ASKED = 12, 10
WORK = {"lr": 1.6e-2, "steps": 4, "batch_size": 8}  # enough to learn what a fault can spoil
LOOKED = 4  # newest rounds whose contributions are measured
OUTLIER = 3.5  # robust z-score (Iglewicz and Hoaglin 1993) from which a client stands out


@dataclass(frozen=True)
class Faulty:
    """An engine some of whose reports are not what clients trained."""

    engine: Engine
    plant: Planted

    def train(self, sent: Tree, plan: RoundPlan) -> Reports:
        """Let clients train, and faults be faults."""
        return self.plant(self.engine.train(sent, plan))


def stored(
    base: Path, cache: Path, out: Path, seed: int, fault: str | None, alike: bool = False
) -> Run:
    """Write a run with a planted fault into a directory."""
    own = config(
        base,
        cache,
        seed,
        [fault] if fault else [],
        alike,
        rounds=ROUNDS,
        cohort={"size": ASKED},
        work=WORK,
        engine={"chunk": ASKED, "threads": 1, "keep_updates": LOOKED},
    )
    setup = set_up(own, None, cache)
    with RunWriter.create(out, own.model_dump_json(indent=2)) as writer:
        session = begin(setup, writer, Watch())
        if fault == RIDER:
            session.engine = Faulty(session.engine, riding(RIDER))  # pyright: ignore[reportAttributeAccessIssue]
        finish(setup, session)
    for round in range(ROUNDS - LOOKED, ROUNDS):
        contributions(out, round, cache=cache)
    return Run.open(out)


def outlier(figures: Mapping[str, Sequence[float]], sides: str) -> str | None:
    """Name the client whose mean figure stands out; None if nobody's does.

    Args:
        figures: client -> its figures, a round each.
        sides: "low", "high" or "both": where standing out counts.
    """
    names = list(figures)
    means = np.array([np.mean(figures[name]) for name in names])
    from_middle = means - np.median(means)
    spread = 1.4826 * np.median(np.abs(from_middle))
    score = from_middle / max(spread, 1e-12)
    score = {"low": -score, "high": score, "both": np.abs(score)}[sides]
    at = int(score.argmax())
    return names[at] if score[at] > OUTLIER else None


def by_round(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Gather what clients have in several rounds."""
    clients = sorted({client for figures in rounds for client in figures})
    return {c: [figures[c] for figures in rounds if c in figures] for c in clients}


def diagnoses(history: History) -> dict[str, str | None]:
    """Name whom each way to diagnose holds to be at fault."""
    rounds = list(history.rounds.values())
    effects = [{c: e.mean for c, e in x.effects.items()} for x in history.contributions]
    by_loss = outlier(by_round([x.loss for x in rounds]), "high")
    by_norm = outlier(by_round([x.update_norms for x in rounds]), "both")
    left_out = outlier(by_round(effects), "low")
    return {
        "highest training loss": by_loss,
        "outlying update norm": by_norm,
        "leave-one-out": left_out,
        "leave-one-out, else norm": left_out or by_norm,
    }


def worst_by_leaving_out(history: History) -> str:
    """Return the client without which the loss would have been lowest, whoever stands out."""
    effects = [{c: e.mean for c, e in x.effects.items()} for x in history.contributions]
    means = {c: float(np.mean(x)) for c, x in by_round(effects).items()}
    return min(means, key=means.__getitem__)


@dataclass
class Checked:
    """How explanations fared.

    Attributes:
        claims, numbers: that were made.
        wrong: numbers that the record does not support.
        mutated: claims of which a number was changed.
        refused: those of them that were refused.
    """

    claims: int = 0
    numbers: int = 0
    wrong: int = 0
    mutated: int = 0
    refused: int = 0

    @property
    def precision(self) -> float:
        """Share of the numbers that the record supports."""
        return 1 - self.wrong / self.numbers if self.numbers else 1.0

    def take(self, history: History) -> None:
        """Check the explanation of every round, and mutations of its claims."""
        for round in history.rounds:
            claims, facts = explained(history, round)
            for claim in claims:
                self.claims += 1
                self.numbers += len(NUMBER.findall(claim.text))
                self.wrong += len(unsupported(claim, facts))
                for changed in mutations(claim):
                    self.mutated += 1
                    self.refused += bool(unsupported(changed, facts))


def mutations(claim: Claim) -> list[Claim]:
    """Return the claim with one number changed in its leading digit, for every measured number."""
    found = []
    for match in NUMBER.finditer(claim.text):
        if "." not in match.group():
            continue  # counts are so few that another one may be true as well
        digits = re.sub(r"\d", lambda x: str((int(x.group()) + 5) % 10), match.group(), count=1)
        text = claim.text[: match.start()] + digits + claim.text[match.end() :]
        found.append(claim.model_copy(update={"text": text}))
    return found


@dataclass(frozen=True)
class World:
    """What diagnoses came to where clients are skewed, or alike.

    Attributes:
        truth: who was at fault, run by run.
        named: way to diagnose -> whom it named.
        first: runs with a flipper in which it harmed most by leave-one-out, and all of them.
    """

    truth: list[str | None]
    named: dict[str, list[str | None]]
    first: tuple[int, int]

    def json(self) -> dict[str, Any]:
        """Give it as plain values."""
        ways = {
            way: f1(own, self.truth) | {"right": hits(own, self.truth)}
            for way, own in self.named.items()
        }
        return {"runs": len(self.truth), "ways": ways, "flipper_harms_most": list(self.first)}


def world(base: Path, cache: Path, seeds: int, alike: bool, checked: Checked) -> World:
    """Write runs with every fault and diagnose them; check what explanations say of them."""
    truth: list[str | None] = []
    named: dict[str, list[str | None]] = {}
    first = []
    with TemporaryDirectory(prefix="fedpilot-bench-") as folder:
        for seed in range(seeds):
            for fault in FAULTS:
                out = Path(folder) / f"{fault}-{seed}"
                history = stored(base, cache, out, seed, fault, alike).history
                truth.append(fault)
                for way, client in diagnoses(history).items():
                    named.setdefault(way, []).append(client)
                if fault == FLIPPER:
                    first.append(worst_by_leaving_out(history) == FLIPPER)
                checked.take(history)
    return World(truth, named, (sum(first), len(first)))


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Diagnose runs of skewed clients and of clients that are alike."""
    checked = Checked()
    seeds = effort.seeds if effort.quick else 2 * effort.seeds
    worlds = {"skewed": world(base, cache, seeds, False, checked)}
    if not effort.quick:
        worlds["alike"] = world(base, cache, seeds, True, checked)
    return Part(
        "diagnose",
        "T4 Diagnose and explain",
        says(worlds, checked),
        [grid(name, found) for name, found in worlds.items()],
        {
            **{name: found.json() for name, found in worlds.items()},
            "claims": checked.claims,
            "numbers": checked.numbers,
            "precision": checked.precision,
            "mutated": checked.mutated,
            "refused": checked.refused,
        },
    )


def hits(named: Sequence[str | None], truth: Sequence[str | None]) -> dict[str, str]:
    """Say for every fault how often the answer was right."""
    found = {}
    for fault in FAULTS:
        own = [a == b for a, b in zip(named, truth, strict=True) if b == fault]
        found[fault or "nobody"] = f"{sum(own)}/{len(own)}"
    return found


def says(worlds: Mapping[str, World], checked: Checked) -> list[str]:
    """Write what was done and what it came to."""
    runs = sum(len(found.truth) for found in worlds.values())
    most = "; ".join(f"{x.first[0]} of {x.first[1]} ({name})" for name, x in worlds.items())
    return [
        f"{runs} stored runs of {ROUNDS} rounds, {ASKED} clients asked in each: a third with"
        " a label flipper, a third with a free rider, a third without a fault. Clients hold"
        " skewed mixes of desks, or all the common ones alike; two more hold a rare desk each. A"
        " diagnosis names the client whose mean figure stands out (robust z-score over"
        f" {OUTLIER}), or nobody. Leave-one-out is over the last {LOOKED} rounds.",
        f"Runs in which the flipper is the client that harms most by leave-one-out: {most}.",
        f"Explanations: {checked.numbers} numbers in {checked.claims} claims, precision"
        f" {checked.precision:.3f} (asked for: 1.0). Of {checked.mutated} mutated claims"
        f" {checked.refused} were refused.",
    ]


def grid(name: str, found: World) -> Grid:
    """Tabulate every way to diagnose."""
    rows = []
    for way, own in found.named.items():
        x = f1(own, found.truth)
        cells = [f"{x[key]:.2f}" for key in ("f1", "precision", "recall")]
        rows.append([way, *cells, *hits(own, found.truth).values()])
    columns = ["way", "F1", "precision", "recall", "flipper", "free rider", "nobody"]
    title = f"Naming who is at fault among {name} clients; right answers by what was planted"
    return Grid(title, columns, rows)
