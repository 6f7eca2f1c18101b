"""Forecast: what the next kernel of a notebook will start first, in one small file.

It says nothing that the store does not know. But it is read in no time, so that the OCI runtime is
at work while a kernel still loads what opens a store. It may be missing, or wrong by now: whoever
goes by it looks into the store afterwards.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ContainerKernelError
from ..oci.digest import Digest
from ..oci.image_config import ImageConfig
from ..record import record

if TYPE_CHECKING:
    from ..runtime.live import Live


@record
class Forecast:
    """The first container: its stage, and the image it stands on."""

    stage: str
    chain_id: Digest
    config: ImageConfig


def name_of(notebook: Path | None, image: str | None = None) -> str:
    """Whose forecast: that of a notebook, else of the kernels on ``image``, else of all others."""
    return str(notebook or image or "")


def of(stage: str, live: Live) -> Forecast:
    """What forecasts such a container."""
    return Forecast(stage, live.chain_id, live.config)


def read(home: Path, name: str) -> Forecast | None:
    """What was written last for ``name`` in the store at ``home``; None where that is no help.

    So it is where somebody else wrote it, or the store is no longer what it was then.
    """
    file = _file(home, name)
    try:
        if file.stat().st_uid != os.geteuid():
            return None
        said = json.loads(file.read_bytes())
        if said["name"] != name or said["store"] != _store(home):
            return None
        config = ImageConfig.from_json(said["config"].encode())
        return Forecast(said["stage"], Digest(said["chain_id"]), config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ContainerKernelError):
        return None


def write(home: Path, name: str, forecast: Forecast) -> None:
    """Keep ``forecast`` for the next kernel. Where that fails, it starts without."""
    said = {
        "name": name,
        "store": _store(home),
        "stage": forecast.stage,
        "chain_id": str(forecast.chain_id),
        "config": forecast.config.to_json().decode(),
    }
    file = _file(home, name)
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        fresh.write_text(json.dumps(said))
        fresh.rename(file)
    except OSError:
        return


def _file(home: Path, name: str) -> Path:
    return home / "forecasts" / f"{zlib.crc32(name.encode(errors='surrogateescape')):08x}.json"


def _store(home: Path) -> str:
    """The store's own description: its version, and whose ids its trees have."""
    return (home / "store.json").read_text()
