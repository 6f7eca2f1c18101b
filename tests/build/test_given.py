"""What build steps are given from outside: networks by name, secrets, mounts, an ssh agent."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from container_kernel.build import leaks, nets
from container_kernel.build.events import StepLog
from container_kernel.build.graph import key_of, key_parts
from container_kernel.build.secrets import Mask
from container_kernel.build.site import Site
from container_kernel.build.step import Base, Shell
from container_kernel.errors import BadArguments, InputNotFound, StepFailed, UsageError
from container_kernel.folders import remove_tree
from container_kernel.oci.digest import Digest
from container_kernel.oci.spec import ImageConfig
from container_kernel.record import replace
from container_kernel.runtime import mounts
from container_kernel.runtime.network import DEFAULT, HOST, NONE

SITE = Site(
    None,
    env={
        "PIP_INDEX_URL": "https://me:pw@py.test/simple",
        "PIP_EXTRA_INDEX_URL": "http://more.test:8080/x file:///y",
        "https_proxy": "http://proxy.test:3128",
        "NO_PROXY": "inside.test",
    },
    apt_sources="Types: deb\nURIs: https://deb.test/debian http://deb2.test\nSuites: x\n",
    apt_acquire='Acquire::http::Proxy "http://proxy.test";\nAcquire::Retries "3";\n',
    npmrc="registry=https://npm.test/a/\n@x:registry = https://x.test\nhttps-proxy=http://p\n",
)
CANARY = "canary-9f3b-value"


# ---------------------------------------------------------------- networks by name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python", ["more.test:8080", "py.test:443"]),
        ("apt", ["deb.test:443", "deb2.test:80"]),
        ("npm,python", ["more.test:8080", "npm.test:443", "py.test:443", "x.test:443"]),
        ("Example.ORG", ["example.org:80", "example.org:443"]),
        ("*.example.org:443,[2001:db8::1]:5000", ["*.example.org:443", "[2001:db8::1]:5000"]),
        ("company", ["one.test:443"]),
    ],
)
def test_a_list_is_what_this_hosts_configuration_says(text, expected):
    network = nets.resolve(text, SITE, {"company": ["one.test:443"]})
    assert [str(target) for target in network.targets] == expected
    assert dict(network.upstream) == {"https": "http://proxy.test:3128", "no": "inside.test"}


def test_networks_that_are_no_list():
    assert nets.resolve(None, SITE, {}) == DEFAULT
    assert (nets.resolve("none", SITE, {}), nets.resolve("host", SITE, {})) == (NONE, HOST)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("pyhton", "there are none, host, pasta, apt, company, npm, python, and hosts like"),
        ("python,host", "--net host stands alone"),
        ("example.org:0", "takes hosts like"),
        ("http://example.org", "takes hosts like"),
        ("127.0.0.1:80", "which no list opens"),
        ("localhost.", "which no list opens"),
        ("[::1]:80", "which no list opens"),
        ("169.254.169.254:80", "which no list opens"),
    ],
)
def test_a_network_that_cannot_be_says_what_can(text, what):
    with pytest.raises(BadArguments) as raised:
        nets.resolve(text, SITE, {"company": ["one.test"]})
    assert what in str(raised.value)
    assert raised.value.hint


def test_a_set_that_is_empty_says_so():
    with pytest.raises(BadArguments, match="names no host for apt"):
        nets.resolve("apt", Site(None), {})


def test_a_step_behind_our_proxy_hears_of_no_other():
    site = SITE.through({"http_proxy": "http://127.0.0.1:3128"})
    assert [name for name in site.env if "proxy" in name.lower()] == ["http_proxy"]
    assert site.apt_acquire == 'Acquire::Retries "3";\n'
    assert "https-proxy" not in site.npmrc
    assert "npm.test" in site.npmrc
    assert SITE.through({}) is SITE


def test_how_a_step_gets_its_network_is_no_part_of_what_it_means():
    """Layers made before there was pasta are found again."""

    def key(**more):
        step = Shell("x", **more)
        return key_of(key_parts(step, Digest.of(b""), ImageConfig("x", "linux"), {}, 0))

    assert key() == key(net="host") == key(net="pasta")
    assert len({key(), key(net="none"), key(net="python"), key(secrets=("a",)), key(ssh=True)}) == 5


@pytest.mark.privileged
def test_a_step_that_asks_for_too_much_is_told_which_host(bench, unique):
    step = Shell(f"{unique}\nwget -q -O - http://10.99.0.1:81/", net="example.org:443")
    with pytest.raises(StepFailed) as raised:
        bench.build("a", step)
    assert "its --net list refused 10.99.0.1:81" in raised.value.message
    assert raised.value.hint == "if it is to reach them, add them to --net: 10.99.0.1:81"


@pytest.mark.privileged
def test_sharing_the_hosts_network_is_said_in_the_log(bench, unique):
    bench.build("a", Shell(f"{unique}\ntrue", net="host"))
    bench.build("b", Shell(f"{unique}\ntrue", net="none"))
    (said,) = (event.text for event in bench.kinds(StepLog))
    assert "shares this host's network" in said


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_secret_is_masked_wherever_the_stream_is_cut(cut):
    mask = Mask([b"hunter2-secret"])
    text = "a hunter2-secret b hunter2 c"
    assert mask(text[:cut]) + mask(text[cut:]) + mask.rest() == "a *** b hunter2 c"


def test_each_line_of_a_secret_is_masked_and_text_is_not_kept_back():
    mask = Mask([b"first line\nsecond line\n\n"])
    assert mask("x second line y\n") == "x *** y\n"
    assert mask("first line\nsecond line\n") == "***\n"
    assert mask("plain") == "plain"
    assert Mask([])("anything") == "anything"


@pytest.fixture
def with_secrets(make_bench, settings, tmp_path):
    """A workbench that is told of secrets in each of the three ways."""
    file = tmp_path / "token"
    file.write_text(f"{CANARY}\nsecond-{CANARY}\n")
    file.chmod(0o600)
    environ = {**settings.environ, "TOKEN": CANARY, "CONTAINER_KERNEL_SECRET_PLAIN": "p-" + CANARY}
    own = tmp_path / ".config/container-kernel/secrets"
    own.mkdir(parents=True)
    (own / "kept").write_text("k-" + CANARY)
    (own / "kept").chmod(0o600)
    (own / "open").write_text("o-" + CANARY)
    (own / "open").chmod(0o644)
    known = {"named": "env:TOKEN", "filed": f"file:{file}", "gone": "env:NOT_SET"}
    settings = replace(
        settings, environ=environ, user_home=tmp_path, secrets=known, home=tmp_path / "store"
    )
    bench = make_bench(settings)
    bench.build("base", Base("busybox"))
    bench.events.clear()
    return bench


@pytest.mark.privileged
def test_a_secret_is_read_by_the_step_and_kept_by_nobody(with_secrets, tmp_path, entered):
    names = ("named", "filed", "plain", "kept")
    script = """
        cd /run/secrets; ls -l; wc -c named filed
        cat named filed plain kept; sed 's/^/: /' filed; env
        touch named && echo could-write || true; grep -l canary /proc/*/environ || true
        mount | grep -c /run/secrets
        wc -c < named > /size
    """
    with_secrets.build("a", Shell(script, secrets=names))
    log = "".join(event.text for event in with_secrets.kinds(StepLog))
    assert "-r--------" in log
    assert "***" in log
    assert "could-write" not in log
    assert CANARY not in log
    assert with_secrets.output("cat /size; ls /run/secrets 2>/dev/null") == f"{len(CANARY)}\n"
    with_secrets.workbench.close()
    for top in (tmp_path / "store", entered.run_dir):
        found = subprocess.run(["grep", "-rlF", CANARY, str(top)], capture_output=True, text=True)
        assert found.stdout == ""
    assert b"canary" not in Path("/proc/self/environ").read_bytes()


@pytest.mark.privileged
def test_a_secret_of_a_failing_step_is_in_no_message(with_secrets):
    with pytest.raises(StepFailed) as raised:
        with_secrets.build("a", Shell("cat /run/secrets/named; exit 3", secrets=("named",)))
    assert CANARY not in str(raised.value)
    assert "***" in str(raised.value)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("mkdir -p /root; cat named > /root/.netrc", "/root/.netrc"),
        ("tail -n 1 filed > /line", "/line"),
        ("touch /$(cat plain)", "a name, a link or an attribute"),
        ("ln -s $(cat kept) /link", "a name, a link or an attribute"),
        ("cp named /kept/token", "its cache /kept"),
        ("ln -s $(cat named) /kept/link", "its cache /kept"),
    ],
)
def test_row_139_a_step_that_writes_a_secret_freezes_nothing(with_secrets, tmp_path, script, where):
    names = ("named", "filed", "plain", "kept")
    step = Shell(f"cd /run/secrets; {script}", secrets=names, cache=("/kept",))
    with pytest.raises(StepFailed, match=rf"wrote the secret '\w+' to {where}"):
        with_secrets.build("a", step)
    assert len(with_secrets.image().layers) == 1
    found = subprocess.run(["grep", "-rlF", CANARY, str(tmp_path / "store")], capture_output=True)
    assert found.stdout == b""


@pytest.mark.privileged
def test_row_139_a_secret_is_found_however_deep(store, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("deepest", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
        file.write(bytes((1 << 20) - 5) + CANARY.encode())  # where two reads meet
    os.close(fd)
    with pytest.raises(StepFailed, match="wrote the secret 'it' to /d/d/d/d/"):
        leaks.check_layer(tmp_path, {"it": CANARY.encode()}, store)
    remove_tree(tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.privileged
def test_what_frames_every_key_is_no_secret(make_bench, settings):
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"
    environ = {**settings.environ, "CONTAINER_KERNEL_SECRET_KEY": key}
    bench = make_bench(replace(settings, environ=environ))
    bench.build("base", Base("busybox"))
    bench.build("a", Shell("grep -v MII /run/secrets/key > /frame", secrets=("key",)))
    with pytest.raises(StepFailed, match="'key' to /body"):
        bench.build("b", Shell("grep MII /run/secrets/key > /body", secrets=("key",)))


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "there is no secret 'gone': env:NOT_SET is not there"),
        ("nowhere", r"\$CONTAINER_KERNEL_SECRET_NOWHERE or .*/secrets/nowhere is not there"),
        ("open", "can be read by others than you"),
    ],
)
def test_a_secret_that_cannot_be_had_says_where_it_was_looked_for(with_secrets, name, what):
    with pytest.raises(BadArguments, match=what):
        with_secrets.build("a", Shell("true", secrets=(name,)))


@pytest.mark.privileged
def test_another_value_of_a_secret_makes_no_other_step(with_secrets):
    step = Shell("true", secrets=("plain",))
    with_secrets.build("a", step)
    environ = {**with_secrets.workbench.config.environ, "CONTAINER_KERNEL_SECRET_PLAIN": "other"}
    with_secrets.workbench.config.environ.clear()
    with_secrets.workbench.config.environ.update(environ)
    with_secrets.events.clear()
    with_secrets.build("a", step)
    assert with_secrets.kinds(StepLog) == []


# ---------------------------------------------------------------- mounts, devices, an agent


@pytest.mark.privileged
def test_what_a_step_reads_of_the_hosts_files_is_part_of_its_key(bench, folder, unique):
    (folder / "data").mkdir()
    (folder / "data/a").write_text("one")
    step = Shell(f"{unique}\ncat /in/a > /out", mounts=(mounts.parse("data:/in"),))
    bench.build("a", step)
    first = bench.image().digest
    bench.build("a", step)
    assert bench.image().digest == first
    (folder / "data/a").write_text("two")
    bench.build("b", step)
    assert bench.output("cat /out; ls / | grep -c '^in$' || true") == "two0\n"


@pytest.mark.privileged
def test_a_step_reads_no_file_that_a_link_of_the_folder_leads_to(bench, folder, unique):
    (folder / "link").symlink_to("/etc")
    with pytest.raises(InputNotFound, match="'link' cannot be mounted"):
        bench.build("a", Shell(unique, mounts=(mounts.parse("link:/in"),)))


@pytest.mark.privileged
def test_a_device_must_be_allowed(bench, make_bench, settings, unique):
    with pytest.raises(BadArguments, match=r"/dev/fuse is not allowed: none is"):
        bench.build("a", Shell(unique, devices=("/dev/fuse",)))
    allowed = make_bench(replace(settings, devices=("/dev/null", "/dev/loop-control")))
    allowed.build("base", Base("busybox"))
    allowed.build("a", Shell(f"{unique}\nls -l /dev/loop-control", devices=("/dev/loop-control",)))
    assert "10, 237" in "".join(event.text for event in allowed.kinds(StepLog)).replace(",  ", ", ")


@pytest.fixture
def agent(tmp_path):
    """An ssh agent with one key."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("openssh-client is not installed")
    folder = tempfile.mkdtemp(prefix="ck-agent-")  # a socket's path must be short
    socket_path = f"{folder}/s"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
    while not os.path.exists(socket_path):
        assert process.poll() is None
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", tmp_path / "key"], check=True
    )
    environ = {**os.environ, "SSH_AUTH_SOCK": socket_path}
    subprocess.run(["ssh-add", "-q", tmp_path / "key"], env=environ, check=True)
    yield socket_path
    process.kill()
    process.wait()
    shutil.rmtree(folder)


@pytest.mark.privileged
def test_a_step_may_use_the_users_ssh_agent(make_bench, settings, unique, agent):
    bench = make_bench(replace(settings, environ={**settings.environ, "SSH_AUTH_SOCK": agent}))
    bench.build("base", Base("busybox"))
    script = f"{unique}\n[ -S $SSH_AUTH_SOCK ] && ls -l $SSH_AUTH_SOCK"
    bench.build("a", Shell(script, ssh=True, net="none"))
    assert "srw-------" in "".join(event.text for event in bench.kinds(StepLog))


@pytest.mark.privileged
def test_the_agent_answers_through_our_socket(host, agent):
    from container_kernel.runtime.agent_socket import AgentSocket

    ours = AgentSocket(host, agent, os.getuid())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(ours.path))
        client.sendall(b"\0\0\0\1\x0b")  # SSH_AGENTC_REQUEST_IDENTITIES
        assert b"ssh-ed25519" in client.recv(4096)
    ours.close()
    assert not ours.path.exists()
    with pytest.raises(BadArguments, match="none answers"):
        AgentSocket(host, None, 0)


def test_settings_of_the_wrong_form_are_told(tmp_path):
    from container_kernel import config

    file = tmp_path / "container_kernel_config.py"
    for line in ("networks = {'a': 'x'}", "secrets = {'a': 'x'}", "devices = '/dev/fuse'"):
        file.write_text(f"c.ContainerKernel.{line}\n")
        with pytest.raises(UsageError, match=line.split()[0]):
            config.load({"JUPYTER_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)})
