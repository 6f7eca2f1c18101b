"""What concerns this host: ``doctor`` and ``install``."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any

from ..display import markup
from ..errors import HostError, UsageError
from ..kernel import frozen, values
from ..kernel.frozen import Frozen
from ..record import asdict
from ..runtime import namespace, probe
from ..runtime.probe import Finding
from .arguments import Options
from .report import Report

NEEDED = {"namespaces", "OCI runtime", "overlayfs"}


def doctor(_options: Options, report: Report) -> int:
    """Print what was found; exit code 3 when containers cannot run here."""
    from ..config import load

    config = load()
    lacking = probe.namespaces()
    try:
        here = namespace.enter(os.environ)
    except HostError as error:
        remedy = "" if error.hint == HostError.hint else error.hint or ""
        finding = Finding("namespaces", error.message, False, remedy)
        return _tell([finding], report)
    return _tell([*lacking, *probe.probe(here, config.oci_runtime, config.home)], report)


def _tell(findings: list[Finding], report: Report) -> int:
    rows = [(_mark(f), f.name, f.found) for f in findings]
    remedies = [f"{f.name}: {f.remedy}" for f in findings if _mark(f) != "ok" and f.remedy]
    remedies = list(dict.fromkeys(remedies))
    text = "\n".join([markup.columns(rows, "<<<"), *(["", *remedies] if remedies else [])])
    is_able = not any(f.name in NEEDED and not f.is_ok for f in findings)
    data = {"ok": is_able, "findings": [asdict(f) for f in findings]}
    report.result(data, text)
    return 0 if is_able else HostError.process_exit_code


def _mark(finding: Finding) -> str:
    return "LACK" if not finding.is_ok else "warn" if finding.cves else "ok"


def install(options: Options, report: Report) -> int:
    """Make our kernel, or a frozen image, a kernel that Jupyter offers; or list, or remove."""
    if options.list:
        return _list(report)
    if options.remove:
        return _remove(options.remove, report)
    name = _name(options)
    made = _freeze(options.image, name, report) if options.image is not None else None
    place = frozen.Place(prefix=sys.prefix if options.sys_prefix else options.prefix)
    where = frozen.install(name, made, place, display_name=options.display_name)
    data = {"name": name, "path": where}
    text = f"installed {name} in {where}"
    if made:
        data |= {"image": made.image, "digest": made.digest, "language": made.language}
        text += f"\nimage {made.digest}"
    report.result(data, text)
    return 0


def _name(options: Options) -> str:
    name: str = options.name or frozen.PLAIN
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UsageError(f"--name takes letters, digits and . _ -, found {name!r}")
    if options.image is None:
        return name.lower()  # as Jupyter does
    try:
        return values.kernel(name)
    except ValueError as error:
        raise UsageError(
            f"--image needs a --name of its own: {error}, found {name!r}",
            hint="give the kernel one: --name iris",
        ) from None


def _freeze(image: str, name: str, report: Report) -> Frozen:
    """Start a kernel on ``image``: so it can run cells, and is in the store under a name."""
    from ..kernel.child import Child, check
    from .progress import Progress

    progress = Progress(report.note, report.width)
    data: list[dict[str, Any]] = []

    def on_message(kind: str, content: dict[str, Any]) -> None:
        if kind in ("display_data", "update_display_data"):
            progress.on_display(content)
            data.append(content.get("data", {}).get("application/json") or {})

    child = Child()
    try:
        progress.start(1, 1, f"%base {image}")
        check(child.run(f"%base {shlex.quote(image)}", on_message))
        check(child.run("#"))  # a comment in every language that has a kernel here
        check(child.run(f"%tag {frozen.tag_of(name)}"))
        check(child.run("%layers --json", on_message))
        language = str(child.info()["language_info"]["name"])
        (stage,) = data[-1]["stages"].values()
        return Frozen(image, str(stage["digest"]), language)
    finally:
        progress.end()
        child.close()


def _list(report: Report) -> int:
    kernels = list(frozen.installed())
    rows = [(one.name, one.language, one.image or "", one.path) for one in kernels]
    text = markup.columns([("NAME", "LANGUAGE", "IMAGE", "FOLDER"), *rows], "<<<<")
    report.result({"kernels": [asdict(one) for one in kernels]}, text)
    return 0


def _remove(name: str, report: Report) -> int:
    """The image stays, without the name that kept it for the kernel."""
    removed = frozen.remove(name)
    if removed.digest:
        from ..kernel.child import Child

        child = Child()
        try:  # whose store has no such name has nothing to forget
            child.run(f"%image rm {frozen.tag_of(removed.name)}")
        finally:
            child.close()
    report.result({"name": removed.name, "path": removed.path}, f"removed {removed.path}")
    return 0
