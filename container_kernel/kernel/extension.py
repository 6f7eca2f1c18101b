"""Extension: our cells in an ordinary IPython notebook, after ``%load_ext container_kernel``.

A cell that is ours is sent as it stands to a kernel of our own (see `Child`), started with the
first of them; what it publishes is shown here. Every other cell stays IPython's. Three of our
names are IPython's too (``%pip``, ``%env``, ``%%sh``): they are its own until the notebook names a
``%base``, which says that it builds an image; ``%host`` reaches IPython's own after that.
"""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.magic import no_var_expand

from ..errors import BadArguments, CellError
from . import help
from .child import Child, check
from .commands import MAGICS
from .magics import RunCell, parse
from .wire import Dict

_LOADED = "_container_kernel"
_LINES = frozenset(m.name.split()[0] for m in MAGICS.values() if not m.is_cell)
_CELLS = frozenset(m.name for m in MAGICS.values() if m.is_cell)
_BUILD = frozenset(m.name for m in MAGICS.values() if m.is_build)
_PREFIX = re.compile(r"^([ \t]*)%container[ \t]+(?=[A-Za-z])", re.MULTILINE)
_CALLED = re.compile(r"^[ \t]*(%%?)([A-Za-z_][\w-]*)(.*)$", re.MULTILINE)
_BASE = re.compile(r"^[ \t]*%base\b", re.MULTILINE)
_WHOLE = "%%container\n"
_TAKEN = (
    "From here on %pip, %env and %%sh mean the image, as %apt and %%build do. "
    "IPython's own are %host pip, %host env and %%host sh."
)


def load(shell: Any) -> None:
    """Give ``shell`` our magics; once."""
    if not hasattr(shell, _LOADED):
        setattr(shell, _LOADED, Extension(shell))


def unload(shell: Any) -> None:
    """Take them away again, and end the containers."""
    if hasattr(shell, _LOADED):
        getattr(shell, _LOADED).close()
        delattr(shell, _LOADED)


class Extension:
    """Our magics in one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._child: Child | None = None
        self._has_base = False
        self._theirs: dict[tuple[str, str], Callable[..., Any]] = {
            (kind, name): theirs
            for kind, names in (("line", _LINES), ("cell", _CELLS))
            for name in names
            if (theirs := shell.find_magic(name, kind))
        }
        self._given: set[tuple[str, str]] = set()
        for kind, names in (("line", _LINES), ("cell", _CELLS)):
            for name in names:
                if (kind, name) not in self._theirs:
                    self._give(kind, name, self._magic(kind, name))
        self._give("line", "container", self._one_line)
        self._give("cell", "container", self._whole_cell)
        for kind in ("line", "cell"):
            self._give(kind, "host", self._host(kind))
        shell.input_transformers_cleanup.append(self._mark_ours)

    def close(self) -> None:
        """Leave the shell as it was."""
        self._shell.input_transformers_cleanup.remove(self._mark_ours)
        known = self._shell.magics_manager.magics
        for kind, name in self._given:
            known[kind].pop(name, None)
        for (kind, name), function in self._theirs.items():
            known[kind][name] = function
        if self._child is not None:
            self._child.close()

    def _give(self, kind: str, name: str, function: Callable[..., Any]) -> None:
        self._shell.register_magic_function(function, magic_kind=kind, magic_name=name)
        self._given.add((kind, name))

    # Which cells are ours

    def _mark_ours(self, lines: list[str]) -> list[str]:
        """The lines of a cell; under ``%%container`` if the whole cell is ours."""
        code = "".join(lines)
        if "%" not in code or code.lstrip().startswith(("%%container", "%%host")):
            return lines
        plain = _PREFIX.sub(r"\1%", code)
        if code.rstrip().endswith("?") or not self._is_ours(plain, is_said=plain != code):
            return lines
        return [_WHOLE, *plain.splitlines(keepends=True)]

    def _is_ours(self, code: str, *, is_said: bool) -> bool:
        """Whether a cell is ours as a whole: all it calls is, or it says so."""
        calls = [(signs, name, rest) for signs, name, rest in _CALLED.findall(code)]
        if calls and calls[0][0] == "%%":
            del calls[1:]  # the rest is its body
        has_base = self._has_base or bool(calls and calls[0][1] == "base")
        if not is_said and not all(self._is_called(*call, has_base=has_base) for call in calls):
            return False
        try:
            return not isinstance(parse(code), RunCell)
        except CellError:
            # Wrong, so whose it is decides who says so: ours if it begins with one of ours.
            first = code.lstrip().partition("\n")[0]
            return bool(calls) and first.startswith("".join(calls[0][:2]))

    def _is_called(self, signs: str, name: str, rest: str, *, has_base: bool) -> bool:
        """Whether a call means our magic of that name."""
        kind = "cell" if signs == "%%" else "line"
        if (kind, name) not in self._theirs:
            return name in (_CELLS if kind == "cell" else _LINES)
        if name == "env" and "=" not in rest:  # which asks for a variable of this process
            return False
        return has_base

    # Magics

    def _magic(self, kind: str, name: str) -> Callable[..., Any]:
        """What IPython calls where a cell is not ours as a whole; also what has our help."""

        def line_magic(line: str) -> None:
            if name in _BUILD:
                raise BadArguments(
                    f"%{name} stands among code", hint=f"give %{name} a cell of its own"
                )
            self._run(f"%{name} {line}")

        def cell_magic(line: str, cell: str) -> None:
            self._run(f"%%{name} {line}\n{cell}")

        function = line_magic if kind == "line" else cell_magic
        function.__doc__ = help.help(name)
        return no_var_expand(function)

    def _take_over(self) -> None:
        """From the first ``%base`` on, the names we share with IPython are ours."""
        self._has_base = True
        for kind, name in self._theirs:
            self._give(kind, name, self._shared(kind, name))
        self._shell.display_pub.publish({"text/plain": _TAKEN})

    def _shared(self, kind: str, name: str) -> Callable[..., Any]:
        ours, theirs = self._magic(kind, name), self._theirs[kind, name]

        def line_magic(line: str) -> Any:
            return (ours if self._is_called("%", name, line, has_base=True) else theirs)(line)

        line_magic.__doc__ = ours.__doc__
        return no_var_expand(line_magic) if kind == "line" else ours

    def _host(self, kind: str) -> Callable[..., Any]:
        """IPython's own magic of a name that is ours as well, or any other."""

        def find(line: str) -> tuple[Callable[..., Any], str]:
            name, _, rest = line.strip().lstrip("%").partition(" ")
            found = self._theirs.get((kind, name)) or self._shell.find_magic(name, kind)
            if found is None:
                raise BadArguments(f"IPython has no {kind} magic {name!r}")
            return found, rest.strip()

        def host(line: str) -> Any:
            """Call IPython's own magic: ``%host pip install NAME``, ``%host env``."""
            function, rest = find(line)
            return function(rest)

        def host_cell(line: str, cell: str) -> Any:
            """Call IPython's own cell magic: ``%%host sh``."""
            function, rest = find(line)
            return function(rest, cell)

        return host if kind == "line" else host_cell

    @no_var_expand
    def _one_line(self, line: str) -> None:
        """Call one of our magics: ``%container pip NAME``; in a cell of its own if it builds."""
        name = line.split()[0] if line.split() else "help"
        if name in _BUILD:
            raise BadArguments(
                f"%container {name} stands among code",
                hint=f"give %container {name} a cell of its own",
            )
        self._run(f"%{line}" if line.strip() else "%help")

    @no_var_expand
    def _whole_cell(self, line: str, cell: str) -> None:
        """Run the rest of the cell as the container's kernel does.

        Code runs inside the container, where variables stay; magics of ours do what they do.
        """
        if line.strip():
            raise BadArguments(f"%%container takes no arguments, found {line.strip()!r}")
        self._run(cell, is_cell=True)
        if not self._has_base and _BASE.search(cell):
            self._take_over()

    # Running

    def _run(self, code: str, *, is_cell: bool = False) -> None:
        """Run a cell in our kernel, show what it shows, fail as it fails."""
        if self._child is None or not self._child.is_running:
            self._child = Child(folder=Path.cwd(), is_notebook=True)
        metadata = self._metadata() if is_cell else {}
        may_ask = getattr(getattr(self._shell, "kernel", None), "_allow_stdin", True)
        reply = self._child.run(
            code.rstrip("\n"),
            self._show,
            on_input=_ask if may_ask else None,
            metadata=metadata,
        )
        for payload in check(reply).get("payload", ()):
            self._shell.payload_manager.write_payload(payload)

    def _metadata(self) -> Dict:
        """The front end's name of the cell, by which it replaces itself when it runs again."""
        parent = self._shell.get_parent() if hasattr(self._shell, "get_parent") else {}
        metadata = parent.get("metadata", {}) if isinstance(parent, dict) else {}
        return {key: metadata[key] for key in ("cellId", "deletedCells") if key in metadata}

    def _show(self, kind: str, content: Dict) -> None:
        if kind == "stream":
            stream = sys.stderr if content.get("name") == "stderr" else sys.stdout
            stream.write(str(content.get("text", "")))
            stream.flush()
        elif kind in ("display_data", "update_display_data", "execute_result"):
            self._shell.display_pub.publish(
                content.get("data", {}),
                content.get("metadata", {}),
                transient=content.get("transient", {}),
                update=kind == "update_display_data",
            )
        elif kind == "clear_output":
            self._shell.display_pub.clear_output(wait=bool(content.get("wait")))


def _ask(prompt: str, is_password: bool) -> str:
    return getpass.getpass(prompt) if is_password else input(prompt)
