"""Every error this package raises on purpose.

ContainerKernelError
├── CellError              the cell's author can fix it: no Python traceback shown
│   ├── UnknownMagic       .name
│   ├── BadArguments       a magic was given what it cannot take
│   ├── NoBase             a run cell or step before any %base
│   ├── BaseNotFound       .reference
│   ├── InputNotFound      a file that %copy or -r names
│   ├── DigestMismatch     .expected .found
│   ├── CannotExport       another tool's format has no words for it
│   ├── StepFailed         .exit_code .tail
│   ├── LockBroken         the lock beside the notebook cannot be used
│   ├── LockDrift          what would be built is not what the lock names
│   ├── CommandFailed      .exit_code
│   ├── CeilingExceeded    more was asked for than the administrator allows: .what
│   ├── IsolationTooWeak   this host gives less than was asked for: .found .wanted
│   ├── CellFailed         a cell sent to another kernel failed there: .ename .evalue .traceback
│   ├── InnerKernelDied    what ran the cell inside the container ended; the next cell has a new one
│   └── Interrupted        the user stopped it: nothing was frozen
├── RebaseRefused          a session cannot stay while the image changes under it
├── UsageError             a command was called wrongly (exit code 2)
├── ImageError             an image document, layer or archive is not what it must be
├── RegistryError          a registry refused, failed or could not be reached: .status
├── HostError              this host cannot do it; `container-kernel doctor` tells why (exit code 3)
│   └── RuntimeFailed      the OCI runtime refused or died: .argv .exit_code .stderr
└── StoreError             the store is damaged, full or not ours (exit code 4)
    ├── BlobNotFound       .digest
    ├── BlobDamaged        .digest .found
    └── IndexDamaged       the store's database cannot be read any more
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .oci.digest import Digest


class ContainerKernelError(Exception):
    """Base class. ``hint`` is one imperative line the user can act on."""

    hint: str | None = None
    process_exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    @property
    def message(self) -> str:
        """What was wrong, without the hint."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class CellError(ContainerKernelError):
    """The cell's author can fix it."""


class UnknownMagic(CellError):
    """No magic of this name."""

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"unknown magic {name}", hint=hint)
        self.name = name


class BadArguments(CellError):
    """A magic was given what it cannot take."""


class NoBase(CellError):
    """A cell needs an image and the notebook has not named a base yet."""

    hint = "run a cell with a base first, for example: %base debian:bookworm"


class BaseNotFound(CellError):
    """``%base`` names something that is nowhere."""

    def __init__(
        self, reference: str, *, what: str = "no base called", hint: str | None = None
    ) -> None:
        super().__init__(f"{what} {reference!r}", hint=hint)
        self.reference = reference


class InputNotFound(CellError):
    """A file a step reads is missing or outside the notebook's folder."""


class DigestMismatch(CellError):
    """Bytes that were fetched are not the bytes that were asked for."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what} has another digest\n  expected {expected}\n  found    {found}")
        self.hint = "check the URL; if the new content is right, put its digest into the cell"
        self.expected = expected
        self.found = found


class CannotExport(CellError):
    """Another tool's format has no words for a step, or for what is in an image."""


class StepFailed(CellError):
    """A step's command ended with an error; nothing of it was frozen."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None,
        tail: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__("\n".join([message, *(f"  {line}" for line in tail)]), hint=hint)
        self.exit_code = exit_code
        self.tail = tuple(tail)


class LockBroken(CellError):
    """The lock of a notebook is missing, damaged, of a newer version or another platform's."""

    hint = "write it with: container-kernel lock NOTEBOOK"


class LockDrift(CellError):
    """What would be built is not what the lock names; nothing was changed."""

    hint = "to have what the cells say now, write the lock anew: container-kernel lock NOTEBOOK"


class CommandFailed(CellError):
    """A command in a container ended with an error."""

    def __init__(self, message: str, exit_code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class CeilingExceeded(CellError):
    """More was asked for than this host's administrator allows."""

    def __init__(self, what: str, asked: str, most: str, file: str) -> None:
        super().__init__(f"{what} may be {most} at most on this host ({file}), found {asked}")
        self.hint = f"ask for {most}, or ask the administrator for more"
        self.what = what


class IsolationTooWeak(CellError):
    """This host gives less isolation than the notebook or a setting asks for."""

    process_exit_code = 3

    def __init__(self, found: str, wanted: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"isolation must be {wanted!r} or better, and is {found!r} here", hint=hint
        )
        self.found = found
        self.wanted = wanted


class CellFailed(CellError):
    """A cell that was sent to a kernel failed there; ``ename`` is what it was there."""

    def __init__(
        self, ename: str, evalue: str, traceback: Sequence[str] = (), *, hint: str | None = None
    ) -> None:
        super().__init__(f"{ename}: {evalue}" if evalue else ename, hint=hint)
        self.ename = ename
        self.evalue = evalue
        self.traceback = tuple(traceback)
        known = globals().get(ename)
        if isinstance(known, type) and issubclass(known, ContainerKernelError):
            self.process_exit_code = known.process_exit_code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the kernel's own lines instead of the way the cell was sent."""
        return [*self.traceback] or [str(self)]


class InnerKernelDied(CellError):
    """What ran the cell inside the container ended."""

    hint = "variables are lost; the next cell starts a new one, files are as they were"


class Interrupted(CellError):
    """The user stopped it; nothing was frozen."""

    def __init__(self, message: str = "interrupted: nothing was frozen") -> None:
        super().__init__(message)


class RebaseRefused(ContainerKernelError):
    """A session cannot stay while the image changes under it; the message is why, a clause."""


class UsageError(ContainerKernelError):
    """A command was called in a way it does not understand."""

    process_exit_code = 2


class ImageError(ContainerKernelError):
    """An image document, layer or archive is not what it must be; nothing of it was used."""


class RegistryError(ContainerKernelError):
    """A registry refused, failed or could not be reached; ``status`` is HTTP's, or None."""

    def __init__(self, message: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class HostError(ContainerKernelError):
    """This host cannot do it."""

    hint = "run `container-kernel doctor` to see what this host gives and what is missing"
    process_exit_code = 3


class RuntimeFailed(HostError):
    """The OCI runtime refused or died."""

    def __init__(self, argv: Sequence[str], exit_code: int, stderr: str) -> None:
        super().__init__(f"{argv[0]} ended with {exit_code}: {stderr.strip() or 'no message'}")
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stderr = stderr


class StoreError(ContainerKernelError):
    """The store is damaged, full or belongs to somebody else."""

    process_exit_code = 4


class BlobNotFound(StoreError):
    """No blob of this digest is in the store."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest.short} is not in the store")
        self.digest = digest


class BlobDamaged(StoreError):
    """A stored blob no longer hashes to its own name."""

    hint = "load the image it belongs to again, or run its notebook again"

    def __init__(self, digest: Digest, found: Digest) -> None:
        super().__init__(f"blob {digest.short} is damaged: its bytes hash to {found.short}")
        self.digest = digest
        self.found = found


class IndexDamaged(StoreError):
    """The store's database cannot be read any more; the next process that opens it rebuilds it."""

    hint = "run it again: the database is rebuilt from what the store holds, layers are not lost"

    def __init__(self, path: object, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")


def out_of_files(error: BaseException, what: str = "") -> HostError | None:
    """In words, if ``error`` is that this process, or this host, has too many files open.

    That is no fault of the file it could not open. ``what`` could not be done because of it.
    """
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return HostError(
        f"{what or error.filename or 'this cannot be done'}: {error.strerror}",
        hint="close some kernels, or allow this process more open files: ulimit -n 1024",
    )


def output_refused(path: Path, why: str | OSError) -> UsageError:
    """In words, why what the user asked for cannot be written to ``path``."""
    reason = why if isinstance(why, str) else why.strerror
    return UsageError(
        f"{path} cannot be written: {reason}",
        hint="free space there, or choose another place with -o",
    )
