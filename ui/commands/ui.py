"""``fedpilot ui``: the interface, on loopback."""

from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from federation.errors import ConfigError


def main(args: Namespace) -> int:
    """Serve the interface until Ctrl-C."""
    if find_spec("streamlit") is None:
        raise ConfigError("the interface needs streamlit: pip install 'fedpilot[ui]'")
    folder = args.folder or Path("runs")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder that holds runs, or will")
    from ui.web.server import LOOPBACK, serve

    print(f"runs     {folder}")
    print(
        f"open     http://{LOOPBACK}:{args.port}  (Ctrl-C ends the interface, no run)", flush=True
    )
    serve(folder, args.port)
    return 0
