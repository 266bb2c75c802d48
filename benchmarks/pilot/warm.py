"""Track 6, warm starts: whom the gate of ``pilot.synthetic`` admits, and what a start is worth.

The federation is the demo's, another one under every seed.  Sets of equally many rows: as the
templates make them, the same with answers dealt out anew, the same with drawn words for answers.
Then the run itself, with what the pilot makes of the first and without, judged on its test set.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from agents.experiment import run_experiment
from agents.spec import SyntheticSpec
from agents.synthesis.gate import Verdict
from agents.synthesis.make import synthesize
from agents.synthesis.warm import prepared, profile_of, tried
from benchmarks.pilot.parts import Effort, Grid
from benchmarks.pilot.scores import interval, lift, wilson, written
from federation.address import generator
from federation.config import Config
from federation.data.dataset import resolved
from federation.experiment import Setup
from ui.commands.demo import SETTINGS

Rows = list[dict[str, Any]]
SEEDS = range(100, 108)  # size and steps of a start were chosen on 0 to 3
WORDS = ("river", "seven", "blue", "never", "table", "often", "north", "paper")


def as_made(rows: Rows, seed: int) -> Rows:
    """Leave a set as it is."""
    return rows


def dealt(rows: Rows, seed: int) -> Rows:
    """Deal the answers out anew."""
    order = generator(seed, "pilot bench", "dealt").permutation(len(rows))
    return [row | {"response": rows[i]["response"]} for row, i in zip(rows, order, strict=True)]


def drawn(rows: Rows, seed: int) -> Rows:
    """Answer with drawn words."""
    draw = generator(seed, "pilot bench", "words")
    return [row | {"response": " ".join(draw.choice(WORDS, 2))} for row in rows]


KINDS: Mapping[str, tuple[Callable[[Rows, int], Rows], bool]] = {
    "as the templates make them": (as_made, True),
    "their answers dealt out anew": (dealt, False),
    "drawn words for answers": (drawn, False),
}


def grids(cache: Path, effort: Effort) -> tuple[Grid, Grid]:
    """Let the gate judge sets of other federations, and play these with and without."""
    few = {"size": 6, "steps": 2, "examples": 8} if effort.quick else {}
    seeds = SEEDS[:2] if effort.quick else SEEDS
    spec = SyntheticSpec.model_validate(few)
    found: dict[str, list[Verdict]] = {kind: [] for kind in KINDS}
    for seed in seeds:
        config = configured(seed, effort, {})
        setup = prepared(config, cache)
        rows = made(setup, spec, cache)
        for kind, (change, _) in KINDS.items():
            file = cache / f"warm-{seed}.jsonl"
            lines = (json.dumps(row) + "\n" for row in change(rows, seed))
            file.write_text("".join(lines))
            found[kind].append(tried(file, setup, spec).verdict)
    return verdicts(found), outcomes(cache, effort, spec, seeds)


def configured(seed: int, effort: Effort, pilot: Mapping[str, Any]) -> Config:
    """Return the demo's run under a seed, without baselines, with a pilot that makes this up."""
    more = ["evaluation.baselines=[]", "evaluation.metrics=['nll']", f"seed={seed}"]
    config = Config.from_toml(SETTINGS, [*more, *(["rounds=1"] if effort.quick else [])])
    table = {key: value for key, value in config.pilot.items() if key != "synthetic"} | {**pilot}
    return resolved(config.model_copy(update={"pilot": table}), Path.cwd())


def made(setup: Setup, spec: SyntheticSpec, cache: Path) -> Rows:
    """Make the rows that the pilot would make."""
    profile, seed = profile_of(setup, spec), setup.config.data_seed
    found = synthesize(profile, seed=seed, cache=cache / "synthesis")
    return [row.model_dump() for row in found.rows]


def verdicts(found: Mapping[str, list[Verdict]]) -> Grid:
    """Tabulate who was admitted."""
    rows = [
        [
            kind,
            admitted(judged),
            written(interval([x.gain for x in judged], "pilot bench", "warm", kind)),
            "admitted" if KINDS[kind][1] else "rejected",
        ]
        for kind, judged in found.items()
    ]
    title = (
        "Warm starts at the gate, gain over the better control in nats per token of validation,"
        " a federation a seed"
    )
    return Grid(title, ["set", "admitted", "gain", "should be"], rows)


def admitted(judged: Sequence[Verdict]) -> str:
    """Write how many of the sets were admitted."""
    hits, count = sum(x.admitted for x in judged), len(judged)
    return f"{hits}/{count}, {written(wilson(hits, count), 2)}"


def outcomes(cache: Path, effort: Effort, spec: SyntheticSpec, seeds: Sequence[int]) -> Grid:
    """Play the runs with and without what the pilot makes up, and compare their test losses."""
    tables = {"without": {}, "with": {"synthetic": spec.model_dump(exclude_unset=True)}}
    loss: dict[str, list[float]] = {arm: [] for arm in tables}
    for seed in seeds:
        for arm, pilot in tables.items():
            with TemporaryDirectory(prefix="fedpilot-bench-") as folder:
                config = configured(seed, effort, pilot)
                run = run_experiment(config, Path(folder) / "run", cache=cache)
                loss[arm].append(run.figures("test")["federated"]["nll"])
    address = "pilot bench", "warm", "outcome"
    gain = lift(np.array(loss["with"]), np.array(loss["without"]), *address)
    lower = f"{written(gain.interval)}, {gain.wins} of {len(seeds)} lower"
    rows = [
        [arm, written(interval(losses, *address, arm)), lower if arm == "with" else "-"]
        for arm, losses in loss.items()
    ]
    title = f"Test loss after {configured(0, effort, {}).rounds} rounds, nats per token"
    return Grid(title, ["warm start", "loss", "lower by, paired"], rows)
