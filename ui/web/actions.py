"""What buttons do: start commands of ``fedpilot``, or post commands to a run that goes on."""

from itertools import chain, count
from pathlib import Path

from ui.web import jobs
from ui.web.jobs import Job


def free_name(runs: Path, name: str) -> str:
    """Return a name for a new run that nothing has: NAME, NAME-2, NAME-3, ..."""
    taken = {path.name for path in runs.glob("*")}
    taken |= {job.about for job in jobs.jobs(runs) if job.alive}
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    return next(free for free in names if free not in taken)


def start_demo(runs: Path) -> Job:
    """Start the demo.

    Raises:
        StorageError: if the folder cannot be written.
    """
    name = free_name(runs, "demo")
    # What-ifs of any round are then a matter of seconds.
    args = ["demo", "--out", str(runs / name), "--set", "engine.keep_updates=100"]
    return jobs.start(runs, "the demo", args, name)


def resume(runs: Path, name: str) -> Job:
    """Go on with a run."""
    return jobs.start(runs, f"going on with {name}", ["resume", str(runs / name)], name)
