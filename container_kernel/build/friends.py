"""Friends: the files by which other tools set up an environment like an image's.

Lists of packages, repo2docker's configuration files (its documentation, "Configuration files"), and
a development container (containers.dev). What is installed is read out of the image itself.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import CannotExport
from ..runtime.view import View
from .installed import Package
from .recipe import StageRecipe
from .step import Packages, Setting, Shell, Step

_SILENT = ("label", "workdir")
_PYTHON = re.compile(r"python(3\.\d+)")


def requirements(packages: Iterable[Package]) -> str:
    """``requirements.txt``: Python's packages, exactly."""
    return _lines(package.pinned for package in packages if package.kind == "pypi")


def apt(before: Iterable[Package], after: Iterable[Package]) -> str:
    """``apt.txt``: the Debian packages that came on top of the base, exactly."""
    new = sorted({*after} - {*before})
    return _lines(package.pinned for package in new if package.kind == "deb")


def write_repo2docker(
    stage: StageRecipe, view: View, packages: Sequence[Package], to: Path
) -> None:
    """Write repo2docker's files into ``to``.

    It begins with an image of its own, so versions of Debian packages mean nothing there: they are
    named only. Scripts run as an ordinary user.

    Raises:
        CannotExport: a step means something that these files cannot say; it is named.
    """
    steps = [made.step for made in stage.steps]
    scripts = [script for step in steps for script in _post_build(step)]
    texts = {
        "apt.txt": _lines(dict.fromkeys(name for step in steps for name in _asked(step, "apt"))),
        "requirements.txt": requirements(packages),
        "runtime.txt": _runtime(view),
        "postBuild": "#!/bin/bash\nset -e\n" + "".join(scripts) if scripts else "",
        "start": _start(steps),
    }
    for name, text in texts.items():
        if text:
            (to / name).write_text(text, encoding="utf-8")
            (to / name).chmod(0o755 if text.startswith("#!") else 0o644)


def devcontainer(name: str, user: str) -> str:
    """``devcontainer.json`` for the Dockerfile beside it."""
    document = {
        "name": name,
        "build": {"dockerfile": "Dockerfile", "context": "."},
        # What starts is the tool's own process, so that the container stays.
        "overrideCommand": True,
        **({"remoteUser": user.partition(":")[0]} if user else {}),
    }
    return json.dumps(document, indent=2) + "\n"


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def _asked(step: Step, manager: str) -> list[str]:
    """The packages a step names, without versions or suites."""
    if not isinstance(step, Packages) or step.manager != manager:
        return []
    if step.files:
        raise CannotExport(
            f"{step.title} cannot be said in repo2docker's files: it reads {step.files[0]}",
            hint="name the packages in the cell",
        )
    return [re.split("[=/]", name)[0] for name in step.names]


def _post_build(step: Step) -> list[str]:
    if isinstance(step, Shell) and not (
        step.body.startswith("#!") or step.mounts or step.secrets or step.devices or step.ssh
    ):
        # In a shell of its own, as here: what one sets, the next does not see.
        return [f"\n# {step.title}\n(\n{step.body}\n)\n"]
    if isinstance(step, Packages):
        names = shlex.join(step.names)
        return [f"\n# {step.title}\nnpm install --global {names}\n"] * (step.manager == "npm")
    if isinstance(step, Setting) and step.key in ("env", *_SILENT):
        return []
    raise CannotExport(
        f"{step.title} cannot be said in repo2docker's files", hint="%export dockerfile can say it"
    )


def _start(steps: Sequence[Step]) -> str:
    """The script that sets variables, if there are any."""
    pairs = [pair for s in steps if isinstance(s, Setting) and s.key == "env" for pair in s.values]
    exports = [f"export {name}={shlex.quote(value)}" for name, _, value in map(_split, pairs)]
    return _lines(["#!/bin/bash", *exports, 'exec "$@"']) if exports else ""


def _split(pair: str) -> tuple[str, str, str]:
    return pair.partition("=")


def _runtime(view: View) -> str:
    """The Python there is, as repo2docker names it."""
    for folder in ("/usr/local/bin", "/usr/bin"):
        found = [match[1] for name in view.names(folder) if (match := _PYTHON.fullmatch(name))]
        if found:
            return f"python-{max(found, key=lambda text: int(text[2:]))}\n"
    return ""
