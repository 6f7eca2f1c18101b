"""JSON objects in what strangers wrote."""

from __future__ import annotations

import json
from typing import Any

Dict = dict[str, Any]
_decoder = json.JSONDecoder()


def parse_object(data: bytes | str) -> Dict:
    """The JSON object in ``data``, or an empty one for whatever else is there."""
    return object_in(data) or {}


def object_in(data: bytes | str) -> Dict | None:
    """The JSON object in ``data``, or None."""
    # Only UTF-8, as jupyter_client reads it: what json takes for UTF-16 nobody else understands.
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        value, end = _decoder.raw_decode(text) if text[:1] == "{" else (None, 0)
        if end != len(text):  # space around it, or it is something else
            value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
