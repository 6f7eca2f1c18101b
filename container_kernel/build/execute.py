"""Execute: run one command on top of a chain of layers and freeze what it changed.

The command runs in a container of its own. When it has ended, whatever it left running is gone
with the container, the overlay is unmounted, and its upper directory *is* the difference: times
and volatile files are put right in place, the layer's tar is streamed into the hasher only, and
the folder is renamed into the store. No data is copied.
"""

from __future__ import annotations

import codecs
import os
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import syscalls
from ..errors import ContainerKernelError, Interrupted, RuntimeFailed, StepFailed
from ..oci.changeset import Clamp, tree_digest
from ..oci.digest import Digest, extend_chain
from ..oci.tar_writer import HeaderKeeper
from ..record import field, record, replace
from ..runtime import profile
from ..runtime.bundle import DEFAULT_PATH, ContainerSpec, Mount, Process
from ..runtime.container import Container
from ..runtime.ended import Exit
from ..runtime.identity import check_directory, resolve_user
from ..runtime.init_layer import InitLayer
from ..runtime.network import DEFAULT, Network
from ..runtime.rootfs import Rootfs
from ..store.snapshots import Active, Snapshot
from ..store.store import Store
from . import site, volatile
from .cancel import Cancel
from .events import Watch
from .given import Extras, Given
from .inputs import Placer
from .workplace import Workplace

_TAIL_LINES = 12
_SCRIPT = "/run/step"
_RAISES = {
    "--pids": "c.ContainerKernel.build_pids raises the limit",
    "--memory": "a step may use this host's memory but for a reserve, or what its "
    "administrator allows: do less at once",
}
_LONGEST_ARGUMENT = 100_000  # the host kernel allows 128 KiB (MAX_ARG_STRLEN)


@record(kw_only=True)
class Command:
    """What a step runs: a script and its surroundings. ``user`` is the image config's text."""

    script: str
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    network: Network = DEFAULT
    caches: Mapping[str, Path] = field(default_factory=dict)
    answers: Mapping[str, Path] = field(default_factory=dict)
    """Folders to write to, which are as `Workplace.idmap` says already."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    extras: Extras = Extras()


@record
class Job:
    """One step that is being run."""

    place: Workplace
    rootfs: Rootfs
    command: Command
    epoch: int
    given: Given


class Tail:
    """The last lines of a log, for the error message."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._rest = ""

    def add(self, text: str) -> None:
        """More of the log."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._lines.extend(line.rpartition("\r")[2] for line in lines if line.strip())

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, the unfinished one included."""
        rest = [self._rest] if self._rest.strip() else []
        return tuple([*self._lines, *rest][-_TAIL_LINES:])


def run_and_freeze(
    place: Workplace,
    parent: Digest,
    command: Command,
    *,
    title: str,
    epoch: int,
    watch: Watch,
) -> Snapshot:
    """Run ``command`` on the file system named ``parent``; freeze and return the new layer.

    Raises:
        StepFailed: the command ended with an error; nothing was frozen. What it had written is
            given to ``watch.left``.
        Interrupted: it was cancelled; its whole process tree is gone, and the same holds.
    """
    started = time.time()
    place.host.runtime.announce()
    given = Given(place, command)
    try:
        rootfs = _prepare(place, parent, command, given)
        try:
            _run_to_end(Job(place, rootfs, command, epoch, given), title, watch)
            given.check_read()
            rootfs.unmount()
            given.check_layer(rootfs.active.upper)
            return freeze(place.store, rootfs.active, title, Clamp(started, epoch), watch)
        except (StepFailed, Interrupted):
            rootfs.unmount()
            if not _is_left(rootfs.active, given, watch):
                rootfs.discard()
            raise
        except BaseException:
            rootfs.discard()
            raise
    finally:
        given.close()


def _is_left(active: Active, given: Given, watch: Watch) -> bool:
    """Whether what a failed command has written is kept; not so if a secret is in it."""
    try:
        given.check_layer(active.upper)
    except ContainerKernelError:
        return False
    return watch.left(active)


def _run_to_end(job: Job, title: str, watch: Watch) -> None:
    """Run the command; its log is told of with secrets masked.

    Raises:
        StepFailed: it ended with an error.
    """
    tail = Tail()

    def log(text: str) -> None:
        tail.add(text)
        if text:
            watch.log(text)

    if job.given.link.notice:
        watch.log(f"network: {job.given.link.notice}\n")
    mask = job.given.mask
    try:
        container = _start(job)
        exit_ = follow(container, lambda text: log(mask(text)), watch.cancel)
    finally:
        log(mask.rest())
    if exit_.status != 0:
        hits = exit_.hits or container.pressure.hits("\n".join(tail.lines))
        raise _failure(title, replace(exit_, hits=hits), tail.lines, job.given.link.refused())


def freeze(
    store: Store,
    active: Active,
    created_by: str,
    clamp: Clamp,
    watch: Watch | None = None,
) -> Snapshot:
    """Make the layer that ``active`` holds permanent; on disk when this returns.

    Raises:
        Interrupted: ``watch`` was cancelled before all of it was hashed.
    """
    volatile.drop(active.upper)
    keeper = HeaderKeeper(watch.cancel.check) if watch else HeaderKeeper()
    diff_id, size = tree_digest(
        active.upper, idmap=store.idmap, userxattr=store.userxattr, clamp=clamp, hasher=keeper
    )
    headers = b"".join(keeper.headers)
    named = watch.named if watch else lambda chain_id: None
    with _beside(lambda: named(extend_chain(active.parent, diff_id))):
        return store.snapshots.commit(active, diff_id, size, created_by, headers=headers)


@contextmanager
def _beside(action: Callable[[], None]) -> Iterator[None]:
    """Do ``action`` in a thread while the block runs: both wait for the disk, at once."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="beside")
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _prepare(place: Workplace, parent: Digest, command: Command, given: Given) -> Rootfs:
    texts = [*given.link.texts.items()]
    if not _is_plain(command.script):
        texts.append((_SCRIPT, command.script))
    init = InitLayer(folders=(site.FOLDER, *given.folders), files=(*given.files,), texts=(*texts,))
    return Rootfs(place.host, place.store, parent, init, lent=place.lent)


def _start(job: Job) -> Container:
    place, rootfs, given = job.place, job.rootfs, job.given
    here = place.site.through(given.link.env)
    files = here.texts(_codename(rootfs))
    with rootfs.as_root:
        Placer(rootfs.fd, rootfs.idmap).make_folder(job.command.workdir)
    process = _process(job, {**here.environment(files), **given.env})
    owner = rootfs.idmap.to_disk(process.uid)
    spec = ContainerSpec(
        rootfs=rootfs.path,
        process=process,
        idmap=rootfs.idmap,
        limits=place.limits,
        mounts=(
            Mount.bind(_site_folder(place, files), site.FOLDER, readonly=True),
            *given.mounts(owner),
        ),
        hostname="build",
        host_network=given.link.is_host,
        netns=given.link.path,
        devices=job.command.extras.devices,
        pretend_ownership=place.store.idmap.squash,
    )
    try:
        return place.host.runtime.run(spec, init=False, merge_output=True)
    except RuntimeFailed as error:
        raise _no_start(rootfs, job.command, error) from error


def _process(job: Job, surroundings: Mapping[str, str]) -> Process:
    rootfs, command = job.rootfs, job.command
    passwd, group = (rootfs.read(f"/etc/{name}") or "" for name in ("passwd", "group"))
    user = resolve_user(passwd, group, command.user)
    return Process(
        args=_arguments(command.script),
        env={
            "PATH": DEFAULT_PATH,
            "HOME": user.home,
            **surroundings,
            "SOURCE_DATE_EPOCH": str(job.epoch),
            "LC_ALL": "C.UTF-8",
            **command.env,
        },
        cwd=check_directory(rootfs.fd, command.workdir),
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        capabilities=profile.BUILD_CAPABILITIES,
    )


def _codename(rootfs: Rootfs) -> str | None:
    """Which Debian the image is, if it is one."""
    os_release = rootfs.read("/etc/os-release") or ""
    if site.os_release_field(os_release, "ID") != "debian":
        return None
    return site.os_release_field(os_release, "VERSION_CODENAME")


def follow(container: Container, on_log: Callable[[str], None], cancel: Cancel) -> Exit:
    """Pass output on until the container ends; kill it when ``cancel`` is set."""
    decoder = _Utf8()
    watched = [container.stdout, container.pidfd, cancel.fd]
    try:
        while True:
            ready = syscalls.readable(watched)
            if cancel.fd in ready:
                container.kill()
                cancel.check()
            if container.stdout in ready:
                data = os.read(container.stdout, 1 << 16)
                on_log(decoder(data)) if data else watched.remove(container.stdout)
            elif container.pidfd in ready:
                exit_ = container.wait()
                assert exit_ is not None
                _drain(container.stdout, lambda data: on_log(decoder(data)))
                return exit_
    finally:
        container.delete()


class _Utf8:
    """Decode a stream in pieces; what is no UTF-8 becomes replacement characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, data: bytes) -> str:
        return self._decoder.decode(data)


def _drain(fd: int, on_data: Callable[[bytes], None]) -> None:
    """What is left in a pipe whose writers are gone."""
    while data := os.read(fd, 1 << 16):
        on_data(data)


def _is_plain(script: str) -> bool:
    """True when a shell can be given the script as an argument."""
    return len(script) < _LONGEST_ARGUMENT and not script.startswith("#!")


def _arguments(script: str) -> tuple[str, ...]:
    """``/bin/sh -e``, or what the script's first line asks for."""
    if _is_plain(script):
        return ("/bin/sh", "-e", "-c", script)
    if script.startswith("#!"):
        return (*shlex.split(script.partition("\n")[0][2:]), _SCRIPT)
    return ("/bin/sh", "-e", _SCRIPT)


def _site_folder(place: Workplace, files: Mapping[str, str]) -> Path:
    """The site's files in a folder of the host, to be seen at ``/run/site``."""

    def make() -> Path:
        folder = place.host.new_folder("site")
        contents = {path: text.encode() for path, text in files.items()}
        contents |= {path: source.read_bytes() for path, source in place.site.binds().items()}
        for path, content in contents.items():
            target = folder / os.path.relpath(path, site.FOLDER)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        place.host.open_to_containers(*folder.rglob("*"))
        return place.host.bind(folder)

    return place.host.once(("site", *sorted(files.items())), make)


def _failure(title: str, exit_: Exit, tail: tuple[str, ...], refused: Sequence[str]) -> StepFailed:
    hits = [hit.clause for hit in exit_.hits if not exit_.out_of_memory or hit.flag != "--memory"]
    hint = "the steps before it are frozen; change this cell and run it again to go on"
    for hit in exit_.hits:
        hint = f"{_RAISES[hit.flag]}; {hint}" if hit.flag in _RAISES else hint
    if refused:
        hits.append(f"its --net list refused {', '.join(refused)}")
        hint = f"if it is to reach them, add them to --net: {','.join(refused)}"
    return StepFailed(
        "; ".join([f"{title}: the command {exit_}", *hits]),
        exit_code=exit_.status,
        tail=tail,
        hint=hint,
    )


def _no_start(rootfs: Rootfs, command: Command, error: RuntimeFailed) -> ContainerKernelError:
    program = _arguments(command.script)[0]
    fd = rootfs.open(program)
    if fd is not None:
        os.close(fd)
        return error
    return StepFailed(
        f"the image has no {program} to run this step",
        exit_code=None,
        hint="an earlier step removed it, or the base never had it; change that cell",
    )
