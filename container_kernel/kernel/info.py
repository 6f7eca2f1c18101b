"""What front ends are told of the kernel, before an inner kernel runs and after."""

from __future__ import annotations

from .wire import PROTOCOL_VERSION, Dict

_PYTHON: Dict = {
    "name": "python",
    "version": "3",
    "mimetype": "text/x-python",
    "codemirror_mode": {"name": "ipython", "version": 3},
    "pygments_lexer": "ipython3",
    "nbconvert_exporter": "python",
    "file_extension": ".py",
}
_OTHERS: dict[str, Dict] = {
    "bash": {"mimetype": "text/x-sh", "codemirror_mode": "shell", "file_extension": ".sh"},
    "R": {"mimetype": "text/x-r-source", "codemirror_mode": "r", "file_extension": ".r"},
}
# What front ends may build on is the inner kernel's to say.
_INNERS_OWN = {
    "language_info": dict,
    "supported_features": list,
    "debugger": bool,
    "help_links": list,
}
# What ipykernel answers while its debugger is off.
_DEBUGGER_OFF: Dict = {
    "isStarted": False,
    "hashMethod": "Murmur2",
    "hashSeed": 0xC70F6907,
    "tmpFilePrefix": "/tmp/",
    "tmpFileSuffix": ".py",
    "breakpoints": [],
    "stoppedThreads": [],
    "richRendering": False,
    "exceptionPaths": [],
    "copyToGlobals": False,
}


def expected(language: str) -> Dict:
    """What an inner kernel will say of itself, as far as its language tells."""
    if not language or language == "python":
        return {}
    return {"language_info": {"name": language, "version": "", **_OTHERS.get(language, {})}}


def kernel_info(version: str, inner: Dict, isolation: str = "") -> Dict:
    """The reply's content. ``inner`` is the inner kernel's own, empty before there is one.

    Front ends ask once, when they connect: what is said before the container exists must suit it.
    So the language is Python until an image says otherwise. ``isolation`` is what this host gives.
    """
    info: Dict = {
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "container_kernel",
        "implementation_version": version,
        "language_info": _PYTHON,
        "banner": f"container_kernel {version}: build cells become layers, the others run inside",
        "help_links": [],
        "supported_features": [],
        "debugger": False,
    }
    if isolation:
        info["banner"] += f"\n{isolation}"
    if isinstance(inner.get("supported_features"), list):
        del info["debugger"]  # the older way to say it
    for key, kind in _INNERS_OWN.items():
        if isinstance(inner.get(key), kind):
            info[key] = inner[key]
    if isinstance(inner.get("banner"), str):
        info["banner"] += "\n" + inner["banner"]
    return info


def no_debugger(request: Dict) -> Dict:
    """The reply to a debug_request where nothing inside could answer it.

    The kernelspec promises a debugger, as that is asked before any image is known. So a front end
    is told, when it looks, that none runs, and, when it wants one, what to do.
    """
    command = request.get("command")
    reply: Dict = {
        "type": "response",
        "seq": 0,
        "request_seq": request.get("seq", 0),
        "command": command,
        "success": command == "debugInfo",
        "body": dict(_DEBUGGER_OFF) if command == "debugInfo" else {},
    }
    if not reply["success"]:
        reply["message"] = "this image has no debugger; ipykernel in a %pip cell brings one"
    return reply
