"""Verdict: whether a notebook gave the same bytes again, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .log import plain


def text(verdict: dict[str, Any]) -> str:
    """For people, what ``verify --json`` says."""
    lines = []
    for name, stage in verdict["stages"].items():
        mark = "✓" if stage["digest"] == stage["rebuilt"] else "✗"
        lines.append(f"{mark} {name}  {stage['digest']}  {stage['layers']} layers")
        if stage["digest"] != stage["rebuilt"]:
            lines.append(f"  rebuilt as  {stage['rebuilt']}")
    first = verdict["first_difference"]
    if verdict["reproducible"]:
        lines.append("reproducible: built once more from nothing, every byte is the same")
    elif first:
        lines += _first(first)
    return "\n".join(lines)


def _first(first: dict[str, Any]) -> list[str]:
    step = plain(first["step"].replace("\n", " "))
    causes = "; ".join(first["causes"]) or "not known"
    lines = [
        f"not reproducible: layer {first['layer']} of stage {first['stage']} differs: {step}",
        f"likely cause: {causes}",
    ]
    for file in first["files"]:
        aspects = ", ".join(_aspect(name, *values) for name, values in file["differs"].items())
        because = f"  ({file['cause']})" if file["cause"] else ""
        lines.append(f"  {plain(file['path'])}: {aspects}{because}")
        lines += [f"      {plain(line)[:120]}" for line in file["lines"]]
    if first["count"] > len(first["files"]):
        lines.append(f"  … and {first['count'] - len(first['files'])} more files")
    return lines


def _aspect(name: str, before: str, after: str) -> str:
    if name in ("added", "removed"):
        return f"{name} ({before or after})"
    if name == "time":
        before, after = (_time(value) for value in (before, after))
    if name == "content":
        return "content"
    return f"{name} {plain(before) or 'none'} → {plain(after) or 'none'}"


def _time(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
