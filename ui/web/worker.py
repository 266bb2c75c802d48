"""One job: runs a command of ``fedpilot``, holding the job's lock, and writes down how it ended."""

import json
import sys
from pathlib import Path

from federation.runs import storage
from ui.main import main as fedpilot
from ui.web import jobs


def main(folder: Path) -> int:
    """Do the job that a folder describes."""
    job = jobs.read(folder)
    if job is None:
        print(f"{folder} describes no job", file=sys.stderr)
        return 2
    lock = storage.lock(folder)
    code = 1
    try:
        code = fedpilot(job.args)
    except SystemExit as stop:  # after --help and --version
        code = stop.code if isinstance(stop.code, int) else 0
    finally:
        storage.atomic_write(folder / jobs.ENDED, json.dumps({"code": code}).encode())
        lock.release()
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
