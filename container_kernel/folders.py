"""Folders: removed with everything in them."""

from __future__ import annotations

import os


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder and all below, as far as it can be removed."""
    import shutil  # loads three compressors, which no kernel's start should wait for

    shutil.rmtree(path, ignore_errors=True)
