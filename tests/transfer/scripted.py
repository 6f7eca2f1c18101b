"""A registry that does what a test tells it to: right by default, wrong where scripted."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

from tests.transfer.layouts import MANIFEST, Layout, digest
from tests.transfer.servers import serving

Rule = Callable[["Handler"], bool | None]


class Script:
    """What the server holds, what it is to do, and what it was asked."""

    def __init__(self, layout: Layout | None = None) -> None:
        self.blobs: dict[str, bytes] = dict(layout.blobs) if layout else {}
        self.tags: dict[str, tuple[bytes, str]] = {}
        self.rules: list[tuple[str, str, Rule]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.uploads: dict[str, bytearray] = {}
        if layout:
            descriptor = layout.descriptor
            self.tags["1"] = self.blobs[descriptor["digest"]], descriptor["mediaType"]

    def when(self, method: str, part: str, rule: Rule, times: int = 1 << 30) -> None:
        """``rule`` handles requests whose path has ``part``; it returns False to pass."""
        left = [times]

        def counted(handler: Handler) -> bool:
            if left[0] <= 0:
                return False
            left[0] -= 1
            return rule(handler) is not False

        self.rules.append((method, part, counted))

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path, _ in self.asked)

    @contextlib.contextmanager
    def running(self, wrap=None) -> Iterator[str]:
        """Serve; its ``host:port``."""
        handler = type("Handler", (Handler,), {"script": self})
        with serving(handler, wrap) as port:
            yield f"127.0.0.1:{port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()

    def _any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.script.asked.append((self.command, self.path, dict(self.headers)))
        for method, part, rule in self.script.rules:
            if method in (self.command, "*") and part in self.path and rule(self):
                return
        self.usual()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _any

    def usual(self) -> None:
        """What a registry does."""
        kind, _, name = self.path.partition("?")[0].rpartition("/")
        if "/blobs/uploads" in self.path:
            self._upload(name)
        elif self.command == "PUT":
            self.script.tags[name] = self.body, self.headers["Content-Type"]
            self.script.blobs[digest(self.body)] = self.body
            self.say(201)
        elif kind.endswith("manifests"):
            data, media_type = self.script.tags.get(name) or (self.script.blobs.get(name), MANIFEST)
            self.say(404) if data is None else self.say(200, data, **{"Content-Type": media_type})
        elif name in self.script.blobs:
            self.blob(self.script.blobs[name])
        else:
            self.say(404)

    def blob(self, data: bytes) -> None:
        asked = self.headers.get("Range", "")
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.say(206, data[start:], **{"Content-Range": span})
        else:
            self.say(200, data)

    def _upload(self, name: str) -> None:
        uploads = self.script.uploads
        if self.command == "POST":
            name = str(len(uploads))
            uploads[name] = bytearray()
            base = self.path.partition("?")[0].rstrip("/")
            self.say(202, Location=f"{base}/{name}?state=x")
        elif name not in uploads:
            self.say(404)
        elif self.command == "GET":
            self.say(204, Range=f"0-{max(0, len(uploads[name]) - 1)}")
        else:
            uploads[name] += self.body
            if self.command == "PATCH":
                self.say(202, Location=self.path)
                return
            data = bytes(uploads.pop(name))
            wanted = self.path.rpartition("digest=")[2].replace("%3A", ":")
            if "sha256:" + hashlib.sha256(data).hexdigest() != wanted:
                self.say(400, json.dumps({"errors": [{"message": "digest invalid"}]}).encode())
                return
            self.script.blobs[wanted] = data
            self.say(201)

    def say(self, status: int, data: bytes = b"", length: int | None = None, **headers) -> None:
        """Answer; ``length`` is what is claimed to come."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def cut(self, data: bytes, count: int) -> None:
        """Promise all of it, send ``count`` bytes, hang up."""
        self.say(200, data[:count], length=len(data))
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
