"""Settings: what ``%env``, ``%workdir`` and their kin do to an image config."""

from __future__ import annotations

import posixpath

from ..oci.spec import ImageConfig
from ..record import replace
from .step import Setting


def apply(config: ImageConfig, setting: Setting) -> ImageConfig:
    """``config`` with the setting in force."""
    values = setting.values
    if setting.key == "env":
        return replace(config, env=_with_env(config.env, values))
    if setting.key == "workdir":
        return replace(config, workdir=posixpath.join(config.workdir or "/", values[0]))
    if setting.key == "user":
        return replace(config, user=values[0])
    if setting.key == "label":
        pairs = dict(value.partition("=")[::2] for value in values)
        return replace(config, labels={**config.labels, **pairs})
    if setting.key == "entrypoint":
        return replace(config, entrypoint=values)
    return replace(config, cmd=values)


def environment(config: ImageConfig) -> dict[str, str]:
    """The config's variables by name."""
    return dict(pair.partition("=")[::2] for pair in config.env)


def _with_env(env: tuple[str, ...], values: tuple[str, ...]) -> tuple[str, ...]:
    merged = {pair.partition("=")[0]: pair for pair in env}
    merged |= {pair.partition("=")[0]: pair for pair in values}
    return tuple(merged.values())
