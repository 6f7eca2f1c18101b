"""Bootstrap: make the first layer of a base from its definition, with tools of the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from .. import syscalls
from ..errors import CellError, HostError, ImageError, StepFailed
from ..oci.decoder import apply
from ..runtime import pretend
from ..runtime.bundle import DEFAULT_PATH
from ..runtime.host import find_tool
from ..store.snapshots import Active
from ..store.store import Store
from .cancel import Cancel
from .definition import Definition
from .execute import Tail
from .workplace import Workplace

# Where this site gets its packages from is no part of an image that may travel.
_FORGET_SOURCES = 'rm -f "$1/etc/apt/sources.list" "$1"/etc/apt/sources.list.d/*'
_DEVICES = "null zero full random urandom tty"
# With one id no device node can be made and no pseudo-terminals be mounted: the host's own
# devices are shown instead while packages are set up.
_ONE_ID_OPTIONS = (
    "--aptopt=APT::Sandbox::User root",
    "--skip=chroot/mount/dev",
    f'--setup-hook=mkdir -p "$1/dev"; for d in {_DEVICES}; do rm -f "$1/dev/$d"; '
    ': > "$1/dev/$d"; mount --bind "/dev/$d" "$1/dev/$d"; done',
    f'--customize-hook=for d in {_DEVICES}; do umount "$1/dev/$d"; done',
)


def fill(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
) -> None:
    """Put what ``definition`` says into ``active``.

    Raises:
        CellError: no such kind of definition.
        HostError: the tool that makes it is not installed.
        StepFailed: the tool failed.
    """
    maker = _MAKERS.get(definition.kind)
    if maker is None:
        raise CellError(
            f"{definition.name}: unknown kind {definition.kind!r}",
            hint=f"kinds are: {', '.join(_MAKERS)}",
        )
    maker(place, definition, active, on_log, cancel)


def _debian(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
) -> None:
    """Bootstrap with mmdebstrap(1), from the mirrors this host itself uses."""
    tool = find_tool("mmdebstrap")
    if tool is None:
        raise HostError(
            f"{definition.name} is made by mmdebstrap, which is not installed",
            hint="sudo apt-get install -y mmdebstrap",
        )
    sources = active.path / "site.sources"
    suite = definition.word("suite")
    texts = place.site.texts(suite)
    wanted = next((text for path, text in texts.items() if path.endswith(".sources")), "")
    sources.write_text(wanted)
    argv = [str(tool), "--mode=root", "--format=tar", "--quiet"]
    argv += [f"--variant={definition.word('variant', 'minbase')}"]
    include = definition.words("include")
    argv += [f"--include={','.join(include)}"] if include else []
    hooks = [_FORGET_SOURCES, *definition.words("hooks")]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += [suite, "-", *([str(sources)] if wanted else [])]
    if place.store.idmap.squash:
        argv = pretend.wrap([*argv[:1], *_ONE_ID_OPTIONS, *argv[1:]])
    env = {
        "PATH": DEFAULT_PATH,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": str(active.path),
        "SOURCE_DATE_EPOCH": str(definition.epoch),
        "LC_ALL": "C.UTF-8",
        **place.site.env,
    }
    on_log(f"bootstrapping {definition.name} with mmdebstrap\n")
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    _unpack_output(place.store, definition.name, process, active, on_log, cancel)


def _unpack_output(
    store: Store,
    name: str,
    process: subprocess.Popen[bytes],
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
) -> None:
    """Unpack the tar that a tool of the host writes to its output."""
    tail = Tail()
    root = os.open(active.upper, os.O_RDONLY | os.O_DIRECTORY)

    def log(text: str) -> None:
        tail.add(text)
        on_log(text)

    try:
        stream = _Output(process, log, cancel)
        damage = None
        try:
            apply(stream, root, idmap=store.idmap, userxattr=store.userxattr)
        except ImageError as error:  # most often: the tool died and its tar is cut off
            damage = error
        stream.drain()
        code = process.wait()
        if code:
            raise StepFailed(
                f"{name}: the bootstrap ended with exit code {code}",
                exit_code=code,
                tail=tail.lines,
                hint="check this host's own package sources, then run the cell again",
            )
        if damage:
            raise damage
    finally:
        os.close(root)
        _end(process)


def _busybox(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
) -> None:
    """The host's static busybox with a link for each of its commands."""
    tool = find_tool("busybox")
    if tool is None:
        raise HostError(
            f"{definition.name} needs a static busybox, which is not installed",
            hint="sudo apt-get install -y busybox-static",
        )
    root = place.store.idmap.to_disk(0)
    upper = active.upper
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "usr"):
        (upper / name).mkdir()
        (upper / name).chmod(0o755)  # whatever the umask here
    (upper / "tmp").chmod(0o1777)
    (upper / "root").chmod(0o700)
    (upper / "bin/busybox").write_bytes(tool.read_bytes())
    (upper / "bin/busybox").chmod(0o755)
    listed = subprocess.run([tool, "--list"], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if name != "busybox":
            (upper / "bin" / name).symlink_to("busybox")
    (upper / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (upper / "etc/group").write_text("root:x:0:\n")
    for name in ("passwd", "group"):
        (upper / "etc" / name).chmod(0o644)
    for folder, folders, files in os.walk(upper):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), root, root, follow_symlinks=False)


_MAKERS = {"mmdebstrap": _debian, "busybox": _busybox}


class _Output:
    """A child's standard output as a file; its error output goes to a log meanwhile."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Callable[[str], None], cancel: Cancel
    ) -> None:
        assert process.stdout
        assert process.stderr
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()
        self._watched = [self._out, self._err, cancel.fd]
        self._log = log
        self._cancel = cancel

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if size == 0:
            return b""
        while self._out in self._watched:
            ready = syscalls.readable(self._watched)
            self._cancel.check()
            if self._err in ready:
                self._read_log()
            if self._out in ready:
                data = os.read(self._out, size)
                if data:
                    return data
                self._watched.remove(self._out)
        return b""

    def drain(self) -> None:
        """Read both to their ends."""
        while self.read(1 << 20):
            pass
        while self._err in self._watched:
            self._cancel.check()
            self._read_log()

    def _read_log(self) -> None:
        data = os.read(self._err, 1 << 16)
        if data:
            self._log(data.decode(errors="replace"))
        else:
            self._watched.remove(self._err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of a child and its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
