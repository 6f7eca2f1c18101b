"""Connection files: where a kernel's sockets are, and the key that its messages are signed with."""

from __future__ import annotations

import json
from pathlib import Path

from ..record import record

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_SCHEMES = {f"hmac-{name}" for name in ("sha256", "sha384", "sha512", "sha1", "md5")}


@record(kw_only=True)
class ConnectionInfo:
    """Where a kernel's five sockets are and the key its messages are signed with."""

    transport: str
    ip: str
    ports: dict[str, int]
    key: bytes
    signature_scheme: str = "hmac-sha256"

    @classmethod
    def from_json(cls, text: str | bytes) -> ConnectionInfo:
        """Read a connection file's content.

        Raises:
            ValueError: it is not one, or asks for what this kernel cannot do.
        """
        try:
            data = json.loads(text)
            ports = {name: int(data[f"{name}_port"]) for name in CHANNELS}
            scheme = data.get("signature_scheme") or "hmac-sha256"
            transport = data.get("transport", "tcp")
            info = cls(
                transport=transport,
                ip=data.get("ip", "127.0.0.1"),
                ports=ports,
                key=data.get("key", "").encode(),
                signature_scheme=scheme,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a connection file: {error!r}") from error
        if scheme not in _SCHEMES or transport not in ("tcp", "ipc"):
            raise ValueError(f"not supported: {transport} with {scheme}")
        if data.get("curve_publickey"):  # plain text would be worse than no answer
            raise ValueError("not supported: encryption (CurveZMQ)")
        return info

    @classmethod
    def read(cls, path: Path) -> ConnectionInfo:
        """Read the connection file at ``path``."""
        return cls.from_json(path.read_bytes())

    def to_json(self) -> str:
        """The content of a connection file."""
        ports = {f"{name}_port": port for name, port in self.ports.items()}
        return json.dumps(
            {
                "transport": self.transport,
                "ip": self.ip,
                **ports,
                "key": self.key.decode(),
                "signature_scheme": self.signature_scheme,
            }
        )

    def address(self, channel: str) -> str:
        """The zmq address of one channel; over ipc the port is a suffix of the path."""
        separator = "-" if self.transport == "ipc" else ":"
        return f"{self.transport}://{self.ip}{separator}{self.ports[channel]}"
