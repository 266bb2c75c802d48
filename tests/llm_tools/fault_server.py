"""A model server on loopback that does one thing wrong, chosen by the first part of the path.

Everything it does ends by itself: handlers after ``LONGEST`` seconds, the server with its context.
"""

import gzip
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from time import monotonic

LONGEST = 20.0
GOOD = {"lr": 0.01, "steps": 3, "rule": "oort"}
MEGABYTES = 10


def completion(content: object, finish: str = "stop", **message: object) -> dict:
    """A chat completion with a text."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


@dataclass
class Seen:
    """What the server saw."""

    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    sent: int = 0
    cut_at: float | None = None
    stopping: Event = field(default_factory=Event)


class Handler(BaseHTTPRequestHandler):
    """Answers by the mode in the path."""

    protocol_version = "HTTP/1.1"
    seen: Seen

    def do_POST(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.requests.append((self.path, dict(self.headers), body))
        self.close_connection = True
        mode, _, _ = self.path.strip("/").partition("/")
        try:
            MODES[mode](self)
        except OSError:
            self.seen.cut_at = monotonic()

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, body: bytes | dict, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def drip(self, data: bytes) -> None:
        """Send a byte, wait a second, send a byte."""
        for byte in data[: int(LONGEST)]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.seen.stopping.wait(1.0):
                return


Mode = Callable[[Handler], None]


def says(content: object, **rest: object) -> Mode:
    return lambda handler: handler.send(completion(content, **rest))


def status(code: int, body: bytes | dict = b'{"error": {"message": "no"}}', **headers: str) -> Mode:
    return lambda handler: handler.send(body, code, **headers)


def raw(body: bytes, **headers: str) -> Mode:
    return lambda handler: handler.send(body, **headers)


def hang(handler: Handler) -> None:
    handler.seen.stopping.wait(LONGEST)


def drip_headers(handler: Handler) -> None:
    handler.drip(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")


def drip_body(handler: Handler) -> None:
    data = json.dumps(completion(json.dumps(GOOD))).encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.drip(data)


def drip_error(handler: Handler) -> None:
    handler.send_response(500)
    handler.send_header("content-length", "500")
    handler.end_headers()
    handler.drip(b"x" * 500)


def huge(code: int) -> Mode:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("content-length", str(MEGABYTES << 20))
        handler.end_headers()
        for _ in range(MEGABYTES << 4):
            handler.wfile.write(b"x" * 65536)
            handler.seen.sent += 65536

    return answer


def reset(handler: Handler) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def half(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


def late_repair(handler: Handler) -> None:
    """Malformed at first, good once the validator's words were given."""
    again = len(json.loads(handler.seen.requests[-1][2])["messages"]) > 1
    says(json.dumps(GOOD) if again else "lr = 0.01")(handler)


def hang_in_repair(handler: Handler) -> None:
    again = len(json.loads(handler.seen.requests[-1][2])["messages"]) > 1
    (hang if again else says("lr = 0.01"))(handler)


def leak(code: int) -> Mode:
    """Repeat the key."""

    def answer(handler: Handler) -> None:
        key = handler.headers["authorization"].removeprefix("Bearer ")
        text = {"error": {"message": f"bad key {key}"}} if code != 200 else completion(key)
        handler.send(text, code)

    return answer


def obeys(handler: Handler) -> None:
    """Do whatever a line of the prompt that begins with OBEY: says."""
    prompt = json.loads(handler.seen.requests[-1][2])["messages"][0]["content"]
    order = next(line for line in prompt.splitlines() if line.startswith("OBEY:"))
    says(order.removeprefix("OBEY:"))(handler)


GOOD_TEXT = json.dumps(GOOD)
MALFORMED = {
    "truncated": '{"lr": 0.01, "steps": 3, "rul',
    "prose": "I would lower the learning rate to 0.01.",
    "fence": f"```json\n{GOOD_TEXT}\n```",
    "nan": '{"lr": NaN, "steps": 3, "rule": "oort"}',
    "overflow": '{"lr": 1e400, "steps": 3, "rule": "oort"}',
    "twice": '{"lr": 0.01, "lr": 0.02, "steps": 3, "rule": "oort"}',
    "trailing": f"{GOOD_TEXT} I hope this helps.",
    "two": GOOD_TEXT + GOOD_TEXT,
    "quotes": str(GOOD),
    "comment": '{"lr": 0.01, /* safe */ "steps": 3, "rule": "oort"}',
    "deep": "[" * 30_000,
    "digits": '{"lr": 0.01, "steps": 3' + "0" * 5000 + ', "rule": "oort"}',
}
INVALID = {
    "schema_echo": json.dumps({"type": "object", "properties": {"lr": {"type": "number"}}}),
    "extra": json.dumps(GOOD | {"epsilon": 100}),
    "list": json.dumps([GOOD]),
    "string_number": json.dumps(GOOD | {"lr": "0.01"}),
    "null": "null",
    "missing": json.dumps({"lr": 0.01}),
    "above": json.dumps(GOOD | {"lr": 1000.0}),
    "below": json.dumps(GOOD | {"steps": 0}),
    "fraction": json.dumps(GOOD | {"steps": 2.5}),
    "unknown_rule": json.dumps(GOOD | {"rule": "all clients"}),
    "surrogate": '{"lr": 0.01, "steps": 3, "rule": "\\ud800"}',
}
BROKEN_REPLIES = {
    "body_text": raw(b"oops"),
    "body_html": raw(b"<html>502</html>", content_type="text/html"),
    "body_list": raw(b"[]"),
    "body_empty": raw(b""),
    "body_bytes": raw(b'{"choices": "\xff\xfe"}'),
    "choices_none": raw(b"{}"),
    "choices_null": raw(b'{"choices": null}'),
    "choices_empty": raw(b'{"choices": []}'),
    "content_number": says(3),
    "content_parts": says([{"type": "text", "text": GOOD_TEXT}]),
    "usage_text": raw(json.dumps(completion(GOOD_TEXT) | {"usage": "many"}).encode()),
    "deep_body": raw(b'{"a":' * 9_000),
    "packed": raw(
        gzip.compress(json.dumps(completion(GOOD_TEXT)).encode()), content_encoding="gzip"
    ),
}

MODES: dict[str, Mode] = {
    "good": says(GOOD_TEXT),
    "padded": says(f" \n\t{GOOD_TEXT}\n"),
    "status201": status(201, completion(GOOD_TEXT)),
    "no_usage": raw(json.dumps({"choices": completion(GOOD_TEXT)["choices"]}).encode()),
    "late_repair": late_repair,
    "empty": says(""),
    "blank": says(" \n "),
    "content_null": says(None),
    "refusal": says(None, refusal="I will not."),
    "filtered": says("{", finish="content_filter"),
    "cut": says('{"lr": 0.0', finish="length"),
    "moved": status(302, location="/good/v1/chat/completions"),
    "limited": status(429, retry_after="60"),
    "hang": hang,
    "drip_headers": drip_headers,
    "drip_body": drip_body,
    "drip_error": drip_error,
    "hang_in_repair": hang_in_repair,
    "huge": huge(200),
    "huge_error": huge(500),
    "reset": reset,
    "half": half,
    "leak200": leak(200),
    "leak401": leak(401),
    "obeys": obeys,
    **{f"status{code}": status(code) for code in (400, 401, 403, 404, 422, 429, 500, 503)},
    **{name: says(text) for name, text in (MALFORMED | INVALID).items()},
    **BROKEN_REPLIES,
}


@contextmanager
def fault_server() -> Iterator[tuple[str, Seen]]:
    """Serve; gives the address, to which ``/MODE/v1`` is added, and what was seen."""
    seen = Seen()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"seen": seen}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        seen.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
