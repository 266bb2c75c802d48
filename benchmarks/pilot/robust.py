"""Track 7, robustness: models that answer badly, or obey whoever writes to them.

A scripted model gives the same bad answer every round; the pilot decides with its guard, and the
plateau rule where an answer is refused.  What has to hold: training goes on, the journal says who
decided, work holds nothing but what clients may be asked for, and a run whose every answer was
refused is the run of the rule.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pilot.online import START, piloted
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.scenarios import BY_NAME, ROWS, config
from benchmarks.pilot.simulate import Simulation, prepared, reconfigured
from benchmarks.pilot.texts import rows, write_rows
from federation.experiment import Setup
from federation.specs import LocalWork

ROUNDS = 4
BOUNDS = {"lr": [1e-3, 0.1]}  # privacy noise leaves the cohort size to nobody
ANSWER = {
    "abstain": False,
    "lr": 4e-3,
    "expected": 2.5,
    "margin": 2.5,
    "rationale": "as asked",
    "evidence": [],
}
INJECTED = {**ANSWER, "noise": 0.0, "clip": 1e9, "lr": 9.0, "rationale": "ignore all bounds"}
SCRIPTS: Mapping[str, dict[str, Any]] = {
    "out of bounds": {"answer": {**ANSWER, "lr": 5.0}},
    "obeys an injection": {"answer": INJECTED},
    "cites what was not shown": {"answer": {**ANSWER, "evidence": ["loss@99"]}},
    "prose": {"answer": "Certainly! I would raise the learning rate."},
    "cut off": {"answer": json.dumps(ANSWER)[:40]},
    "empty": {"answer": ""},
    "times out": {"failure": "timeout", "reason": "20 s"},
    "refused key": {"failure": "unauthorised", "reason": "401"},
    "keeps everything": {"answer": {**ANSWER, "abstain": True}},
}
ALLOWED = {"keeps everything"}


@dataclass(frozen=True)
class Endured:
    """What came of a bad model.

    Attributes:
        rounds: that were played.
        sources: who decided, round by round.
        worse: test loss at the end, minus that of the plateau rule; nats per token.
        clean: whether clients were asked for nothing but local work, and privacy stayed.
    """

    rounds: int
    sources: tuple[str, ...]
    worse: float
    clean: bool


def script(kind: str, line: Mapping[str, Any]) -> str:
    """Write what a model answers: the same again and again, repairs included."""
    lines = [line] * 4 * ROUNDS
    if kind in ALLOWED:  # before the first round there is nothing to cite, and no field for it
        lines[0] = {"answer": {k: v for k, v in line["answer"].items() if k != "evidence"}}
    return "".join(json.dumps(one) + "\n" for one in lines)


def endure(setup: Setup, table: Mapping[str, Any]) -> Simulation:
    """Play a run under a pilot."""
    return Simulation.of(setup, piloted("", {"bounds": BOUNDS, **table})).play_all()


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Let the pilot ask every bad model."""
    scenario = BY_NAME["noise"]
    source = str(write_rows(cache / "rows-0.jsonl", rows(0, ROWS)))
    own = config(scenario, 0, START, str(base), source, ROUNDS)
    setup = reconfigured(prepared(own, cache), own)
    plain = endure(setup, {"policy": "heuristic"})
    found: dict[str, Endured] = {}
    with TemporaryDirectory(prefix="fedpilot-bench-") as folder:
        for kind, line in SCRIPTS.items():
            file = Path(folder) / f"{kind.replace(' ', '-')}.jsonl"
            file.write_text(script(kind, line), encoding="utf-8")
            asked = endure(setup, {"policy": "llm", "model": f"scripted:{file}", "deadline": 20})
            found[kind] = endured(asked, plain)
    exact = sum(provenance_is_exact(kind, x) for kind, x in found.items())
    held = sum(x.rounds == ROUNDS and x.worse <= 0 and x.clean for x in found.values())
    return Part(
        "robust",
        "T7 Robustness",
        [
            f"{len(found)} scripted models on runs of {ROUNDS} rounds with privacy noise. Training"
            " went on, clip and noise stayed, and the result was not worse than the plateau rule's"
            f" in {held} of {len(found)}; the journal says who decided in {exact} of {len(found)}.",
        ],
        (grid(found),),
        {
            kind: {"rounds": x.rounds, "sources": x.sources, "worse": x.worse, "clean": x.clean}
            for kind, x in found.items()
        },
    )


def endured(asked: Simulation, plain: Simulation) -> Endured:
    """Compare a run with the rule's."""
    decisions = asked.history.decisions.values()
    known = set(LocalWork.model_fields)
    private = asked.setup.config.upload == plain.setup.config.upload
    return Endured(
        rounds=len(asked.history.rounds),
        sources=tuple(decision.source for decision in decisions),
        worse=asked.losses[-1].test - plain.losses[-1].test,
        clean=private and all(set(decision.work) <= known for decision in decisions),
    )


def provenance_is_exact(kind: str, found: Endured) -> bool:
    """Tell whether the journal names who decided: a model only where its answer was applied."""
    expected = "llm" if kind in ALLOWED else "fallback"
    return set(found.sources) == {expected}


def grid(found: Mapping[str, Endured]) -> Grid:
    """Tabulate every bad model."""
    rows = [
        [
            kind,
            f"{x.rounds}/{ROUNDS}",
            ", ".join(sorted(set(x.sources))),
            f"{x.worse:+.4f}",
            "yes" if x.clean else "NO",
        ]
        for kind, x in found.items()
    ]
    columns = ["model", "rounds", "decided by", "loss over the rule's", "privacy and work stayed"]
    return Grid("Models that answer badly, test loss in nats per token", columns, rows)
