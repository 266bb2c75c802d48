"""``fedpilot``: reads the command line, runs one command, and turns errors into a line and a code.

Light: a command and what it needs are imported when it is asked for.
"""

import errno
import gc
import os
import signal
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType

from federation.errors import ConfigError, FedpilotError, StorageError
from ui.arguments import parse

STUDY = "study.json"  # by which a folder is one
INTERNAL, OUT_OF_MEMORY, INTERRUPTED, TERMINATED, BROKEN_PIPE = 1, 12, 130, 143, 141
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What libraries are asked before they are imported: stderr is ours.  Set by the user, it stays."""
FRUGAL = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
"""Kernels that oneDNN keeps; of its 1,024 most are for sizes of a batch that never come again."""


def open_streams() -> None:
    """Let output that the caller closed go nowhere: else a file of a run took its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def silence() -> None:
    """Drop what stdout has not taken: Python would complain of it again when it closes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, with another exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments; those of the process if omitted.

    Returns:
        The exit code: 0 done, 1 a fault of ours, 2 usage or configuration, 3 data, 4 port, 6
        storage, 7 run in use, 8 damaged state, 9 quorum, 12 memory, 130 Ctrl-C, 143 terminated.
    """
    open_streams()
    for name, value in (QUIET | FRUGAL).items():
        os.environ.setdefault(name, value)
    args = Namespace()
    try:
        with terminable():
            args = parse(sys.argv[1:] if argv is None else argv)
            refuse_study(args)
            code = import_module(f"ui.commands.{args.module}").main(args)
            sys.stdout.flush()
            if argv is None:
                gc.freeze()  # a process that ends frees all at once: cycles in it are no leak
            return code
    except FedpilotError as error:
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        if argv is None:  # the process ends here: a second Ctrl-C has nothing left to stop
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return fail(how_to_go_on(args), TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
    except MemoryError:
        return fail(f"out of memory; {SMALLER}", OUT_OF_MEMORY)
    except BrokenPipeError:
        silence()  # whoever read our output has gone
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            silence()
            where, why = error.filename or "output", os.strerror(error.errno).lower()
            return fail(f"{where}: {why}; make room and repeat it", StorageError.exit_code)
        if is_out_of_memory(error):
            return fail(f"out of memory; {SMALLER}", OUT_OF_MEMORY)
        return fail(f"this is a fault of fedpilot: {one_line(error)}; {logged(args)}", INTERNAL)


SMALLER = "lower engine.token_budget, work.batch_size or data.max_tokens, or set engine.chunk = 1"


def is_out_of_memory(error: Exception) -> bool:
    """Recognise torch's errors, which are no MemoryError, without importing torch."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM stop a command as Ctrl-C does: the run is closed and can be resumed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(message: str, code: int) -> int:
    """Say in one line on stderr what went wrong."""
    print(f"fedpilot: {' '.join(message.split())}", file=sys.stderr)
    return code


def one_line(error: Exception) -> str:
    """Name an exception and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def refuse_study(args: Namespace) -> None:
    """Name the right command where somebody asks of a study what is asked of a run.

    Raises:
        ConfigError: if it is so.
    """
    if getattr(args, "of_run", False) and (args.directory / STUDY).is_file():
        raise ConfigError(
            f"{args.directory} is a study, not a run: see what it came to with `fedpilot study"
            f" {args.directory} --report`, go on with it with `fedpilot study {args.directory}`;"
            f" its runs are in {args.directory}/runs"
        )


def run_directory(args: Namespace) -> Path | None:
    """Return the run or study that a command is about, if there is one."""
    folder = getattr(args, "directory", None)
    kept = ("config.json", STUDY)
    return Path(folder) if folder and any((Path(folder) / x).exists() for x in kept) else None


def how_to_go_on(args: Namespace) -> str:
    """Say what a stopped command leaves behind."""
    folder = run_directory(args)
    if folder is None or not args.go_on:
        return "stopped"
    return f"stopped; what was done is kept, go on with: {args.go_on.format(folder)}"


def logged(args: Namespace) -> str:
    """Write the traceback to a file; say which."""
    folder = run_directory(args)
    name = "error.log" if folder else f"fedpilot-{os.getpid()}.log"
    log = (folder or Path(tempfile.gettempdir())) / name
    try:
        with log.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"its traceback could not be written to {log}: {error.strerror}"
    return f"please report it with {log}"


if __name__ == "__main__":
    sys.exit(main())
