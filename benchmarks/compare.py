"""One setting: the same work by every system, checked, and timed in turns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import Tensor

from benchmarks.equality import (
    TRAINS,
    Deviation,
    OtherWork,
    Result,
    check_bfloat16,
    check_float32,
    deviation,
)
from benchmarks.processes import Process
from benchmarks.settings import OURS, PLAIN, STARTS, Ours, Peer, Setting, System
from benchmarks.work import Work, write_work

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass
class Measured:
    """What was measured of one system on one setting.

    Attributes:
        system: which.
        deviation: its result against that of the plain PEFT loop in float32.
        first_seconds: its first round, which warms up and does not count.
        startup_seconds: from starting Python to being ready for the first round.
        seconds: every other round.
        peak_bytes: most memory resident.
    """

    system: System
    deviation: Deviation
    first_seconds: float
    startup_seconds: float
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def trains(self) -> bool:
        """Whether it learns what float32 learns, within bfloat16's rounding."""
        return self.deviation.change <= TRAINS


@dataclass(frozen=True)
class Comparison:
    """What was measured on one setting.

    Attributes:
        setting: which.
        systems: what was measured of each system, the PEFT loops first.
        useful_tokens: tokens of a round, padding not counted.
        failure: why a result does not count; None if both sides did the same work.
    """

    setting: Setting
    systems: list[Measured]
    useful_tokens: int
    failure: str | None = None

    def speed(self, measured: Measured) -> float:
        """Client-steps per second, the median over rounds."""
        return self.setting.client_steps / median(measured.seconds)

    def peers(self, *dtypes: str) -> list[Measured]:
        """Return the PEFT loops that train, fastest first."""
        loops = (m for m in self.systems if isinstance(m.system, Peer) and m.seconds and m.trains)
        return sorted((m for m in loops if m.system.dtype in dtypes), key=self.speed, reverse=True)

    def ours(self) -> list[Measured]:
        """Return our systems, fastest first."""
        own = (m for m in self.systems if isinstance(m.system, Ours) and m.seconds)
        return sorted(own, key=self.speed, reverse=True)

    def ratio(self, measured: Measured, *dtypes: str) -> float | None:
        """How many times as fast as the fastest PEFT loop in one of these dtypes."""
        peers = self.peers(*dtypes)
        return self.speed(measured) / self.speed(peers[0]) if peers else None

    def as_json(self) -> dict[str, Any]:
        """Return everything measured."""
        return {
            "setting": self.setting.model_dump(),
            "useful_tokens": self.useful_tokens,
            "failure": self.failure,
            "systems": [self._system_json(measured) for measured in self.systems],
        }

    def _system_json(self, measured: Measured) -> dict[str, Any]:
        own = measured.system
        raw = {**asdict(measured), "system": own.model_dump(), "trains": measured.trains}
        if not measured.seconds:
            return raw
        return {
            **raw,
            "client_steps_per_second": self.speed(measured),
            "useful_tokens_per_second": self.useful_tokens / median(measured.seconds),
            "ratio_same_dtype": self.ratio(measured, own.dtype),
            "ratio_best": self.ratio(measured, "float32", "bfloat16"),
        }


def compare(
    setting: Setting,
    repeats: int,
    threads: int,
    ours: Sequence[Ours] = OURS,
    starts: Sequence[Peer] = STARTS,
    say: Say = lambda line: None,
) -> Comparison:
    """Measure one setting.

    Args:
        setting: which.
        repeats: timed rounds of every system.
        threads: CPU threads of every system.
        ours: our systems.
        starts: PEFT loops whose faster variants are looked for.
        say: told what is going on.
    """
    with TemporaryDirectory(prefix="fedpilot-bench-") as name:
        folder = Path(name)
        say(f"{setting.name}: drawing the work")
        work = write_work(setting, folder)
        peers = [tuned(start, folder, threads, say) for start in starts]
        return measure(
            work, folder, [*dict.fromkeys([PLAIN, *peers]), *ours], repeats, threads, say
        )


def tuned(start: Peer, folder: Path, threads: int, say: Say) -> Peer:
    """Find the fastest PEFT loop of a kind, in a process of its own."""
    say(f"looking for the fastest PEFT loop in {start.dtype}, {start.adapter} adapters")
    with Process(start, folder, folder / "tune.safetensors", threads) as process:
        return Peer.model_validate(process.ask("tune"))


def measure(
    work: Work,
    folder: Path,
    systems: Sequence[System],
    repeats: int,
    threads: int,
    say: Say = lambda line: None,
) -> Comparison:
    """Check, then time: the first system's result is what all others are compared with."""
    judge = Judge(work.layout.flatten(work.adapter))
    running: list[tuple[Process, Measured]] = []
    failure = None
    with ExitStack() as stack:
        try:
            for number, system in enumerate(systems):
                say(f"first round: {system.name}")
                result = folder / f"result-{number}.safetensors"
                process = stack.enter_context(Process(system, folder, result, threads))
                running.append((process, first_round(process, judge)))
            for process, measured in in_turns(running, repeats):
                say(f"round {len(measured.seconds) + 1} of {repeats}: {measured.system.name}")
                timed_round(process, measured, judge)
            everything = [measured for _, measured in running]
            check_against_opponent(Comparison(work.setting, everything, work.useful_tokens))
        except OtherWork as error:
            failure = str(error)
    everything = [measured for _, measured in running]
    return Comparison(work.setting, everything, work.useful_tokens, failure)


class Judge:
    """Compares results with the first one it is given."""

    def __init__(self, initial: Tensor) -> None:
        """Remember the adapter ``(P,)`` that all started from."""
        self._initial = initial
        self._reference: Result | None = None

    def __call__(self, system: System, result: Result) -> Deviation:
        """Return how far a result is from the reference.

        Raises:
            OtherWork: if it is a float32 one and too far.
        """
        self._reference = self._reference or result
        found = deviation(result, self._reference, self._initial)
        if system.dtype == "float32":
            check_float32(system.name, found)
        return found


def first_round(process: Process, judge: Judge) -> Measured:
    """Warm a system up and check what it computes."""
    seconds = process.ask("run")["seconds"]
    found = judge(process.system, Result.read(process.result))
    return Measured(process.system, found, seconds, process.startup_seconds)


def timed_round(process: Process, measured: Measured, judge: Judge) -> None:
    """Time a round; it counts only if it computed the right thing again."""
    answer = process.ask("run")
    measured.deviation = judge(process.system, Result.read(process.result))
    measured.seconds.append(answer["seconds"])
    measured.peak_bytes = answer["peak_bytes"]


def in_turns(pairs: Sequence[T], repeats: int) -> Iterator[T]:
    """Yield everyone once per repeat, in an order that alternates."""
    for repeat in range(repeats):
        yield from pairs if repeat % 2 == 0 else reversed(pairs)


def check_against_opponent(comparison: Comparison) -> None:
    """Hold our bfloat16 results to the PEFT loops in bfloat16 that train.

    Raises:
        OtherWork: naming the first that is too far from float32.
    """
    peers = [peer.deviation for peer in comparison.peers("bfloat16")]
    for measured in comparison.ours():
        if measured.system.dtype == "bfloat16" and peers:
            check_bfloat16(measured.system.name, measured.deviation, peers)
