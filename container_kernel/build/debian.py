"""Debian: the first layer of a Debian base, by mmdebstrap(1).

Which packages that took is noted, and they are kept by digest. A lock that names them gets the same
layer, bit for bit, from a repository of exactly these files, whatever the mirrors have by then.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import HostError
from ..folders import remove_tree
from ..runtime import pretend
from ..runtime.bundle import DEFAULT_PATH
from ..runtime.host import find_tool
from ..store.snapshots import Active
from . import tool_output
from .archives import Archives
from .cancel import Cancel
from .definition import Definition
from .journal import Journal
from .resolved import Input
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
# The packages of a first layer, and what the archive says of them (it may overrule their priority,
# which decides what belongs to a variant). mmdebstrap runs this when all are installed.
_NOTE = (
    'mkdir {0}/debs && cp "$1"/var/cache/apt/archives/*.deb {0}/debs/ && '
    "for deb in {0}/debs/*.deb; do "
    "dpkg-deb --show --showformat='${{Package}}=${{Version}}\\n' \"$deb\"; done | "
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" xargs apt-cache show --no-all-versions >{0}/stanzas'
)


def bootstrap(
    place: Workplace,
    definition: Definition,
    active: Active,
    on_log: Callable[[str], None],
    cancel: Cancel,
    locked: Sequence[Input],
) -> list[Input]:
    """Fill ``active`` from the mirrors this host itself uses, or from what is ``locked``."""
    tool = find_tool("mmdebstrap")
    if tool is None:
        raise HostError(
            f"{definition.name} is made by mmdebstrap, which is not installed",
            hint="sudo apt-get install -y mmdebstrap",
        )
    journal, downloads = Journal(place.store.home), place.store.cache_folder("apt")
    with _folder(downloads) as folder:
        if locked and _repository(locked, journal, downloads, definition.word("suite"), folder):
            on_log(f"bootstrapping {definition.name} from the packages that are locked\n")
            source = f"deb [trusted=yes] copy:{folder} ./"
            more: list[str] = []
        else:
            on_log(f"bootstrapping {definition.name} with mmdebstrap\n")
            source = _sources(place, definition, folder)
            note = _NOTE.format(shlex.quote(str(folder)))
            more = ["--skip=essential/unlink", f"--customize-hook={note}"]
            locked = ()
        argv = [str(tool), *_options(definition), *more, definition.word("suite"), "-"]
        argv += [source] if source else []
        if place.store.idmap.squash:
            argv = pretend.wrap([*argv[:1], *_ONE_ID_OPTIONS, *argv[1:]])
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(place, definition, active),
            start_new_session=True,
        )
        tool_output.unpack(place.store, definition.name, process, active, on_log, cancel)
        return list(locked) or _keep(folder, journal, downloads)


def _options(definition: Definition) -> list[str]:
    include = definition.words("include")
    hooks = [_FORGET_SOURCES, *definition.words("hooks")]
    return [
        "--mode=root",
        "--format=tar",
        "--quiet",
        f"--variant={definition.word('variant', 'minbase')}",
        *([f"--include={','.join(include)}"] if include else []),
        *(f"--customize-hook={hook}" for hook in hooks),
    ]


def _environment(place: Workplace, definition: Definition, active: Active) -> dict[str, str]:
    return {
        "PATH": DEFAULT_PATH,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": str(active.path),
        "SOURCE_DATE_EPOCH": str(definition.epoch),
        "LC_ALL": "C.UTF-8",
        **place.site.env,
    }


def _sources(place: Workplace, definition: Definition, folder: Path) -> str:
    """A file with the host's own sources for the suite; empty where it has none."""
    texts = place.site.texts(definition.word("suite"))
    wanted = next((text for path, text in texts.items() if path.endswith(".sources")), "")
    (folder / "site.sources").write_text(wanted)
    return str(folder / "site.sources") if wanted else ""


@contextmanager
def _folder(downloads: Path) -> Iterator[Path]:
    """A folder beside the kept packages, for links to them and from them."""
    folder = Path(tempfile.mkdtemp(prefix="base.", dir=downloads))
    try:
        yield folder
    finally:
        remove_tree(folder)


# ---------------------------------------------------------------- what it was made of


def _keep(folder: Path, journal: Journal, downloads: Path) -> list[Input]:
    """The packages that were noted in ``folder``, kept by digest from now on."""
    priorities = dict(_priorities((folder / "stanzas").read_text(encoding="utf-8")))
    debs = sorted((folder / "debs").iterdir())
    inputs = [_input(deb, priorities) for deb in debs]
    with Archives(downloads) as archives:
        for deb in debs:
            archives.put(deb)
    journal.keep(inputs, downloads)
    return inputs


def _input(deb: Path, priorities: Mapping[tuple[str, str], str]) -> Input:
    name, version, architecture = deb.stem.rsplit("_", 2)
    version = version.replace("%3a", ":")
    with deb.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "kind": "deb",
        "name": name,
        "version": version,
        "architecture": architecture,
        "priority": priorities[name, version],
        "file": deb.name,
        "size": deb.stat().st_size,
        "digest": f"sha256:{digest}",
    }


def _priorities(stanzas: str) -> Iterator[tuple[tuple[str, str], str]]:
    for stanza in re.split(r"\n\n+", stanzas.strip()):
        fields = dict(re.findall(r"^(Package|Version|Priority): (.*)$", stanza, re.MULTILINE))
        yield (fields["Package"], fields["Version"]), fields["Priority"]


# ---------------------------------------------------------------- what is locked


def _repository(
    locked: Sequence[Input], journal: Journal, downloads: Path, suite: str, folder: Path
) -> bool:
    """Make ``folder`` a repository of the locked packages; False where the store lacks one."""
    journal.bring(locked, downloads)
    try:
        with Archives(downloads) as archives:
            for one in locked:
                archives.link(one["file"], folder / one["file"])
    except OSError:  # not there, or something else is
        return False
    stanzas = []
    for one in locked:
        deb = folder / one["file"]
        said = subprocess.run(
            ["dpkg-deb", "--field", str(deb)], capture_output=True, text=True, check=True
        )
        control = re.sub(r"(?m)^Priority:.*\n", "", said.stdout)
        stanzas.append(
            f"{control}Priority: {one['priority']}\nFilename: ./{deb.name}\n"
            f"Size: {one['size']}\nSHA256: {one['digest'].removeprefix('sha256:')}\n"
        )
    packages = "\n".join(stanzas).encode()
    (folder / "Packages").write_bytes(packages)
    digest = hashlib.sha256(packages).hexdigest()
    # What mmdebstrap takes for essential it looks for in the suite of that name only.
    (folder / "Release").write_text(
        f"Suite: {suite}\nCodename: {suite}\nSHA256:\n {digest} {len(packages)} Packages\n"
    )
    return True
