"""Packages: the command of ``%apt``, ``%pip`` and ``%npm``, and what it installed.

Downloads go through caches shared by all notebooks, which are mounted into the step and in no
layer; package managers find the site's settings in ``/run/site``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import HostError, LockDrift, StepFailed
from . import resolved
from .execute import Command
from .journal import Journal
from .lock import LockedStep, checked
from .package_scripts import CACHE, NPM, SCRIPTS, TOLD, UV
from .resolved import Input
from .step import Packages
from .workplace import Workplace

_CACHES = {"pip": "uv"}
_OTHER_BYTES = re.compile(r"mismatch|EINTEGRITY", re.IGNORECASE)
_REQUIREMENTS = "/run/requirements"
_VERSION_OR_SUITE = re.compile(r"[=/].*")


class Installation:
    """One package step about to run: its command, and afterwards what it took.

    With ``locked`` it installs what that names.
    """

    def __init__(
        self, step: Packages, place: Workplace, journal: Journal, locked: LockedStep | None
    ) -> None:
        self._inputs = locked.inputs if locked else None
        self._step = step
        self._store = place.store
        self._journal = journal
        self._host = place.host
        self._told = place.host.new_folder("told")
        self._root = place.idmap.to_disk(0)
        self._host.keep_in_memory(self._told, self._root)
        self._downloads = self._store.cache_folder(_CACHES.get(step.manager, step.manager))

    def command(self, requirements: Mapping[str, Path], env: Mapping[str, str]) -> Command:
        """What to run; ``requirements`` are the step's files, frozen for this run."""
        step, binds, words = self._step, {}, [*self._step.options, *self._step.names]
        for number, path in enumerate(requirements.values()):
            inside = f"{_REQUIREMENTS}-{number}.txt"
            binds[inside] = path
            words += _file_words(step.manager, path, inside)
        if step.manager == "pip":
            binds[UV] = _find_uv()
        if step.manager == "npm":
            binds[NPM] = Path(__file__).with_name("npm.js")
        if self._inputs is not None:
            self._journal.bring(self._inputs, self._downloads)
            resolved.write(step, self._inputs, self._told)
        for path in (self._told, *self._told.iterdir()):
            os.chown(path, self._root, self._root)
        return Command(
            script=self._script(words),
            env=env,
            binds=binds,
            caches={f"{CACHE}/{self._downloads.name}": self._downloads},
            answers={TOLD: self._told},
        )

    def close(self) -> None:
        """Forget what was told."""
        self._host.unbind(self._told)

    def taken(self) -> list[Input]:
        """What was installed, kept by its digest from now on.

        Raises:
            LockDrift: it is not what was locked.
            StepFailed: something in the step has written what makes no sense.
        """
        found, built_with = self._found()
        if self._inputs is not None:
            # What is installed was told; what it is built with can only be asked for.
            tools = [one for one in self._inputs if one.get("tool")]
            if drift := resolved.drift(tools, built_with):
                raise LockDrift(f"{self._step.title} was built with other tools:\n  {drift}")
            found = list(self._inputs)
        self._journal.keep(found, self._downloads)
        return found

    def _found(self) -> tuple[list[Input], list[Input]]:
        """What the step says it took, and the tools it says it built with."""
        try:
            took = [checked(one) for one in resolved.of_step(self._step, self._told)]
            return took, resolved.tools_told(self._told)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise StepFailed(
                f"{self._step.title}: what it says of the packages it took is wrong: {error}",
                exit_code=None,
                hint=f"a script of one of its packages has written to {TOLD}; do not trust it",
            ) from error

    def explained(self, error: StepFailed) -> StepFailed | LockDrift:
        """``error``, as one who has a lock understands it."""
        gone = ""
        with suppress(ValueError):
            gone = resolved.text(self._told, "gone")
        if gone:
            names = ", ".join(gone.split())
            return LockDrift(
                f"{self._step.title}: neither the store nor the package mirror has {names}",
                hint="copy the store's folder `inputs` from where it was built, or lock it anew",
            )
        if self._inputs is not None and any(_OTHER_BYTES.search(line) for line in error.tail):
            return LockDrift(f"{self._step.title} found other bytes than locked\n{error.message}")
        return error

    def _script(self, words: Sequence[str]) -> str:
        names = [_VERSION_OR_SUITE.sub("", word) for word in words]
        script = SCRIPTS[self._step.manager, self._inputs is not None]
        for mark, given in (
            ("@WORDS@", words),
            ("@NAMES@", names),
            ("@OPTIONS@", _index_options(self._step.options)),
        ):
            script = script.replace(mark, shlex.join(given))
        return script


def _index_options(options: Sequence[str]) -> list[str]:
    """Those that say where packages come from, which hold for what is pinned too."""
    return [option for option in options if option.startswith(("--index-url", "--extra-index"))]


def _file_words(manager: str, path: Path, inside: str) -> list[str]:
    if manager == "pip":
        return ["-r", inside]
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [word for line in lines for word in line.split()]


def _find_uv() -> Path:
    try:
        from uv import find_uv_bin
    except ImportError as error:
        raise HostError("uv is not installed", hint="pip install uv") from error
    return Path(find_uv_bin())
