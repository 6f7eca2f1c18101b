"""Frames: whole messages through a socket, which a loop watches.

pyzmq's own ``send_multipart`` and ``recv_multipart`` work with enum flags and a socket option for
each frame: 40 µs a message, of which a cell's round trip has a dozen. These take a quarter of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq
from zmq.backend import Socket as _Plain  # what zmq.Socket adds is for arguments never used here

_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


class Channel:
    """A socket, and the place where it says that something may wait in it.

    ``fd`` tells a poll that something may have come; but whatever is done with the socket may take
    that news away with it (zmq_getsockopt(3), ZMQ_FD). So after anything was done, it is among the
    ``unsure``, of which ``waits`` must be asked before one waits for ``fd`` again.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self.fd = int(socket.FD)
        self.unsure: dict[Channel, None] = {}

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message, without waiting.

        Raises:
            zmq.ZMQError: it cannot be sent; ``zmq.Again`` when it would have to wait.
        """
        self.unsure[self] = None
        put, socket = _Plain.send, self._socket
        for frame in frames[:-1]:
            put(socket, frame, _MORE)
        put(socket, frames[-1], _LAST)

    def receive(self) -> list[bytes] | None:
        """Take one message; None when there is none."""
        self.unsure[self] = None
        take, socket = _Plain.recv, self._socket
        try:
            frame = take(socket, _LAST, copy=False)
        except zmq.Again:
            return None
        frames = [frame.bytes]
        while frame.more:  # the parts of a message arrive together
            frame = take(socket, _LAST, copy=False)
            frames.append(frame.bytes)
        return frames

    def waits(self) -> bool:
        """Whether a message waits: a fifth of the price of asking ``receive`` in vain."""
        if int(_Plain.get(self._socket, _EVENTS)) & _READABLE:
            return True
        self.unsure.pop(self, None)
        return False

    def close(self, linger_ms: int | None = None) -> None:
        """Close the socket; what was sent has that long to leave, or as long as it was given."""
        self._socket.close(linger_ms)
