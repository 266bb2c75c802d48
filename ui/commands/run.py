"""``fedpilot run``: run a federated experiment."""

from argparse import Namespace
from pathlib import Path

from federation.config import Config
from ui.commands.running import numbered, start


def main(args: Namespace) -> int:
    """Run what a configuration says into a new run directory."""
    config = Config.from_toml(args.config, args.overrides)
    return start(config, args, numbered(Path("runs"), args.config.stem))
