"""Live: the container that run cells work in, and fresh ones beside it.

A live container keeps its writable layer (*scratch*) while processes in it come and go: when the
inner kernel dies or is restarted, the next one finds the files the last one wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError, RebaseRefused
from ..oci.digest import Digest
from ..record import replace
from . import account, rebase, sweeper
from .account import Account
from .bundle import INIT_PATH, ContainerSpec, Mount, Process
from .container import Container
from .host import Host
from .identity import User, check_directory
from .init_layer import InitLayer
from .owners import Owners, bind_work
from .quiesce import quiesced
from .rootfs import Rootfs
from .uplink import Uplink

if TYPE_CHECKING:
    from ..oci.spec import ImageConfig
    from ..store.shelf import Shelf
    from ..store.snapshots import Active
    from .attach import Attached
    from .limits import Limits
    from .mounts import Wish as MountWish
    from .publish import Published
    from .wish import Wish

WORK = "/work"
"""Where the notebook's folder is, and where processes start."""
IPC = "/run/container-kernel"
"""Where the folder shared with the host side is; only sockets and an agent's files lie there."""


class Live:
    """One root file system on an image, and the processes started in it."""

    def __init__(
        self,
        host: Host,
        store: Shelf,
        chain: Digest,
        config: ImageConfig,
        directory: Path,
        wish: Wish,
    ) -> None:
        wish.relaxed.check()
        self.relaxed = wish.relaxed
        host.runtime.announce()
        self.chain_id = chain
        self.image: Digest | None = None
        """The image it is on now, and the stage of that, once somebody said so."""
        self.stage = ""
        self.isolation = host.namespace.level
        self._host = host
        self._store = store
        self._wish = wish
        self._config = config
        self._container: Container | None = None
        self._born = len(store.snapshots.chain(chain))
        who = self._choose_account(chain, config)
        in_memory = wish.limits.scratch_bytes is not None
        owners = Owners.of(host, store, chain, who, in_memory=in_memory)
        work, self._owners = bind_work(host, directory, owners)
        self._binds, self._directory = [work], directory
        self._link: Uplink | None = None
        self._ports = [*wish.ports]
        try:
            for mount in wish.mounts:
                self.attached.add(mount)
            self._link = Uplink(host, wish.network)
            self.rootfs = Rootfs(
                host,
                store,
                chain,
                self._init_layer(self._owners.account),
                lent=self._owners.lent,
                scratch_bytes=wish.limits.scratch_bytes,
            )
        except BaseException:
            self._give_back()
            raise
        self.ipc_dir, self.ipc_mount = host.new_folder("ipc"), IPC
        self._binds.append(self.ipc_dir)
        self.renew_ipc()
        self._mounts = (Mount.bind(work, WORK), Mount.bind(self.ipc_dir, IPC))

    @property
    def config(self) -> ImageConfig:
        """The image's config."""
        return self._config

    @property
    def user(self) -> User:
        """Who processes in here are."""
        return self._owners.account.user

    @property
    def container(self) -> Container | None:
        """The process started last, if it was not deleted."""
        return self._container

    def on_spawn(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` whenever the OCI runtime has been set to work, in any container."""
        self._host.runtime.on_spawn = tell

    def open(self, path: str) -> int | None:
        """A descriptor of a path inside, links followed inside only; None when it is not there."""
        return self.rootfs.open(path)

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
        if self._has_attached:
            self.attached.check_points(self.rootfs.fd)
        spec = ContainerSpec(
            rootfs=self.rootfs.path,
            process=self._process(argv, env or {}, cwd),
            idmap=self._owners.idmap,
            limits=self._wish.limits,
            mounts=(*self._mounts, *(self.attached.mounts if self._has_attached else ())),
            host_network=self.link.is_host,
            netns=self.link.path,
            has_seccomp=not self._wish.relaxed.no_seccomp,
        )
        self._container = self._host.runtime.run(spec, stdin=stdin)
        for port in self._ports:
            self.lead(port)
        return self._container

    @property
    def link(self) -> Uplink:
        """Its network."""
        assert self._link is not None
        return self._link

    def lead(self, port: Published) -> None:
        """Have a published port lead in here, now and whenever something is started."""
        if port not in self._ports:
            self._ports.append(port)
        if pid := self._running_pid():
            port.connect(self.link.path or Path(f"/proc/{pid}/ns/net"))

    @cached_property
    def attached(self) -> Attached:
        """What is mounted in here besides."""
        from .attach import Around, Attached  # for those who mount something

        around = Around(self._directory, self._wish.home, self._store.home)
        return Attached(self._host, around, uid=self._owners.uid)

    @property
    def _has_attached(self) -> bool:
        return "attached" in self.__dict__

    def mount(self, wish: MountWish) -> None:
        """Mount something, also in what runs here, which goes on.

        Raises:
            CellError: the source or the target cannot be had; nothing has changed.
        """
        self.attached.mount(wish, self.rootfs, self._running_pid())

    def unmount(self, target: str) -> None:
        """Undo `mount`, also in what runs here.

        Raises:
            CellError: nothing was mounted there.
        """
        self.attached.unmount(target, self._running_pid())

    def _running_pid(self) -> int | None:
        container = self._container
        return container.pid if container is not None and container.poll() is None else None

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

    @property
    def limits(self) -> Limits:
        """What it may use."""
        return self._wish.limits

    @property
    def scratch_bytes(self) -> int | None:
        """What is written to a scratch that has a limit."""
        return self.rootfs.capped_bytes

    def limit(self, limits: Limits) -> bool:
        """Have these limits from now on, also what runs; False where that takes a new start.

        Raises:
            HostError: the host kernel refused.
        """
        from . import relimit

        runs = self._container is not None and self._container.poll() is None
        has_cgroup = self._host.runtime.cgroup is not None
        if not relimit.can(self._wish.limits, limits, has_cgroup=has_cgroup):
            return False
        if runs and self._container is not None:
            try:
                relimit.apply(self._container, limits)
            except PermissionError:
                return False
        if limits.scratch_bytes is not None:
            self.rootfs.recap(limits.scratch_bytes)
        self._wish = replace(self._wish, limits=limits)
        return True

    def stop(self) -> None:
        """End what runs; what it wrote stays."""
        if self._container is not None:
            for port in self._ports:
                port.disconnect()
            ended, self._container = self._container, None
            ended.delete()

    def renew_ipc(self) -> None:
        """End what runs, with what it left in the folder shared with us."""
        self.stop()
        self._host.keep_in_memory(self.ipc_dir, self._owners.uid)

    def rebase(self, chain: Digest, config: ImageConfig) -> None:
        """Go over to an image that has more layers, under what runs here, which goes on.

        When this fails, everything is as it was.

        Raises:
            RebaseRefused: the image is no extension of this one, or something that runs here
                cannot go along.
        """
        layers = self._store.snapshots.chain(chain)
        who = self._check_extension([layer.chain_id for layer in layers], chain, config)
        if chain != self.chain_id:
            try:
                self._slide_under([layer.path for layer in layers], chain, who)
            except HostError as error:
                raise RebaseRefused(error.message) from error
        self.chain_id, self._config = chain, config
        self._owners = replace(self._owners, account=who)

    def _check_extension(
        self, chains: Sequence[Digest], chain: Digest, config: ImageConfig
    ) -> Account:
        """Who the user is in an image that this one can be exchanged for."""
        if self.chain_id not in chains:
            raise RebaseRefused("an earlier step changed")
        changed = rebase.changed_setting(self._config, config)
        if changed:
            raise RebaseRefused(f"{changed} changed")
        if self._owners.account is account.ROOT:
            return self._owners.account
        found = self._choose_account(chain, config)
        if found.user != self.user:
            raise RebaseRefused("the user of run cells changed")
        return found

    def _slide_under(self, layers: Sequence[Path], chain: Digest, who: Account) -> None:
        container = self._container
        if container is None or container.poll() is not None:
            self._exchange_rootfs(layers, chain, who, lambda path: None)
            return
        with quiesced(container) as members:
            rebase.check(container.pid, members)
            switch = partial(rebase.switch, container.pid)
            self._exchange_rootfs(layers, chain, who, switch)

    def _exchange_rootfs(
        self,
        layers: Sequence[Path],
        chain: Digest,
        who: Account,
        switch: Callable[[Path], None],
    ) -> None:
        old, touched = self.rootfs, self._host.new_folder("touched")
        rebase.show_as_new(layers, self._born, old.active.upper, touched, old.owner)
        init = self._init_layer(who)
        new = Rootfs(self._host, self._store, chain, init, successor_of=old, touched=[touched])
        try:
            switch(new.path)
        except BaseException:
            new.unmount()
            raise
        self.rootfs = new
        new.take_place_of(old)

    def copy_scratch(self) -> Active:
        """What was written so far, as a new active snapshot on the same image.

        What runs here stands still meanwhile: a folder that becomes a link while it is copied
        would lead the copying out of the container.
        """
        from . import scratch  # for those who freeze it

        points = [wish.target for wish in self.attached.wishes]
        running = self._container if self._running_pid() else None
        with quiesced(running) if running else nullcontext():
            return scratch.copy(self._store.snapshots, self.rootfs.active, points)

    def close(self) -> None:
        """End what runs, then behind the scenes forget what it wrote."""
        try:
            self.stop()
        finally:
            sweeper.later(self._forget)

    def _forget(self) -> None:
        self.rootfs.discard()
        self._give_back()

    def _give_back(self) -> None:
        for bound in self._binds:
            self._host.unbind(bound)
        if self._has_attached:
            self.attached.close()
        if self._link is not None:
            self._link.close()

    def _choose_account(self, chain: Digest, config: ImageConfig) -> Account:
        if self._wish.relaxed.as_root or self._store.idmap.squash:
            return account.ROOT
        return account.ordinary(self._store, chain, self._wish.user or config.user)

    def _init_layer(self, who: Account) -> InitLayer:
        user = who.user
        folders, files = self.attached.points() if self._has_attached else ([], [])
        return InitLayer(
            folders=(WORK, IPC, *folders),
            files=(INIT_PATH, *files),
            texts=(*self.link.texts.items(), *who.texts.items()),
            homes=() if user.uid == 0 else ((user.home, user.uid),),
        )

    def _process(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> Process:
        user = self.user
        merged = account.environment(self._config, user, {**self.link.env, **env})
        return Process(
            args=tuple(argv),
            env=merged,
            cwd=check_directory(self.rootfs.fd, cwd) if cwd != WORK else WORK,
            uid=user.uid,
            gid=user.gid,
            groups=user.groups,
            capabilities=self._wish.relaxed.held,
            ambient=self._wish.relaxed.capabilities if user.uid else (),
        )
