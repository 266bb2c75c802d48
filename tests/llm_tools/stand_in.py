"""Stands where an interpreter with a model server stands; does what its model's name says.

stand_in.py -m vllm... --model slow --host 127.0.0.1 --port 8000
"""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Timer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LONGEST = 60  # seconds
say = partial(print, flush=True)


class Handler(BaseHTTPRequestHandler):
    healthy = True

    def do_GET(self) -> None:
        self.reply(200 if self.healthy else 503, {})

    def do_POST(self) -> None:
        from tests.llm_tools.fault_server import GOOD_TEXT, completion

        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        allowed = self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        name = body["model"] in (argument("--served-model-name"), "fed@r1")
        self.reply(200 if allowed and name else 401, completion(GOOD_TEXT))

    def reply(self, status: int, table: dict) -> None:
        data = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    Timer(LONGEST, os._exit, (1,)).start()
    kind = argument("--model")
    switches = {k: v for k, v in os.environ.items() if k.startswith(("VLLM", "DO_NOT", "LANG"))}
    switches["VLLM_API_KEY"] = "***" if switches["VLLM_API_KEY"] else ""
    say(json.dumps({"args": sys.argv[1:], "env": switches}))
    if kind == "dies":
        say("loading weights\nRuntimeError: no such model\n")
        os._exit(3)
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", str(LONGEST)])
    say(f"child {child.pid}")
    time.sleep(0.5)
    Handler.healthy = kind != "sick"
    ThreadingHTTPServer(("127.0.0.1", int(argument("--port"))), Handler).serve_forever()


main()
