"""A run that a language model steered, for pages: journal records, nothing trained."""

from pathlib import Path

from agents.knobs import bounds_now, values_model
from agents.proposals import Proposal
from agents.seen import seen, values_before
from agents.spec import PilotSpec
from federation.config import Config
from federation.runs.records import (
    AskedRecord,
    CommandRecord,
    DecisionRecord,
    EndRecord,
    EvaluationRecord,
    Record,
    RollbackRecord,
    RoundRecord,
)
from federation.runs.writer import RunWriter
from federation.specs import LocalWork
from tests.ui.web.recorded import start

CLIENTS = ("airline-1", "bank-1", "law-1")
RAW = '{"abstain": false, "lr": 0.008, "rationale": "it **falls** [fast](http://x.example)"}'
LOSSES = (3.4, 2.3, 1.9, 1.5, 1.38, 1.36, 1.9, 1.2)


def config(rounds: int = 8, **pilot: object) -> Config:
    """A run steered by a scripted model, whose lr and steps are open."""
    bounds = {"lr": [0.001, 0.02], "steps": [2, 8]}
    model = {"policy": "llm", "model": "scripted:script.jsonl", "bounds": bounds}
    work = {"lr": 0.005, "steps": 4}
    table = {"rounds": rounds, "cohort": {"size": 3}, "pilot": model | pilot, "work": work}
    return Config.from_table(table)


def decided(writer: RunWriter, config: Config, n: int) -> DecisionRecord:
    """Decide a round as the pilot writes it down: a model, a refusal, a rule."""
    spec = PilotSpec.of(config)
    assert spec is not None
    observation = seen(writer.history, config, spec, spec.outer(config, 3), n)
    values = values_before(writer.history, config, n)
    refused = n == 4
    wanted = {"lr": 5.0} if refused else {"lr": values["lr"] * (1.25 if n % 2 else 0.9)}
    low, high = LOSSES[n] - 0.1, LOSSES[n] + (0.1 if n != 6 else -0.05)
    proposal = Proposal(
        values=wanted,
        evidence=(f"loss@{n - 1}", f"update_norm@{n - 1}") if n else (),
        expected=(low, high),
        rationale="the loss falls fast, so a little more may be risked",
        source="llm",
    )
    applied = values | ({"lr": values["lr"] / 2} if refused else wanted)
    violations = ["lr 5 is outside 0.0025 to 0.01"] if refused else []
    trace = {"model": "scripted", "prompt_sha256": "ab" * 32, "raw": RAW, "attempts": 1}
    details = {
        "observation_sha256": observation.sha256,
        "asked": "llm:scripted@2",
        "proposal": proposal.model_dump(mode="json"),
        "trace": trace | {"tokens": 812, "prompt": "decide@2"},
        "verdict": "rejected" if refused else "accepted",
        "violations": violations,
        "applied": applied,
        "shadows": {"fixed@1": {}, "plateau@1": {"lr": values["lr"] / 2}},
    }
    return DecisionRecord(
        round=n,
        source="fallback" if refused else "llm",
        policy="plateau@1" if refused else "llm:scripted@2",
        clients=CLIENTS,
        work=LocalWork(lr=applied["lr"], steps=4).model_dump(mode="json"),
        reason=proposal.rationale,
        details=details,  # type: ignore[arg-type]
        seconds=0.4,
    )


def played(n: int) -> Record:
    """Play a round."""
    return RoundRecord(
        round=n,
        clients=CLIENTS,
        loss={name: LOSSES[n] + 0.05 * i - 0.05 for i, name in enumerate(CLIENTS)},
        update_norms=dict.fromkeys(CLIENTS, 2.0),
        bytes_up=30_000,
        bytes_down=30_000,
        seconds=1.0,
        tokens=100,
        client_steps=12,
    )


def asked(config: Config, writer: RunWriter, n: int, lr: float = 0.008) -> AskedRecord:
    """Ask a person what a round should be."""
    spec = PilotSpec.of(config)
    assert spec is not None
    values = values_before(writer.history, config, n)
    bounds = bounds_now(spec.outer(config, 3), values, spec.trust)
    proposal = Proposal(
        values={"lr": lr}, rationale="it still falls; a little faster", source="heuristic"
    )
    over = lr > bounds["lr"].high
    return AskedRecord(
        id=f"round-{n + 1}",
        round=n,
        policy="plateau@1",
        proposal=proposal.model_dump(mode="json"),
        violations=(f"lr {lr:g} is outside 0.0025 to 0.01",) if over else (),
        values=values,
        bounds={k: b.model_dump() for k, b in bounds.items()},
        values_schema=values_model(bounds).model_json_schema(),
        since="2026-11-26T13:40:00+00:00",
    )


def steered(path: Path, done: int = 8, end: str | None = "finished", ask: bool = False) -> Path:
    """Write a run that a model steered; it may end with a question to a person."""
    cfg = config()
    with RunWriter.create(path, cfg.model_dump_json(indent=2)) as writer:
        open_run(writer, cfg, done)
        if ask:
            writer.append(asked(cfg, writer, done))
        if end is not None:
            writer.append(EndRecord(status=end))  # type: ignore[arg-type]
    return path


def open_run(writer: RunWriter, cfg: Config, done: int) -> None:
    """Write so many rounds."""
    writer.append(start(writer, cfg))
    writer.append(EvaluationRecord(subject="base", metrics={"nll": 4.6, "exact_match": 0.0}))
    for n in range(done):
        if n == 6:  # what was decided before knew nothing of these
            arguments = {"n": 2}
            writer.append(
                CommandRecord(
                    id="more", command="more_rounds", arguments=arguments, by="person",
                    accepted=True, round=n,
                )
            )  # fmt: skip
        writer.append(decided(writer, cfg, n))
        writer.append(played(n))
        if n == 6:
            why = "the loss rose by more than a quarter"
            writer.append(RollbackRecord(round=n, to=5, loss=1.9, limit=1.7, reason=why))
        if n % 3 == 2:
            metrics = {"nll": LOSSES[n] - 0.2, "exact_match": n / 20}
            writer.append(EvaluationRecord(round=n, subject="federated", metrics=metrics))
