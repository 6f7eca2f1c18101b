"""Streams: standard input, output and error, also where one is closed, full or read by nobody."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from ..errors import StoreError

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed() -> None:
    """Have nothing in the place of those that are closed.

    Another file would get the descriptor's number, and what this process starts would take that
    for its standard output.
    """
    for number in range(len(_STREAMS)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def to_stdout(text: str) -> None:
    """Write a result.

    Raises:
        StoreError: it could not be written.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(sys.stdout)
        raise
    except OSError as error:
        _give_up(sys.stdout)
        raise StoreError(f"standard output could not be written: {error.strerror}") from error


def to_stderr(text: str) -> None:
    """Write what is said of the work, which goes on where nobody can read that."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Drop what is written from now on, and what Python still holds and would write at its end."""
    with suppress(OSError):  # it has no descriptor
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
