"""What a run has learnt, as files to take away: where they lie, how they are made, one file of all.

They lie in the run's own folder, under a name that says round and content: they never change.
"""

import io
import json
import shlex
import zipfile
from pathlib import Path

from federation.errors import CorruptError, FedpilotError
from federation.pretraining.recipe import recipe_of
from federation.runs import storage
from federation.runs.run import Run
from ui.commands.export import loading
from ui.results import configuration
from ui.web import actions, jobs
from ui.web.figures import measured, progress
from ui.web.jobs import Job
from ui.web.store import Opened

EXPORTS = "exports"
OVER = ("finished", "stopped", "interrupted", "failed")
"""Statuses of a run whose model is offered: nobody writes it."""
LARGEST = 256 << 20  # bytes that are packed for a browser: the server holds them in memory


def offered(opened: Opened) -> bool:
    """Tell whether a run may have a model to take away."""
    return opened.status in OVER and bool(opened.run.history.rounds)


def why_not(run: Run) -> str:
    """Say why a run has no adapter to take away; empty if it has, as far as its files tell."""
    try:
        if recipe_of(run) is not None:
            return f"It pre-trained a base model, which lies in {run.path / 'model'} as it is."
        config = configuration(run)
    except FedpilotError as error:
        return str(error)
    if config.adapter.kind != "lora":
        return "It trains all weights, so there is no adapter to take away."
    if config.algorithm.name == "local":
        return "Every client has a model of its own; there is none of all."
    if not actions.forkable(run):
        return "No state of a round is kept."
    return ""


def rounds(run: Run) -> dict[int, str]:
    """Return the rounds, from 1, whose model can be had, and what each is: the last, the best."""
    kept = actions.forkable(run)
    losses = {n: x for n, x in measured(run, "nll", "validation").items() if n in kept}
    best = min(losses, key=lambda n: losses[n], default=None)
    words = {progress(run).done: "the last"}
    if best is not None:
        words[best] = ", ".join([*([words[best]] if best in words else []), "best validation loss"])
    return {n: f"{n}: {words[n]}" if n in words else str(n) for n in kept}


def place(run: Run, round: int, *, whole: bool) -> Path:
    """Return the folder of what is exported: another content has another name."""
    sha256 = run.history.rounds[round - 1].checkpoint_sha256 or ""
    kind = "model" if whole else "adapter"
    return run.path / EXPORTS / f"round-{round}-{kind}-{sha256[:8]}"


def started(runs: Path, run: Run, round: int, *, whole: bool) -> Job | None:
    """Return the newest job that writes it; None if there is none."""
    args = tuple(arguments(run, round, whole=whole))
    return next((job for job in jobs.jobs(runs, run.path.name) if job.args == args), None)


def start(runs: Path, run: Run, round: int, *, whole: bool) -> Job:
    """Start to write it; what goes on already is not begun again.

    Raises:
        StorageError: if the job cannot be written.
    """
    job = started(runs, run, round, whole=whole)
    if job is not None and job.alive:
        return job
    title = f"writing the model after round {round}"
    return jobs.start(runs, title, arguments(run, round, whole=whole), run.path.name)


def arguments(run: Run, round: int, *, whole: bool) -> list[str]:
    """Return what follows ``fedpilot``."""
    out = place(run, round, whole=whole).absolute()
    args = ["export", str(run.path.absolute()), "--round", str(round), "--to", str(out)]
    return [*args, "--whole"] if whole else args


def command(args: list[str]) -> str:
    """Write a command as it is typed."""
    return shlex.join(["fedpilot", *args])


def python(folder: Path) -> str:
    """Write the Python that loads what was exported.

    Raises:
        CorruptError: if an adapter does not say which model it belongs to.
    """
    config, base = folder / "adapter_config.json", None
    if config.is_file():
        try:
            base = str(json.loads(config.read_bytes())["base_model_name_or_path"])
        except (OSError, ValueError, KeyError, TypeError):
            raise CorruptError(f"{config} names no base model; delete its folder") from None
    imports = ["import transformers"] if base is None else ["import peft", "import transformers"]
    tokenizer = f"transformers.AutoTokenizer.from_pretrained({base or str(folder)!r})"
    return "\n".join([*imports, "", *loading(folder, base), f"tokenizer = {tokenizer}"])


def files(folder: Path) -> list[Path]:
    """List what was exported."""
    return sorted(path for path in folder.glob("*") if path.is_file())


def size(folder: Path) -> int:
    """Return the bytes of what was exported."""
    with storage.explained(folder):
        return sum(path.stat().st_size for path in files(folder))


def packed(folder: Path, name: str) -> bytes:
    """Pack what was exported into one file; weights do not get smaller by it.

    Args:
        folder: that holds it.
        name: of the folder in the file.

    Raises:
        StorageError: if it cannot be read.
    """
    found = io.BytesIO()
    with storage.explained(folder), zipfile.ZipFile(found, "w") as archive:
        for path in files(folder):
            archive.write(path, f"{name}/{path.name}")
    return found.getvalue()
