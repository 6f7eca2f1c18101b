"""What concerns this host: ``doctor`` and ``install``."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from ..display import markup
from ..errors import HostError, UsageError
from ..record import asdict
from ..runtime import host, namespace
from ..runtime.host import Finding
from .arguments import Options
from .report import Report

NEEDED = {"namespaces", "OCI runtime", "overlayfs"}
KERNELSPEC = Path(__file__).parents[1] / "kernelspec"


def doctor(_options: Options, report: Report) -> int:
    """Print what was found; exit code 3 when containers cannot run here."""
    from ..config import load

    config = load()
    try:
        here = namespace.enter(os.environ)
    except HostError as error:
        remedy = "" if error.hint == HostError.hint else error.hint or ""
        finding = host.Finding("namespaces", error.message, False, remedy)
        return _tell([finding], report)
    return _tell(host.probe(here, config.oci_runtime), report)


def _tell(findings: list[Finding], report: Report) -> int:
    rows = [("ok" if f.is_ok else "LACK", f.name, f.found) for f in findings]
    remedies = [f"{f.name}: {f.remedy}" for f in findings if not f.is_ok and f.remedy]
    text = "\n".join([markup.columns(rows, "<<<"), *(["", *remedies] if remedies else [])])
    is_able = not any(f.name in NEEDED and not f.is_ok for f in findings)
    data = {"ok": is_able, "findings": [asdict(f) for f in findings]}
    report.result(data, text)
    return 0 if is_able else HostError.process_exit_code


def install(options: Options, report: Report) -> int:
    """Install the kernelspec so that Jupyter offers it."""
    from jupyter_client.kernelspec import KernelSpecManager

    if not re.fullmatch(r"[A-Za-z0-9._-]+", options.name):
        raise UsageError(f"--name takes letters, digits and . _ -, found {options.name!r}")
    prefix = sys.prefix if options.sys_prefix else options.prefix
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "container")
        shutil.copytree(KERNELSPEC, source)
        _point_to_this_python(source / "kernel.json", options.name)
        try:
            where = KernelSpecManager().install_kernel_spec(
                str(source), options.name, user=prefix is None, prefix=prefix
            )
        except OSError as error:
            raise HostError(
                f"cannot install the kernelspec: {error}",
                hint="choose another place with --user, --sys-prefix or --prefix",
            ) from error
    report.result({"name": options.name, "path": where}, f"installed {options.name} in {where}")
    return 0


def _point_to_this_python(file: Path, name: str) -> None:
    """The environment that runs this is the one that has the package."""
    spec = json.loads(file.read_text())
    spec["argv"][0] = sys.executable
    if name != "container":
        spec["display_name"] += f" ({name})"
    file.write_text(json.dumps(spec, indent=1))
