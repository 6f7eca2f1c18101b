"""What a container reaches with each network, and what it does not, on a host made up for it."""

import gc
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from container_kernel import syscalls
from container_kernel.build.cancel import Cancel
from container_kernel.build.execute import follow
from container_kernel.errors import CellError, HostError
from container_kernel.runtime import pasta, profile, sweeper, uplink
from container_kernel.runtime.bundle import ContainerSpec, Limits, Process
from container_kernel.runtime.host import find_tool
from container_kernel.runtime.network import (
    DEFAULT,
    HOST,
    METADATA,
    NONE,
    PASTA,
    RESOLVER,
    Network,
    Target,
    is_forbidden,
)
from container_kernel.runtime.proxy import Refused, Rules
from container_kernel.runtime.publish import Port, Published
from container_kernel.runtime.rootfs import Rootfs
from container_kernel.runtime.uplink import Uplink
from tests.kernel.conftest import until
from tests.runtime import outer as outer_host
from tests.runtime.outer import GATEWAY, METADATA6, PEER, PEER6, PORT, Outer

LISTED = Network("listed", (Target(PEER, PORT), Target(f"{PEER6}", PORT)))
REACH = f"""reach() {{
    [ "$(exec 2>&-; echo x | timeout 1 nc $1 {PORT} | grep hello)" ] && echo yes || echo no
}}"""
BOTH = [(PEER, "127.0.0.1"), (PEER6, "::1")]


@pytest.fixture
def outer(host):
    """A host's network of this test."""
    if find_tool("ip") is None:
        pytest.skip("iproute2 is not installed: no network can be made up")
    outer = Outer(host)
    yield outer
    outer.close()


@pytest.fixture
def start(host, shared_store, busybox):
    """Start a shell script as root of a build step, with a network."""
    rootfs = Rootfs(host, shared_store, busybox.chain_id)

    def start(script, link, **more):
        process = Process(
            args=("/bin/sh", "-c", f"{REACH}\n{script}"),
            env={"PATH": "/bin", **link.env},
            capabilities=profile.BUILD_CAPABILITIES,
        )
        spec = ContainerSpec(
            rootfs=rootfs.path,
            process=process,
            idmap=shared_store.idmap,
            limits=Limits(pids=64),
            netns=link.path,
            host_network=link.is_host,
            **more,
        )
        return host.runtime.run(spec, merge_output=True)

    yield start
    rootfs.discard()


@pytest.fixture
def run(host, outer, start):
    """Run a script to its end on the host that was made up; what it said."""
    links = []

    def run(script, network):
        links.append(outer.inside(lambda: Uplink(host, network)))
        said = []
        follow(outer.inside(lambda: start(script, links[-1])), said.append, Cancel())
        run.link = links[-1]
        return "".join(said)

    yield run
    for link in links:
        link.close()


def needs_pasta():
    lack = pasta.why_not()
    if lack:
        pytest.skip(f"{lack[0]}; {lack[1]}")


@pytest.mark.privileged
@pytest.mark.parametrize(("peer", "loopback"), BOTH, ids=["IPv4", "IPv6"])
def test_row_114_pasta_reaches_peers_and_not_the_hosts_loopback(run, outer, peer, loopback):
    needs_pasta()
    assert run(f"reach {peer}; reach {loopback}", PASTA).split() == ["yes", "no"]
    assert outer.asked == [peer]


@pytest.mark.privileged
@pytest.mark.parametrize("address", [outer_host.METADATA, METADATA6, GATEWAY, "fd77::1"])
def test_row_114_pasta_reaches_no_metadata_and_maps_no_gateway(run, outer, address):
    needs_pasta()
    assert run(f"reach {address}", PASTA) == "no\n"
    assert outer.asked == []


@pytest.mark.privileged
def test_the_host_that_is_made_up_would_answer(run, outer):
    addresses = (outer_host.METADATA, METADATA6, "127.0.0.1", "::1", PEER, PEER6)
    assert run("".join(f"reach {one};" for one in addresses), HOST).split() == ["yes"] * 6


@pytest.mark.privileged
def test_names_are_asked_of_the_hosts_resolver(run, outer):
    needs_pasta()
    resolver = outer.resolver()
    run(f"timeout 1 nslookup question.test {RESOLVER}", PASTA)
    assert b"question" in resolver.recv(99)
    assert run.link.texts["/etc/resolv.conf"].startswith(f"nameserver {RESOLVER}\n")


@pytest.mark.privileged
def test_root_of_a_step_cannot_change_its_network(run):
    needs_pasta()
    attempts = ("ip route del unreachable 169.254.169.0/24", "ip addr add 10.0.0.1/8 dev eth0")
    said = run("".join(f"{one} 2>/dev/null && echo changed;" for one in attempts), PASTA)
    assert said == ""


@pytest.mark.privileged
@pytest.mark.parametrize("network", [LISTED, NONE], ids=["listed", "none"])
def test_there_is_no_way_out_beside_the_proxy(run, outer, network):
    said = run(f"reach {PEER}; reach {PEER6}; ls /sys/class/net 2>/dev/null; ip route", network)
    assert [line for line in said.split() if line not in ("lo", "unreachable")][:2] == ["no", "no"]
    assert "default" not in said
    assert outer.asked == []


@pytest.mark.privileged
def test_a_list_lets_its_hosts_through_and_tells_of_the_others(run, outer):
    said = run(
        f"wget -q -O - http://{PEER}:{PORT}/; echo; wget -O - http://100.64.0.9:{PORT}/ 2>&1; "
        f"printf 'CONNECT {PEER}:{PORT} HTTP/1.1\\r\\n\\r\\nraw' | nc -w 2 127.0.0.1 3128",
        LISTED,
    )
    assert said.startswith("hello")
    assert f"403 100.64.0.9:{PORT} is not in this container's --net list" in said
    assert said.endswith("hello")
    assert (outer.asked, outer.head) == ([PEER, PEER], b"raw")
    assert run.link.refused() == [f"100.64.0.9:{PORT}"]


@pytest.mark.privileged
@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1", "CONNECT x HTTP/1.1", "\\0\\377", "GET http://"]
)
def test_the_proxy_survives_what_is_no_request(run, outer, head):
    said = run(
        f"printf '{head}\\r\\n\\r\\n' | nc -w 1 127.0.0.1 3128 >/dev/null; "
        f"wget -q -O - http://{PEER}:{PORT}/",
        LISTED,
    )
    assert said == "hello"


@pytest.mark.privileged
def test_a_site_with_a_proxy_of_its_own_is_reached_through_it(run, outer):
    upstream = (("http", f"http://me:pass@{PEER}:{PORT}"), ("no", "x"))
    network = Network("listed", (Target("files.test", 80),), upstream)
    assert run("wget -q -O - http://files.test/a", network) == "hello"
    assert outer.head.startswith(b"GET http://files.test/a HTTP/1.1\r\nHost: files.test\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcw==" in outer.head


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((address.partition("/")[0], True) for address in METADATA),
        *((address, True) for address in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::")),
        *((address, True) for address in ("fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1")),
        *((a, True) for a in ("::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::")),
        *((address, False) for address in ("10.0.0.1", "203.0.113.5", "fd99::5", "2001:db8::1")),
    ],
)
def test_addresses_that_no_list_opens(address, expected):
    assert is_forbidden(address) is expected


def test_a_name_that_means_the_host_is_refused():
    """As one would be whose owner lets it mean 127.0.0.1 (DNS rebinding)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Refused, match="an address of this host"):
            Rules([Target("localhost", port)], {}).connect("localhost", port)


@pytest.mark.parametrize(
    ("asked", "port", "expected"),
    [
        ("files.example.org", 443, True),
        ("FILES.example.org.", 443, True),
        ("example.org", 443, False),
        ("badexample.org", 443, False),
        ("files.example.org", 80, False),
    ],
)
def test_a_star_covers_what_is_below(asked, port, expected):
    assert Target("*.example.org", 443).covers(asked, port) is expected


@pytest.mark.privileged
@pytest.mark.parametrize("network", [NONE, LISTED, PASTA], ids=lambda network: network.kind)
def test_a_published_port_is_on_the_hosts_loopback(host, start, network):
    if network == PASTA:
        needs_pasta()
    link, port = Uplink(host, network), Published(Port(80, 0))
    serve = "mkdir -p /tmp/w; echo found > /tmp/w/a; httpd -f -p 127.0.0.1:80 -h /tmp/w"
    container = start(serve, link)
    try:
        port.connect(link.path or Path(f"/proc/{container.pid}/ns/net"))

        def fetch():
            with urllib.request.urlopen(f"{port.url}a", timeout=2) as answer:
                return answer.read() == b"found\n"

        until(lambda: _tries(fetch))
    finally:
        container.delete()
        port.close()
        link.close()


def _tries(action):
    try:
        return action()
    except OSError:
        return False


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(CellError, match=f"port {taken} of this host is in use") as raised:
            Published(Port(8888, taken))
    assert "--publish 8888:8888" in raised.value.hint


@pytest.mark.privileged
def test_without_tun_builds_share_the_hosts_network_and_say_so(host):
    before = set(host.namespace.run_dir.glob("net/*"))
    syscalls.mount("/dev/null", "/dev/net/tun", "", syscalls.MS_BIND)
    try:
        with pytest.raises(HostError, match="pasta"):
            Uplink(host, PASTA)
        link = Uplink(host, DEFAULT)
    finally:
        syscalls.umount("/dev/net/tun")
    assert (link.is_host, link.path) == (True, None)
    assert "shares this host's network" in link.notice
    assert set(host.namespace.run_dir.glob("net/*")) == before


@pytest.mark.privileged
def test_steps_share_a_pasta_and_a_new_one_replaces_a_dead_one(host):
    needs_pasta()
    first = uplink.shared(host, PASTA)
    assert uplink.shared(host, LISTED) is uplink.shared(host, LISTED)
    host.uplinks.pop(LISTED).close()
    uplink.done(host, first)
    assert uplink.shared(host, PASTA) is first
    os.kill(first._pasta._pid, 9)
    until(lambda: not first.is_alive)
    second = uplink.shared(host, PASTA)
    assert second is not first
    second.close()
    del host.uplinks[PASTA]


@pytest.mark.privileged
def test_nothing_is_left_when_a_network_is_closed(host, entered):
    needs_pasta()

    def left():
        tree = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        mounts = Path("/proc/self/mountinfo").read_text()
        processes = [one for one in tree.stdout.splitlines() if str(entered.run_dir) in one]
        return len(processes), mounts.count("/net/"), len(os.listdir("/proc/self/fd"))

    gc.collect()  # what tests of before have not been done with
    assert sweeper.drain()
    before = left()
    for network in (PASTA, LISTED, PASTA, LISTED):
        Uplink(host, network).close()
    assert left() == before
