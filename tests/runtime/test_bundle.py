"""Row 119: the bundle is what the runtime spec says, and asks for what the profile says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from container_kernel.oci.idmap import IdMap
from container_kernel.record import replace
from container_kernel.runtime import apparmor, bundle, profile
from container_kernel.runtime.bundle import ContainerSpec, Mount, Process
from container_kernel.runtime.cgroup import CgroupParent
from container_kernel.runtime.limits import Held, Limits, hold

GOCODE = Path("/usr/share/gocode/src")
SCHEMAS = GOCODE / "github.com/opencontainers/runtime-spec/schema"
"""Where Debian's package golang-github-opencontainers-specs-dev has the spec's own schemas."""
PROCESS = Process(args=("true",), env={"PATH": "/bin"}, uid=1000, gid=1000, groups=(4,))
RUN = ContainerSpec(
    rootfs=Path("/somewhere"),
    process=PROCESS,
    idmap=IdMap(((0, 0, 4294967296),)),
    limits=Limits(memory_bytes=1 << 30, pids=100, cpus=1.5),
    mounts=(Mount.bind("/host", "/work"),),
)
BARE = Held(())
USERNS = IdMap(((0, 1000, 1), (1, 100000, 65536)))
SPECS = {
    "run": RUN,
    "build": replace(RUN, process=replace(PROCESS, uid=0, capabilities=profile.BUILD_CAPABILITIES)),
    "rootless": replace(RUN, idmap=USERNS),
    "host network": replace(RUN, host_network=True),
    "one id": replace(RUN, idmap=USERNS, pretend_ownership=True),
    "relaxed": replace(
        RUN,
        has_seccomp=False,
        process=replace(PROCESS, capabilities=("CAP_NET_RAW",), ambient=("CAP_NET_RAW",)),
    ),
    "apparmor": replace(RUN, process=replace(PROCESS, apparmor="docker-default")),
    "selinux": replace(
        RUN, process=replace(PROCESS, selinux="u:r:t:s0:c1,c2"), mount_label="u:o:t:s0"
    ),
}


@pytest.fixture(scope="module")
def schema():
    """What takes a bundle's config and raises where it is not as the spec says."""
    if not SCHEMAS.is_dir():
        pytest.skip(
            "the runtime spec's schemas (golang-github-opencontainers-specs-dev) are missing"
        )
    from jsonschema import Draft4Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    def retrieve(uri):
        file = SCHEMAS / uri.rpartition("/")[2]
        return DRAFT4.create_resource(json.loads(file.read_text()))

    whole = json.loads((SCHEMAS / "config-schema.json").read_text())
    return Draft4Validator(whole, registry=Registry(retrieve=retrieve))


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("has_cgroup", [True, False])
def test_row_119_the_config_is_valid_by_the_specs_own_schema(schema, kind, has_cgroup):
    spec = SPECS[kind]
    cgroup = CgroupParent("/container-kernel/x", 1) if has_cgroup else None
    config = spec.to_json(hold(spec.limits, cgroup, "c1", data=True))
    schema.validate(json.loads(json.dumps(config)))


def test_row_119_the_schema_would_find_a_mistake(schema):
    config = RUN.to_json(BARE)
    config["process"]["user"]["uid"] = "root"
    assert [error.json_path for error in schema.iter_errors(config)] == ["$.process.user.uid"]


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    """The checks of `oci-runtime-tool validate`, compiled; ten seconds the first time."""
    library = GOCODE / "github.com/opencontainers/runtime-tools/validate"
    if shutil.which("go") is None or not library.is_dir():
        pytest.skip(
            "golang-go and golang-github-opencontainers-runtime-tools-dev are not installed"
        )
    program = tmp_path_factory.mktemp("validator") / "validate"
    cache = Path(__file__).parents[2] / "build/go"
    goes = {"GO111MODULE": "off", "GOPATH": str(GOCODE.parent), "GOCACHE": str(cache)}
    argv = ["go", "build", "-o", program, Path(__file__).with_name("validate.go")]
    subprocess.run(argv, env={**os.environ, **goes}, check=True)
    return program


@pytest.mark.slow
def test_row_119_the_bundles_pass_oci_runtime_tool(validator, tmp_path):
    """Its version of the spec has another name, and it wants the root inside of the bundle."""
    folders = []
    for kind in SPECS.keys() - {"apparmor"}:
        for cgroup in (CgroupParent("/container-kernel/x", 1), None):
            folder = tmp_path / f"{kind.replace(' ', '-')}-{cgroup is not None}"
            spec = replace(SPECS[kind], rootfs=folder / "rootfs")
            bundle.write(folder, spec, hold(spec.limits, cgroup, "c1", data=True))
            (folder / "rootfs").mkdir()
            file = folder / "config.json"
            file.write_text(file.read_text().replace('"1.0.2"', '"1.0.2-dev"'))
            folders.append(folder)
    bad = tmp_path / "bad"
    shutil.copytree(folders[0], bad)
    file = bad / "config.json"
    file.write_text(file.read_text().replace("RLIMIT_CORE", "RLIMIT_COAR"))
    done = subprocess.run([validator, *folders, bad], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("/")} == {str(bad)}, done.stdout


@pytest.mark.parametrize("kind", SPECS)
def test_rule_4_no_bundle_has_hooks_sysctls_annotations_or_a_terminal(kind):
    config = SPECS[kind].to_json(BARE)
    assert set(config) == {"ociVersion", "process", "root", "hostname", "mounts", "linux"}
    assert "sysctl" not in config["linux"]
    assert config["process"]["terminal"] is False
    assert config["process"]["noNewPrivileges"] is True


def test_only_what_is_asked_for_is_inherited():
    held = SPECS["build"].process.to_spec(())["capabilities"]
    assert (held["inheritable"], held["ambient"]) == ([], [])
    relaxed = SPECS["relaxed"].process.to_spec(())["capabilities"]
    assert {tuple(mask) for mask in relaxed.values()} == {("CAP_NET_RAW",)}


# AppArmor cannot run on every machine: what is read of /sys is made here


@pytest.mark.parametrize(
    ("loaded", "found"),
    [
        ("docker-default (enforce)\nfirefox (enforce)\n", "docker-default"),
        ("docker-default (enforce)\ncontainers-default-0.50.1 (enforce)\n",
         "containers-default-0.50.1"),
        ("docker-default (complain)\n", None),
        ("/usr/bin/docker-default (enforce)\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_hosts_apparmor_profile_for_containers_is_used(tmp_path, loaded, found):
    (tmp_path / "module/apparmor/parameters").mkdir(parents=True)
    (tmp_path / "module/apparmor/parameters/enabled").write_text("Y\n")
    (tmp_path / "kernel/security/apparmor").mkdir(parents=True)
    (tmp_path / "kernel/security/apparmor/profiles").write_text(loaded)
    assert apparmor.profile(tmp_path) == found


def test_a_host_without_apparmor_is_none(tmp_path):
    assert apparmor.profile(tmp_path) is None
    assert "apparmorProfile" not in RUN.to_json(BARE)["process"]


def test_every_processors_heat_is_masked(tmp_path, monkeypatch):
    for number in (0, 1, 10):
        (tmp_path / f"cpu{number}/thermal_throttle").mkdir(parents=True)
    monkeypatch.setattr(profile, "_THERMAL", f"{tmp_path}/cpu*/thermal_throttle")
    profile.masked_paths.cache_clear()
    try:
        config = RUN.to_json(BARE)
        assert f"{tmp_path}/cpu10/thermal_throttle" in config["linux"]["maskedPaths"]
        assert set(profile.MASKED_PATHS) < set(config["linux"]["maskedPaths"])
    finally:
        profile.masked_paths.cache_clear()


def test_the_runtime_is_given_the_file_that_was_looked_at(tmp_path):
    bundle.write(tmp_path / "b", RUN, BARE)
    told = json.loads((tmp_path / "b/config.json").read_text())
    assert told == RUN.to_json(BARE)
