"""The web server of the interface: Streamlit on loopback, with headers that let nothing else in.

Training never happens here: the interface starts other processes and reads what they write, so
that reloading, closing or killing it changes nothing in a run.
"""

import os
import socket
import traceback
from collections.abc import Sequence
from errno import EADDRINUSE
from pathlib import Path
from typing import Any

import psutil
import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.errors import PortError
from ui.web import login

HERE = Path(__file__).parent
SCRIPT, THEME = HERE / "app.py", HERE / "theme.toml"
RUNS = "FEDPILOT_RUNS"
"""Environment variable that names the folder of the runs to the pages."""
LOOPBACK = "127.0.0.1"

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Vega compiles the expressions of a chart; Streamlit sets styles from code.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Headers:
    """Adds :data:`HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


async def health(request: Request) -> JSONResponse:
    """Say that the server is there."""
    return JSONResponse({"status": "ok"})


def settings(port: int, hosts: Sequence[str] = ()) -> dict[str, Any]:
    """Return Streamlit's settings: loopback, its protections on, nothing told to anybody.

    Args:
        port: of loopback.
        hosts: under which a proxy in front of it is known.
    """
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "viewer",
        "runner.magicEnabled": False,
        # Every look at a run would go through all records in memory; Python collects by itself.
        "runner.postScriptGC": False,
        "server.address": LOOPBACK,
        "server.allowedHosts": ["localhost", LOOPBACK, *hosts],
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.maxUploadSize": 512,
        "server.port": port,
        "theme.base": str(THEME),
    }


def serve(runs: Path, port: int) -> None:
    """Serve the interface until it is stopped.

    Args:
        runs: folder that holds, or will hold, run directories.
        port: of loopback.

    Raises:
        PortError: if the port is taken.
    """
    refuse_taken(port)
    os.environ[RUNS] = str(runs.absolute())
    chosen = settings(port, login.public_hosts())
    app = st.App(
        SCRIPT,
        routes=[Route("/api/health", health)],
        middleware=around(chosen["server.allowedHosts"]),
        on_script_error=fault,
    )
    app.run(config=chosen)


def around(hosts: Sequence[str]) -> list[Middleware]:
    """Return what every request goes through; one under another host's name goes no further."""
    allowed = Middleware(TrustedHostMiddleware, hosts, www_redirect=False)
    return [Middleware(Headers), allowed]


def fault(error: BaseException) -> bool:
    """Show a fault of ours in a line; its stack trace goes to the server's output."""
    traceback.print_exception(error)
    st.error(
        "This is a fault of fedpilot; what is known of it was written to the output of the"
        " server.  Reload the page to try again: no run is touched by it.",
        title="Something went wrong",
        icon=":material/error:",
    )
    return True


def refuse_taken(port: int) -> None:
    """Refuse a port on which somebody listens.

    Raises:
        PortError: naming who it is, where that can be seen.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            why = f"is used by {listener(port)}" if error.errno == EADDRINUSE else error.strerror
            raise PortError(f"{LOOPBACK}:{port} {why}; choose another with --port") from None


def listener(port: int) -> str:
    """Name the process that listens on a port, as far as this user may see it."""
    try:
        found = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    pids = {
        x.pid for x in found if x.status == psutil.CONN_LISTEN and x.laddr and x.laddr.port == port
    }
    return next((f"process {pid}" for pid in pids if pid), "another process")
