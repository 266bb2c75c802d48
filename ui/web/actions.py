"""What buttons do: start commands of ``fedpilot``, or post commands to a run that goes on."""

from itertools import chain, count
from pathlib import Path

from federation.runs.inbox import parse, post
from federation.runs.run import Run, checkpoint_files
from ui.web import jobs
from ui.web.jobs import Job
from ui.web.places import checked_name, harmless


def free_name(runs: Path, name: str) -> str:
    """Return a name for a new run that nothing has: NAME, NAME-2, NAME-3, ..."""
    taken = {path.name for path in runs.glob("*")}
    taken |= {job.about for job in jobs.jobs(runs) if job.alive}
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    return next(free for free in names if free not in taken)


def start_demo(runs: Path, name: str) -> Job:
    """Start the demo, once under every name.

    Args:
        runs: folder of the runs.
        name: of the new run.

    Raises:
        StorageError: if the folder cannot be written.
    """
    # What-ifs of any round are then a matter of seconds.
    args = ["demo", "--out", str(runs / name), "--set", "engine.keep_updates=100"]
    return jobs.start(runs, "the demo", args, name, once=f"demo {name}")


def resume(runs: Path, run: Run) -> Job:
    """Go on with a run that has ended; asked for twice at the same state, once."""
    name = run.path.name
    once = f"resume {name} {len(run.entries)} {run.entries[-1].time if run.entries else ''}"
    args = ["resume", str(runs / name)]
    return jobs.start(runs, f"going on with {name}", args, name, once)


def fork(runs: Path, name: str, round: int, new: str, rounds: int) -> Job:
    """Start a new run from the state after a round of another.

    Args:
        runs: folder of the runs.
        name: the other run.
        round: from 1.
        new: name of the new run, made free if it is taken.
        rounds: that the new run is to have in all; one more than ROUND at least.

    Raises:
        ConfigError: if no run can have that name.
        StorageError: if the jobs cannot be written.
    """
    more = max(1, rounds - round)  # the command counts those that follow
    said = ("fork", str(runs / name), "--round", str(round), "--rounds", str(more), "--out")
    return made_once(runs, "{}, from " + name, said, checked_name(new))


def forkable(run: Run) -> list[int]:
    """Return the rounds, counted from 1, whose state is still on the disk."""
    return [n + 1 for n, file in checkpoint_files(run.path, run.history).items() if file.exists()]


def made_once(runs: Path, title: str, args: tuple[str, ...], new: str) -> Job:
    """Start what makes a run of another; the same that goes on already is not begun again.

    Args:
        runs: folder of the runs.
        title: of the job, with a place for the name of the new run.
        args: what follows ``fedpilot``, but for the directory of the new run.
        new: its name, made free if it is taken.
    """
    wanted = (*args, str(runs / new))
    for job in jobs.jobs(runs, new):
        if job.alive and job.args == wanted:
            return job
    free = free_name(runs, new)
    return jobs.start(runs, title.replace("{}", free), (*args, str(runs / free)), free)


def steer(run: Run, command: str, **arguments: object) -> str:
    """Post a command to a run that goes on.

    Its id says at which state of the run it was asked for: two clicks, or two tabs, are one.

    Args:
        run: as the page shows it.
        command: one of those of federation.runs.inbox.
        arguments: of the command.

    Raises:
        ConfigError: if the run is not running, or the command is none.
    """
    values = {"id": f"{command}-{len(run.entries)}", "command": command, **arguments}
    return post(run.path, parse(values))


def replay(runs: Path, name: str) -> Job:
    """Repeat a finished run from its journal, asking nobody, into a new run beside it."""
    title = f"repeating {name} without asking anybody"
    new = harmless(f"{name}-replay")
    return made_once(runs, title, ("replay", str(runs / name), "--out"), new)


def made_of(runs: Path, name: str) -> list[Job]:
    """List the repetitions and forks of a run that were started here, the newest first."""
    path = str(runs / name)
    return [
        job for job in jobs.jobs(runs) if job.args[:1] in (("replay",), ("fork",))
        and job.args[1:2] == (path,)
    ]  # fmt: skip
