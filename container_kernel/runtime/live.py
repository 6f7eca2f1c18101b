"""Live: the container that run cells work in, and fresh ones beside it.

A live container keeps its writable layer (*scratch*) while processes in it come and go: when the
inner kernel dies or is restarted, the next one finds the files the last one wrote.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import HostError
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..store.snapshots import Active
from ..store.store import Store
from . import profile
from .bundle import DEFAULT_PATH, ContainerSpec, Limits, Mount, Process
from .container import Container
from .host import Host
from .identity import User, check_directory, read_file, resolve_user
from .rootfs import Rootfs

WORK = "/work"
"""Where the notebook's folder is, and where processes start."""
IPC = "/run/container-kernel"
"""Where the folder shared with the host side is; only sockets and an agent's files lie there."""

_RUN_UID = 1000
_USER_NAME = "user"
_USER_HOME = "/home/user"
_NOT_FROZEN = ("tmp", "run", "var/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a container is to run; what is None is the image's or the default."""

    user: str | None = None
    as_root: bool = False
    host_network: bool = False
    limits: Limits
    env: Mapping[str, str] | None = None


class Live:
    """One root file system on an image, and the processes started in it."""

    def __init__(
        self,
        host: Host,
        store: Store,
        chain: Digest,
        config: ImageConfig,
        directory: Path,
        wish: Wish,
    ) -> None:
        self.chain_id = chain
        self._host = host
        self._store = store
        self._wish = wish
        self._config = config
        self._container: Container | None = None
        work, is_shifted = self._bind_work(directory)
        self._binds = [work]
        try:
            self._user = self._choose_user(chain, is_shifted)
            self.rootfs = self._mount(chain)
        except BaseException:
            host.unbind(work)
            raise
        self.ipc_dir = host.new_folder("ipc")
        self.ipc_mount = IPC
        owner = store.idmap.to_disk(self._user.uid)
        os.chown(self.ipc_dir, owner, owner)
        self.ipc_dir.chmod(0o700)
        self._binds.append(host.bind(self.ipc_dir, readonly=False))
        self._mounts = (Mount.bind(work, WORK), Mount.bind(self._binds[-1], IPC))

    @property
    def config(self) -> ImageConfig:
        """The image's config."""
        return self._config

    @property
    def user(self) -> User:
        """Who processes in here are."""
        return self._user

    @property
    def container(self) -> Container | None:
        """The process started last, if it was not deleted."""
        return self._container

    def open(self, path: str, flags: int = os.O_RDONLY) -> int | None:
        """A descriptor of a path inside, links followed inside only; None when it is not there."""
        return self.rootfs.open(path, flags)

    def read(self, path: str) -> str | None:
        """The text of a regular file inside, bounded; None when it is not there."""
        return self.rootfs.read(path)

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        cwd: str = WORK,
        stdin: int | None = None,
    ) -> Container:
        """Start the first process; ends the one before, with everything it started.

        Raises:
            RuntimeFailed: it could not be started.
        """
        self.stop()
        spec = ContainerSpec(
            rootfs=self.rootfs.path,
            process=self._process(argv, env or {}, cwd),
            idmap=self._store.idmap,
            limits=self._wish.limits,
            mounts=self._mounts,
            host_network=self._wish.host_network,
        )
        self._container = self._host.runtime.run(spec, stdin=stdin)
        return self._container

    def exec(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        cwd: str = WORK,
        stdin: int | None = None,
    ) -> Container:
        """Start another process beside the first one.

        Raises:
            HostError: nothing runs here to be beside of.
        """
        if self._container is None or self._container.poll() is not None:
            raise HostError("nothing runs in the container", hint="run a cell first")
        process = self._process(argv, env or {}, cwd)
        return self._host.runtime.exec(self._container, process, stdin=stdin)

    def stop(self) -> None:
        """End what runs; what it wrote stays."""
        if self._container is not None:
            self._container.delete()
            self._container = None

    def copy_scratch(self) -> Active:
        """What was written so far, as a new active snapshot on the same image."""
        active = self._store.snapshots.prepare(self.rootfs.active.parent)
        subprocess.run(
            ["cp", "-a", "--reflink=auto", f"{self.rootfs.active.upper}/.", str(active.upper)],
            check=True,
        )
        for path in _NOT_FROZEN:
            subprocess.run(["rm", "-rf", str(active.upper / path)], check=True)
        return active

    def close(self) -> None:
        """End what runs and forget what it wrote."""
        self.stop()
        self.rootfs.discard()
        for bound in self._binds:
            self._host.unbind(bound)

    def _bind_work(self, directory: Path) -> tuple[Path, bool]:
        """Bind the notebook's folder so that what the run user writes there is the owner's.

        Without root the user namespace does that already. Root shifts owners in the mount; where
        the file system cannot, the second value is False and the process must be uid 0 itself.
        """
        if self._host.namespace.level != "root":
            return self._host.bind(directory, readonly=False), True
        try:
            return self._host.bind(directory, readonly=False, owner_as_uid=_RUN_UID), True
        except OSError:
            return self._host.bind(directory, readonly=False), False

    def _choose_user(self, chain: Digest, is_shifted: bool) -> User:
        if self._wish.as_root or self._store.idmap.squash or not is_shifted:
            return User(0, 0, name="root", home="/root")
        text = self._wish.user or self._config.user
        if text and text not in ("0", "root", "0:0", "root:root"):
            return self._look_up(chain, text)
        return self._look_up(chain, str(_RUN_UID))

    def _look_up(self, chain: Digest, text: str) -> User:
        """Who ``text`` is in the image, by the topmost layer that has a passwd file."""
        for snapshot in reversed(self._store.snapshots.chain(chain)):
            fd = os.open(snapshot.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if read_file(fd, "/etc/passwd") is None:
                    continue
                user = resolve_user(fd, text)
            finally:
                os.close(fd)
            gid = user.gid if user.name or ":" in text else user.uid
            home = user.home if user.name else _USER_HOME
            return User(user.uid, gid, user.groups, user.name or _USER_NAME, home)
        uid = int(text) if text.isdigit() else _RUN_UID
        return User(uid, uid, (), _USER_NAME, _USER_HOME)

    def _mount(self, chain: Digest) -> Rootfs:
        user = self._user
        texts = {
            "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
            "/etc/hostname": "container\n",
        }
        if user.name == _USER_NAME:
            row = f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh\n"
            texts["/etc/passwd"] = self._accounts(chain, "/etc/passwd") + row
            texts["/etc/group"] = (
                f"{self._accounts(chain, '/etc/group')}{user.name}:x:{user.gid}:\n"
            )
        return Rootfs(
            self._host,
            self._store,
            chain,
            folders=(WORK, IPC),
            files=("/run/container-kernel-init",),
            texts=texts,
            homes={} if user.uid == 0 else {user.home: user.uid},
        )

    def _accounts(self, chain: Digest, path: str) -> str:
        """The image's passwd or group file, to be added to."""
        for snapshot in reversed(self._store.snapshots.chain(chain)):
            fd = os.open(snapshot.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                text = read_file(fd, path)
            finally:
                os.close(fd)
            if text is not None:
                return text if text.endswith("\n") or not text else text + "\n"
        return ""

    def _process(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> Process:
        user = self._user
        image_env = dict(pair.partition("=")[::2] for pair in self._config.env)
        merged = {
            "PATH": DEFAULT_PATH,
            "LC_ALL": "C.UTF-8",
            **image_env,
            "HOME": user.home,
            "USER": user.name,
            "LOGNAME": user.name,
            **env,
        }
        return Process(
            args=tuple(argv),
            env=merged,
            cwd=check_directory(self.rootfs.fd, cwd) if cwd != WORK else WORK,
            uid=user.uid,
            gid=user.gid,
            groups=user.groups,
            capabilities=profile.AS_ROOT_CAPABILITIES if self._wish.as_root else (),
        )
