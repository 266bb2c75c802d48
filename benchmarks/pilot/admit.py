"""Track 6, synthesis: the gate lets in a set that helps and no set that does not.

Three sets of the same size: rows of the rare desks with true answers, the same messages with drawn
answers, and rows that say nothing.  The gate is that of agents.synthesis.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from agents.synthesis.gate import Verdict, judge
from agents.synthesis.profile import GateSpec
from benchmarks.pilot import warm
from benchmarks.pilot.parts import Effort, Grid, Part
from benchmarks.pilot.texts import NAMES, Row, row, write_rows
from benchmarks.pilot.worlds import ORDINARY, SELDOM, config
from federation.address import generator

WARM = (
    "`pilot.synthetic` has a gate of its own: it trains the first adapter on a set, and on the same"
    " set with its answers dealt out anew, from the same start, and admits it if the first is"
    " better than the second and than a fresh adapter. The federations are the demo's, of other"
    " seeds than those on which it was made."
)
EACH = 25  # rows for every ordinary client
SHOULD: Mapping[str, bool] = {"true answers": True, "drawn answers": False, "empty words": False}


def made(kind: str) -> Iterator[Row]:
    """Yield a synthetic set."""
    draw = generator("pilot bench", "set")
    for client in ORDINARY:
        for n in range(EACH):
            desk = SELDOM[n % len(SELDOM)]
            answer = NAMES[int(draw.integers(len(NAMES)))] if kind == "drawn answers" else desk
            found = row(client, desk, answer, draw)
            yield found | {"message": "please", "answer": "ask"} if kind == "empty words" else found


def run(base: Path, cache: Path, effort: Effort) -> Part:
    """Let the gate judge every set."""
    spec = GateSpec(seeds=3 if effort.quick else 5)
    own = config(base, cache, 0, [], rounds=2 if effort.quick else 8)
    found: dict[str, Verdict] = {}
    for kind in SHOULD:
        file = write_rows(cache / f"set-{kind.replace(' ', '-')}.jsonl", made(kind))
        found[kind] = judge(file, own, spec, cache, lambda words: None)
    right = sum(found[kind].admitted == should for kind, should in SHOULD.items())
    return Part(
        "synthesis",
        "T6 Synthesise",
        [
            f"The gate trains with and without a set under {spec.seeds} seeds and admits it if the"
            " 95 % interval of the gain on the global test lies above zero."
            f" {right} of {len(SHOULD)} verdicts are as they should be.",
            WARM,
        ],
        (grid(found), *warm.grids(cache, effort)),
        {kind: x.json() for kind, x in found.items()},
    )


def grid(found: Mapping[str, Verdict]) -> Grid:
    """Tabulate the verdicts."""
    rows = [
        [
            kind,
            f"{np.mean(x.without):.3f}",
            f"{np.mean(x.having):.3f}",
            f"{x.gain:.3f} [{x.low:.3f}, {x.high:.3f}]",
            "admitted" if x.admitted else "rejected",
            "admitted" if SHOULD[kind] else "rejected",
        ]
        for kind, x in found.items()
    ]
    columns = ["set", "loss without", "loss with", "gain", "verdict", "should be"]
    return Grid("Synthetic sets at the gate, test loss in nats per token", columns, rows)
