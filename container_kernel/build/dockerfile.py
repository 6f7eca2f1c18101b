"""Dockerfile: a recipe in the words that docker build (with BuildKit) and buildah both know.

A step that runs something becomes ``RUN`` with the arguments and surroundings it has here, so it
makes the same files there. What differs for reasons of those tools: folders that ``WORKDIR`` names
are made at once, mount points of caches and tools stay behind, empty, and logs that we take
out of layers (`build.volatile`) are kept. Times are those of that build.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NoReturn

from ..errors import CannotExport
from ..oci.spec import ImageConfig
from . import settings
from .build_context import BuildContext
from .events import Image
from .make import copy_destination
from .package_scripts import TOLD
from .recipe import Made, StageRecipe
from .step import Copy, Download, Packages, Setting, Shell

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_RESERVED = ("scratch", "context")
# Names that mean themselves in a COPY: no wildcard, no variable.
_PLAIN_PATH = re.compile(r"[^\0-\x1f*?\[\]\\$\"]+")
_LONGEST_SCRIPT = 60_000  # the longest line of a Dockerfile is 64 KiB
_SCRIPT = "/run/step"
_EXTRA = {"ExposedPorts": "EXPOSE", "Volumes": "VOLUME"}


def write(stages: Sequence[StageRecipe], context: BuildContext) -> str:
    """The text of a Dockerfile whose last stage is the last of ``stages``.

    What it needs beside it is put into ``context``.

    Raises:
        CannotExport: a step means something that no Dockerfile can say; it is named.
    """
    writer = _Writer(context)
    for stage in stages:
        writer.stage(stage)
    return "\n".join(writer.lines) + "\n"


class _Writer:
    def __init__(self, context: BuildContext) -> None:
        self.lines = [
            "# Written by container-kernel. Build it with: docker build . (or: buildah bud .)"
        ]
        self._context = context
        self._names: dict[str, str] = {}  # ours to theirs; an image that is no stage by its digest

    def stage(self, stage: StageRecipe) -> None:
        base = self._image(stage.base)
        others = {name: self._image(image) for name, image in stage.others.items()}
        name = self._names[stage.name] = self._free_name(stage.name)
        self._add("", f"FROM {base} AS {name}")
        # Seen by what runs, in no config: ENV would be.
        self._add(f"ARG SOURCE_DATE_EPOCH={stage.epoch}", "ARG LC_ALL=C.UTF-8")
        for made in stage.steps:
            self._add("", *(f"# {line}" for line in made.step.title.splitlines()))
            self._step(made, {**self._names, **others})
        self._add("", *_start(stage.image.config))

    def _image(self, image: Image) -> str:
        """The stage that holds a whole image, once for all who begin with it."""
        digest, config = str(image.digest), image.config
        if digest not in self._names:
            name = self._free_name("base")
            file = self._context.image(name, image)
            title = image.layers[-1].created_by.splitlines()[:1]
            self._add(
                "", f"# {' '.join(title)} ({digest})", f"FROM scratch AS {name}", f"ADD {file} /"
            )
            self._add(*(f"ENV {_pair(pair)}" for pair in config.env))
            self._add(*_workdir(config.workdir, ""), *_user(config.user))
            self._names[digest] = name
        return self._names[digest]

    def _free_name(self, name: str) -> str:
        wanted = name.lower() if _STAGE_NAME.fullmatch(name.lower()) else f"stage-{name.lower()}"
        taken, number, free = {*self._names.values(), *_RESERVED}, 1, wanted
        while free in taken:
            number += 1
            free = f"{wanted}-{number}"
        return free

    def _add(self, *lines: str) -> None:
        self.lines += lines

    def _step(self, made: Made, names: Mapping[str, str]) -> None:
        step = made.step
        if isinstance(step, Setting):
            self._add(*_setting(step, made))
        elif isinstance(step, Copy):
            self._copy(step, made, names)
        elif isinstance(step, Download):
            self._copy_in([self._context.download(step)], step.destination or "./", made)
        elif isinstance(step, Packages):
            self._packages(step, made)
        else:
            self._shell(step, made)

    def _copy(self, step: Copy, made: Made, names: Mapping[str, str]) -> None:
        if step.from_stage is None:
            sources = [self._context.files(source) for source in step.sources]
            self._copy_in(sources, step.destination, made)
            return
        sources = ["/" + source.lstrip("/") for source in step.sources]
        self._copy_in(sources, step.destination, made, f"--from={names[step.from_stage]} ")

    def _copy_in(
        self, sources: Sequence[str], destination: str, made: Made, options: str = ""
    ) -> None:
        target = copy_destination(destination, made.config.workdir or "/")
        for path in (*sources, target):
            if not _PLAIN_PATH.fullmatch(path):
                _refuse(made, f"the name {path!r} has characters that COPY gives a meaning to")
        self._add(f"COPY {options}--chown=0:0 {json.dumps([*sources, target])}")

    def _packages(self, step: Packages, made: Made) -> None:
        assert made.layer is not None
        command = self._context.package_command(step, made.layer, made.config)
        mounts = [_cache(path) for path in sorted(command.caches)]
        # The command writes notes there too, which nobody reads.
        mounts.append(_bind(self._context.told(command.answers[TOLD]), TOLD) + ",rw")
        for target, source in sorted(command.binds.items()):
            if target in command.script:
                mounts.append(_bind(self._context.beside(source), target))
        user = made.config.user
        root = _user("0:0") if user else []
        self._add(*root, _run(_arguments(command.script), mounts), *_user(user))

    def _shell(self, step: Shell, made: Made) -> None:
        for key in ("mounts", "secrets", "devices", "ssh"):
            if getattr(step, key):
                _refuse(made, f"it is given {key} from outside")
        if step.net == "none":
            self._add("# It needs no network.")
        mounts = [_cache(path) for path in step.cache]
        if len(json.dumps(step.body)) < _LONGEST_SCRIPT and not step.body.startswith("#!"):
            self._add(_run(_arguments(step.body), mounts))
            return
        first = shlex.split(step.body.partition("\n")[0][2:]) if step.body[:2] == "#!" else []
        mounts.append(_bind(self._context.script(step.body), _SCRIPT))
        self._add(_run([*(first or ["/bin/sh", "-e"]), _SCRIPT], mounts))


def _refuse(made: Made, why: str) -> NoReturn:
    raise CannotExport(f"{made.step.title} cannot be said in a Dockerfile: {why}")


def _arguments(script: str) -> list[str]:
    return ["/bin/sh", "-e", "-c", script]


def _cache(target: str) -> str:
    return f"--mount=type=cache,sharing=locked,target={target}"


def _bind(source: str, target: str) -> str:
    return f"--mount=type=bind,source={source},target={target}"


def _run(arguments: Sequence[str], mounts: Sequence[str]) -> str:
    """``RUN`` in its exec form, which nothing is substituted in, a line of the script per line."""
    *words, last = arguments
    script = "".join(["\\\n" + _guarded(line) for line in re.findall(r"[^\n]*\n|[^\n]+", last)])
    if script.count("\n") > 1:
        script += "\\\n"
    else:
        script = script[2:]
    return " ".join(
        ["RUN", *mounts, "[" + "".join(f"{json.dumps(w)}, " for w in words) + f'"{script}"]']
    )


def _guarded(line: str) -> str:
    """A line as JSON; one that begins with # would be taken for a comment."""
    return re.sub(r"^( *)#", r"\1\\u0023", json.dumps(line)[1:-1])


def _setting(step: Setting, made: Made) -> list[str]:
    """What the steps after it run with; how the image starts comes at the end."""
    if any("\n" in value or "\r" in value for value in step.values):
        _refuse(made, "a value has several lines")
    config = settings.apply(made.config, step)
    if step.key == "env":
        return [f"ENV {_pair(pair)}" for pair in step.values]
    if step.key == "workdir":
        return _workdir(config.workdir, config.user)
    return _user(config.user) if step.key == "user" else []


def _workdir(path: str, user: str) -> list[str]:
    """``WORKDIR`` makes the folder, here as root's, as ours is."""
    if not path:
        return []
    line = f"WORKDIR {_escaped(path)}"
    return [*_user("0:0"), line, *_user(user)] if user else [line]


def _user(user: str) -> list[str]:
    return [f"USER {user}"] if user else []


def _start(config: ImageConfig) -> list[str]:
    """How a container of the image starts; the entry point first, as it resets the command."""
    lines = [f"LABEL {_pair(f'{key}={value}')}" for key, value in config.labels.items()]
    if config.entrypoint:
        lines.append(f"ENTRYPOINT {json.dumps(list(config.entrypoint))}")
    if config.cmd:
        lines.append(f"CMD {json.dumps(list(config.cmd))}")
    for key, value in sorted(config.config_extra.items()):
        if key == "StopSignal" and isinstance(value, str):
            lines.append(f"STOPSIGNAL {_escaped(value)}")
        elif key in _EXTRA and isinstance(value, dict):
            lines += [f"{_EXTRA[key]} {_escaped(str(name))}" for name in sorted(value)]
        else:
            lines.append(f"# {key} of the base image is not said here.")
    return lines


def _pair(pair: str) -> str:
    name, _, value = pair.partition("=")
    quoted = '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'
    return f"{_escaped(name)}={quoted}"


def _escaped(text: str) -> str:
    return re.sub(r"""([\\"'$ ])""", r"\\\1", text)
