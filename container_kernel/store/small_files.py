"""Small files: each is written whole, so that whoever reads it sees the old text or the new."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .disk import cannot_write


def write_whole(path: Path, text: str) -> None:
    """Write a file of the store, and its folder where there is none.

    Raises:
        StoreError: the disk refuses; what was there before is there still.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(text)
        draft.rename(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
