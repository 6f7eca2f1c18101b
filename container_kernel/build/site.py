"""Site: what this host knows about reaching package registries, for build steps only.

A certificate bundle, proxies, and the host's own settings of apt, pip and npm. All of it reaches
a step through environment variables and read-only mounts below ``/run/site``; none of it is ever
in a layer. Nothing here names a registry: everything comes from the host's configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..record import field, record, replace

FOLDER = "/run/site"
_CA_FILE = f"{FOLDER}/ca.crt"
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)
_CA_PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_NPM_FILES = ("/etc/npmrc", "/usr/etc/npmrc", "~/.npmrc")


@record
class Site:
    """The host's own configuration, read once."""

    ca_bundle: Path | None
    env: Mapping[str, str] = field(default_factory=dict)
    apt_sources: str = ""
    apt_codename: str = ""
    apt_acquire: str = ""
    npmrc: str = ""

    def texts(self, codename: str | None) -> dict[str, str]:
        """Files for a step, path to text. ``codename`` is the image's Debian release, if it is one.

        Host sources are used for a Debian image of any release of the same archive.
        """
        files = {}
        if self.npmrc:
            files[f"{FOLDER}/npmrc"] = self.npmrc
        if codename and self.apt_sources:
            sources = re.sub(rf"\b{re.escape(self.apt_codename)}\b", codename, self.apt_sources)
            files[f"{FOLDER}/apt/site.sources"] = sources
            files[f"{FOLDER}/apt.conf"] = self.apt_acquire + _APT_SOURCES
        elif self.apt_acquire:
            files[f"{FOLDER}/apt.conf"] = self.apt_acquire
        return files

    def environment(self, files: Iterable[str]) -> dict[str, str]:
        """Variables for a step that was given ``files``."""
        env = dict(self.env)
        if self.ca_bundle:
            env |= dict.fromkeys(_CA_VARIABLES, _CA_FILE)
        given = set(files)
        if f"{FOLDER}/apt.conf" in given:
            env["APT_CONFIG"] = f"{FOLDER}/apt.conf"
        if f"{FOLDER}/npmrc" in given:
            env["NPM_CONFIG_GLOBALCONFIG"] = f"{FOLDER}/npmrc"
        return env

    def through(self, proxies: Mapping[str, str]) -> Site:
        """The same site, where the only way out is the proxy that the variables name."""
        if not proxies:
            return self
        own = {name: value for name, value in self.env.items() if not _is_proxy(name)}
        return replace(
            self,
            env={**own, **proxies},
            apt_acquire=_without(r"::proxy\b", self.apt_acquire),
            npmrc=_without(r"^\s*(https?-)?(no)?proxy\s*=", self.npmrc),
        )

    def binds(self) -> dict[str, Path]:
        """Files of the host for a step, by the place they get inside."""
        return {_CA_FILE: self.ca_bundle} if self.ca_bundle else {}


def _is_proxy(name: str) -> bool:
    return name.lower() in _PROXIES


def _without(pattern: str, text: str) -> str:
    """``text`` less the lines in which something matches."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not re.search(pattern, line, re.IGNORECASE))


_APT_SOURCES = f"""Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{FOLDER}/apt";
"""


def collect(environ: Mapping[str, str], home: Path) -> Site:
    """Read the host's configuration. ``environ`` is the user's environment."""
    proxies = {
        name: environ[name] for low in _PROXIES for name in (low, low.upper()) if environ.get(name)
    }
    sources, codename = _apt_sources()
    return Site(
        ca_bundle=_ca_bundle(environ),
        env=proxies | _pip(environ, home),
        apt_sources=sources,
        apt_codename=codename,
        apt_acquire=_apt_acquire(proxies, has_ca=_ca_bundle(environ) is not None),
        npmrc=_npmrc(environ, home),
    )


def _ca_bundle(environ: Mapping[str, str]) -> Path | None:
    wanted = [environ.get(name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    for place in (*wanted, *_CA_PLACES):
        if place and Path(place).is_file():
            return Path(place)
    return None


# ---------------------------------------------------------------- apt


def _apt_sources() -> tuple[str, str]:
    """The host's entries of its own release in deb822 form, and that release's codename."""
    codename = os_release_field(_read("/etc/os-release"), "VERSION_CODENAME")
    if not codename:
        return "", ""
    stanzas = []
    parts = Path("/etc/apt/sources.list.d")
    files = sorted(parts.iterdir()) if parts.is_dir() else []
    for file in (Path("/etc/apt/sources.list"), *files):
        if file.suffix == ".sources":
            stanzas += _deb822(_read(file))
        elif file.suffix == ".list":
            stanzas += _one_line(_read(file))
    ours = [stanza for stanza in stanzas if _is_of_release(stanza, codename)]
    return "\n\n".join(ours) + "\n" if ours else "", codename


def _deb822(text: str) -> list[str]:
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [stanza.strip() for stanza in re.split(r"\n\s*\n", bare) if stanza.strip()]


def _one_line(text: str) -> list[str]:
    """``deb [signed-by=F] URI SUITE COMPONENT…`` as deb822 stanzas."""
    stanzas = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)(?:#.*)?", line)
        if not match:
            continue
        options = dict(pair.partition("=")[::2] for pair in (match[1] or "").split())
        lines = ["Types: deb", f"URIs: {match[2]}", f"Suites: {match[3]}"]
        if match[4].strip():
            lines.append(f"Components: {match[4].strip()}")
        if options.get("signed-by"):
            lines.append(f"Signed-By: {options['signed-by']}")
        stanzas.append("\n".join(lines))
    return stanzas


def _is_of_release(stanza: str, codename: str) -> bool:
    fields = dict(line.partition(":")[::2] for line in stanza.splitlines() if ":" in line)
    suites = fields.get("Suites", "").split()
    is_on = fields.get("Enabled", "yes").strip().lower() not in ("no", "false")
    return is_on and bool(suites) and all(suite.startswith(codename) for suite in suites)


def _apt_acquire(proxies: Mapping[str, str], *, has_ca: bool) -> str:
    lines = []
    for scheme in ("http", "https"):
        proxy = proxies.get(f"{scheme}_proxy") or proxies.get(f"{scheme}_proxy".upper())
        if proxy:
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    parts = Path("/etc/apt/apt.conf.d")
    for file in sorted(parts.iterdir()) if parts.is_dir() else ():
        lines += re.findall(r"^\s*(Acquire::[^\s{}]+\s+\"[^\"]*\";)", _read(file), re.MULTILINE)
    kept = [line for line in lines if "Languages" not in line and "Gzip" not in line]
    if has_ca:
        kept.append(f'Acquire::https::CaInfo "{_CA_FILE}";')
    return "".join(f"{line}\n" for line in kept)


# ---------------------------------------------------------------- pip, as uv's settings


def _pip(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The host's pip settings, for pip itself and for uv, which reads none of pip's files."""
    settings = _pip_settings(environ, home)
    env: dict[str, str] = {}
    index, extra = settings.get("index-url"), settings.get("extra-index-url", "")
    extras = [url for url in extra.split() if not url.startswith("file:")]
    if index:
        env |= {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
    if extras:
        env |= {"PIP_EXTRA_INDEX_URL": " ".join(extras), "UV_INDEX": " ".join(extras)}
        env["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's own way
    if settings.get("trusted-host"):
        trusted = settings["trusted-host"]
        env |= {"PIP_TRUSTED_HOST": trusted, "UV_INSECURE_HOST": trusted}
    return env


def _pip_settings(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    import configparser  # 2 ms, for those who build

    settings: dict[str, str] = {}
    named = environ.get("PIP_CONFIG_FILE")
    for name in (*_PIP_FILES, *([named] if named else [])):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(_read(_expand(name, home)))
        except configparser.Error:
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key in ("index-url", "extra-index-url", "trusted-host"):
        value = environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            settings[key] = value
    return settings


# ---------------------------------------------------------------- npm


def _npmrc(environ: Mapping[str, str], home: Path) -> str:
    lines = [
        line
        for name in _NPM_FILES
        for line in _read(_expand(name, home)).splitlines()
        if line.strip() and not line.strip().startswith(("cafile", "prefix", "cache", "#", ";"))
    ]
    registry = environ.get("npm_config_registry") or environ.get("NPM_CONFIG_REGISTRY")
    if registry:
        lines.append(f"registry={registry}")
    return "".join(f"{line}\n" for line in lines)


# ---------------------------------------------------------------- files


def os_release_field(text: str, name: str) -> str:
    """One value of an os-release(5) file; empty when it is not there."""
    match = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return match[1].strip().strip("\"'") if match else ""


def _expand(name: str, home: Path) -> Path:
    return home / name[2:] if name.startswith("~/") else Path(name)


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
