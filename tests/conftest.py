"""The whole run happens inside namespaces of its own, as every use of this package does.

`enter` forks: the process pytest was started as becomes the supervisor, its exit status is this
one's. Where the host forbids namespaces, tests marked ``privileged`` are skipped and say why.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from container_kernel import config
from container_kernel.build import site
from container_kernel.build.cancel import Cancel
from container_kernel.build.registries import Registries
from container_kernel.build.source import Bases
from container_kernel.build.workplace import Workplace
from container_kernel.errors import HostError
from container_kernel.runtime import janitor, namespace
from container_kernel.runtime.host import Host, find_tool
from container_kernel.runtime.limits import Limits
from container_kernel.store.places import KNOWN
from container_kernel.store.store import Store
from tests.commands import command
from tests.lending import lend

_entered = None
_why_not = ""


def pytest_configure(config):
    """Enter namespaces once, before anything starts a thread."""
    global _entered, _why_not
    if config.option.collectonly or _entered is not None:
        return
    try:
        _entered = namespace.enter(os.environ)
    except HostError as error:
        _why_not = str(error)
        return
    if not _entered.is_rootless:
        lend("")  # of which `runtime/test_lent.py` is, whatever this host does


def pytest_report_header():
    """Say what this run can show."""
    level = _entered.level if _entered else f"none ({_why_not})"
    return f"isolation: {level}, uid {os.getuid()}"


def pytest_collection_modifyitems(items):
    """Skip what needs namespaces where there are none."""
    if _entered is None:
        skip = pytest.mark.skip(reason=f"no namespaces here: {_why_not}")
        for item in items:
            if item.get_closest_marker("privileged"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _orphans_are_buried():
    """Bury the janitors of a test's kernels, as pid 1 would: process limits count the dead too."""
    yield
    if _entered is None:
        return
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(OSError):  # a thread may have buried it
            if Path(f"/proc/{pid}/comm").read_text().strip() == janitor.COMMAND:
                os.waitpid(int(pid), os.WNOHANG)


@pytest.fixture(scope="session")
def entered():
    """Where this process is."""
    return _entered


@pytest.fixture(scope="session", params=["crun", "runc"])
def oci_runtime(request):
    """Each OCI runtime in turn."""
    if find_tool(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="session")
def host(entered, oci_runtime):
    """This host with each OCI runtime in turn."""
    return Host.open(entered, oci_runtime)


@pytest.fixture(scope="session")
def shared_home():
    """A store folder that keeps its bases for the whole run, and has only known things in it."""
    folder = Path(tempfile.mkdtemp(prefix="ck-tests-"))
    yield folder
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    shutil.rmtree(folder, ignore_errors=True)
    assert found <= KNOWN, f"check, du and collect know nothing of {found - KNOWN}"


@pytest.fixture
def store(tmp_path, entered):
    """A fresh, empty store."""
    store = Store(tmp_path / "home", entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


@pytest.fixture(scope="session")
def shared_store(shared_home, entered):
    """A store that keeps its bases for the whole run."""
    store = Store(shared_home, entered.idmap, userxattr=entered.is_rootless)
    yield store
    store.close()


def workplace(host, store):
    """Where steps run in ``store``."""
    known = site.collect(os.environ, Path.home())
    return Workplace(host, store, lambda: known, Limits(pids=4096))


@pytest.fixture(scope="session")
def place(host, shared_store):
    """Where steps run: the shared store on each OCI runtime."""
    return workplace(host, shared_store)


def bases_in(place, notebooks):
    """What finds and makes bases there."""
    return Bases(place, config.load().base_folders, notebooks, None, Registries())


@pytest.fixture(scope="session")
def bases(place, tmp_path_factory):
    """What finds and makes bases."""
    return bases_in(place, tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="session")
def busybox(bases):
    """The smallest base, as a chain that can be built upon."""
    return bases.make("busybox", lambda text: None, Cancel())


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    """A notebook's folder with the compiled probe in it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, and the probe is written in C")
    folder = tmp_path_factory.mktemp("probed")
    source = Path(__file__).parent / "runtime" / "probe.c"
    argv = ["gcc", "-static", "-O1", "-w", "-o", str(folder / "probe"), str(source)]
    subprocess.run(argv, check=True)
    return folder / "probe"


@pytest.fixture
def settings(shared_home, oci_runtime):
    """Settings of a process that uses the shared store."""
    environ = {
        **os.environ,
        "CONTAINER_KERNEL_HOME": str(shared_home),
        "CONTAINER_KERNEL_RUNTIME": oci_runtime,
    }
    return config.load(environ)


@pytest.fixture
def canary(tmp_path):
    """A folder of the host that everybody may write to; it stays as it is."""
    folder = tmp_path / "canary"
    folder.mkdir()
    folder.chmod(0o777)
    tmp_path.chmod(0o755)
    (folder / "file").write_text("untouched")
    (folder / "file").chmod(0o666)
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"file": "untouched"}


@pytest.fixture
def cli(settings, tmp_path):
    """The command in an empty folder, on the shared store and each OCI runtime."""

    def call(*words, **options):
        return command(*words, cwd=tmp_path, env=dict(settings.environ), **options)

    call.folder = tmp_path
    return call
