"""An OpenAI-compatible server on loopback that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MESSAGES = [{"role": "user", "content": "hello"}]

Respond = Callable[[BaseHTTPRequestHandler], None]


class StandIn:
    """`responses` are used up one by one, the last one for good; without any, a plain answer."""

    def __init__(self, models: list[dict[str, object]] | None = None) -> None:
        self.models = [{"id": "stand-in"}] if models is None else models
        self.responses: list[Respond] = []
        self.requests: list[dict[str, object]] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.api_key: str | None = None
        self.hung_up = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if stand_in._refused(self):
                    return
                if self.path.startswith("/v1/models") and stand_in.models:
                    send_json(self, 200, {"object": "list", "data": stand_in.models})
                else:
                    send_json(self, 404, {"error": {"message": "no such page"}})

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                stand_in.requests.append(json.loads(self.rfile.read(length)))
                if stand_in._refused(self):
                    return
                responses = stand_in.responses
                respond = responses.pop(0) if len(responses) > 1 else (responses or [says("Hi")])[0]
                try:
                    respond(self)
                except (BrokenPipeError, ConnectionResetError):
                    stand_in.hung_up.set()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _refused(self, handler: BaseHTTPRequestHandler) -> bool:
        self.paths.append(handler.path)
        self.authorizations.append(handler.headers["authorization"])
        wanted = f"Bearer {self.api_key}"
        if self.api_key is None or handler.headers["authorization"] == wanted:
            return False
        send_json(handler, 401, {"error": {"message": "bad key"}})
        return True


def send_json(handler: BaseHTTPRequestHandler, status: int, body: object, **headers: str) -> None:
    send_text(handler, status, json.dumps(body), "application/json", **headers)


def send_text(
    handler: BaseHTTPRequestHandler, status: int, text: str, kind: str, **headers: str
) -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def status(code: int, message: str = "not now", **headers: str) -> Respond:
    return lambda handler: send_json(handler, code, {"error": {"message": message}}, **headers)


def sends(*events: str) -> Respond:
    """Answer with server-sent events, then close the connection."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        for event in events:
            handler.wfile.write(f"data: {event}\n\n".encode())
            handler.wfile.flush()

    return respond


def chunk(piece: str | None = None, reason: str | None = None) -> str:
    delta = {} if piece is None else {"content": piece}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def says(*pieces: str, reason: str = "stop") -> Respond:
    first = json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    return sends(first, *map(chunk, pieces), chunk(reason=reason), "[DONE]")


def used(**usage: object) -> str:
    return json.dumps({"choices": [], "usage": usage})
