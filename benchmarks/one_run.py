"""One federated run in a process of its own, told about on stdout as a line of JSON.

``python -m benchmarks.one_run CONFIG OUT CACHE BEGAN``: CONFIG is a configuration as JSON, BEGAN
when the parent started this process.  Where OUT is ``-`` the data is only tokenised.
"""

import json
import sys
import time
from pathlib import Path

from federation.config import Config
from federation.runs.records import DecisionRecord, Record


class Clock:
    """Notes when the phases of a run began, and the first round.

    Attributes:
        phases: what began, and after how many seconds of wall time.
        start_seconds: wall time from the start of the process to the first decision.
        start_cpu_seconds: processor time until then, of all threads together.
    """

    def __init__(self, began: float) -> None:
        """Count from ``began``, a time of the wall clock."""
        self.phases: dict[str, float] = {}
        self.start_seconds = self.start_cpu_seconds = 0.0
        self._began = began

    def phase(self, words: str) -> None:
        """Note when something began."""
        self.phases[words] = time.time() - self._began

    def record(self, record: Record) -> None:
        """Note when the first round began."""
        if isinstance(record, DecisionRecord) and record.round == 0:
            self.start_seconds = time.time() - self._began
            self.start_cpu_seconds = time.process_time()


def tokenise(config: Config, cache: Path) -> None:
    """Fill the cache, so that a run that is timed finds its data tokenised."""
    from federation.data.dataset import load_data
    from federation.training.base import load_tokenizer

    load_data(config, load_tokenizer(config.model.base), Path.cwd(), cache)


def measured(config: Config, out: Path, cache: Path, clock: Clock) -> dict[str, object]:
    """Run an experiment and say what it cost."""
    from federation.experiment import Watch, run_experiment

    watch = Watch(record=clock.record, phase=clock.phase)
    run = run_experiment(config, out, cache=cache, watch=watch)
    from benchmarks.worker import peak_bytes

    return {
        "start_seconds": clock.start_seconds,
        "start_cpu_seconds": clock.start_cpu_seconds,
        "phases": clock.phases,
        "peak_bytes": peak_bytes(),
        "round_seconds": [x.record.seconds for x in run.rounds],
        "run_bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "journal_bytes": (out / "journal.jsonl").stat().st_size,
        "clients_trained": len({client for x in run.rounds for client in x.record.clients}),
        "test_nll": run.evaluation["federated"]["nll"],
    }


def main(config_json: str, out: str, cache: str, began: str) -> None:
    """Tokenise, or run and print what it cost."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    config = Config.from_table(json.loads(config_json))
    if out == "-":
        tokenise(config, Path(cache))
        return
    print(json.dumps(measured(config, Path(out), Path(cache), Clock(float(began)))), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
