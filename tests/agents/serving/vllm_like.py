"""Speaks as much of vLLM as the bridge uses, answers from a table, and does wrong what it is told.

In a test it runs in a thread.  As a script it stands where an interpreter with vLLM stands:

    vllm_like.py -m vllm... --model M --port P      with the table's file in VLLM_LIKE
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, Timer

LONGEST = 60.0  # seconds, of anything
WEIGHTS = "adapter_model.safetensors"
Answers = dict[str, list[dict[str, float]]]
"""sha256 of the weights' file ("base" without) -> for each prompt token id -> log-probability."""


@dataclass
class Vllm:
    """A server's state.

    Attributes:
        prompts: that have answers.
        answers: of base and adapters.
        stale: keep what was answered to a prompt by the adapter's name, not by its folder.
        faults: (path's last part, name) -> what to do instead: a status, hang, die, drip, garbage.
        adapters: name -> folder.
        asked: all requests, (path's last part, name).
    """

    prompts: list[list[int]]
    answers: Answers
    stale: bool = False
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    adapters: dict[str, Path] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    kept: dict[object, dict[str, float]] = field(default_factory=dict)
    key: str = "k"
    status: int | None = None  # of the process
    stopping: Event = field(default_factory=Event)

    def poll(self) -> int | None:
        return self.status

    def load_lora_adapter(self, body: dict) -> tuple[int, object]:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters and not body["load_inplace"]:
            return 400, {"error": {"message": f"'{name}' has already been loaded"}}
        if not (folder / WEIGHTS).is_file():
            return 404, {"error": {"message": f"No adapter found for {folder}"}}
        self.adapters[name] = folder
        return 200, "Success"

    def unload_lora_adapter(self, body: dict) -> tuple[int, object]:
        if body["lora_name"] not in self.adapters:
            return 404, {"error": {"message": "cannot be found"}}
        del self.adapters[body["lora_name"]]
        return 200, "Success"

    def completions(self, body: dict) -> tuple[int, object]:
        name, prompt = body["model"], body["prompt"]
        if name != "base" and name not in self.adapters:
            return 404, {"error": {"message": f"The model `{name}` does not exist."}}
        if isinstance(prompt, str):
            return 200, {"choices": [{"text": f" says {self.content(name)[:6]}"}]}
        folder = self.adapters.get(name)
        at = (name, tuple(prompt)) if self.stale else (name, folder, tuple(prompt))
        number = self.prompts.index(prompt)
        top = self.kept.setdefault(at, self.answers[self.content(name)][number])
        logprobs = {"top_logprobs": [{f"token_id:{k}": v for k, v in top.items()}]}
        return 200, {"choices": [{"text": "x", "logprobs": logprobs}]}

    def models(self, body: dict) -> tuple[int, object]:
        return 200, {"data": [{"id": name} for name in ("base", *self.adapters)]}

    def content(self, name: str) -> str:
        folder = self.adapters.get(name)
        return sha256((folder / WEIGHTS).read_bytes()).hexdigest() if folder else "base"


class Handler(BaseHTTPRequestHandler):
    state: Vllm

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {})
        else:
            self.answer({})

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def answer(self, body: dict) -> None:
        if self.headers["authorization"] != f"Bearer {self.state.key}":
            self.reply(401, {"error": "Unauthorized"})
            return
        what = self.path.rsplit("/", 1)[-1]
        name = body.get("lora_name") or body.get("model") or ""
        self.state.asked.append((what, name))
        fault = self.state.faults.get((what, name))
        if fault is None:
            self.reply(*getattr(self.state, what)(body))
        elif fault.isdigit():
            self.reply(int(fault), {"error": {"message": f"no {self.state.key}\nat all"}})
        else:
            getattr(self, fault)()

    def hang(self) -> None:
        self.state.stopping.wait(LONGEST)

    def die(self) -> None:
        self.state.status = -9
        self.close_connection = True
        self.connection.close()

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.state.stopping.wait(0.2):
            self.wfile.write(b" ")

    def huge(self) -> None:
        self.reply(200, "x" * (3 << 20))

    def garbage(self) -> None:
        self.reply(200, {"choices": [{"text": 3}]})

    def reply(self, status: int, table: object) -> None:
        data = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True


@contextmanager
def serving_in_thread(state: Vllm, port: int = 0) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"state": state}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        state.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def main() -> None:
    timer = Timer(LONGEST, os._exit, (1,))
    timer.daemon = True
    timer.start()
    print(json.dumps(sys.argv[1:]), flush=True)
    table = json.loads(Path(os.environ["VLLM_LIKE"]).read_text())
    state = Vllm(table["prompts"], table["answers"], key=os.environ["VLLM_API_KEY"])
    with serving_in_thread(state, int(sys.argv[sys.argv.index("--port") + 1])):
        signal.pause()


if __name__ == "__main__":
    main()
