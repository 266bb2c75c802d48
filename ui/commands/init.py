"""``fedpilot init``: write a configuration in which every key is explained."""

from argparse import Namespace

from federation.errors import ConfigError
from federation.runs.storage import atomic_write
from ui.template import template


def main(args: Namespace) -> int:
    """Write the file, unless there is one."""
    if args.file.exists():
        raise ConfigError(f"{args.file} exists; name another file: fedpilot init OTHER.toml")
    atomic_write(args.file, template().encode())
    print(f"{args.file} written; run it with: fedpilot run {args.file}")
    return 0
