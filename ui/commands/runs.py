"""``fedpilot runs``: list the runs in a folder."""

from argparse import Namespace
from pathlib import Path

from pydantic import JsonValue

from federation.errors import ConfigError, FedpilotError
from federation.runs.folder import is_run
from federation.runs.run import Run
from ui import tables
from ui.results import as_json, own_subject

DEFAULT = Path("runs")


def main(args: Namespace) -> int:
    """List runs, as a table or as JSON."""
    folder = args.folder or DEFAULT
    if args.folder and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name one that holds runs")
    found = [summary(path) for path in runs_in(folder)]
    if args.json:
        tables.print_json(list(found))
    elif found:
        console = tables.out()
        console.print(tables.overview(found, console.width))
    else:
        print(f"no runs in {folder}; start one with: fedpilot demo")
    return 0


def runs_in(folder: Path) -> list[Path]:
    """Find the runs directly in a folder, by name."""
    return sorted(path for path in folder.glob("*") if is_run(path))


def summary(path: Path) -> dict[str, JsonValue]:
    """Say what a run came to, or what is wrong with it: one damaged run hides no other."""
    try:
        run = Run.open(path)
        values = as_json(run)
    except FedpilotError as error:
        return {"path": str(path), "status": "damaged", "problem": str(error)}
    del values["history"], values["warnings"]
    return values | {"subject": own_subject(run)}
