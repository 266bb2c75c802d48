"""A large population costs a start of seconds, little memory and no longer journal."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.population import (
    BROKEN,
    MEMORY_LIMIT,
    START_LIMIT,
    Cost,
    Variant,
    broken,
    configuration,
    parse,
)
from federation.config import Config

ROOT = Path(__file__).parents[2]
FEW, MANY = 100, 2000
COST = Cost(
    variant=Variant(),
    clients=FEW,
    start_seconds=5.0,
    start_cpu_seconds=5.0,
    phases={},
    peak_bytes=2**30,
    round_seconds=[1.0],
    run_bytes=1,
    journal_bytes=1,
    clients_trained=10,
    test_nll=1.0,
)


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run the benchmark at a size that takes a minute."""
    file = tmp_path_factory.mktemp("population") / "costs.json"
    size = ["--few", str(FEW), "--many", str(MANY), "--rounds", "2", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.population", *size, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, BROKEN), done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_clients_cost_what_few_do(costs: list[dict[str, Any]]) -> None:
    few, many = costs
    assert (few["clients"], many["clients"]) == (FEW, MANY)
    # Seconds of the processor: other work on this machine does not count.
    assert many["start_cpu_seconds"] < START_LIMIT
    assert many["start_cpu_seconds"] - few["start_cpu_seconds"] < 2
    # The limit is one for 10,000 clients.
    assert many["peak_bytes"] - few["peak_bytes"] < MEMORY_LIMIT * MANY / 10_000
    assert many["journal_bytes"] < 2 * few["journal_bytes"]
    assert many["run_bytes"] < 1.1 * few["run_bytes"]
    assert len(many["round_seconds"]) == 2 and many["clients_trained"] > 10


def test_a_broken_limit_is_named() -> None:
    many = replace(COST, clients=MANY)
    assert broken([COST, many]) == []
    slow = replace(many, start_seconds=START_LIMIT + 1)
    large = replace(many, peak_bytes=COST.peak_bytes + MEMORY_LIMIT + 1)
    assert "11.0 s to start" in broken([COST, slow])[0]
    assert "300 MiB more than with 100 clients" in broken([COST, large])[0]
    assert len(broken([COST, many, COST, slow, COST, large])) == 2


def test_both_runs_are_the_same_but_for_the_number_of_clients() -> None:
    args = parse(["--rows", "20000"])
    few, many = (
        Config.from_table(configuration(Variant(), clients, args)).model_dump()
        for clients in (args.few, args.many)
    )
    assert (few["data"]["clients"].pop("count"), many["data"]["clients"].pop("count")) == (
        100,
        10_000,
    )
    assert few == many


@pytest.mark.parametrize("argv", [["--few", "9"], ["--many", "50"], ["--rows", "99"]])
def test_sizes_that_cannot_be_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(argv)
