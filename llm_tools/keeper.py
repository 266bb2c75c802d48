"""Run a command until it ends or the process that started this one is gone.

    python keeper.py SECONDS COMMAND...

Standard input is the leash: nothing is written to it, and it ends with its holder, even one that
was killed.  Then the whole process group is asked to end, and after SECONDS it is made to.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Thread
from typing import NoReturn


def main() -> NoReturn:
    """Keep the command; ends by ending its own process group."""
    patience, command = float(sys.argv[1]), sys.argv[2:]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it goes to the whole group
    Thread(target=end_with_holder, args=(child, patience), daemon=True).start()
    sys.stderr.write(f"ended with status {child.wait()}\n")
    end_group()


def end_with_holder(child: "subprocess.Popen[bytes]", patience: float) -> None:
    """Wait until standard input ends, then end the group."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(patience)
    end_group()


def end_group() -> NoReturn:
    """Kill every process of the group, this one included."""
    os.killpg(0, signal.SIGKILL)
    raise SystemExit


if __name__ == "__main__":
    main()
