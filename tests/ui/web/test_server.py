"""The server: what it refuses, and what it never does."""

import ast
import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message

from federation.errors import PortError
from ui.web.server import HEADERS, LOOPBACK, around, health, refuse_taken, settings

WEB = Path(__file__).parents[3] / "ui" / "web"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_taken_port_names_who_has_it(taken: int) -> None:
    with pytest.raises(PortError, match=f"{taken} is used by process {os.getpid()}; choose"):
        refuse_taken(taken)
    assert PortError.exit_code == 4


def test_it_listens_on_loopback_with_every_protection_on_and_tells_nobody() -> None:
    chosen = settings(8501)
    assert chosen["server.address"] == "127.0.0.1"
    assert set(chosen["server.allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert chosen["server.enableXsrfProtection"]
    assert chosen["server.enableCORS"]
    assert not chosen["browser.gatherUsageStats"]
    assert chosen["client.showErrorDetails"] == "none"
    assert "frame-ancestors 'none'" in HEADERS["Content-Security-Policy"]
    assert "http" not in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8501", 200),
        ("127.0.0.1", 200),
        ("fed.example.org", 200),
        ("evil.example", 400),
        ("localhost.evil.example:8501", 400),
        ("", 400),
    ],
)
def test_under_another_hosts_name_nothing_is_served(host: str, status: int) -> None:
    hosts = settings(8501, ["fed.example.org"])["server.allowedHosts"]
    app = Starlette(routes=[Route("/api/health", health)], middleware=around(hosts))
    scope = {
        "type": "http", "method": "GET", "path": "/api/health", "query_string": b"",
        "headers": [(b"host", host.encode())],
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == status
    assert dict(sent[0]["headers"])[b"x-frame-options"] == b"DENY"


def calls(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of everything that is called, and its keywords."""
    for node in ast.walk(tree):
        own = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if own and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "mail"):
            name = node.func.attr
            yield name, [keyword.arg or "" for keyword in node.keywords]


def test_no_page_writes_html_or_runs_scripts() -> None:
    for file in WEB.rglob("*.py"):
        for name, keywords in calls(ast.parse(file.read_text(encoding="utf-8"))):
            assert not any(keyword.startswith("unsafe_allow") for keyword in keywords), file
            assert name not in ("html", "iframe", "write_stream"), file


def test_every_chart_and_table_has_a_name_for_those_who_do_not_see_it() -> None:
    named = {"altair_chart", "dataframe", "echarts_chart", "data_editor", "image", "table"}
    for file in WEB.rglob("*.py"):
        for name, keywords in calls(ast.parse(file.read_text(encoding="utf-8"))):
            assert name not in named or "alt" in keywords, (file, name)
