"""Agent socket: the user's ssh agent, as a socket that a container may connect to.

An agent answers only its own user (SO_PEERCRED), who is nobody in a container. So we connect for
it, in a thread; no key is anywhere but in the agent. It is there while a step runs.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from ..errors import BadArguments
from . import carrier
from .host import Host


class AgentSocket:
    """A listening socket at ``path``; ``owner`` is who may use it, on disk.

    Raises:
        BadArguments: no agent runs.
    """

    def __init__(self, host: Host, agent: str | None, owner: int) -> None:
        if not agent or not _answers(agent):
            raise BadArguments(
                "--ssh needs an ssh agent, and none answers at $SSH_AUTH_SOCK",
                hint='start one and add a key, then Jupyter: eval "$(ssh-agent)" && ssh-add',
            )
        self._agent = agent
        self.path = host.new_folder("agent") / "s"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        os.chown(self.path, owner, owner)
        self.path.chmod(0o600)
        self._listening.listen()
        threading.Thread(target=self._serve, name="ssh-agent", daemon=True).start()

    def close(self) -> None:
        """Nobody gets to the agent any more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.socket(socket.AF_UNIX) as agent:
            agent.connect(self._agent)
            carrier.join(client, agent)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            agent.connect(path)
        except OSError:
            return False
    return True
