"""Output: a file that the user names, written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError, output_refused


def destination(path: Path, *, is_folder: bool = False) -> Path:
    """What is to be written where the user says ``path``: behind a link, what it leads to.

    It will get its name by a rename, which would put it in the place of a device as well.

    Raises:
        UsageError: something else is there, or the folder it is in is missing or not ours to write.
    """
    found = mode(path, path)
    if found is not None and not (stat.S_ISREG(found) or stat.S_ISDIR(found)):
        raise output_refused(path, "it is a device, a pipe or a socket")
    if found is not None and is_folder != stat.S_ISDIR(found):
        raise output_refused(path, f"it is a {'file' if is_folder else 'folder'}")
    target = Path(os.path.realpath(path))
    check_folder(target)
    return target


def check_folder(path: Path) -> None:
    """Return if a file can be made where ``path`` is, as far as one can tell.

    Raises:
        UsageError: its folder is missing or not ours to write.
    """
    folder = path.parent
    if not stat.S_ISDIR(mode(folder, path) or 0):
        raise UsageError(f"the folder {folder} does not exist", hint="make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise output_refused(path, os.strerror(errno.EACCES))


def mode(path: Path, output: Path) -> int | None:
    """The kind and rights of what is at ``path``; None if there is nothing.

    Raises:
        UsageError: one cannot tell, so ``output`` cannot be written.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise output_refused(output, error) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft, to be written meanwhile, that then is the file ``path``; it is gone after an error.

    Raises:
        UsageError: ``path`` cannot be written.
    """
    target = destination(path)
    draft = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        yield draft
        draft.replace(target)
    except OSError as error:
        raise output_refused(path, error) from error
    finally:
        draft.unlink(missing_ok=True)
