"""A virtual machine with what few test machines have: systemd, cgroup v2, AppArmor, SELinux.

A stock Debian of this host's apt, made once (`Machine.made`) and booted by qemu. Its users
`root` and `jane`, an ordinary one, are logged in by ssh, which gives them a session of systemd.

``python -m tests.soak.vm [USER COMMAND]`` boots it and runs a command, or waits for a key.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from container_kernel.build import site

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "vm"
USERS = ("root", "jane")
CHECKOUT = "/srv/container-kernel"
APPARMOR = "apparmor=1 security=apparmor"
SELINUX = "security=selinux selinux=1 enforcing=0"
_CA = "/etc/ssl/certs/ca-certificates.crt"
_BOOTS_WITHIN_S = 600
_PACKAGES = """linux-image-amd64 systemd-sysv dbus-user-session libpam-systemd udev openssh-server
    iproute2 sudo git ca-certificates python3 python3-venv gcc libc6-dev strace catatonit crun runc
    uidmap passt gpg mmdebstrap busybox-static squashfs-tools squashfuse erofs-utils apparmor
    selinux-basics selinux-policy-default auditd""".split()  # noqa: SIM905
_NETWORK = "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
_PROFILE = """
profile docker-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal,
  ptrace peer=docker-default,
  deny @{PROC}/sysrq-trigger rwklx,
  deny mount,
}
"""
_RECIPE = r"""
cat > "$1/etc/systemd/network/eth0.network" <network
(echo '#include <tunables/global>'; cat profile) > "$1/etc/apparmor.d/docker-default"
cp -L "$2" "$1/etc/ssl/certs/ca-certificates.crt"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"
printf '/dev/vda / ext4 defaults 0 1\n/dev/vdb none swap sw 0 0\n' > "$1/etc/fstab"
echo 'jane ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/jane"
chroot "$1" useradd --create-home --shell /bin/bash jane
chroot "$1" systemctl --quiet enable systemd-networkd
mkdir "$1/srv/container-kernel"
for home in root home/jane; do
    mkdir -p -m 700 "$1/$home/.ssh"
    cat key.pub > "$1/$home/.ssh/authorized_keys"
done
cp -R checkout/. "$1/srv/container-kernel"
chroot "$1" chown -R jane: /home/jane /srv/container-kernel
cp /etc/resolv.conf "$1/etc/resolv.conf"
chroot "$1" su jane -c "cd /srv/container-kernel && python3 -m venv .venv &&
    .venv/bin/pip install --quiet --editable '.[test]'"
echo 'nameserver 10.0.2.3' > "$1/etc/resolv.conf"
"""


def why_not() -> str:
    """Why there can be none here; nothing if there can."""
    if os.geteuid() or Path("/proc/self/uid_map").read_text().split()[2] != "4294967295":
        return "only root can make a virtual machine's root file system"
    for tool in ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "ssh"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (apt-get install qemu-system-x86 mmdebstrap ssh)"
    return ""


class Machine:
    """The machine, running inside a with block. ``security`` says which module its kernel uses."""

    def __init__(self, folder: Path, security: str = APPARMOR) -> None:
        self.folder = folder
        self._security = security
        self._port = _free_port()
        self._qemu: subprocess.Popen[bytes] | None = None

    @classmethod
    def made(cls, security: str = APPARMOR) -> Machine:
        """The machine of this recipe, made in some minutes when it was not there yet."""
        wanted = (ROOT / "pyproject.toml").read_text()
        recipe = " ".join((*_PACKAGES, _RECIPE, _PROFILE, _NETWORK, wanted))
        folder = FOLDER / hashlib.sha256(recipe.encode()).hexdigest()[:12]
        if not folder.exists():
            shutil.rmtree(FOLDER, ignore_errors=True)
            draft = folder.with_suffix(".new")
            draft.mkdir(parents=True)
            _make(draft)
            draft.rename(folder)
        return cls(folder, security)

    def __enter__(self) -> Machine:
        disks = [
            word
            for name in ("disk", "swap")
            for word in ("-drive", f"file={self.folder}/{name},format=raw,if=virtio")
        ]
        net = f"user,id=n,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        append = f"root=/dev/vda rw console=ttyS0 net.ifnames=0 {self._security}"
        self._qemu = subprocess.Popen(
            [
                *("qemu-system-x86_64", *_processor(), "-m", "3G", "-smp", "2", "-no-reboot"),
                *("-kernel", f"{self.folder}/vmlinuz", "-initrd", f"{self.folder}/initrd.img"),
                *("-append", append, *disks),
                *("-netdev", net, "-device", "virtio-net-pci,netdev=n"),
                *("-display", "none", "-serial", f"file:{self.folder}/console"),
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _BOOTS_WITHIN_S
        while self.run("root", "true", timeout_s=10).returncode:
            if self._qemu.poll() is not None or time.monotonic() > deadline:
                self._qemu.kill()
                raise RuntimeError(f"the machine did not boot: see {self.folder}/console")
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._qemu is not None
        self.run("root", "systemctl poweroff")
        try:
            self._qemu.wait(60)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()

    def command(self, user: str, line: str) -> list[str]:
        """What runs a shell line as ``user``, logged in, in the checkout."""
        known = site.collect(os.environ, Path.home()).env
        env = {**known, **dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), _CA)}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        return [
            *("ssh", "-i", f"{self.folder}/key", "-p", str(self._port)),
            *(word for one in options for word in ("-o", one)),
            f"{user}@127.0.0.1",
            f"export {words}; cd {CHECKOUT}; {line}",
        ]

    def run(
        self, user: str, line: str, *, stdin: int | None = None, timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line as ``user``; its output with its errors."""
        command = self.command(user, line)
        merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        stdin = subprocess.DEVNULL if stdin is None else stdin
        try:
            return subprocess.run(command, stdin=stdin, timeout=timeout_s, **merged)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 255, "")

    def take(self, checkout: Path = ROOT) -> None:
        """Have a copy of this checkout, beside the environment that it runs in."""
        with subprocess.Popen(_packed(checkout), stdout=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            keep = "find . -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +"
            done = self.run("jane", f"{keep}; tar --no-same-owner -x", stdin=tar.stdout.fileno())
        assert done.returncode == 0, done.stdout


def _packed(checkout: Path) -> list[str]:
    skipped = (f"--exclude=./{name}" for name in (".venv", ".git", "build"))
    return ["tar", "-C", str(checkout), *skipped, "-c", "."]


def _make(folder: Path) -> None:
    """The kernel, the disks and the key, in ``folder``."""
    tree = folder / "tree"
    (folder / "network").write_text(_NETWORK)
    (folder / "profile").write_text(_PROFILE)
    (folder / "recipe").write_text(f"set -eu\n{_RECIPE}")
    ca_bundle = site.collect(os.environ, Path.home()).ca_bundle or _CA

    def call(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder)

    (folder / "checkout").mkdir()
    packed = subprocess.run(_packed(ROOT), check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", folder / "checkout", "-x"], check=True, input=packed)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    call(
        # What it mounts in the tree (/dev, /proc) goes with it, even if it is killed.
        *("unshare", "--mount", "--propagation", "private", "--fork", "--kill-child"),
        *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}"),
        *(f'--customize-hook=cd {folder}; sh recipe "$1" {ca_bundle}', "bookworm", str(tree)),
    )
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(tree / name, folder / name)
    call("mke2fs", "-q", "-t", "ext4", "-d", str(tree), "disk", "8G")
    call("truncate", "--size=512M", "swap")
    call("mkswap", "--quiet", "swap")
    shutil.rmtree(tree)
    shutil.rmtree(folder / "checkout")


def _processor() -> tuple[str, ...]:
    """KVM, or software, some ten times slower. Not every module behind /dev/kvm runs any kernel."""
    is_hardware = any(Path(f"/sys/module/kvm_{name}").exists() for name in ("amd", "intel"))
    if is_hardware and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", "tcg,thread=multi", "-cpu", "max")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    if lack := why_not():
        sys.exit(lack)
    with Machine.made() as machine:
        if len(sys.argv) > 2:
            sys.exit(subprocess.run(machine.command(sys.argv[1], sys.argv[2])).returncode)
        print(shlex.join(machine.command("jane", "bash -l")))
        input("Enter ends it. ")
