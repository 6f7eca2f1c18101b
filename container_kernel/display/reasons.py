"""Reasons: why a step was there already or had to run, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import unified_diff
from typing import Any

from .log import plain

_NAMES = {
    "parent": "the layers below",
    "body": "the script",
    "net": "its network",
    "cache": "its cached folders",
    "env": "the image's variables",
    "workdir": "the working directory",
    "user": "the user",
    "packages": "the packages named",
    "options": "the options",
    "inputs": "the content of files it reads",
    "sources": "the files named",
    "destination": "where it goes",
    "digest": "the digest",
    "file": "the file's name",
    "platform": "the platform",
    "epoch": "the time new files get",
    "version": "what this kind of step means to this version of container-kernel",
    "kind": "the kind of step",
}


def text(entries: Sequence[Mapping[str, Any]]) -> str:
    """All of ``entries``, the steps of one stage in their order."""
    lines: list[str] = []
    for entry in entries:
        same = [one for one in entries if one["stage"] == entry["stage"]]
        changed = [one["number"] for one in same if one["was"] and one["is_new"]]
        lines += _entry(entry, min(changed, default=0))
    return "\n".join(lines)


def _entry(entry: Mapping[str, Any], first: int) -> list[str]:
    title = plain(entry["title"].replace("\n", " "))
    head = f"step {entry['number']}  {title}"
    when = f"run {entry['run']} ({_time(entry['time'])})"
    if entry["hit"] and not (entry["is_new"] and entry["was"]):
        return [f"{head}\n  hit: its layer was there; all it depends on is as it was in {when}"]
    was = entry["was"]
    if was is None:
        return [f"{head}\n  miss in {when}: it was never built here before"]
    names = [name for name in entry["parts"] if entry["parts"][name] != was["parts"].get(name)]
    names += [name for name in was["parts"] if name not in entry["parts"]]
    if not names or entry["note"]:
        return [f"{head}\n  miss: {entry['note'] or 'its layer is no longer in the store'}"]
    since = f"run {was['run']} ({_time(was['time'])})"
    verdict = "hit, it was built elsewhere," if entry["hit"] else "miss"
    lines = [f"{head}\n  {verdict} in {when}: changed since {since}:"]
    for name in names:
        lines += _part(name, was["parts"].get(name), entry["parts"].get(name), entry, first)
    return lines


def _part(
    name: str, before: object, after: object, entry: Mapping[str, Any], first: int
) -> list[str]:
    what = _NAMES.get(name, name)
    if name == "parent":
        why = f", since step {first} changed" if 0 < first < entry["number"] else ""
        return [f"    {what}{why}: {str(before)[:19]} → {str(after)[:19]}"]
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        lines = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        kept = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        return [f"    {what}:", *(f"      {plain(line)}" for line in kept)]
    if isinstance(before, list) and isinstance(after, list):
        gone = [f"- {one}" for one in before if one not in after]
        new = [f"+ {one}" for one in after if one not in before]
        return [f"    {what}:", *(f"      {plain(str(line))}" for line in (*gone, *new))]
    return [f"    {what}: {_short(before)} → {_short(after)}"]


def _short(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return plain(shown) or "none"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
