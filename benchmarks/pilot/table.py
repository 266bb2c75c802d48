"""The table of runs that offline tuning looks up: every scenario, configuration, seed and round.

python -m benchmarks.pilot.table            # writes what is missing, then the table

A part a (scenario, seed) lies in the cache folder until all are there, so it can be stopped and
gone on with.  The table says what it was made with, and a hash over its values.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pilot.scenarios import (
    CONFIGURATIONS,
    ROUNDS,
    SCENARIOS,
    SEEDS,
    Scenario,
    config,
)

FILE = Path(__file__).parent / "table.parquet"
LABEL = b"fedpilot"
COLUMNS = pa.schema(
    [
        ("scenario", pa.string()),
        ("seed", pa.int16()),
        ("configuration", pa.int16()),
        ("round", pa.int16()),
        ("diverged", pa.bool_()),
        ("validation", pa.float32()),
        ("test", pa.float32()),
        ("worst_client", pa.float32()),
        ("bytes", pa.int64()),
        ("client_steps", pa.int32()),
    ]
)
Line = dict[str, Any]


def design() -> str:
    """Hash what is run: every configuration, but for places of files and what is as by default."""
    configs = [
        config(scenario, seed, values, "base", f"rows of seed {seed}").model_dump(
            mode="json", exclude_defaults=True
        )
        for scenario in SCENARIOS
        for seed in SEEDS
        for values in CONFIGURATIONS
    ]
    return hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()


def content(table: pa.Table) -> str:
    """Hash the values of a table, column by column, whatever the file's layout."""
    digest = hashlib.sha256()
    for name in COLUMNS.names:
        digest.update(json.dumps([name, table.column(name).to_pylist()]).encode())
    return digest.hexdigest()


def part(scenario: Scenario, seed: int, base: Path, cache: Path) -> list[Line]:
    """Run every configuration of a scenario under one seed."""
    from benchmarks.pilot.scenarios import ROWS
    from benchmarks.pilot.simulate import Simulation, prepared, reconfigured
    from benchmarks.pilot.texts import rows, write_rows

    source = str(write_rows(cache / f"rows-{seed}.jsonl", rows(seed, ROWS)))
    first = config(scenario, seed, CONFIGURATIONS[0], str(base), source)
    setup = prepared(first, cache)
    lines: list[Line] = []
    for number, values in enumerate(CONFIGURATIONS):
        own = reconfigured(setup, config(scenario, seed, values, str(base), source))
        where = {"scenario": scenario.name, "seed": seed, "configuration": number}
        lines += [where | line for line in lines_of(Simulation.of(own).play_all())]
    return lines


def lines_of(run: Any) -> list[Line]:
    """Write down the rounds of a simulation; those after divergence have no losses."""
    lines = []
    for round in range(ROUNDS):
        record = run.history.rounds.get(round)
        losses = run.losses[round] if record else None
        lines.append(
            {
                "round": round,
                "diverged": losses is None,
                "validation": losses and losses.validation,
                "test": losses and losses.test,
                "worst_client": losses and max(losses.clients.values()),
                "bytes": record.bytes_up + record.bytes_down if record else 0,
                "client_steps": record.client_steps if record else 0,
            }
        )
    return lines


def made_with(base: Path) -> dict[str, Any]:
    """Say what decides the bits of a table."""
    import torch

    from federation.bits import versions

    weights = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    return {
        "versions": versions(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "base_sha256": weights,
        "design_sha256": design(),
    }


def write(file: Path = FILE) -> None:
    """Run what is missing, a part at a time, and write the table."""
    from benchmarks.pilot.base import base_model, folder

    base = base_model()
    parts = folder() / f"table-{design()[:16]}"
    parts.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        for seed in SEEDS:
            place = parts / f"{scenario.name}-{seed}.parquet"
            if not place.exists():
                lines = part(scenario, seed, base, folder())
                temporary = place.with_suffix(".new")
                pq.write_table(pa.Table.from_pylist(lines, COLUMNS), temporary)
                temporary.rename(place)
                print(place.name, flush=True)
    names = [parts / f"{scenario.name}-{seed}.parquet" for scenario in SCENARIOS for seed in SEEDS]
    table = pa.concat_tables([pq.read_table(name) for name in names]).cast(COLUMNS)
    label = made_with(base) | {"content_sha256": content(table)}
    table = table.replace_schema_metadata({LABEL: json.dumps(label).encode()})
    pq.write_table(table, file, compression="zstd")


@dataclass(frozen=True, eq=False)
class Table:
    """Losses of all runs, nats per token; NaN where a run has diverged.

    Attributes:
        validation: ``(scenarios, seeds, configurations, rounds)`` float64.
        test: the same on test rows.
        bytes: moved up to a round and in it, the same shape.
        label: what the table was made with.
    """

    validation: np.ndarray
    test: np.ndarray
    bytes: np.ndarray
    label: Mapping[str, Any]


@lru_cache(maxsize=4)
def read(file: Path = FILE) -> Table:
    """Read the table.

    Raises:
        ConfigError: if it is not there, is not whole or was made of other configurations.
    """
    from federation.errors import ConfigError

    if not file.exists():
        raise ConfigError(f"{file} is missing; write it: python -m benchmarks.pilot.table")
    table = pq.read_table(file)
    label = json.loads((table.schema.metadata or {}).get(LABEL, b"{}"))
    if label.get("content_sha256") != content(table):
        raise ConfigError(f"{file} is damaged; restore it, or: python -m benchmarks.pilot.table")
    if label["design_sha256"] != design():
        raise ConfigError(
            f"{file} was made of other scenarios; write it: python -m benchmarks.pilot.table"
        )
    shape = (len(SCENARIOS), len(SEEDS), len(CONFIGURATIONS), ROUNDS)
    check_order(table, shape)

    def figures(name: str) -> np.ndarray:
        return table.column(name).to_numpy().astype(np.float64).reshape(shape)

    moved = figures("bytes").cumsum(axis=-1)
    return Table(figures("validation"), figures("test"), moved, label)


def check_order(table: pa.Table, shape: Sequence[int]) -> None:
    """Refuse a table whose lines are not one a (scenario, seed, configuration, round), in order.

    Raises:
        ConfigError: if so.
    """
    from federation.errors import ConfigError

    indices = np.indices(shape).reshape(len(shape), -1)
    names = np.array([scenario.name for scenario in SCENARIOS])
    expected = (names[indices[0]], np.array(SEEDS)[indices[1]], indices[2], indices[3])
    keys = ("scenario", "seed", "configuration", "round")
    for key, column in zip(keys, expected, strict=True):
        if not np.array_equal(table.column(key).to_numpy(zero_copy_only=False), column):
            raise ConfigError(f"the table's column {key} is out of order; write it again")


if __name__ == "__main__":
    write()
    sys.exit(0)
