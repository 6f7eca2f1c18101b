"""What kernel_info_reply says, before an inner kernel runs and after."""

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


def expected(language: str) -> Dict:
    """What an inner kernel will say of itself, as far as its language tells."""
    if not language or language == "python":
        return {}
    return {"language_info": {"name": language, "version": "", **_OTHERS.get(language, {})}}


def kernel_info(version: str, inner: Dict) -> Dict:
    """The reply's content. ``inner`` is the inner kernel's own, empty before there is one.

    Front ends ask once, when they connect: what is said before the container exists must suit it.
    So the language is Python until an image says otherwise.
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
    for key, kind in _INNERS_OWN.items():
        if isinstance(inner.get(key), kind):
            info[key] = inner[key]
    if isinstance(inner.get("banner"), str):
        info["banner"] += "\n" + inner["banner"]
    return info
