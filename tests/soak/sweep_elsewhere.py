"""The same notebook and lock elsewhere, a year later, with no registry: the same bytes.

Each case locks one notebook of a kind as root, with crun, and builds it once more from its lock as
an ordinary user, with runc, in another folder, on one processor, with another umask, locale and
time zone. What steps run then sees a clock that is a year ahead, and every way to a registry is
a proxy that nobody is; what the lock names comes from the store's downloads, which are copied.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from container_kernel.runtime.host import find_tool

ROOT = Path(__file__).parents[2]
KINDS = [
    *sorted((Path(__file__).parent / "kinds").glob("*.ipynb")),
    ROOT / "notebooks/quickstart.ipynb",
]
CASES = len(KINDS)
SAMPLE = 0  # the quickest takes half a minute, for two stores
TIMEOUT_S = 3600
USER = os.environ.get("CONTAINER_KERNEL_SOAK_USER", "ck-test")
CLOCK = "libfaketimeMT.so.1"
# An OCI runtime that first gives what it runs another clock.
RUNTIME = """#!/usr/bin/python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        spec = json.load(file)
    env = ["LD_PRELOAD=/dev/clock.so", "FAKETIME=+365d", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    env.append("NO_FAKE_STAT=1")  # the disk has no other clock
    # Else a wait with a time limit is none: Python's threads hand their lock to and fro.
    env.append("FAKETIME_FORCE_MONOTONIC_FIX=0")
    spec["process"]["env"] += env
    spec["mounts"].append(
        dict(destination="/dev/clock.so", source=CLOCK, type="bind", options=["rbind", "ro"])
    )
    with open(path, "w") as file:
        json.dump(spec, file)
os.execv(REAL, sys.argv)
"""


def why_not():
    """What it needs beside a Linux."""
    if os.getuid() != 0:
        return "it needs root, to be another user"
    if not (find_tool("crun") and find_tool("runc")):
        return "it needs crun and runc"
    if not _clock():
        return "it needs libfaketime"
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return f"there is no user {USER}; `./dev test` makes it"
    return ""


def _clock():
    return next(Path("/usr/lib").glob(f"*/faketime/{CLOCK}"), None)


@contextlib.contextmanager
def opened():
    here = Path(tempfile.mkdtemp(prefix="ck-elsewhere-"))
    here.chmod(0o711)
    there = Path(tempfile.mkdtemp(prefix="ck-elsewhere-"))
    try:
        _settle(there)
        print(f"{'notebook':<14} {'here':<20} {'elsewhere':<20} {'seconds':>13}", flush=True)
        yield lambda number, chance: _case(here, there, KINDS[number])
    finally:
        shutil.rmtree(here, ignore_errors=True)
        shutil.rmtree(there, ignore_errors=True)


def _settle(there):
    """A checkout of the other user's with an environment of its own, and the runtime."""
    checkout = there / "checkout"
    checkout.mkdir()
    (there / "home").mkdir(mode=0o700)
    names = [path for path in ROOT.iterdir() if path.name not in (".venv", ".git", "build")]
    subprocess.run(["cp", "-r", *names, checkout], check=True)
    runtime = there / "runc"
    values = f"CLOCK = {str(_clock())!r}\nREAL = {str(find_tool('runc'))!r}\n"
    runtime.write_text(RUNTIME.replace("import json", f"{values}import json", 1))
    runtime.chmod(0o755)
    _give(there)
    _run_there(there, [checkout / "dev", "exec", "true"], there, {})


def _case(here, there, notebook):
    started = time.monotonic()
    place = here / "place"
    shutil.copytree(notebook.parent, place, dirs_exist_ok=True)
    env = {**os.environ, "CONTAINER_KERNEL_HOME": str(here / "home")}
    env["CONTAINER_KERNEL_RUNTIME"] = "crun"
    command = [sys.executable, "-m", "container_kernel"]
    _told(command, "lock", notebook.name, "--json", cwd=place, env=env)
    built = _told(command, "build", notebook.name, "--json", cwd=place, env=env)
    between = time.monotonic()
    other = there / "ödd plàce" / "deep"
    shutil.copytree(place, other, dirs_exist_ok=True)
    downloads = there / "home/downloads"
    if (here / "home/downloads").exists():
        shutil.rmtree(downloads, ignore_errors=True)  # of the notebook before
        shutil.copytree(here / "home/downloads", downloads, symlinks=True)
        _give(downloads)
    _give(other.parent)
    again = _build_there(there, other, notebook.name)
    seconds = [f"{between - started:.0f}", f"{time.monotonic() - between:.0f}"]
    for name, digest in built.items():
        label = notebook.stem if name == "main" else f"{notebook.stem}:{name}"
        says = "same" if again[name] == digest else "OTHER"
        print(
            f"{label:<14} {digest[:19]:<20} {again[name][:19]:<20} {'+'.join(seconds):>13}  {says}",
            flush=True,
        )
    assert again == built


def _build_there(there, place, name):
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    env = {
        **nowhere,
        "CONTAINER_KERNEL_HOME": str(there / "home"),
        "CONTAINER_KERNEL_RUNTIME": str(there / "runc"),
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "de_DE.UTF-8",
    }
    command = [there / "checkout/.venv/bin/container-kernel", "build", name, "--locked", "--json"]
    core = str(min(os.sched_getaffinity(0)))
    done = _run_there(there, ["taskset", "-c", core, *command], place, env, umask=0o077)
    return _digests(done)


def _run_there(there, argv, cwd, env, *, umask=0o022):
    """Run a command as the other user; what it prints."""
    gone = (
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "XDG_DATA_HOME",
        "VIRTUAL_ENV",
    )
    own = {
        "HOME": str(there),
        "USER": USER,
        "LOGNAME": USER,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    whole = {**os.environ, **own, **env}
    whole = {key: value for key, value in whole.items() if key not in gone}
    who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}
    how = {"cwd": cwd, "env": whole, "umask": umask, "timeout": TIMEOUT_S}
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, **who, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _give(folder):
    subprocess.run(["chown", "-R", f"{USER}:", folder], check=True)


def _told(command, *words, **more):
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=TIMEOUT_S, **more
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return _digests(done.stdout)


def _digests(said):
    stages = json.loads(said.splitlines()[-1]).get("stages", {})
    return {name: stage["digest"] for name, stage in stages.items()}
