"""What decides the bits of a run, as its first record keeps it, and whether it still holds.

Whoever goes on with a run, or plays rounds of it again, needs the same data, the same beginnings
and the same arithmetic; another machine has other bits.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType

import torch

from federation.errors import ConfigError
from federation.runs.records import StartRecord
from federation.runs.writer import RunWriter
from federation.training.base import Base

BEGINNINGS = {"model": "the base model", "start": "the adapter that adapter.start names"}
"""What is read again when a run goes on, and must be what it was; and what it is called."""
NOTHING: Mapping[str, str] = MappingProxyType({})
LIBRARIES = ("torch", "transformers", "numpy", "tokenizers")  # whose versions decide the bits


def start_record(
    writer: RunWriter,
    base: Base,
    *,
    seed: int,
    chunk: int,
    data: str,
    facts: Mapping[str, str] = NOTHING,
) -> StartRecord:
    """Say what decides the bits of a run.

    Args:
        writer: the run directory.
        base: the model that is trained.
        seed: run seed.
        chunk: clients a pass.
        data: digest of the data.
        facts: hashes of what else it begins from, see :data:`BEGINNINGS`.
    """
    return StartRecord(
        seed=seed,
        chunk_size=chunk,
        threads=torch.get_num_threads(),
        dtype=dtype_name(base),
        versions=versions(),
        config_sha256=writer.config_sha256,
        files=writer.given,
        machine={
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "device": device_name(base),
            "grafts": ",".join(base.grafts),
            "data": data,
            **facts,
        },
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def same_arithmetic(
    start: StartRecord, base: Base, data: str, facts: Mapping[str, str] = NOTHING
) -> None:
    """Take over the recorded number of threads; refuse what would change the bits otherwise.

    Raises:
        ConfigError: saying which of them it is.
    """
    torch.set_num_threads(start.threads)
    if start.machine.get("data") != data:
        raise ConfigError("the data changed since this run began; restore it, or start a new run")
    device = start.machine.get("device", "cpu")
    began, now = f"{start.dtype} on {device}", f"{dtype_name(base)} on {device_name(base)}"
    if began != now:
        raise ConfigError(
            f"this run began in {began} and this machine would go on in {now}; "
            "resume it on a machine like the one where it began, or start a new run"
        )
    for name, sha256 in facts.items():
        if start.machine.get(name, sha256) != sha256:
            raise ConfigError(
                f"{BEGINNINGS[name]} changed since this run began; restore it, or start a new run"
            )


def device_name(base: Base) -> str:
    """Name what computes: the CPU, or which GPU."""
    return "cpu" if base.device.type == "cpu" else torch.cuda.get_device_name(base.device)


def dtype_name(base: Base) -> str:
    """Name the dtype of the base's arithmetic."""
    return str(base.dtype).removeprefix("torch.")
