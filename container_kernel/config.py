"""Config: every setting, read once at the edge.

Values come from, in rising order: defaults, ``container_kernel_config.py`` (or ``.json``) in
Jupyter's configuration folders as ``c.ContainerKernel.NAME = …``, environment variables. Nothing
below this module reads the environment.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .record import field, fields, record, replace
from .runtime.level import check_name
from .runtime.limits import Limits
from .runtime.relaxed import USUAL, Relaxed, capability

if TYPE_CHECKING:
    from .build.grants import Grants
    from .ceilings import Ceilings

_PACKAGE = Path(__file__).parent
_FILE = "container_kernel_config"
CEILINGS = Path("/etc/container-kernel/ceilings.toml")
"""A file that only root can write, see `ceilings`."""
_BUILD_SHARES = 512


@record(kw_only=True)
class Config:
    """All settings of one process. Units are in the names."""

    home: Path
    """Where images, caches and names live."""
    base_folders: tuple[Path, ...] = ()
    """Folders of base definitions; a later one wins."""
    oci_runtime: str | None = None
    """``crun``, ``runc`` or an absolute path; None takes what is there."""
    memory_bytes: int | None = None
    """Limit of a run container; None is half of the host's memory."""
    pids: int = 2048
    """Most processes and threads of a run container."""
    build_pids: int = 4096
    """Most processes and threads of a build step."""
    shm_bytes: int = 64 * 1024**2
    """Size of /dev/shm in a container."""
    swap_bytes: int = 0
    """Swap of a run container, beside its memory."""
    cpus: float | None = None
    """How many processors a run container may use; None is all."""
    scratch_bytes: int | None = None
    """Most that run cells write outside of the notebook's folder; None is what the disk has."""
    open_files: int = 1024 * 1024
    """Most open files of a process in a run container."""
    timeout_s: float | None = None
    """The longest that one run cell or command may take."""
    isolation: str | None = None
    """The level below which no container is started: ``single-uid``, ``rootless`` or ``full``."""
    metrics_folder: Path | None = None
    """Where meters are written for a collector, in Prometheus' text format."""
    ceilings: Ceilings | None = None
    """What the administrator of this host allows at most, if anything is said of it."""
    as_root: bool = False
    """Whether run cells are root of the image, with root's usual rights."""
    add_cap: tuple[str, ...] = ()
    """Capabilities that run cells have beyond the profile, as ``NET_RAW``."""
    no_seccomp: bool = False
    """Whether run cells go without the filter of system calls."""
    idle_freeze: float | None = None
    """So many seconds after the last cell or request everything in a session's containers stands
    still until the next; None is never."""
    is_locked: bool = False
    """Build exactly what the lock beside the notebook names, or refuse."""
    plain_http: tuple[str, ...] = ()
    """Registries (``host`` or ``host:port``) that may speak HTTP without TLS."""
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Sets of hosts that ``--net NAME`` means: ``{"company": ["example.org:443"]}``."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Where secrets come from, by ID: ``env:NAME`` or ``file:PATH``."""
    devices: tuple[str, ...] = ()
    """Devices of this host that build steps may ask for with ``--device``."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The user's environment, for the site's proxies and registries."""
    user_home: Path = Path("/")
    """The user's home folder, for the site's pip and npm settings."""

    def relaxed(self, beyond: Relaxed = USUAL) -> Relaxed:
        """What a run container may do beyond the default profile: what these settings say, and
        what is asked for.

        Raises:
            CeilingExceeded: the administrator does not allow it.
        """
        own = Relaxed(as_root=self.as_root, capabilities=self.add_cap, no_seccomp=self.no_seccomp)
        both = own | beyond
        if self.ceilings:
            self.ceilings.check_relaxed(both.words)
        return both

    @property
    def grants(self) -> Grants:
        """What cells may ask for by name."""
        from .build.grants import Grants

        return Grants(
            networks=self.networks,
            secrets=self.secrets,
            devices=self.devices,
            environ=self.environ,
            home=self.user_home,
            check_network=self.check_network,
        )

    @property
    def run_memory_bytes(self) -> int:
        """The memory limit of a run container."""
        return self.memory_bytes or _host_memory_bytes() // 2

    def run_limits(self, asked: Mapping[str, Any]) -> Limits:
        """The limits of a run container: these settings', with what is asked for in their place.

        Raises:
            CeilingExceeded: the administrator does not allow what is asked for.
        """
        if self.ceilings:
            self.ceilings.check(asked)
        limits = Limits(
            memory_bytes=self.run_memory_bytes,
            swap_bytes=self.swap_bytes,
            pids=self.pids,
            cpus=self.cpus,
            disk=self.home,
            open_files=self.open_files,
            shm_bytes=self.shm_bytes,
            scratch_bytes=self.scratch_bytes,
            timeout_s=self.timeout_s,
        )
        limits = replace(limits, **asked)
        return self.ceilings.lower(limits) if self.ceilings else limits

    @property
    def build_limits(self) -> Limits:
        """The limits of a build step, whose scratch is the layer to be; it gives way to cells."""
        limits = Limits(
            memory_bytes=self.build_memory_bytes, pids=self.build_pids, cpu_shares=_BUILD_SHARES
        )
        lowered = self.ceilings.lower(limits) if self.ceilings else limits
        return replace(lowered, scratch_bytes=None)

    @property
    def least_levels(self) -> tuple[str | None, ...]:
        """Below these levels of isolation nothing is started."""
        return self.isolation, self.ceilings.isolation if self.ceilings else None

    def check_network(self, name: str) -> None:
        """Raise where the administrator does not allow a network.

        Raises:
            CeilingExceeded: so it is.
        """
        if self.ceilings:
            self.ceilings.check_network(name)

    @property
    def build_memory_bytes(self) -> int:
        """The memory limit of a build step: the host's, less a reserve."""
        total = _host_memory_bytes()
        return total - max(total // 20, 256 * 1024**2)


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings.

    Raises:
        UsageError: a setting that does not exist, or of the wrong type.
    """
    environ = dict(os.environ if environ is None else environ)
    user_home = Path(environ.get("HOME") or os.path.expanduser("~"))
    data_home = environ.get("XDG_DATA_HOME") or str(user_home / ".local/share")
    config_home = Path(environ.get("XDG_CONFIG_HOME") or user_home / ".config")
    home = environ.get("CONTAINER_KERNEL_HOME") or os.path.join(data_home, "container-kernel")
    config = Config(
        home=Path(home).absolute(),
        base_folders=(*_own_bases(), config_home / "container-kernel/images"),
        oci_runtime=environ.get("CONTAINER_KERNEL_RUNTIME") or None,
        is_locked=environ.get("CONTAINER_KERNEL_LOCKED", "") not in ("", "0"),
        environ=environ,
        user_home=user_home,
        ceilings=_ceilings(),
    )
    return _with_files(config, environ, user_home)


def _ceilings() -> Ceilings | None:
    if not os.path.lexists(CEILINGS):
        return None
    from . import ceilings

    return ceilings.read(CEILINGS)


def _with_files(config: Config, environ: Mapping[str, str], user_home: Path) -> Config:
    folders = _config_folders(environ, user_home)
    if not any(
        (folder / f"{_FILE}{end}").exists() for folder in folders for end in (".py", ".json")
    ):
        return config  # traitlets takes 50 ms to import: only for those who use it
    values = _read_files(folders)
    known = set(fields(Config)) - {"environ", "user_home", "ceilings"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"no setting c.ContainerKernel.{unknown[0]}",
            hint=f"settings are: {', '.join(sorted(known))}",
        )
    for name in ("home", "metrics_folder"):
        if values.get(name) is not None:
            values[name] = Path(values[name])
    if "base_folders" in values:
        values["base_folders"] = tuple(Path(folder) for folder in values["base_folders"])
    for name, wants in _AMOUNTS.items():
        _check_amount(name, values.get(name), wants)
    if values.get("isolation") is not None:
        check_name(values["isolation"])
    if config.ceilings:
        config.ceilings.check(values)
    _check_relaxed(values)
    if "plain_http" in values:
        values["plain_http"] = tuple(values["plain_http"])
    _check_grants(values)
    for variable, name in (
        ("CONTAINER_KERNEL_HOME", "home"),
        ("CONTAINER_KERNEL_RUNTIME", "oci_runtime"),
        ("CONTAINER_KERNEL_LOCKED", "is_locked"),
    ):
        if environ.get(variable):
            values.pop(name, None)
    return replace(config, **values)


_AMOUNTS = {
    "idle_freeze": "seconds, as 600.0, or None for never",
    "memory_bytes": "bytes, as 4 * 1024**3, or None for half of the host's",
    "swap_bytes": "bytes, as 1024**3, or leave it out for none",
    "pids": "a number, as 2048",
    "build_pids": "a number, as 4096",
    "shm_bytes": "bytes, as 64 * 1024**2",
    "cpus": "a number of processors, as 1.5, or None for all",
    "scratch_bytes": "bytes, as 2 * 1024**3, or None for what the disk has",
    "open_files": "a number, as 4096",
    "timeout_s": "seconds, as 600.0, or None for no limit",
}


def _check_amount(name: str, value: object, wants: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):  # type: ignore[operator]
        what = "seconds" if name in ("idle_freeze", "timeout_s") else "something countable"
        raise UsageError(
            f"c.ContainerKernel.{name} is {value!r}, not a number of {what} above 0",
            hint=f"give {wants}",
        )


def _check_relaxed(values: dict[str, Any]) -> None:
    for name in ("as_root", "no_seccomp"):
        if not isinstance(values.get(name, False), bool):
            raise UsageError(f"c.ContainerKernel.{name} is {values[name]!r}, not True or False")
    try:
        given = values.get("add_cap", ())
        names = [given] if isinstance(given, str) else list(given)
        values["add_cap"] = tuple(capability(str(name)) for name in names)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"c.ContainerKernel.add_cap is {given!r}", hint=f"give a list of {error}"
        ) from None


def _check_grants(values: Mapping[str, Any]) -> None:
    """That what cells may ask for by name is said in the form it must have."""
    forms = {
        "networks": (_is_networks, "a dict of lists of hosts: {'company': ['example.org:443']}"),
        "secrets": (_is_secrets, "a dict of sources: {'token': 'env:TOKEN'} or 'file:PATH'"),
        "devices": (_is_texts, "a list of paths: ['/dev/fuse']"),
    }
    for name, (is_good, form) in forms.items():
        if name in values and not is_good(values[name]):
            raise UsageError(
                f"c.ContainerKernel.{name} is {values[name]!r}", hint=f"give it {form}"
            )


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _is_networks(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_texts, value.values()))


def _is_secrets(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(one, str) and one.startswith(("env:", "file:")) for one in value.values()
    )


def _read_files(folders: Sequence[Path]) -> dict[str, Any]:
    from traitlets.config.loader import Config as Traits
    from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

    merged = Traits()
    for folder in reversed(folders):
        for loader, end in ((PyFileConfigLoader, ".py"), (JSONFileConfigLoader, ".json")):
            if (folder / f"{_FILE}{end}").exists():
                try:
                    merged.merge(loader(f"{_FILE}{end}", path=str(folder)).load_config())
                except Exception as error:
                    raise UsageError(f"cannot read {folder / _FILE}{end}: {error}") from error
    return dict(merged.get("ContainerKernel", {}))


def _config_folders(environ: Mapping[str, str], user_home: Path) -> list[Path]:
    """Jupyter's configuration folders, most important first (as ``jupyter --paths`` lists them)."""
    given = environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)
    own = environ.get("JUPYTER_CONFIG_DIR") or str(user_home / ".jupyter")
    system = ["/usr/local/etc/jupyter", "/etc/jupyter"]
    return [Path(f) for f in (*given, own, f"{sys.prefix}/etc/jupyter", *system) if f]


def _own_bases() -> tuple[Path, ...]:
    """The definitions that come with this package: in the wheel, or beside it in a checkout."""
    places = (_PACKAGE / "_images", _PACKAGE.parent / "images")
    return tuple(place for place in places if place.is_dir())[:1]


def _host_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
