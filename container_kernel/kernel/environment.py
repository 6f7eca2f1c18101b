"""Environment: what a notebook's cells do, from Python.

It drives a kernel of our own (see `Child`): whatever a cell can say, `Environment.cell` can, and
the methods are the common cells by name.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..record import field, record
from .child import Child, check
from .wire import Dict


@record(frozen=False)
class Output:
    """What a cell wrote and showed. ``displays`` are mimebundles, as they were shown last."""

    stdout: str = ""
    stderr: str = ""
    displays: list[Dict] = field(default_factory=list)
    result: str | None = None
    """The value of its last expression, as text."""


class Environment:
    """An image that grows step by step, and the container that runs code in it.

    ::

        with Environment("debian:bookworm") as env:
            env.apt("python3")
            env.build("mkdir /data", net="none")
            print(env.cell("print(6 * 7)").stdout)
            print(env.digest)

    A step that was built is not built again. Every method raises `CellFailed` where the cell would
    fail, and `HostError` where this host cannot have containers.
    """

    def __init__(
        self,
        base: str,
        *,
        folder: Path | str | None = None,
        on_text: Callable[[str, str], object] | None = None,
    ) -> None:
        """Start from ``base``, what ``%base`` takes. ``folder`` is what run cells see at /work.

        ``on_text`` is given ``stdout`` or ``stderr`` and text, as it is written.
        """
        self._on_text = on_text
        self._child = Child(folder=Path(folder or ".").absolute())
        try:
            self.base(base)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the containers. The images stay in the store."""
        self._child.close()

    # Building

    def base(self, reference: str, *, stage: str = "main") -> Output:
        """Start a stage; what follows belongs to it."""
        return self._magic("base", reference, **{"as": stage})

    def apt(self, *packages: str) -> Output:
        """Install Debian packages as one layer."""
        return self._magic("apt", *packages)

    def pip(self, *packages: str) -> Output:
        """Install Python packages as one layer."""
        return self._magic("pip", *packages)

    def npm(self, *packages: str) -> Output:
        """Install Node packages as one layer."""
        return self._magic("npm", *packages)

    def build(self, script: str, *, name: str | None = None, net: str = "host") -> Output:
        """Run a shell script and freeze what it changes as one layer."""
        return self.cell(f"{_line('%%build', (), {'name': name, 'net': net})}\n{script}")

    def copy(self, *paths: str, stage: str | None = None) -> Output:
        """Copy files of the folder (or of ``stage``) into the image; the last path is where to."""
        return self._magic("copy", *paths, **{"from": stage})

    def env(self, **variables: str) -> Output:
        """Set variables of the image."""
        return self._magic("env", *(f"{name}={value}" for name, value in variables.items()))

    # Running

    def cell(self, code: str) -> Output:
        """Run a cell: code inside the container, or magics of ours."""
        output = Output()
        shown: dict[str, int] = {}

        def on_message(kind: str, content: Dict) -> None:
            self._take(output, shown, kind, content)

        check(self._child.run(code, on_message))
        return output

    def sh(self, script: str) -> Output:
        """Run a shell script beside the session, in the same container."""
        return self.cell(f"%%sh\n{script}")

    def run(self, command: str | Sequence[str], *, input: str = "", **limits: object) -> Output:
        """Run a shell script, or a command with ``input``, in a fresh container.

        ``limits`` are the flags of ``%%run``: ``memory="512m"``, ``timeout="30s"``, ``net="host"``.
        """
        words = () if isinstance(command, str) else tuple(command)
        flags = {name.replace("_", "-"): value for name, value in limits.items()}
        body = command if isinstance(command, str) else input
        return self.cell(f"{_line('%%run', words, flags)}\n{body}")

    def use(self, stage: str) -> Output:
        """Go on in another stage."""
        return self._magic("use", stage)

    # Images

    @property
    def digest(self) -> str:
        """The image's digest."""
        shown = self.cell("%layers --json").displays[-1]["application/json"]
        return str(shown["stages"][shown["current"]]["digest"])

    def freeze(self, tag: str | None = None, *, kernel: str | None = None) -> Output:
        """Freeze what run cells wrote as one more layer."""
        return self._magic("freeze", *([tag] if tag else []), kernel=kernel)

    def tag(self, name: str) -> Output:
        """Give the image a name."""
        return self._magic("tag", name)

    def _magic(self, name: str, *words: str, **flags: object) -> Output:
        return self.cell(_line(f"%{name}", words, flags))

    def _take(self, output: Output, shown: dict[str, int], kind: str, content: Dict) -> None:
        data: Dict = content.get("data", {})
        if kind == "stream":
            name, text = str(content["name"]), str(content["text"])
            setattr(output, name, getattr(output, name) + text)
            if self._on_text:
                self._on_text(name, text)
        elif kind == "execute_result":
            output.result = str(data.get("text/plain", ""))
            output.displays.append(data)
        elif kind in ("display_data", "update_display_data"):
            _redraw(output.displays, shown, content.get("transient", {}).get("display_id"), data)


def _redraw(displays: list[Dict], shown: dict[str, int], display_id: Any, data: Dict) -> None:
    if display_id in shown:
        displays[shown[display_id]] = data
        return
    if display_id is not None:
        shown[display_id] = len(displays)
    displays.append(data)


def _line(sign: str, words: Sequence[str], flags: dict[str, Any]) -> str:
    """A magic's line; a flag that is True is a switch, None or False leaves it out."""
    parts = []
    for name, value in flags.items():
        if value is True:
            parts.append(f"--{name}")
        elif value is not None and value is not False:
            parts.append(f"--{name}={value}")
    return " ".join([sign, shlex.join([*parts, *words])])
