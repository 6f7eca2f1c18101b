"""Packages: what ``%apt``, ``%pip`` and ``%npm`` run.

Downloads go through caches shared by all notebooks, which are mounted into the step and in no
layer; package managers find the site's settings in ``/run/site``. `step.MEANING` versions what is
written here: change the number there with the text here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..errors import HostError
from ..store.store import Store
from .execute import CACHE, Command
from .step import Packages

UV = "/run/uv"
"""Where the host's uv is mounted in a ``%pip`` step."""
_REQUIREMENTS = "/run/requirements"

_APT = f"""\
command -v apt-get >/dev/null || {{ echo "this image has no apt-get" >&2; exit 127; }}
export DEBIAN_FRONTEND=noninteractive
mkdir -p {CACHE}/apt/lists/partial {CACHE}/apt/archives/partial
with_cache="-o Dir::State::lists={CACHE}/apt/lists -o Dir::Cache::archives={CACHE}/apt/archives"
with_cache="$with_cache -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
options="$with_cache -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dpkg::Use-Pty=0"
apt-get $options -qq update
# Byte-code of Debian's packages is compiled after they are unpacked. Told of SOURCE_DATE_EPOCH,
# Python would make byte-code that hashes its source at every import.
unset SOURCE_DATE_EPOCH
apt-get $options install --yes --no-install-recommends @WORDS@
"""

# The image's python3 says where it imports from; uv, mounted beside it, resolves and installs.
# Byte-code is compiled after the sources have the time they will be frozen with, so that it
# stays valid; by time, since checking hashes costs a read of every source at every import.
_PIP = f"""\
python=$(command -v python3) || {{ echo "this image has no python3: %apt python3" >&2; exit 127; }}
export UV_CACHE_DIR={CACHE}/uv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1
export UV_NO_PROGRESS=1
TMPDIR=$(mktemp -d {CACHE}/uv/step.XXXXXX) && export TMPDIR  # what is left there is in no layer
trap 'rm -rf "$TMPDIR"' EXIT
start=$("$python" -c 'import time; print(time.time())')
{UV} pip install --python "$python" --break-system-packages @WORDS@
folders=$("$python" - "$start" <<'EOF'
import os, sys
start, epoch = float(sys.argv[1]) - 1, int(os.environ["SOURCE_DATE_EPOCH"])
folders = {{path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}}
for folder in sorted(filter(os.path.isdir, folders)):
    print(folder)
    for here, _, names in os.walk(folder):
        for path in (os.path.join(here, name) for name in names if name.endswith(".py")):
            if os.stat(path).st_mtime >= start:
                os.utime(path, (epoch, epoch))
EOF
)
# Some packages hold files of other Pythons, which do not compile.
"$python" -m compileall -qq -j0 --invalidation-mode timestamp $folders || true
"""

_NPM = f"""\
command -v npm >/dev/null || {{ echo "this image has no npm: %apt npm" >&2; exit 127; }}
export NPM_CONFIG_CACHE={CACHE}/npm NPM_CONFIG_UPDATE_NOTIFIER=false HOME=/tmp
npm install --global --no-audit --no-fund --loglevel=error @WORDS@
"""

_SCRIPTS = {"apt": _APT, "pip": _PIP, "npm": _NPM}


def command_for(
    step: Packages, store: Store, requirements: Mapping[str, Path], env: Mapping[str, str]
) -> Command:
    """The command that installs ``step``; ``requirements`` are its files, frozen for this run."""
    words = [*step.options, *step.names]
    binds = {}
    for number, (_, path) in enumerate(requirements.items()):
        inside = f"{_REQUIREMENTS}-{number}.txt"
        binds[inside] = path
        words += _file_words(step.manager, path, inside)
    if step.manager == "pip":
        binds[UV] = _find_uv()
    script = _SCRIPTS[step.manager].replace("@WORDS@", shlex.join(words))
    name = "uv" if step.manager == "pip" else step.manager
    return Command(
        script=script,
        env=env,
        binds=binds,
        caches={f"{CACHE}/{name}": store.cache_folder(name)},
    )


def _file_words(manager: str, path: Path, inside: str) -> list[str]:
    if manager == "pip":
        return ["-r", inside]
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [word for line in lines for word in line.split()]


def _find_uv() -> Path:
    try:
        from uv import find_uv_bin
    except ImportError as error:
        raise HostError("uv is not installed", hint="pip install uv") from error
    return Path(find_uv_bin())
