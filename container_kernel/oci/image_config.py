"""ImageConfig: how a container of an image starts, and which layers it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..errors import ImageError
from ..record import field, record
from .digest import Digest
from .fields import Fields, as_digest, present
from .platform import Platform
from .strict_json import canonical, parse

Extra = Mapping[str, Any]


@record
class History:
    """How one step of an image came to be. ``empty_layer``: it changed no files."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Extra = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, value: object, what: str) -> Self:
        """Read it out of a parsed document."""
        fields = Fields(value, what)
        return cls(
            created=fields.text("created"),
            created_by=fields.text("created_by"),
            comment=fields.text("comment"),
            empty_layer=fields.flag("empty_layer"),
            extra=fields.rest,
        )

    def fields(self) -> dict[str, Any]:
        """As a JSON object."""
        known = {
            "created": self.created,
            "created_by": self.created_by,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {**self.extra, **present(known)}


@record
class ImageConfig:
    """How a container of the image starts, and which layers it is made of.

    ``env`` holds ``NAME=value`` texts. ``extra`` keeps unknown fields of the document,
    ``config_extra`` those of its ``config`` object.
    """

    architecture: str
    os: str
    created: str = ""
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    config_extra: Extra = field(default_factory=dict, hash=False)
    extra: Extra = field(default_factory=dict, hash=False)

    @property
    def platform(self) -> Platform:
        """What the image runs on."""
        return Platform(self.architecture, self.os, str(self.extra.get("variant", "")))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read it.

        Raises:
            ImageError: it is malformed.
        """
        known = ("architecture", "os", "created", "config", "rootfs", "history")
        fields = Fields(parse(data, "image config"), "image config", known)
        config = Fields(fields.take("config") or {}, "image config: config", _CONFIG_KEYS)
        rootfs = Fields(fields.take("rootfs"), "image config: rootfs", ("type", "diff_ids"))
        if rootfs.text("type") != "layers":
            raise ImageError("image config: rootfs is not of type 'layers'")
        _check_unread(fields, config)
        return cls(
            architecture=fields.needed("architecture"),
            os=fields.needed("os"),
            created=fields.text("created"),
            env=_env(config),
            workdir=config.text("WorkingDir"),
            user=config.text("User"),
            labels=config.mapping("Labels"),
            entrypoint=config.texts("Entrypoint") or None,
            cmd=config.texts("Cmd") or None,
            diff_ids=tuple(
                as_digest(text, f"image config: diff_id {number}")
                for number, text in enumerate(rootfs.objects("diff_ids"), 1)
            ),
            history=tuple(
                History.of(value, f"image config: history {number}")
                for number, value in enumerate(fields.objects("history"), 1)
            ),
            config_extra=config.rest,
            extra=fields.rest,
        )

    def to_json(self) -> bytes:
        """Its bytes, always the same."""
        config = {
            "Env": list(self.env),
            "WorkingDir": self.workdir,
            "User": self.user,
            "Labels": dict(self.labels),
            "Entrypoint": list(self.entrypoint or ()),
            "Cmd": list(self.cmd or ()),
        }
        optional = {
            "created": self.created,
            "config": {**self.config_extra, **present(config)},
            "history": [entry.fields() for entry in self.history],
        }
        return canonical(
            {
                **self.extra,
                "architecture": self.architecture,
                "os": self.os,
                "rootfs": {"type": "layers", "diff_ids": [str(d) for d in self.diff_ids]},
                **present(optional),
            }
        )


_CONFIG_KEYS = ("Env", "WorkingDir", "User", "Labels", "Entrypoint", "Cmd")


def _env(config: Fields) -> tuple[str, ...]:
    env = config.texts("Env")
    if not all(pair.find("=") > 0 for pair in env):
        config.refuse("Env", "a list of NAME=value")
    return env


def _check_unread(fields: Fields, config: Fields) -> None:
    """Of what we keep and do not use, other readers are to get what the spec says it is."""
    if not isinstance(fields.rest.get("variant") or "", str):
        fields.refuse("variant", "a string")
    for key in ("Volumes", "ExposedPorts"):
        if not isinstance(config.rest.get(key) or {}, dict):
            config.refuse(key, "an object")
