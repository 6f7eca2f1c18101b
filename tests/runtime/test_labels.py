"""Labels of the host's security modules: real ones where the host has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.build.execute import follow
from container_kernel.runtime import apparmor, selinux
from container_kernel.runtime.bundle import ContainerSpec, Process
from container_kernel.runtime.rootfs import Rootfs
from container_kernel.runtime.selinux import Label

LXC = (
    'process = "system_u:system_r:container_t:s0"\n'
    'content = "system_u:object_r:virt_var_lib_t:s0"\n'
    'file = "system_u:object_r:container_file_t:s0"\n'
)
OURS = Label("u:r:container_t:s0:c1,c2", "u:object_r:container_file_t:s0:c1,c2")


@pytest.mark.privileged
def test_a_container_is_in_the_hosts_apparmor_profile(host, shared_store, busybox):
    name = None if host.namespace.is_rootless else apparmor.profile()
    if name is None:
        pytest.skip("no AppArmor profile for containers here (there is one in ./dev soak vm)")
    rootfs = Rootfs(host, shared_store, busybox.chain_id)
    process = Process(args=("/bin/sleep", "100"), env={"PATH": "/bin"})
    spec = ContainerSpec(rootfs=rootfs.path, process=process, idmap=shared_store.idmap)
    container = host.runtime.run(spec)
    read = Process(args=("/bin/cat", "/proc/self/attr/current"), env={"PATH": "/bin"})
    said: list[str] = []
    try:
        first = Path(f"/proc/{container.pid}/attr/current").read_text()
        follow(host.runtime.exec(container, read), said.append, Cancel())
    finally:
        container.delete()
        rootfs.discard()
    assert {first.strip(), "".join(said).strip()} == {f"{name} (enforce)"}


@pytest.fixture
def tree(tmp_path):
    """What a host with SELinux shows, as far as we look."""
    for name, text in (
        ("sys/fs/selinux/enforce", "1"),
        ("sys/fs/selinux/context", ""),
        ("etc/selinux/config", "# this\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"),
        ("etc/selinux/targeted/contexts/lxc_contexts", LXC),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_a_label_is_of_the_policys_types_with_a_pair_of_its_own(tree):
    found = [selinux.label(tree) for _ in range(50)]
    assert len({label.process for label in found}) > 45
    process, file = found[0].process, found[0].file
    assert process.startswith("system_u:system_r:container_t:s0:c")
    assert file.startswith("system_u:object_r:container_file_t:s0:c")
    pair = process.rpartition(":")[2]
    assert file.rpartition(":")[2] == pair
    low, high = (int(word.removeprefix("c")) for word in pair.split(","))
    assert 0 <= low < high < 1024


@pytest.mark.parametrize(
    "gone", ["sys/fs/selinux/enforce", "sys/fs/selinux/context", "etc/selinux/config"]
)
def test_without_selinux_there_is_none(tree, gone):
    (tree / gone).unlink()
    assert selinux.label(tree) is None


def test_a_policy_without_containers_gives_none(tree):
    (tree / "etc/selinux/targeted/contexts/lxc_contexts").write_text('process = "u:r:x_t:s0"\n')
    assert selinux.label(tree) is None


@pytest.mark.parametrize(
    ("context", "fits"),
    [
        ("u:object_r:container_file_t:s0", True),
        ("u:object_r:container_file_t:s0:c1,c2", True),
        ("u:object_r:container_file_t:s0:c1,c3", False),
        ("u:object_r:user_home_t:s0", False),
        ("", False),
    ],
)
def test_what_a_container_may_use_bears_its_type_and_nobody_elses_pair(context, fits):
    assert OURS.fits(context) is fits


def test_nothing_of_a_users_is_relabelled_they_are_told_how(tmp_path):
    before = os.listxattr(tmp_path)
    assert selinux.remedy(tmp_path, OURS) == f"sudo chcon -R -t container_file_t -l s0 {tmp_path}"
    assert os.listxattr(tmp_path) == before
