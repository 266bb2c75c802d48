"""The tool that plays a round again otherwise.  It costs training, so it needs approval.

What comes of it is written where what-ifs are: in the journal of the run, by what holds its lock; a
run that is being written refuses it.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from agents.copilot.acting import Pseudonym
from agents.copilot.ground import ARGS, Found, Ground, Tool
from agents.explain import facts_of_tests
from agents.guard import client_steps
from federation.runs.records import WhatIfRecord

RETRAINS = ("scale_lr", "steps")


class WhatIfArgs(BaseModel):
    """Which round, and what is otherwise in it; 0 and nothing leave it as it was."""

    model_config = ARGS

    round: int = Field(ge=1, description="round, from 1")
    drop: tuple[Pseudonym, ...] = Field(
        default=(), max_length=20, description="clients that do not report, as c3"
    )
    scale_lr: float = Field(default=0.0, ge=0, le=100, description="factor on the learning rate")
    steps: int = Field(default=0, ge=0, le=100_000, description="local steps of every client")
    clip: float = Field(default=0.0, ge=0, le=1e6, description="largest L2 norm of an update")
    repeats: int = Field(default=1, ge=1, le=10, description="how often, for an interval")

    @property
    def changes(self) -> dict[str, Any]:
        """What is otherwise, clients by pseudonym."""
        values = self.model_dump(exclude={"round", "repeats"})
        return {name: value for name, value in values.items() if value}


def cost(ground: Ground, args: WhatIfArgs) -> int:
    """Return the client-steps it may take: as it was and as changed, every time."""
    values = ground.values | ({"steps": float(args.steps)} if args.steps else {})
    kept = ground.config.engine.keep_updates and not any(getattr(args, x) for x in RETRAINS)
    first = 0 if kept else 2
    return int(client_steps(values, 1) * (first + 2 * (args.repeats - 1)))


def faults_of_whatif(ground: Ground, args: WhatIfArgs) -> Iterator[str]:
    """Yield why a what-if may not be played."""
    history = ground.run.history
    if args.round - 1 not in history.rounds:
        yield f"round {args.round} was not played; {len(history.rounds)} rounds were"
        return
    if not args.changes:
        yield "nothing is otherwise: give drop, scale_lr, steps or clip"
    if ground.config.upload.noise is not None:
        yield "this run protects its clients with noise; a round played twice would give them away"
    reported = ground.names.pseudonyms(history.rounds[args.round - 1].clients)
    for name in args.drop:
        if name not in reported:
            yield f"{name} did not report in round {args.round}; {', '.join(reported)} did"
    if (need := cost(ground, args)) > ground.left:
        yield f"{need} client-steps would be needed and {ground.left} are left"


def play(ground: Ground, args: WhatIfArgs) -> Found:
    """Play a round again, and tell of it what may be told."""
    from federation.changes import Change
    from federation.whatif import what_if

    changes = args.changes
    if args.drop:
        changes["drop"] = tuple(ground.names.clients[name] for name in args.drop)
    change = Change.of(**changes)
    often = {"repeats": args.repeats, "cache": ground.cache}
    with ground.watching(1) as watch:
        record = what_if(ground.run.path, args.round - 1, change, watch=watch, **often)
    return told(ground, record, cost(ground, args))


def told(ground: Ground, record: WhatIfRecord, spent: int) -> Found:
    """Turn a what-if into facts; of fewer clients than may be told of, only the person hears."""
    history = ground.run.refresh().history
    names = f"whatif_{'_'.join(sorted(record.change))}"
    tests = facts_of_tests(history, record.round, ground.spec.smallest)
    wanted = {f"{names}{end}" for end in ("", "_was", "_low", "_high")}
    facts = tuple(x for x in tests if x.name in wanted)
    text = "Test loss as it was and as it would have been." if facts else TOO_FEW
    spent = 0 if record.updates == "kept" and len(record.was) == 1 else spent
    return Found(facts, text, f"test loss changes by {record.effect.mean:+.4f}", spent)


TOO_FEW = (
    "It was played and shown to the person. It tells of too few clients to be told here:"
    " such figures stay with the person."
)


def notes_of_whatif(ground: Ground, args: WhatIfArgs) -> Iterator[str]:
    """Say who is meant and what it may cost."""
    yield from ground.names.told(args.drop)
    yield f"up to {cost(ground, args)} client-steps of {ground.left} that are left"
    yield "adds a what-if record to the run, and changes nothing else of it"


WHAT_IF = Tool(
    "what_if",
    "Play a round again otherwise and say what the test loss would have been; needs training.",
    WhatIfArgs,
    play,
    acts=True,
    faults=faults_of_whatif,
    notes=notes_of_whatif,
)
