"""Runs for pages to show: journals written record by record, nothing trained."""

from collections.abc import Iterator
from pathlib import Path

from federation.config import Config
from federation.runs.records import (
    DecisionRecord,
    EndRecord,
    EvaluationRecord,
    ExplanationRecord,
    Record,
    RoundRecord,
    StartRecord,
)
from federation.runs.writer import RunWriter
from federation.specs import LocalWork

SOURCES = ("heuristic", "heuristic", "optimizer", "fallback")


def config(rounds: int = 6, **table: object) -> Config:
    return Config.from_table(
        {"rounds": rounds, "cohort": {"size": 3}, "pilot": {"policy": "heuristic"}} | table
    )


def start(writer: RunWriter, config: Config) -> StartRecord:
    return StartRecord(
        seed=config.seed,
        chunk_size=4,
        threads=1,
        dtype="float32",
        versions={"python": "3.11"},
        config_sha256=writer.config_sha256,
    )


def of_round(n: int, clients: tuple[str, ...], missing: dict[str, str]) -> Iterator[Record]:
    """What a journal says of a round whose loss falls and whose learning rate halves at times."""
    lr = 0.01 / (1 + n // 3)
    source = SOURCES[n % len(SOURCES)]
    details = {
        "applied": {"lr": lr, "steps": 4.0, "cohort_size": float(len(clients))},
        "verdict": "rejected" if source == "fallback" else "accepted",
        "violations": ["lr 5 is outside 0.001 to 0.1"] if source == "fallback" else [],
        "shadows": {"fixed@1": {"lr": 0.01}},
        "proposal": None,
        "trace": {},
        "asked": "plateau@1",
        "observation_sha256": "0" * 64,
    }
    yield DecisionRecord(
        round=n,
        source=source,  # type: ignore[arg-type]
        policy="plateau@1",
        clients=(*clients, *missing),
        work=LocalWork(lr=lr, steps=4).model_dump(mode="json"),
        reason="because",
        details=details,  # type: ignore[arg-type]
    )
    yield ExplanationRecord(
        round=n, source="heuristic", text=f"Round {n + 1}: loss {3 / (n + 1):.3f}."
    )
    metrics = {"nll": 3 / (n + 1), "exact_match": n / 20}
    yield EvaluationRecord(round=n, subject="federated", metrics=metrics)
    yield RoundRecord(
        round=n,
        clients=clients,
        missing=missing,
        loss={client: 3 / (n + 1) + 0.1 * i for i, client in enumerate(clients)},
        update_norms=dict.fromkeys(clients, 1.0),
        bytes_up=1000 * len(clients),
        bytes_down=1000 * len(clients),
        seconds=1.5,
        tokens=100,
        client_steps=4 * len(clients),
    )


def write(
    writer: RunWriter, config: Config, rounds: int, population: int = 4, cohort: int = 3
) -> None:
    """Write the records of so many rounds; a client straggles in every third."""
    if writer.history.start is None:
        writer.append(start(writer, config))
        metrics = {"nll": 4.0, "exact_match": 0.0}
        writer.append(EvaluationRecord(subject="base", metrics=metrics))
    for n in range(writer.next_round, rounds):
        names = [f"client-{(n * (cohort - 2) + i) % population}" for i in range(cohort)]
        late = {names.pop(): "missed the deadline"} if n % 3 == 2 else {}
        for record in of_round(n, tuple(names), late):
            writer.append(record)


def record(
    path: Path, done: int = 6, rounds: int = 6, end: str | None = "finished", **table: object
) -> Path:
    """Write a run directory: so many rounds of so many, and how it ended; None: it was killed."""
    cfg = config(rounds, **table)
    with RunWriter.create(path, cfg.model_dump_json(indent=2)) as writer:
        write(writer, cfg, done)
        if end is not None:
            reason = "the data changed" if end == "failed" else ""
            writer.append(EndRecord(status=end, reason=reason))  # type: ignore[arg-type]
    return path
