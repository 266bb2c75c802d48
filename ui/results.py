"""What a run came to, as plain values and in order: one row for each model that was compared.

Knows a run directory as its readers see it; draws nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from federation.config import Config
from federation.pretraining.recipe import recipe_of
from federation.runs import folder
from federation.runs.records import AskedRecord, ContributionsRecord, WhatIfRecord, body
from federation.runs.run import Figures, Run

BASELINES = ("local", "centralised")
NAMES = {
    "base": "base model",
    "local": "each client alone",
    "federated": "federated",
    "centralised": "centralised",
}
"""What people call the subjects of evaluations, in the order in which they are shown."""
FROM_SCRATCH = "none (from scratch)"
SPLITS = ("clients", "unseen", "unseen_clients", "validation")


@dataclass(frozen=True)
class Row:
    """One model and what it cost.

    Attributes:
        subject: base, local, federated or centralised.
        test: its figures on the global test set.
        clients: its figures over clients, each on its own test.
        bytes_down: bytes that clients received; None where nothing travels, or the data would.
        bytes_up: bytes that clients sent.
        seconds: seconds of training; None for the base model.
    """

    subject: str
    test: Mapping[str, float]
    clients: Mapping[str, float]
    bytes_down: int | None
    bytes_up: int | None
    seconds: float | None


def compared(run: Run) -> list[Row]:
    """Put the models of a run side by side, the worst first as a rule."""
    test, clients = run.figures("test"), run.figures("clients")
    own = own_subject(run)
    costs = {own: (run.bytes_down, run.bytes_up, run.seconds)}
    costs |= {name: (None, None, baseline.seconds) for name, baseline in baselines(run).items()}
    subjects = [name for name in NAMES if name in test or name in clients]
    nothing = (None, None, None)
    return [
        Row(name, test.get(name, {}), clients.get(name, {}), *costs.get(name, nothing))
        for name in subjects
    ]


def own_subject(run: Run) -> str:
    """Return whose model a run trains: "federated", unless its algorithm is a baseline."""
    name = algorithm(run)
    return name if name in BASELINES else "federated"


def algorithm(run: Run) -> str:
    """Return the name of a run's algorithm."""
    return asked(run).algorithm


@dataclass(frozen=True)
class Asked:
    """What a run was asked for, be it fine-tuning or pre-training.

    Attributes:
        algorithm: its name.
        base: the model that it started from.
        data: where its text came from.
        rounds: how many there are to be.
        makes: folder of the run directory in which the model is in the end.
    """

    algorithm: str
    base: str
    data: str
    rounds: int
    makes: str


def asked(run: Run) -> Asked:
    """Read what a run was asked for.

    Raises:
        ConfigError: if its configuration is not understood.
    """
    recipe = recipe_of(run)
    if recipe is None:
        config = configuration(run)
        base, data = config.model.base, config.data.source
        return Asked(config.algorithm.name, base, data, run.rounds_planned, "adapter")
    sources = ", ".join(recipe.epochs)
    return Asked("diloco", recipe.model.init or FROM_SCRATCH, sources, run.rounds_planned, "model")


def configuration(run: Run) -> Config:
    """Return a run's configuration as a typed value."""
    return Config.from_table(run.config, str(run.path / "config.json"))


def baselines(run: Run) -> dict[str, Run]:
    """Open the baselines that a run holds."""
    found = {name: run.path / folder.BASELINES / name for name in BASELINES}
    return {name: Run.open(path) for name, path in found.items() if folder.is_run(path)}


def as_json(run: Run) -> dict[str, JsonValue]:
    """Give what a script asks of a run; rounds are numbered from 1."""
    wanted = asked(run)
    return {
        "path": str(run.path),
        "status": run.status,
        "paused": run.paused,
        "asking": asking(run),
        "algorithm": wanted.algorithm,
        "base": wanted.base,
        "rounds": len(run.history.rounds),
        "rounds_planned": wanted.rounds,
        "tokens": tokens(run),
        "training_loss": mean(run.rounds[-1].record.loss) if run.rounds else None,
        "bytes_up": run.bytes_up,
        "bytes_down": run.bytes_down,
        "seconds": run.seconds,
        "evaluation": plain(run.evaluation),
        **{split: plain(run.figures(split)) for split in SPLITS},
        "history": [
            {
                "round": x.round + 1,
                "loss": mean(x.record.loss),
                "tokens": x.record.tokens,
                "clients": list(x.record.clients),
                "missing": dict(x.record.missing),
                "evaluation": plain(x.evaluation),
            }
            for x in run.rounds
        ],
        "warnings": [warning.text for warning in run.history.warnings],
    }


def asking(run: Run) -> JsonValue:
    """Give what a person is to answer before a run goes on; None if that is nothing."""
    return None if run.asking is None else listed(run.asking)


def listed(record: AskedRecord | WhatIfRecord | ContributionsRecord) -> dict[str, JsonValue]:
    """Give a record to a script; rounds are numbered from 1, as people do."""
    values = body(record)
    if not isinstance(values, dict):
        raise AssertionError("a record is a table")
    return {**values, "round": record.round + 1}


def tokens(run: Run) -> int:
    """Count the tokens that committed rounds learnt from."""
    return sum(record.tokens for record in run.history.rounds.values())


def plain(figures: Figures) -> dict[str, JsonValue]:
    """Copy figures as JSON values; JSON has no number for what is not finite: it becomes null."""
    return {
        subject: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for subject, metrics in figures.items()
    }


def mean(values: Mapping[str, float]) -> float | None:
    """Average over clients; None without clients, or where one is not finite."""
    total = math.fsum(values.values()) if all(map(math.isfinite, values.values())) else math.nan
    return total / len(values) if values and math.isfinite(total) else None


def question(asked: AskedRecord) -> str:
    """Write what a person is asked: what is proposed, why, and how far it may be turned."""
    proposal = asked.proposal
    if proposal is None:
        said = "nothing is proposed: the policy failed"
    else:
        values = proposal.get("values")
        moved = values if isinstance(values, dict) else {}
        moves = ", ".join(
            f"{name} {asked.values.get(name, math.nan):.4g} to {value:.4g}"
            for name, value in moved.items()
            if isinstance(value, int | float)
        )
        said = f"{moves or 'everything as it is'} ({proposal.get('rationale')})"
    ranges = ", ".join(
        f"{name} from {bound['low']:.4g} to {bound['high']:.4g}"
        for name, bound in asked.bounds.items()
        if isinstance(bound, dict)
    )
    return (
        f"{asked.policy} proposes for round {asked.round + 1}: {said}; open: {ranges or 'nothing'}"
    )
