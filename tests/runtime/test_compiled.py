"""A filter is compiled once; every later container has the same."""

import json
import os

import pytest

from container_kernel.runtime import profile
from container_kernel.runtime.bundle import ContainerSpec, Process
from container_kernel.runtime.compiled import CompiledFilters
from container_kernel.runtime.oci_runtime import OciRuntime

pytestmark = pytest.mark.privileged
NAME = "run.oci.seccomp_bpf_data"


@pytest.fixture
def runtime(host):
    """As another process would have it: it knows nothing but what lies in the run folders."""
    if not host.runtime.path.name.startswith("crun"):
        pytest.skip("runc compiles each time: it has no way to be given a filter")
    return anew(host.runtime)


def anew(own):
    return OciRuntime(own.path, own._run_dir, is_rootless=own._is_rootless, cgroup=own.cgroup)


@pytest.fixture
def start(shared_store, rootfs):
    """Start a container that waits; what its runtime was told, and the filter it came to have."""

    def start(runtime, **more):
        spec = ContainerSpec(
            rootfs=rootfs.path,
            process=Process(args=("/bin/sleep", "60"), env={}, uid=0, gid=0),
            idmap=shared_store.idmap,
            **{"pretend_ownership": shared_store.idmap.squash, **more},
        )
        container = runtime.run(spec, init=False)
        try:
            folder, state = container._leftovers
            told = {"annotations": {}} | json.loads((folder / "config.json").read_text())
            filter_ = state / "seccomp.bpf"
            return told, filter_.read_bytes() if filter_.exists() else None
        finally:
            container.kill()
            container.delete()

    return start


@pytest.fixture
def kept(runtime):
    """The files in which compiled filters are kept; none at first."""

    def kept():
        return sorted(runtime._run_dir.parent.glob("filter.*"))

    for path in kept():
        path.unlink()
    return kept


def test_the_second_container_is_given_what_the_first_was_compiled(runtime, start, kept):
    first, compiled = start(runtime)
    assert (NAME in first["annotations"], len(kept())) == (False, 1)
    second, given = start(runtime)
    assert NAME in second["annotations"]
    assert compiled == given
    assert second["linux"]["seccomp"] == first["linux"]["seccomp"]  # for a crun that compiles anew


def test_another_process_need_not_compile_either(runtime, start, kept):
    _, compiled = start(runtime)
    told, given = start(anew(runtime))
    assert NAME in told["annotations"]
    assert compiled == given
    assert [path.stat().st_mode & 0o777 for path in kept()] == [0o600]


def test_a_filter_that_is_not_whole_is_not_used(runtime, start, kept):
    _, compiled = start(runtime)
    (path,) = kept()
    for damage in (b"", path.read_bytes()[:-12], b"x" + path.read_bytes()[1:], os.urandom(99)):
        path.write_bytes(damage)
        told, given = start(anew(runtime))
        assert NAME not in told["annotations"]
        assert given == compiled


def test_other_rules_are_another_filter(runtime, start, kept, monkeypatch):
    _, compiled = start(runtime)
    harsher = json.loads(json.dumps(profile.seccomp()))
    harsher["syscalls"].append({"names": ["sync"], "action": "SCMP_ACT_ERRNO"})
    harsher["syscalls"][0]["names"].remove("sync")
    monkeypatch.setattr(profile, "seccomp", lambda **_: harsher)
    told, other = start(anew(runtime))
    assert NAME not in told["annotations"]
    assert other != compiled
    assert len(kept()) == 2


def test_no_filter_is_none(runtime, start, kept):
    start(runtime)
    told, filter_ = start(runtime, has_seccomp=False)
    assert (told["annotations"], filter_) == ({}, None)


def test_an_updated_runtime_compiles_anew(runtime, tmp_path):
    program = tmp_path / "crun"
    program.write_text("old")
    spec = ContainerSpec(
        rootfs=tmp_path, process=Process(args=(), env={}, uid=0, gid=0), idmap=None
    )
    filters = CompiledFilters(tmp_path, program)
    (tmp_path / "seccomp.bpf").write_bytes(b"12345678")
    filters.learn(spec, tmp_path)
    assert CompiledFilters(tmp_path, program).put_on(spec).annotations
    program.write_text("young")
    assert not CompiledFilters(tmp_path, program).put_on(spec).annotations
