"""Source: what ``%base`` means, and the first layers it gives.

A definition in ``images/`` (plain data, TOML), a tag or digest in the store, an OCI layout or
archive, a docker archive, or another notebook. Definitions are bootstrapped once and cached by
their content; everything else is named by a digest.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import BaseNotFound, CellError, HostError, ImageError, StepFailed
from ..oci.changeset import Clamp
from ..oci.decoder import apply
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..runtime import pretend
from ..runtime.bundle import DEFAULT_PATH
from ..runtime.host import find_tool
from ..store.snapshots import Active, Snapshot
from .cancel import Cancel
from .execute import Tail, Workplace, freeze
from .graph import definition_key
from .solve import Progress, layer_of

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DEFAULT_EPOCH = 0
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
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Definition:
    """A base as plain data: one file of ``images/`` or of the user's own folder."""

    name: str
    kind: str
    values: Mapping[str, object]

    @property
    def epoch(self) -> int:
        """The time, in seconds since 1970, that new files get."""
        value = self.values.get("epoch", _DEFAULT_EPOCH)
        if not isinstance(value, int):
            raise CellError(f"{self.name}: epoch must be a whole number of seconds")
        return value

    def words(self, key: str) -> list[str]:
        """A list of strings, empty when absent."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise CellError(f"{self.name}: {key} must be a list of strings")
        return value

    def word(self, key: str, default: str = "") -> str:
        """One string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise CellError(f"{self.name}: {key} must be a string")
        return value


def definitions(folders: Sequence[Path]) -> dict[str, Definition]:
    """All definitions by name; a later folder wins over an earlier one.

    Raises:
        CellError: a file that is not TOML, or has no ``name`` and ``kind``.
    """
    found = {}
    for folder in folders:
        for file in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
            definition = _read_definition(file, file.stat().st_mtime_ns)
            found[definition.name] = definition
    return found


@functools.lru_cache(maxsize=256)
def _read_definition(file: Path, mtime_ns: int) -> Definition:
    """One definition; read again when the file has changed (``mtime_ns`` tells)."""
    try:
        values = tomllib.loads(file.read_text())
        return Definition(values["name"], values["kind"], values)
    except (tomllib.TOMLDecodeError, OSError, KeyError) as error:
        raise CellError(f"the base definition {file} cannot be read: {error}") from error


class Bases:
    """Finds and makes bases in one workplace. ``notebook`` builds another notebook."""

    def __init__(
        self,
        place: Workplace,
        folders: Sequence[Path],
        directory: Path,
        notebook: Callable[[Path], Progress],
    ) -> None:
        self._place = place
        self._store = place.store
        self._folders = folders
        self._directory = directory
        self._notebook = notebook

    def cached(self, reference: str) -> Progress | None:
        """The base, if nothing must be made, loaded or built for it."""
        definition = definitions(self._folders).get(reference)
        if definition:
            return self._bootstrapped(definition)
        if self._is_path(reference):
            return None
        digest = self._store.find_image(reference)
        return self._of_image(digest) if digest else None

    def make(self, reference: str, on_log: Callable[[str], None], cancel: Cancel) -> Progress:
        """The base, whatever it takes.

        Raises:
            BaseNotFound: it is nowhere.
        """
        definition = definitions(self._folders).get(reference)
        if definition:
            return self._bootstrap(definition, on_log, cancel)
        if self._is_path(reference):
            return self._from_path((self._directory / reference).resolve(), on_log)
        digest = self._store.find_image(reference)
        if digest is None:
            raise BaseNotFound(reference, hint=self._what_exists())
        return self._of_image(digest)

    def _from_path(self, path: Path, on_log: Callable[[str], None]) -> Progress:
        if not path.exists():
            raise BaseNotFound(str(path), hint="check the path; it is relative to the notebook")
        if path.suffix == ".ipynb":
            on_log(f"building {path.name}\n")
            return self._notebook(path)
        from ..transfer.load import load  # only for those who bring an archive

        names = load(path, self._store, on_log=on_log)
        if len(names) != 1:
            listed = ", ".join(sorted(name or str(digest) for name, digest in names))
            raise CellError(
                f"{path.name} holds {len(names)} images: {listed}",
                hint=f"load it once, then name one: container-kernel image load {path}",
            )
        return self._of_image(names[0][1])

    def _of_image(self, digest: Digest) -> Progress:
        manifest = self._store.manifest(digest)
        config = self._store.image_config(manifest)
        chain = self._store.snapshots.chain(self._store.image_chain(config))
        layers = tuple(
            layer_of(snapshot, snapshot.created_by, 0.0, cached=True) for snapshot in chain
        )
        return Progress(config, manifest.layers, layers, epoch_of(config))

    def _bootstrapped(self, definition: Definition) -> Progress | None:
        hit = self._store.index.find_layer(definition_key(definition.values))
        snapshot = self._store.snapshots.get(hit.chain_id) if hit else None
        if hit is None or snapshot is None:
            return None
        return _first(definition, snapshot, hit.seconds, cached=True)

    def _bootstrap(
        self, definition: Definition, on_log: Callable[[str], None], cancel: Cancel
    ) -> Progress:
        makers = {"mmdebstrap": self._debian, "busybox": self._busybox}
        maker = makers.get(definition.kind)
        if maker is None:
            raise CellError(
                f"{definition.name}: unknown kind {definition.kind!r}",
                hint=f"kinds are: {', '.join(makers)}",
            )
        key = definition_key(definition.values)

        def wait() -> None:
            cancel.pause(0.1)

        with self._store.building(key, wait):
            existing = self._bootstrapped(definition)
            if existing:
                return existing
            started, began = time.monotonic(), time.time()
            active = self._store.snapshots.prepare(None)
            try:
                maker(definition, active, on_log, cancel)
                clamp = Clamp(began, definition.epoch)
                snapshot = freeze(self._store, active, f"%base {definition.name}", clamp)
            except BaseException:
                self._store.snapshots.remove(active)
                raise
            seconds = time.monotonic() - started
            self._store.index.remember_layer(key, snapshot.chain_id, seconds)
        return _first(definition, snapshot, seconds, cached=False)

    def _debian(
        self, definition: Definition, active: Active, on_log: Callable[[str], None], cancel: Cancel
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
        texts = self._place.site.texts(suite)
        wanted = next((text for path, text in texts.items() if path.endswith(".sources")), "")
        sources.write_text(wanted)
        argv = [str(tool), "--mode=root", "--format=tar", "--quiet"]
        argv += [f"--variant={definition.word('variant', 'minbase')}"]
        include = definition.words("include")
        argv += [f"--include={','.join(include)}"] if include else []
        argv += [f"--customize-hook={hook}" for hook in definition.words("hooks")]
        argv += [suite, "-", *([str(sources)] if wanted else [])]
        if self._store.idmap.squash:
            argv = pretend.wrap([*argv[:1], *_ONE_ID_OPTIONS, *argv[1:]])
        env = {
            "PATH": DEFAULT_PATH,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TMPDIR": str(active.path),
            "SOURCE_DATE_EPOCH": str(definition.epoch),
            "LC_ALL": "C.UTF-8",
            **self._place.site.env,
        }
        on_log(f"bootstrapping {definition.name} with mmdebstrap\n")
        self._unpack_output(definition, argv, env, active, on_log, cancel)

    def _unpack_output(
        self,
        definition: Definition,
        argv: list[str],
        env: dict[str, str],
        active: Active,
        on_log: Callable[[str], None],
        cancel: Cancel,
    ) -> None:
        """Run a tool of the host that writes a tar to its output, and unpack that."""
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        tail = Tail()
        root = os.open(active.upper, os.O_RDONLY | os.O_DIRECTORY)

        def log(text: str) -> None:
            tail.add(text)
            on_log(text)

        try:
            stream = _Output(process, log, cancel)
            damage = None
            try:
                apply(stream, root, idmap=self._store.idmap, userxattr=self._store.userxattr)
            except ImageError as error:  # most often: the tool died and its tar is cut off
                damage = error
            stream.drain()
            code = process.wait()
            if code:
                raise StepFailed(
                    f"{definition.name}: the bootstrap ended with exit code {code}",
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
        self, definition: Definition, active: Active, on_log: Callable[[str], None], cancel: Cancel
    ) -> None:
        """The host's static busybox with a link for each of its commands."""
        tool = find_tool("busybox")
        if tool is None:
            raise HostError(
                f"{definition.name} needs a static busybox, which is not installed",
                hint="sudo apt-get install -y busybox-static",
            )
        root = self._store.idmap.to_disk(0)
        upper = active.upper
        for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "usr"):
            (upper / name).mkdir()
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
        for folder, folders, files in os.walk(upper):
            for name in (*folders, *files):
                os.chown(os.path.join(folder, name), root, root, follow_symlinks=False)

    def _is_path(self, reference: str) -> bool:
        endings = (".ipynb", ".tar", ".tar.gz", ".tar.zst")
        return reference.startswith(("/", "./", "../")) or reference.endswith(endings)

    def _what_exists(self) -> str:
        names = [*definitions(self._folders), *self._store.tags.list()]
        return f"there are: {', '.join(names)}; or a path: ./image.tar, ./oci-folder, ./other.ipynb"


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
            ready = select.select(self._watched, [], [])[0]
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


def _first(definition: Definition, snapshot: Snapshot, seconds: float, *, cached: bool) -> Progress:
    """The image that is nothing but the bootstrapped layer."""
    created = datetime.fromtimestamp(definition.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = os.uname().machine
    config = ImageConfig(
        architecture=_ARCHITECTURES.get(machine, machine),
        os="linux",
        created=created,
        env=(_PATH,),
        cmd=("/bin/sh",),
    )
    empty = Progress(config, (), (), definition.epoch)
    return empty.with_layer(layer_of(snapshot, f"%base {definition.name}", seconds, cached=cached))


def epoch_of(config: ImageConfig) -> int:
    try:
        return int(datetime.fromisoformat(config.created or "").timestamp())
    except ValueError:
        return _DEFAULT_EPOCH
