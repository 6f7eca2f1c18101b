"""Registries for the tests: the real one, and a line to it whose bytes are counted."""

from __future__ import annotations

import base64
import contextlib
import crypt
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

USER, SECRET = "alice", "correct horse"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def make_certificate(folder: Path, *, is_expired: bool = False, name: str = "localhost") -> Path:
    """A certificate for this host that signs itself; its key lies beside it."""
    names = f"DNS:{name}" + (",IP:127.0.0.1" if name == "localhost" else "")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    what = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-days", "2"]
    key, made = folder / "key.pem", folder / "ca.crt"
    where = ["-keyout", key, "-out", made]
    subprocess.run([*make, *what, *where], check=True, capture_output=True)
    if is_expired:
        again = ["openssl", "x509", "-in", made, "-signkey", key, "-days", "-1", "-out", made]
        subprocess.run(again, check=True, capture_output=True)
    return folder / "ca.crt"


@contextlib.contextmanager
def registry(
    folder: Path, *, tls: Path | None = None, auth: dict | None = None, port: int | None = None
) -> Iterator[str]:
    """A running `docker-registry` that keeps its blobs in ``folder``; its ``host:port``."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    http: dict = {"addr": f"127.0.0.1:{port}"}
    if tls:
        http["tls"] = {"certificate": str(tls), "key": str(tls.with_name("key.pem"))}
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": http,
        **({"auth": auth} if auth else {}),
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    log = (folder / "log").open("wb")
    running = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        _wait_for(port, running)
        yield f"127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()
        log.close()


def _wait_for(port: int, running: subprocess.Popen) -> None:
    end = time.monotonic() + 20
    while running.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("docker-registry did not start")


def passwords(folder: Path) -> dict:
    """The registry's setting for a name and a password."""
    file = folder / "htpasswd"
    file.write_text(
        f"{USER}:{crypt.crypt(SECRET, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))}\n"
    )
    return {"htpasswd": {"realm": "tests", "path": str(file)}}


@contextlib.contextmanager
def tokens(folder: Path, certificate: Path) -> Iterator[tuple[dict, list[str]]]:
    """A server of tokens for those who know the password; the setting, and the scopes asked for."""
    asked: list[str] = []
    wanted = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()

    class Tokens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            asked.extend(query.get("scope", []))
            if self.headers.get("Authorization") != wanted:
                self.send_error(401)
                return
            body = json.dumps({"token": _sign(query, certificate)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Tokens) as port:
        realm = f"http://127.0.0.1:{port}/token"
        setting = {"realm": realm, "service": "tests", "issuer": "tests"}
        yield {"token": setting | {"rootcertbundle": str(certificate)}}, asked


def _sign(query: dict[str, list[str]], certificate: Path) -> str:
    """A JSON web token as docker-registry reads it: RS256, with the certificate in it."""
    access = []
    for scope in query.get("scope", []):
        kind, name, actions = scope.rsplit(":", 2) if scope.count(":") > 1 else (scope, "", "")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    pem = certificate.read_text()
    der = "".join(pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0].split())
    now = int(time.time())
    head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
    claims = {"iss": "tests", "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 10}
    claims |= {"iat": now, "jti": "1", "access": access}
    text = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
    key = certificate.with_name("key.pem")
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), capture_output=True
    )
    return f"{text}.{_b64(signed.stdout)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], wrap=None) -> Iterator[int]:
    """A server on loopback; its port."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients that go away are part of the tests

    server = Server(("127.0.0.1", 0), handler)
    if wrap:
        server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Line:
    """A line to a server that counts what goes each way."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = host, int(port)
        self.sent = 0
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        self.sent = self.received = 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                threading.Thread(target=self._copy, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(far, near, False), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_sent:
                    self.sent += len(data)
                else:
                    self.received += len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def get(url: str, **headers: str) -> bytes:
    """What a registry answers to anybody."""
    asked = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(asked) as answer:
        return answer.read()
