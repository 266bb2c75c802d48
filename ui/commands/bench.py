"""``fedpilot bench``: measure the engine, or those who steer a federation, on this machine."""

from argparse import Namespace
from importlib import import_module

from federation.errors import ConfigError


def main(args: Namespace) -> int:
    """Hand over to the benchmark, which lives beside the packages in a checkout."""
    try:
        benchmark = import_module(f"benchmarks.{args.subject}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("benchmarks"):
            raise
        raise ConfigError(
            "benchmarks are not installed; run this in a checkout of fedpilot, at its root"
        ) from error
    return benchmark.main(args.rest)
