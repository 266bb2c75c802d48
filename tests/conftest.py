"""What every test shares: one thread, no network, real data where there is some."""

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("XDG_CACHE_HOME", None)  # tests keep tokenised data in a HOME of their own
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest

SHARED = Path(os.environ.get("FEDPILOT_TEST_DATA", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Find real data or a model ("data/...", "models/..."), or skip the test."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"{path} is absent; set FEDPILOT_TEST_DATA to a folder with data/, models/")
        return path

    return find


def is_loopback(host: object) -> bool:
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""

    def guarded(method: str) -> None:
        real = getattr(socket.socket, method)

        def connect(self: socket.socket, address: object) -> object:
            inet = self.family in (socket.AF_INET, socket.AF_INET6)
            if inet and not is_loopback(address[0] if isinstance(address, tuple) else address):
                raise AssertionError(f"a test wanted to connect to {address}")
            return real(self, address)

        monkeypatch.setattr(socket.socket, method, connect)

    guarded("connect")
    guarded("connect_ex")
