"""Model servers that are started and stopped here: vLLM, or ``transformers serve`` without a GPU.

A server listens on this machine alone.  vLLM is given a random key, in its environment and so not
in the list of processes; ``transformers serve`` knows no keys, and leaves the schema of an answer
to the model: its answers are checked like any other's, but more of them fail.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import IO, TYPE_CHECKING, Literal

from pydantic import Field

from llm_tools.errors import ServerError, one_line
from llm_tools.models import chat_model
from llm_tools.specs import OpenAISpec, Spec

if TYPE_CHECKING:
    from llm_tools.models import ChatModel

HOST = "127.0.0.1"
KEEPER = Path(__file__).with_name("keeper.py")
GRAMMARS = (
    "--structured-outputs-config",
    '{"backend": "xgrammar", "disable_any_whitespace": true}',
)
"""Small models fill their answers with the white space that a grammar lets them write."""
TAIL_LINES = 3  # of the log, in an error
LoRARank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
"""What vLLM takes for ``--max-lora-rank``."""


class ServerSpec(Spec):
    """A model server to be started."""

    kind: Literal["vllm", "transformers"] = Field(description="which server")
    model: str = Field(min_length=1, description="folder in Hugging Face format, or a hub id")
    python: str = Field(
        default=sys.executable,
        description="interpreter of the environment that has the server installed",
    )
    start_s: float = Field(default=180.0, gt=0, le=7200, description="seconds until it answers")
    stop_s: float = Field(default=10.0, gt=0, le=600, description="seconds to end by itself")
    by_name: bool = Field(
        default=False,
        description="transformers: model is a folder of models, each served under its own name",
    )
    port: int = Field(default=0, ge=0, le=65535, description="where it listens (0: any free one)")
    max_loras: int = Field(
        default=0, ge=0, le=64, description="vllm: adapters that share a batch (0: none)"
    )
    max_cpu_loras: int = Field(
        default=8, ge=1, le=1024, description="vllm: adapters kept in memory, those of a batch too"
    )
    max_lora_rank: LoRARank = Field(default=16, description="vllm: largest rank of an adapter")
    options: tuple[str, ...] = Field(default=(), description="further arguments of the server")

    def command(self, port: int) -> list[str]:
        """Return the command line that listens on ``port``."""
        where = ["--host", HOST, "--port", str(port)]
        if self.kind == "transformers":
            model = [] if self.by_name else [self.model]
            serve = ["-m", "transformers.cli.transformers", "serve", *model]
            return [self.python, *serve, *where, *self.options]
        serve = ["-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        name = ["--served-model-name", "base"]
        return [self.python, *serve, *name, *where, *GRAMMARS, *self._lora(), *self.options]

    def _lora(self) -> list[str]:
        if not self.max_loras:
            return []
        loras, rank = str(self.max_loras), str(self.max_lora_rank)
        kept = str(max(self.max_cpu_loras, self.max_loras))
        most = ["--max-loras", loras, "--max-lora-rank", rank, "--max-cpu-loras", kept]
        return ["--enable-lora", *most]

    @property
    def served_name(self) -> str:
        """The name under which the server knows the model."""
        return "base" if self.kind == "vllm" else self.model


@dataclass(frozen=True)
class Server:
    """A model server that runs.

    Attributes:
        spec: what was started.
        url: of its OpenAI endpoints, as ``http://127.0.0.1:PORT/v1``.
        key: what it asks for; vLLM's adapters are loaded with it too.
        log: file with everything it printed.
        pid: process id, and id of the process group.
        process: the process itself.
    """

    spec: ServerSpec
    url: str
    key: str = field(repr=False)
    log: Path
    pid: int
    process: subprocess.Popen[bytes] = field(repr=False)

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            ServerError: it ended; with the log's tail.
        """
        if self.process.poll() is not None:
            raise ServerError(f"the {self.spec.kind} server ended: {_tail(self.log)}")

    def chat_model(self, name: str | None = None, **settings: object) -> "ChatModel":
        """Make a chat model of this server.

        Args:
            name: of the model or adapter; the base model if omitted.
            settings: further fields of :class:`llm_tools.OpenAISpec`.
        """
        table = {"model": name or self.spec.served_name, "url": self.url, **settings}
        return chat_model(OpenAISpec.model_validate(table), key=self.key)


@contextmanager
def serve(spec: ServerSpec, log: Path, key: str | None = None) -> Iterator[Server]:
    """Start a model server, wait until it is healthy, and at the end stop all its processes.

    It ends too when this process dies, in whatever way.

    Args:
        spec: what to start.
        log: file for what the server prints; it is overwritten.
        key: what vLLM asks for; a random one if omitted.

    Raises:
        ServerError: its port is taken, it cannot be started, ended, or was not healthy in time;
            with the log's tail.
    """
    port, key = _free_port(spec.port), key or secrets.token_urlsafe(24)
    with log.open("wb") as written:
        process = _start(spec, port, key, written)
    try:
        _wait(process, port, spec, log)
        yield Server(spec, f"http://{HOST}:{port}/v1", key, log, process.pid, process)
    finally:
        _stop(process, spec.stop_s)


def _free_port(port: int) -> int:
    """Return ``port`` if nobody listens there, any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(f"{HOST}:{port}: {error.strerror}; choose another port") from None
        return probe.getsockname()[1]


def _start(spec: ServerSpec, port: int, key: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    ours = {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1" if spec.max_loras else "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if spec.by_name:  # a name that is not in the folder is nobody's, not a hub's
        ours["HF_HUB_OFFLINE"] = "1"
    return subprocess.Popen(
        [sys.executable, str(KEEPER), str(spec.stop_s), *spec.command(port)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | ours,
        start_new_session=True,
        cwd=spec.model if spec.by_name else None,
    )


def _wait(process: subprocess.Popen[bytes], port: int, spec: ServerSpec, log: Path) -> None:
    end = monotonic() + spec.start_s
    while not _healthy(port):
        if process.poll() is not None:
            raise ServerError(f"the {spec.kind} server ended before it answered: {_tail(log)}")
        if monotonic() > end:
            raise ServerError(
                f"the {spec.kind} server did not answer within {spec.start_s:g} s:"
                f" raise start_s, or look why: {_tail(log)}"
            )
        sleep(0.1)


def _healthy(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes], stop_s: float) -> None:
    """Let the keeper end the group; end it here if the keeper cannot."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(stop_s + 5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = " | ".join([line for line in lines if line.strip()][-TAIL_LINES:])
    return f"{one_line(last, 400) or 'it printed nothing'} (all of it in {log})"
